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
# A wheel with less of its bytes in libraries is there for what else it holds: the headers of the
# CUDA runtime, which programs compile against while they run.
_MOSTLY = 0.9
_LOWER = (">=", ">", "~=", "==", "===")
# Stands for whatever minor release an unknown one may be.
_ENDLESS = 10**6


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel:
    """A wheel of the lock, what it holds, and every requirement on it."""

    locked: Locked
    contents: Contents
    requirements: tuple[str, ...]


def is_candidate(name: str, protect: Iterable[str]) -> bool:
    """Whether that distribution is one of NVIDIA's, and of the kind that is never fetched again."""
    return all(
        any(fnmatchcase(name, pattern) for pattern in patterns)
        for patterns in (CUDA_FAMILIES, protect)
    )


def stems(contents: Contents) -> frozenset[str]:
    """What its libraries are called before ``.so``; empty if it is more than its libraries."""
    return frozenset(stem_of(path) for path in _libraries(contents))


def stem_of(path: str) -> str:
    """What comes before ``.so`` in the name of a library; empty if it is none."""
    match = LIBRARY.fullmatch(path.rpartition("/")[2])
    return match[1] if match else ""


def stand_in(wheel: Wheel, directories: Iterable[LibraryDirectory]) -> StandIn | None:
    """What the platform has in place of a wheel; None where it must be installed."""
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
    """Whether a library of that version serves what asks for these.

    An exact bound asks for that version or a later one that is compatible with it.
    """
    try:
        have = Version(version)
        return all(_met(have, bound) for bound in bounds)
    except InvalidVersion:
        return False


def copies(contents: Contents) -> Iterator[tuple[str, str, int]]:
    """Libraries in any wheel: path, the name before it was copied there, and size."""
    for path, size in contents.files:
        name = path.rpartition("/")[2]
        renamed = _COPY.fullmatch(name)
        if renamed or LIBRARY.fullmatch(name):
            yield path, renamed[1] + renamed[2] if renamed else name, size


def asked_of(name: str, requirements: Iterable[str]) -> Iterator[Specifier]:
    """The bounds that those of the requirements state which are about that canonical name."""
    for text in requirements:
        start = NAME.match(text)
        if start is None or canonicalize_name(start.group()) != name:
            continue
        with contextlib.suppress(InvalidRequirement):
            yield from Requirement(text).specifier


def bound_to(wheel: Locked, contents: Contents, directories: Iterable[LibraryDirectory]) -> str:
    """The constraint for wheels of the platform's minor release or an earlier one.

    Empty where the platform has none of the libraries, is as new, or does not tell.
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
    """Path to size of each library; empty where a wheel is for something else as well."""
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
    return libraries if contents.exact and total >= _MOSTLY * (total + rest) else {}


def _is_beside_libraries(parent: str, name: str, size: int) -> bool:
    """Headers, static libraries, licences and empty modules: nobody runs them."""
    return (
        "include" in parent.split("/")
        or name.endswith((".a", ".txt", ".md"))
        or name.upper().startswith("LICENSE")
        or (name == "__init__.py" and size == 0)
    )


def _links(
    wanted: Mapping[str, int], directory: LibraryDirectory, bounds: tuple[Specifier, ...]
) -> Iterator[Link]:
    """A link for every library of the wheel; none if one of them is missing, or too old."""
    found = {path: _counterpart(path, directory) for path in wanted}
    there = {path: library for path, library in found.items() if library is not None}
    if len(there) < len(wanted) or not _new_enough(there.values(), bounds):
        return
    for path, library in there.items():
        yield Link(path=f"{path.rpartition('/')[0]}/{library.name}", target=library.path)


def _counterpart(path: str, directory: LibraryDirectory) -> Library | None:
    """The library of that name, or of another minor where the name tells it.

    The loader asks for ``libcudnn.so.9``, and nobody for ``libnvrtc-builtins.so.13.0`` but the
    libnvrtc that came with it.
    """
    name = path.rpartition("/")[2]
    alike = [each for each in directory.libraries if _family(each.name) == _family(name)]
    alike.sort(key=lambda each: each.name != name)
    return next(iter(alike), None)


def _family(name: str) -> tuple[str, str, int]:
    """What a library's name has in common with those of its other minor releases."""
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
    # The name alone tells the major: it is all that may be asked for, and nothing may be too new.
    majors = {_family(library.name)[1] for library in each} - {""}
    return len(majors) == 1 and all(
        suffices(f"{next(iter(majors))}.{0 if bound.operator in _LOWER else _ENDLESS}", (bound,))
        for bound in bounds
    )
