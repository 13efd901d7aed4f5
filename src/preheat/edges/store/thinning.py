"""A layer without some of its distributions: a second directory of the same files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from preheat.edges.platform import inventory
from preheat.words.platform import Distribution


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What one distribution of a layer holds.

    Attributes:
        files: absolute paths, without bytecode.
        payload: their bytes.
    """

    name: str
    version: str
    files: frozenset[str]
    payload: int

    def is_loaded(self, opened: Collection[str]) -> bool:
        """Whether one of its files was opened; metadata, which is listed for all, does not count.

        Bytecode counts as the module that it was compiled from.
        """
        return any(file in opened for file in self.files if ".dist-info/" not in file)


def held_by(layer: str) -> tuple[Held, ...]:
    """What each of the layer's distributions holds, by its RECORD."""
    return tuple(_held(each) for each in inventory.read([layer]))


def thinned(layer: str, without: Iterable[Held], target: Path) -> None:
    """Makes the target a copy of the layer, by hardlinks where possible, without those files.

    Raises:
        OSError: the disk refuses.
    """
    left_out = {file for held in without for file in held.files}
    # By names of distributions, too: what stands in no RECORD, and is not bytecode, stays.
    for place, directories, files in os.walk(layer):
        directories[:] = [name for name in directories if name != "__pycache__"]
        here = target / os.path.relpath(place, layer)
        for name in files:
            source = os.path.join(place, name)
            if source in left_out:
                continue
            here.mkdir(parents=True, exist_ok=True)
            if os.path.islink(source):
                os.symlink(os.readlink(source), here / name)
                continue
            try:
                os.link(source, here / name)
            except OSError:
                shutil.copyfile(source, here / name)
    target.mkdir(parents=True, exist_ok=True)


def source_of(path: str) -> str:
    """The module's file for a file of bytecode; any other path as it is."""
    parent, _, name = path.rpartition("/")
    if not (name.endswith(".pyc") and parent.endswith("/__pycache__")):
        return path
    return f"{parent.removesuffix('/__pycache__')}/{name.partition('.')[0]}.py"


def _held(distribution: Distribution) -> Held:
    files = set()
    payload = 0
    for row in inventory.files(distribution):
        path = os.path.normpath(os.path.join(distribution.location, row))
        if path.endswith(".pyc"):
            continue
        try:
            payload += os.stat(path).st_size
        except OSError:
            continue
        files.add(path)
    return Held(
        name=distribution.name,
        version=distribution.version or "",
        files=frozenset(files),
        payload=payload,
    )
