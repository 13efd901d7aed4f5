"""CUDA libraries that the image has outside of Python, where its wheels bring them too."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from glob import glob

from preheat.decisions.stand_ins import stem_of
from preheat.edges.disk.files import bytes_of_blocks
from preheat.edges.platform import inventory
from preheat.edges.process.environment import SYSTEM
from preheat.words.examination import Installed, SystemLibraries

_PLACES = (
    "usr/local/cuda*/lib64",
    "usr/local/cuda*/targets/*/lib",
    "usr/lib/*-linux-gnu",
    "usr/lib64",
)
_DPKG = "var/lib/dpkg/info"


def system_libraries(
    installed: Iterable[Installed], environ: Mapping[str, str]
) -> tuple[SystemLibraries, ...]:
    """Directories with libraries of the same name, those of LD_LIBRARY_PATH first."""
    wheels = frozenset(_of_wheels(installed))
    if not wheels:
        return ()
    root = environ.get(SYSTEM) or "/"
    preferred = [place for place in environ.get("LD_LIBRARY_PATH", "").split(":") if place]
    usual = [place for pattern in _PLACES for place in sorted(glob(os.path.join(root, pattern)))]
    own = {os.path.realpath(each.distribution.location) for each in installed}
    found: dict[str, SystemLibraries] = {}
    for place in (*preferred, *usual):
        real = os.path.realpath(place)
        # A wheel's own directory on LD_LIBRARY_PATH is the wheel.
        if real in found or any(real.startswith(site + os.sep) for site in own):
            continue
        here = _shared_names(place, wheels)
        if here is not None:
            found[real] = SystemLibraries(
                directory=place,
                names=here[0],
                files=here[1],
                size=here[2],
                preferred=place in preferred,
                packages=_owners(here[1], root),
            )
    return tuple(found.values())


def _of_wheels(installed: Iterable[Installed]) -> Iterator[str]:
    for each in installed:
        if each.visible and each.distribution.name.startswith("nvidia-"):
            for row in inventory.files(each.distribution):
                name = row.rpartition("/")[2]
                if stem_of(name):
                    yield name


def _shared_names(
    place: str, wheels: frozenset[str]
) -> tuple[tuple[str, ...], tuple[str, ...], int] | None:
    """Names that both have, the real files of those libraries, and their bytes."""
    stems = {stem_of(name) for name in wheels}
    try:
        names = sorted(n for n in os.listdir(place) if stem_of(n) in stems)
    except OSError:
        return None
    real: dict[tuple[int, int], str] = {}
    size = 0
    for name in names:
        file = os.path.join(place, name)
        try:
            status = os.stat(file)
        except OSError:
            continue
        if (status.st_dev, status.st_ino) not in real:
            real[status.st_dev, status.st_ino] = os.path.realpath(file)
            size += bytes_of_blocks(status)
    if not real:
        return None
    return tuple(n for n in names if n in wheels), tuple(sorted(real.values())), size


def _owners(files: Iterable[str], root: str) -> tuple[str, ...]:
    """Debian packages that brought these files, by dpkg's own lists."""
    wanted = set(files)
    found = []
    for listing in sorted(glob(os.path.join(root, _DPKG, "*.list"))):
        try:
            with open(listing, encoding="utf-8", errors="replace") as file:
                if wanted & {line.rstrip("\n") for line in file}:
                    found.append(os.path.basename(listing).removesuffix(".list"))
        except OSError:
            continue
    return tuple(found)
