"""Makes room: preheat's own leftovers first, then what is known to be a cache, tier by tier.

Freed bytes are what statvfs says, before and after, on the filesystem that each tier lies on.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import site
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from preheat.decisions.known_caches import UserPlaces, tiers
from preheat.edges.cleaning.conda import unused_packages
from preheat.edges.cleaning.layers import Stale, collect, stale
from preheat.edges.disk import deletion
from preheat.edges.disk.atomic import answering
from preheat.edges.disk.volumes import device_of, free_bytes, is_over
from preheat.edges.process.environment import GROUND, SYSTEM
from preheat.edges.store.shelf import Shelf
from preheat.edges.store.staging import Staging
from preheat.edges.store.store import Store
from preheat.words.cleaning import Estimate, Freed, Place, Shortage, Tier

STAGING = Tier(name="staging of starts that ended", loss="nothing", places=())
STALE = Tier(
    name="layers that nobody uses",
    loss="a start that needs one makes it again",
    places=(),
)
UNPACKED = Tier(
    name="unpacked layers that nobody uses here",
    loss="a start that needs one unpacks it again",
    places=(),
)
PACKED = Tier(
    name="packed layers that nobody uses",
    loss="a start that needs one makes it again",
    places=(),
)
Pieces = Generator[object, None, None]
"""Removes one piece at each step, so that it can stop as soon as enough is free."""


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One tier, the filesystems that it lies on, and how to remove it, piece by piece."""

    tier: Tier
    places: Sequence[Path]
    take: Callable[[], Pieces]


@dataclass(frozen=True, kw_only=True)
class Cleaner:
    """Cleans one store, and the caches of this machine's user.

    Attributes:
        extra: directories that the manifest adds.
        sites: the platform's site directories; nothing in them is removed.
        spared: digests of layers that are needed now.
        staging: of the start that cleans; None if no start does.
    """

    store: Store
    extra: Sequence[str] = ()
    sites: Sequence[str] = ()
    spared: frozenset[str] = frozenset()
    staging: Staging | None = None

    def survey(self) -> tuple[Estimate, ...]:
        """What `clean` would free now, the cheapest loss first.

        Raises:
            StoreError: a disk does not answer.
        """
        with answering(self.store.root):
            return self._survey([each for each in self._stale() if not each.current])

    def survey_for(self, wanted: int) -> tuple[Estimate, ...]:
        """What `until_free` would give up for so many bytes, as far as can be told beforehand.

        Raises:
            StoreError: a disk does not answer.
        """
        with answering(self.store.root):
            lacking = wanted - free_bytes(self.store.root)
            device = device_of(self.store.root)
            found = []
            for each in self._survey(self._stale()):
                if lacking <= 0:
                    break
                here = tuple(p for p in each.paths if device_of(p) == device)
                if here:
                    found.append(replace(each, paths=here))
                    lacking -= each.bytes
            return tuple(found)

    def _survey(self, unused: Sequence[Stale]) -> tuple[Estimate, ...]:
        rules = self._rules()
        *others, added = self._tiers()
        found = [_estimate_own(STAGING, self.store.unreferenced_staging())]
        found += [_estimate(tier, rules) for tier in others]
        for shelf, layers in self._by_shelf(unused):
            found.append(_estimate_own(self._tier(shelf), [each.place for each in layers]))
        found.append(_estimate(added, rules))
        return tuple(found)

    def clean(self) -> Freed:
        """Gives up every tier; of the layers only those that no pointer names.

        Raises:
            StoreError: a disk does not answer.
        """
        with answering(self.store.root):
            unused = [each for each in self._stale() if not each.current]
            return self._clean(self._steps(unused), lambda: False)

    def until_over(self, shortage: Shortage) -> Freed:
        """Gives up tiers on the filesystem that is short, until it is not, or nothing is left.

        Raises:
            StoreError: a disk does not answer.
        """
        with answering(self.store.root):
            device = device_of(shortage.path)
            every = self._steps(self._stale())
            steps = (s for s in every if any(device_of(place) == device for place in s.places))
            return self._clean(steps, lambda: is_over(shortage))

    def until_free(self, wanted: int) -> Freed:
        """Gives up tiers on the store's filesystem until that many bytes are free.

        Raises:
            StoreError: a disk does not answer.
        """
        return self.until_over(Shortage(path=self.store.root, bytes=wanted))

    def _clean(self, steps: Iterable[_Step], enough: Callable[[], bool]) -> Freed:
        before = free_bytes(self.store.root)
        freed: list[tuple[str, int]] = []
        for step in steps:
            if enough():
                break
            free = [free_bytes(place) for place in step.places]
            with contextlib.closing(step.take()) as pieces:
                while next(pieces, None) is not None and not enough():
                    pass
            gained = sum(free_bytes(p) - was for p, was in zip(step.places, free, strict=True))
            freed.append((step.tier.name, max(0, gained)))
        return Freed(tiers=tuple(freed), before=before, after=free_bytes(self.store.root))

    def _steps(self, unused: Sequence[Stale]) -> Iterator[_Step]:
        roots = list(dict.fromkeys((self.store.local, self.store.root)))
        yield _Step(tier=STAGING, places=roots, take=lambda: _in_one_piece(self.store.drop_staging))
        rules = self._rules()
        *others, added = self._tiers()
        for tier in others:
            yield _Step(
                tier=tier,
                places=_filesystems(tier.places),
                take=partial(_in_one_piece, partial(_remove, tier, rules)),
            )
        for shelf, layers in self._by_shelf(unused):
            if layers:
                take = partial(self._collect, shelf, [each.digest for each in layers])
                yield _Step(tier=self._tier(shelf), places=[shelf.base], take=take)
        yield _Step(
            tier=added,
            places=_filesystems(added.places),
            take=partial(_in_one_piece, partial(_remove, added, rules)),
        )

    def _stale(self) -> tuple[Stale, ...]:
        own = self.staging.lease.name if self.staging else ""
        return stale(self.store, self.spared, besides=own)

    def _by_shelf(self, unused: Sequence[Stale]) -> Iterator[tuple[Shelf, list[Stale]]]:
        for shelf in self.store.shelves:
            yield shelf, [each for each in unused if each.shelf == shelf]

    def _tier(self, shelf: Shelf) -> Tier:
        if shelf.packed:
            return PACKED
        return UNPACKED if self.store.packed and shelf == self.store.ready else STALE

    def _collect(self, shelf: Shelf, digests: Sequence[str]) -> Pieces:
        if self.staging is not None:
            yield from collect(shelf, self.staging, digests)
            return
        with self.store.begin() as staging:
            staging.lease.hold(())
            yield from collect(shelf, staging, digests)

    def _tiers(self) -> tuple[Tier, ...]:
        return tiers(
            UserPlaces(
                home=os.path.realpath(os.path.expanduser("~")),
                temp=os.path.realpath(tempfile.gettempdir()),
                user=_user(),
                environment=os.environ,
                extra=self.extra,
                system=os.environ.get(SYSTEM, ""),
                unused=lambda cache: unused_packages(cache, os.path.expanduser("~")),
            )
        )

    def _rules(self) -> deletion.Rules:
        precious = ["/", os.path.expanduser("~"), os.getcwd(), sys.prefix]
        # Where preheat runs in the platform's interpreter, that one's are known without asking.
        ours = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
        closed = [
            str(self.store.root),
            str(self.store.local),
            *self.sites,
            *ours,
            *site.getsitepackages(),
        ]
        return deletion.Rules(
            user=os.geteuid(),
            now=time.time(),
            in_use=deletion.in_use(),
            precious=frozenset(os.path.realpath(path) for path in precious),
            closed=frozenset(os.path.realpath(path) for path in closed),
            within=_ground(),
        )


