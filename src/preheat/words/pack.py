"""A layer as one file: what its index says."""

from __future__ import annotations

from dataclasses import dataclass

from preheat.words.layer import LayerFacts


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One part of a pack, which can be checked and unpacked without the others.

    Attributes:
        offset, length: bytes of the file.
        sha256: of those bytes, in hex.
        unpacked: bytes of the tar inside.
        entries: files, directories and links in it.
    """

    offset: int
    length: int
    sha256: str
    unpacked: int
    entries: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PackIndex:
    """What a pack holds.

    Attributes:
        facts: what the layer says of itself.
        frames: in the order of the file; directories are in the first one, links in the last.
        sha256: of the index as it is written, and so of everything in the pack.
    """

    facts: LayerFacts
    frames: tuple[Frame, ...]
    sha256: str

    @property
    def entries(self) -> int:
        """Inodes that the layer takes."""
        return sum(frame.entries for frame in self.frames)
