"""Which of NVIDIA's wheels the platform's own libraries stand in for.

A wheel is left out where every library in it is on the platform, in one directory, with the same
major number in its name and in a version that is new enough. What is new enough follows NVIDIA's
promises: within a major release, libraries are binary backward-compatible with programs that were
built against the same or an earlier minor release; patch releases do not count.
cuDNN: https://docs.nvidia.com/deeplearning/cudnn/backend/latest/developer/forward-compatibility.html
CUDA 11 and later: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import Specifier
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from preheat.decisions.graph import NAME
from preheat.decisions.protect import CUDA_FAMILIES
from preheat.words.lock import Contents, Locked
from preheat.words.stand_in import Library, LibraryDirectory, Link, StandIn

LIBRARY = re.compile(r"(lib[\w.+-]+?)\.so((?:\.\d+)*)")
"""The file name of a shared library: what comes before ``.so``, and the numbers after it."""

# auditwheel puts eight digits of a hash into the names of what it copies into a wheel.
_COPY = re.compile(r"(lib[\w.+-]+?)[.-][0-9a-f]{8}(\.so(?:\.\d+)*)")
# A wheel with a smaller share of its bytes in libraries is installed for its other files: the
# headers of the CUDA runtime, which programs compile against while they run.
_LIBRARIES_SHARE = 0.9
_LOWER = (">=", ">", "~=", "==", "===")
# Stands for any minor release, where the minor number is not known.
_ANY_MINOR = 10**6


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel:
    """A wheel of the lock, what it holds, and every requirement on it."""

    locked: Locked
    contents: Contents
    requirements: tuple[str, ...]


def is_candidate(name: str, protect: Iterable[str]) -> bool:
    """Whether that distribution is one of NVIDIA's CUDA libraries and among the protected names."""
    return all(
        any(fnmatchcase(name, pattern) for pattern in patterns)
        for patterns in (CUDA_FAMILIES, protect)
    )


def stems(contents: Contents) -> frozenset[str]:
    """Names of a wheel's libraries as far as ``.so``; empty where it is for something else too."""
    return frozenset(stem_of(path) for path in _libraries(contents))


def stem_of(path: str) -> str:
    """The name of a library as far as ``.so``; empty where the path is no library's."""
    match = LIBRARY.fullmatch(path.rpartition("/")[2])
    return match[1] if match else ""


def stand_in(wheel: Wheel, directories: Iterable[LibraryDirectory]) -> StandIn | None:
    """What the platform has in place of a wheel; None where the wheel must be installed."""
    wanted = _libraries(wheel.contents)
    if not wanted:
        return None
    bounds = tuple(asked_of(wheel.locked.name, wheel.requirements))
    for directory in directories:
        links = tuple(_links(wanted, directory, bounds))
        if links:
            return StandIn(
                name=wheel.locked.name,
                version=wheel.locked.version,
                place=directory.path,
                size=sum(size for _, size in wheel.contents.files),
                links=links,
                wheel=wheel.locked,
            )
    return None


def suffices(version: str, bounds: Iterable[Specifier]) -> bool:
    """Whether a library of that version meets these bounds.

    An exact bound is met by that version, and by later ones that are compatible with it.
    """
    try:
        have = Version(version)
        return all(_met(have, bound) for bound in bounds)
    except InvalidVersion:
        return False


def copies(contents: Contents) -> Iterator[tuple[str, str, int]]:
    """Libraries that any wheel holds: path, name before auditwheel renamed it, and bytes."""
    for path, size in contents.files:
        name = path.rpartition("/")[2]
        renamed = _COPY.fullmatch(name)
        if renamed or LIBRARY.fullmatch(name):
            yield path, renamed[1] + renamed[2] if renamed else name, size


def asked_of(name: str, requirements: Iterable[str]) -> Iterator[Specifier]:
    """Every bound on versions that the requirements state for that canonical name."""
    for text in requirements:
        start = NAME.match(text)
        if start is None or canonicalize_name(start.group()) != name:
            continue
        with contextlib.suppress(InvalidRequirement):
            yield from Requirement(text).specifier


