"""What may be given up when a disk is full, and what giving it up freed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Something under one known directory that may be removed.

    Attributes:
        root: an absolute directory; it stays, and nothing outside it is ever touched.
        patterns: of the names directly in it that may go, as in fnmatch; each with all below.
        within: where not empty, only files whose names fit it go, and directories stay.
        age: seconds; what is younger, or holds something younger, stays.
        whole: one open or foreign file in an entry keeps all of the entry.
    """

    root: str
    patterns: tuple[str, ...] = ("*",)
    within: str = ""
    age: float = 600.0
    whole: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Tier:
    """One kind of thing that can be given up.

    Attributes:
        name: for people.
        loss: what it costs to have lost it.
        places: where it lies.
    """

    name: str
    loss: str
    places: tuple[Place, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a tier would give back.

    Attributes:
        bytes: of blocks that no name outside keeps alive.
        paths: the entries that would go.
    """

    tier: Tier
    bytes: int
    paths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Freed:
    """What cleaning gave back: bytes by tier, as the filesystem measured them."""

    tiers: tuple[tuple[str, int], ...]
    before: int
    after: int

    def lacks(self, need: int) -> int:
        """Bytes that a need still lacks."""
        return max(0, need - self.after)

    @property
    def bytes(self) -> int:
        """All of it together."""
        return sum(size for _, size in self.tiers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shortage:
    """What must be free on the filesystem of a path; inodes None where they do not matter."""

    path: Path
    bytes: int
    inodes: int | None = None
