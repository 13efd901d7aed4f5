"""Makes room: preheat's own leftovers first, then what is known to be a cache, tier by tier.

Freed bytes are what statvfs says, before and after, on the filesystem that each tier lies on.
"""

from __future__ import annotations

import getpass
import os
import site
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from preheat.decisions.tiers import Habitat, tiers
from preheat.edges import deletion
from preheat.edges.store import Store, now
from preheat.words.cleaning import Estimate, Freed, Place, Tier

STAGING = Tier(name="staging of starts that ended", loss="nothing", places=())
# Set by tests, so that they clean nothing of the machine that they run on.
SYSTEM = "PREHEAT_INTERNAL_SYSTEM"
CACHE = Tier(name="the engine's cache", loss="archives are downloaded again", places=())


@dataclass(frozen=True, kw_only=True)
class Cleaner:
    """Cleans around one store.

    Attributes:
        extra: directories that the manifest adds.
        sites: the platform's site directories: closed, whatever is asked.
    """

    store: Store
    extra: Sequence[str] = ()
    sites: Sequence[str] = ()

    def survey(self) -> tuple[Estimate, ...]:
        """What could be freed now, the cheapest loss first."""
        rules = self._rules()
        found = [
            _own(STAGING, self.store.unreferenced_staging(now())),
            _own(CACHE, [self.store.cache] if self.store.cache_is_idle() else []),
        ]
        for tier in self._tiers():
            parts = [deletion.estimate(place, rules) for place in tier.places]
            found.append(
                Estimate(
                    tier=tier,
                    bytes=sum(size for size, _ in parts),
                    paths=tuple(path for _, paths in parts for path in paths),
                )
            )
        return tuple(found)

    def clean(self, enough: Callable[[], bool] = lambda: False) -> Freed:
        """Gives tiers up, one after the other, until it is enough or nothing is left.

        Args:
            enough: asked before each tier.
        """
        before = _free(self.store.root)
        freed: list[tuple[str, int]] = []
        for tier, places, remove in self._removals():
            if enough():
                break
            free = [_free(place) for place in places]
            remove()
            gained = sum(_free(p) - was for p, was in zip(places, free, strict=True))
            freed.append((tier.name, max(0, gained)))
        return Freed(tiers=tuple(freed), before=before, after=_free(self.store.root))

    def until_free(self, wanted: int) -> Freed:
        """Cleans until that many bytes are free on the store's filesystem."""
        return self.clean(lambda: _free(self.store.root) >= wanted)

    def _removals(self) -> Iterator[tuple[Tier, list[Path], Callable[[], object]]]:
        store = self.store
        yield STAGING, [store.root], lambda: store.drop_staging(now())
        yield CACHE, [store.cache], store.drop_cache
        rules = self._rules()
        for tier in self._tiers():
            yield tier, _filesystems(tier.places), partial(_remove, tier, rules)

    def _tiers(self) -> tuple[Tier, ...]:
        return tiers(
            Habitat(
                home=os.path.realpath(os.path.expanduser("~")),
                temp=os.path.realpath(tempfile.gettempdir()),
                user=_user(),
                environment=os.environ,
                extra=self.extra,
                system=os.environ.get(SYSTEM, ""),
            )
        )

    def _rules(self) -> deletion.Rules:
        precious = ["/", os.path.expanduser("~"), os.getcwd(), sys.prefix]
        # Where preheat runs in the platform's interpreter, that one's are known without asking.
        ours = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
        closed = [str(self.store.root), *self.sites, *ours, *site.getsitepackages()]
        return deletion.Rules(
            user=os.geteuid(),
            now=now(),
            in_use=deletion.in_use(),
            precious=frozenset(os.path.realpath(path) for path in precious),
            closed=frozenset(os.path.realpath(path) for path in closed),
        )


def _remove(tier: Tier, rules: deletion.Rules) -> None:
    for place in tier.places:
        deletion.remove(place, rules)


def _own(tier: Tier, places: Iterable[Path]) -> Estimate:
    present = [place for place in places if place.is_dir() and any(place.iterdir())]
    return Estimate(tier=tier, bytes=sum(map(_unshared, present)), paths=tuple(map(str, present)))


def _unshared(place: Path) -> int:
    """Bytes of blocks that no name outside keeps alive."""
    found = deletion.Found()
    for parent, _, names in os.walk(place):
        for name in names:
            try:
                found.meet(os.lstat(os.path.join(parent, name)))
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


def _free(place: Path) -> int:
    while not place.is_dir():
        place = place.parent
    stats = os.statvfs(place)
    return stats.f_bavail * stats.f_frsize


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())