def bound_to(wheel: Locked, contents: Contents, directories: Iterable[LibraryDirectory]) -> str:
    """The constraint that keeps a wheel to the platform's minor release or an earlier one.

    Empty where the platform's libraries are as new as the wheel, absent, or of unknown version.
    """
    newest = Version(wheel.version)
    for directory in directories:
        found = [_counterpart(path, directory) for path in _libraries(contents)]
        versions = [Version(each.version) for each in found if each and each.version]
        if versions:
            have = max(versions)
            older = have.major == newest.major and have.minor < newest.minor
            return f"{wheel.name}<{have.major}.{have.minor + 1}" if older else ""
    return ""


def _met(have: Version, bound: Specifier) -> bool:
    if bound.operator not in _LOWER:
        return bound.contains(have, prereleases=True)
    need = Version(bound.version.removesuffix(".*"))
    if need.major == 0:
        # No promise holds before a first major release.
        return (have.major, have.minor) == (0, need.minor)
    return have.major == need.major and have.minor >= need.minor


def _libraries(contents: Contents) -> dict[str, int]:
    """Path and bytes of each library; empty where the wheel is for something else as well."""
    libraries: dict[str, int] = {}
    rest = 0
    for path, size in contents.files:
        parent, _, name = path.rpartition("/")
        if path.partition("/")[0].endswith(".dist-info"):
            continue
        if LIBRARY.fullmatch(name):
            libraries[path] = size
        elif _is_beside_libraries(parent, name, size):
            rest += size
        else:
            return {}
    total = sum(libraries.values())
    return libraries if contents.exact and total >= _LIBRARIES_SHARE * (total + rest) else {}


def _is_beside_libraries(parent: str, name: str, size: int) -> bool:
    """Whether a file is a header, a static library, a licence or an empty module: none runs."""
    return (
        "include" in parent.split("/")
        or name.endswith((".a", ".txt", ".md"))
        or name.upper().startswith("LICENSE")
        or (name == "__init__.py" and size == 0)
    )


def _links(
    wanted: Mapping[str, int], directory: LibraryDirectory, bounds: tuple[Specifier, ...]
) -> Iterator[Link]:
    """A link for every library of the wheel; none at all where one is missing or too old."""
    found = {path: _counterpart(path, directory) for path in wanted}
    there = {path: library for path, library in found.items() if library is not None}
    if len(there) < len(wanted) or not _new_enough(there.values(), bounds):
        return
    for path, library in there.items():
        yield Link(path=f"{path.rpartition('/')[0]}/{library.name}", target=library.path)


def _counterpart(path: str, directory: LibraryDirectory) -> Library | None:
    """The platform's library in place of a wheel's: of its name, or else of another minor release.

    Programs ask for ``libcudnn.so.9``. Only the libnvrtc beside it asks for a name with a minor
    number, ``libnvrtc-builtins.so.13.0``.
    """
    name = path.rpartition("/")[2]
    alike = [each for each in directory.libraries if _family(each.name) == _family(name)]
    alike.sort(key=lambda each: each.name != name)
    return next(iter(alike), None)


def _family(name: str) -> tuple[str, str, int]:
    """What the names of all minor releases of a library have in common: stem, major, and form."""
    match = LIBRARY.fullmatch(name)
    if match is None or not match[2]:
        return name, "", 0
    numbers = match[2].split(".")[1:]
    return match[1], numbers[0], len(numbers)


def _new_enough(libraries: Iterable[Library], bounds: tuple[Specifier, ...]) -> bool:
    each = tuple(libraries)
    known = [library.version for library in each if library.version]
    if known:
        return all(suffices(version, bounds) for version in known)
    # Only the major number is known, from the name. A lower bound must be met by its minor 0, an
    # upper one by any minor.
    majors = {_family(library.name)[1] for library in each} - {""}
    return len(majors) == 1 and all(
        suffices(f"{next(iter(majors))}.{0 if bound.operator in _LOWER else _ANY_MINOR}", (bound,))
        for bound in bounds
    )
