"""CUDA's shared libraries on the platform: torch's, the wheels', the toolkit's, the loader's.

Nothing is loaded in this process. A version is that of the distribution which brought the file, or
the numbers in the file's own name behind its links, which NVIDIA's installers give it:
``libcudnn.so.9 -> libcudnn.so.9.20.0``. Those that torch holds have neither; they are asked.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from preheat.decisions.stand_ins import LIBRARY, stem_of
from preheat.edges.platform import inventory
from preheat.edges.process.environment import SYSTEM, without_layers
from preheat.words.manifest import StatedCuda
from preheat.words.platform import Distribution, Platform
from preheat.words.stand_in import Library, LibraryDirectory, Link, StandIn

_LOADER_CACHE = "etc/ld.so.cache"
_LOADER_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_TIMEOUT_SECONDS = 60.0
_ASK = """
import ctypes, os, sys
for path in sys.argv[1:]:
    stem = os.path.basename(path).partition(".so")[0][3:]
    try:
        library = ctypes.CDLL(path)
    except OSError:
        continue
    numbers = [ctypes.c_int(-1) for _ in range(3)]
    places = [ctypes.byref(number) for number in numbers]
    if hasattr(library, stem + "GetProperty"):
        ask = getattr(library, stem + "GetProperty")
        failed = any([ask(kind, place) for kind, place in enumerate(places)])
    elif hasattr(library, stem + "Version"):
        failed = getattr(library, stem + "Version")(*places[:2])
    else:
        continue
    if not failed:
        told = [str(number.value) for number in numbers if number.value >= 0]
        print(".".join(told), path, flush=True)
"""
_IN_TOOLKIT = ("lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib")


@dataclass(frozen=True, kw_only=True)
class Search:
    """Where libraries are looked for, and which.

    Attributes:
        environ: whose CUDA_HOME, CUDA_PATH and LD_LIBRARY_PATH count.
        stated: a toolkit's directory, and versions that hold where no file tells one.
        stems: what the libraries are called before ``.so``.
    """

    platform: Platform
    environ: Mapping[str, str]
    stated: StatedCuda = field(default_factory=StatedCuda)
    stems: Collection[str]

    def directories(self) -> tuple[LibraryDirectory, ...]:
        """Every directory that has one of them: torch's first, since torch may have loaded them."""
        owned = self._owned()
        places = [*owned, *self._of_torch(), *self._of_the_system()]
        found: dict[str, str] = {}
        for place in places:
            found.setdefault(os.path.realpath(place), place)
        made = tuple(
            LibraryDirectory(
                path=place, libraries=tuple(self._libraries(place, owned.get(place, {})))
            )
            for place in found.values()
        )
        told = _versions_told(
            self.platform.interpreter.executable,
            (e.path for each in made for e in each.libraries if e.version is None),
        )
        return tuple(
            replace(
                each,
                libraries=tuple(
                    replace(e, version=e.version or told.get(e.path)) for e in each.libraries
                ),
            )
            for each in made
            if each.libraries
        )

    def _owned(self) -> dict[str, dict[str, str]]:
        """Directory to the version of each file in it that a distribution brought."""
        owned: dict[str, dict[str, str]] = {}
        for each in self.platform.distributions:
            if each.state.present and each.version and each.name.startswith("nvidia-"):
                for row in inventory.files(each):
                    if stem_of(row) in self.stems:
                        parent, name = os.path.split(os.path.join(each.location, row))
                        owned.setdefault(parent, {})[name] = each.version
        return owned

    def _of_torch(self) -> Iterator[str]:
        for entry in self.platform.interpreter.path:
            yield os.path.join(entry, "torch", "lib")

    def _of_the_system(self) -> Iterator[str]:
        root = self.environ.get(SYSTEM) or "/"
        yield from filter(None, self.environ.get("LD_LIBRARY_PATH", "").split(":"))
        homes = [self.stated.toolkit, *map(self.environ.get, ("CUDA_HOME", "CUDA_PATH"))]
        for home in (*filter(None, homes), os.path.join(root, "usr/local/cuda")):
            yield from (os.path.join(home, place) for place in _IN_TOOLKIT)
        # An environment of conda keeps its libraries beside its Python.
        yield os.path.join(self.platform.interpreter.prefix, "lib")
        yield from dict.fromkeys(map(os.path.dirname, _loader_paths(Path(root, _LOADER_CACHE))))

    def _libraries(self, place: str, versions: Mapping[str, str]) -> Iterator[Library]:
        try:
            names = sorted(name for name in os.listdir(place) if stem_of(name) in self.stems)
        except OSError:
            return
        for name in names:
            path = os.path.realpath(os.path.join(place, name))
            if os.path.isfile(path):
                version = versions.get(name) or _version_in_name(path, name) or self._stated(name)
                size = os.stat(path).st_size
                yield Library(name=name, path=path, version=version, size=size)

    def _stated(self, name: str) -> str | None:
        """What is stated of a library of which no file tells the version."""
        said = {"libcudnn": self.stated.cudnn, "libnccl": self.stated.nccl}
        return next((v for stem, v in said.items() if stem_of(name).startswith(stem)), None)


