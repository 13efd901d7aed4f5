"""A directory of a store that holds layers in one form: directories, or one file each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from preheat.words.store import Directory

FACTS = ".preheat.json"
"""What a layer says of itself; no import finds that name."""

_SUFFIX = ".tar.zst"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shelf:
    """Where a store keeps layers in one form.

    Attributes:
        base: what holds the mark of a collector that is about to take some away.
        packed: they are files, and no directories.
    """

    base: Path
    packed: bool

    @property
    def directory(self) -> Path:
        """Where they are."""
        return (Directory.PACKS if self.packed else Directory.LAYERS).under(self.base)

    def place(self, digest: str) -> Path:
        """Where the layer of that digest is, or would be."""
        return self.directory / (f"{digest}{_SUFFIX}" if self.packed else digest)

    def digests(self) -> frozenset[str]:
        """Those that are there; a directory that lost its facts counts as absent."""
        try:
            names = os.listdir(self.directory)
        except OSError:
            return frozenset()
        if self.packed:
            ends = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
            return frozenset(name for name in ends if not name.startswith("."))
        return frozenset(name for name in names if self.witness(name).is_file())

    def witness(self, digest: str) -> Path:
        """The file that is there as long as the layer is whole."""
        return self.place(digest) if self.packed else self.place(digest) / FACTS