def _remove(tier: Tier, rules: deletion.Rules) -> None:
    for place in tier.places:
        deletion.remove(place, rules)


def _in_one_piece(work: Callable[[], object]) -> Pieces:
    work()
    yield from ()


def _estimate(tier: Tier, rules: deletion.Rules) -> Estimate:
    parts = [deletion.estimate(place, rules) for place in tier.places]
    return Estimate(
        tier=tier,
        bytes=sum(size for size, _ in parts),
        paths=tuple(path for _, paths in parts for path in paths),
    )


def _estimate_own(tier: Tier, places: Iterable[Path]) -> Estimate:
    present = [place for place in places if place.is_file() or _is_filled(place)]
    return Estimate(
        tier=tier, bytes=sum(map(_bytes_to_gain, present)), paths=tuple(map(str, present))
    )


def _is_filled(place: Path) -> bool:
    return place.is_dir() and any(place.iterdir())


def _bytes_to_gain(place: Path) -> int:
    """Bytes of blocks that no name outside keeps alive."""
    found = deletion.Found()
    if place.is_file():
        found.count(place.lstat())
    for parent, _, names in os.walk(place):
        for name in names:
            try:
                found.count(os.lstat(os.path.join(parent, name)))
            except OSError:
                continue
    return found.bytes


def _filesystems(places: Iterable[Place]) -> list[Path]:
    """One existing root for each filesystem that the places lie on."""
    roots: dict[int, Path] = {}
    for place in places:
        if os.path.isdir(place.root):
            roots.setdefault(os.stat(place.root).st_dev, Path(place.root))
    return list(roots.values())


def _ground() -> str | None:
    """Where alone something may be removed; None in earnest."""
    # A test has its made-up system in a directory of its own.
    ground = os.path.dirname(os.environ.get(SYSTEM, "")) or os.environ.get(GROUND)
    return os.path.realpath(ground) if ground else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())
