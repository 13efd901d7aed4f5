"""Caches go before packages do: where a plan does not fit, or a disk is full all the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from preheat.decisions.plan import Progress, load_of
from preheat.edges.cleaning.cleaner import Cleaner
from preheat.edges.disk.volumes import is_over, read_volumes
from preheat.edges.process.clock import Clock
from preheat.edges.store.staging import Staging
from preheat.edges.store.store import Store
from preheat.planning.state import Decided
from preheat.words.cleaning import Shortage
from preheat.words.manifest import Package
from preheat.words.order import Order
from preheat.words.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class RoomMaker:
    """Makes room for one start.

    Attributes:
        packages: by importance.
        staging: this start's own.
    """

    order: Order
    store: Store
    clock: Clock
    packages: tuple[Package, ...]
    staging: Staging

    @property
    def is_low(self) -> bool:
        """Whether less is free than the threshold for cleaning."""
        return self._free() < self.order.settings.space.clean_below

    def before(self, decided: Decided) -> Decided:
        """Cleans below the threshold, or where something does not fit; measured anew then."""
        below = self.order.settings.space.clean_below
        shortages = [
            Shortage(path=Path(need.path), bytes=need.bytes + need.reserve, inodes=need.inodes)
            for need in decided.planner.shortages(self.packages)
        ]
        if self.is_low:
            shortages += [Shortage(path=place, bytes=below) for place in self._places]
        return self._clean(shortages, decided) if shortages else decided

    def after_shortage(self, decided: Decided, outcome: Outcome, progress: Progress) -> Decided:
        """What can go goes, so that the package is planned again with what is left."""
        progress.measured_anew()
        self.clock.listener.event(
            "short-of-space", package=outcome.step.package.name, reason=outcome.reason
        )
        shortages = [
            Shortage(path=Path(need.path), bytes=need.bytes + need.reserve, inodes=need.inodes)
            for need in decided.planner.room.needs(load_of(outcome.step))
            if need.bytes
        ]
        return self._clean(shortages, decided)

    def without_room_for(self, decided: Decided, outcome: Outcome, progress: Progress) -> Decided:
        """Given up: it counts as not fitting, and what is smaller may still fit."""
        progress.measured_anew()
        room = decided.measured_anew().planner.room
        return decided.with_room(room.without_room_for(load_of(outcome.step)))

    def _clean(self, shortages: Sequence[Shortage], decided: Decided) -> Decided:
        cleaner = Cleaner(
            store=self.store,
            extra=self.order.settings.space.clean,
            sites=decided.platform.interpreter.sites,
            spared=decided.planner.layers(self.packages),
            staging=self.staging,
        )
        for shortage in shortages:
            # Where a write was refused and statvfs shows room, a quota is full: it cannot be seen.
            freed = cleaner.clean() if is_over(shortage) else cleaner.until_over(shortage)
            for name, size in freed.tiers:
                self.clock.listener.event("cleaned", tier=name, mb=round(size / 1e6, 1))
        return decided.measured_anew()

    @property
    def _places(self) -> tuple[Path, ...]:
        """Where layers are made, and where they are kept."""
        return tuple(dict.fromkeys((self.store.local, self.store.root)))

    def _free(self) -> int:
        return min(read_volumes({"store": place})[0].free for place in self._places)
