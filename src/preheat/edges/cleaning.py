"""Frees what is preheat's own and needed by nobody: dead staging, the engine's cache.

Only names inside the store are touched, no link is followed, and what a living start uses is
left alone. Freed bytes are what statvfs says, before and after.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from preheat.edges.store import Store, now


@dataclass(frozen=True, kw_only=True, slots=True)
class Tier:
    """One kind of thing that can be given up.

    Attributes:
        estimate: bytes that removing it should free; files linked elsewhere are not counted.
        paths: what would be removed.
    """

    name: str
    estimate: int
    paths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Freed:
    """What cleaning gave back: bytes by tier, as the filesystem measured them."""

    tiers: tuple[tuple[str, int], ...]
    before: int
    after: int

    @property
    def bytes(self) -> int:
        """All of it together."""
        return sum(size for _, size in self.tiers)


def survey(store: Store) -> tuple[Tier, ...]:
    """What could be removed now, the cheapest loss first."""
    dead = store.unreferenced_staging(now())
    cache = [store.cache] if store.cache.is_dir() and store.cache_is_idle() else []
    return (
        _tier("staging of starts that ended", list(dead)),
        _tier("the engine's cache", [p for p in cache if any(p.iterdir())]),
    )


def clean(store: Store) -> Freed:
    """Removes them, tier by tier."""
    before = after = _free(store.root)
    freed = []
    for name, remove in _removals(store):
        free = _free(store.root)
        remove()
        after = _free(store.root)
        freed.append((name, max(0, after - free)))
    return Freed(tiers=tuple(freed), before=before, after=after)


def _removals(store: Store) -> tuple[tuple[str, Callable[[], object]], ...]:
    def staging() -> None:
        store.drop_staging(now())

    return (("staging of starts that ended", staging), ("the engine's cache", store.drop_cache))


def _tier(name: str, places: list[Path]) -> Tier:
    return Tier(
        name=name,
        estimate=sum(_unshared(place) for place in places),
        paths=tuple(str(place) for place in places),
    )


def _unshared(place: Path) -> int:
    """Bytes of blocks that no name outside keeps alive."""
    total = 0
    links: dict[int, int] = {}
    for parent, _, names in os.walk(place):
        for name in names:
            try:
                status = os.lstat(os.path.join(parent, name))
            except OSError:
                continue
            links[status.st_ino] = links.get(status.st_ino, 0) + 1
            if links[status.st_ino] == status.st_nlink:
                total += status.st_blocks * 512
    return total


def _free(place: Path) -> int:
    while not place.is_dir():
        place = place.parent
    stats = os.statvfs(place)
    return stats.f_bavail * stats.f_frsize