def libraries_of(distribution: Distribution) -> Iterator[Library]:
    """The libraries that a distribution of the platform brought."""
    for row in inventory.files(distribution):
        path = os.path.join(distribution.location, row)
        if stem_of(row):
            with contextlib.suppress(OSError):
                yield Library(
                    name=os.path.basename(row),
                    path=os.path.realpath(path),
                    version=distribution.version,
                    size=os.stat(path).st_size,
                )


def of_distribution(distribution: Distribution) -> StandIn | None:
    """A distribution of the platform as what stands in for itself; None if it has no library."""
    links = []
    size = 0
    for row in inventory.files(distribution):
        path = os.path.join(distribution.location, row)
        with contextlib.suppress(OSError):
            size += os.stat(path).st_size
            if stem_of(row):
                links.append(Link(path=row, target=os.path.realpath(path)))
    if not links:
        return None
    return StandIn(
        name=distribution.name,
        version=distribution.version or "",
        place=os.path.dirname(os.path.join(distribution.location, links[0].path)),
        size=size,
        links=tuple(links),
    )


def _versions_told(executable: str, paths: Iterable[str]) -> dict[str, str]:
    """What libraries say of themselves, in a process of the platform's interpreter.

    Most have a function for it that is called after the library: ``cudnnGetProperty``
    (libraryPropertyType in CUDA's library_types.h) or ``nvrtcVersion`` (nvrtc.h).
    """
    wanted = sorted(set(paths))
    if not wanted:
        return {}
    try:
        done = subprocess.run(
            [executable, "-B", "-c", _ASK, *wanted],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            env=without_layers(os.environ),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    # One that ends the process has said nothing, nor have those after it.
    rows = (line.partition(" ") for line in done.stdout.splitlines())
    return {path: version for version, _, path in rows}


def _version_in_name(path: str, name: str) -> str | None:
    """The numbers in a file's name, where it has more of them than the name of the link to it."""
    match, asked = LIBRARY.fullmatch(os.path.basename(path)), LIBRARY.fullmatch(name)
    if match is None or asked is None or len(match[2]) <= len(asked[2]):
        return None
    return match[2].removeprefix(".")


def _loader_paths(file: Path) -> Iterable[str]:
    """Libraries that the loader finds by their names alone (ldconfig's cache, glibc's new form).

    A magic, the number of entries and the length of the strings, and from byte 48 on the entries:
    flags, and where its name and its path are in the file (glibc's dl-cache.h).
    """
    try:
        data = file.read_bytes()
        start = data.index(_LOADER_CACHE_MAGIC)
        count, _ = struct.unpack_from("<II", data, start + len(_LOADER_CACHE_MAGIC))
        for number in range(count):
            _, _, at = struct.unpack_from("<iII", data, start + 48 + 24 * number)
            end = data.index(b"\0", start + at)
            yield os.fsdecode(data[start + at : end])
    except (OSError, ValueError, struct.error):
        return
