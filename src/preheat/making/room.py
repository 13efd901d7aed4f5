"""Caches go before packages do: where a plan does not fit, or a disk is full all the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from preheat.decisions.plan import load_of
from preheat.edges.cleaning.cleaner import Cleaner
from preheat.edges.disk.volumes import is_over, read_volumes
from preheat.making.run import Run
from preheat.planning.session import Session
from preheat.planning.state import State
from preheat.planning.survey import Surveyor
from preheat.words.cleaning import Shortage
from preheat.words.outcome import Outcome
from preheat.words.plan import Need


@dataclass(frozen=True, kw_only=True, slots=True)
class RoomMaker:
    """Makes room for one startup."""

    session: Session

    def survey(self) -> State:
        """Everything up to the plan, and room for it; its layers are held from here on.

        Raises:
            PreheatError: the platform or the lock is unusable.
        """
        state = self._before(Surveyor(self.session).survey())
        # From here on it is known which layers no collector may take from us.
        self.session.own_staging.lease.hold(state.layers())
        return state

    @property
    def is_low(self) -> bool:
        """Whether less is free than the threshold for cleaning."""
        free = min(read_volumes({"store": place})[0].free for place in self._places)
        return free < self._clean_below

    def after_shortage(self, run: Run, outcome: Outcome) -> None:
        """What can go goes, so that the package is planned again with what is left."""
        run.progress.measured_anew()
        self.session.clock.listener.event(
            "short-of-space", package=outcome.step.package.name, reason=outcome.reason
        )
        needs = run.state.room.needs(load_of(outcome.step))
        run.state = self._clean(_shortages(n for n in needs if n.bytes), run.state)

    def without_room_for(self, run: Run, outcome: Outcome) -> None:
        """Given up: it counts as not fitting, and what is smaller may still fit."""
        run.progress.measured_anew()
        measured = measured_anew(run.state)
        run.state = measured.with_room(measured.room.without_room_for(load_of(outcome.step)))

    def _before(self, state: State) -> State:
        """Cleans below the threshold, or where something does not fit; measured anew then."""
        shortages = _shortages(state.shortages())
        if self.is_low:
            shortages += [Shortage(path=p, bytes=self._clean_below) for p in self._places]
        return self._clean(shortages, state) if shortages else state

    def _clean(self, shortages: Sequence[Shortage], state: State) -> State:
        cleaner = Cleaner(
            store=self.session.store,
            extra=self.session.order.settings.space.clean,
            sites=state.platform.interpreter.sites,
            spared=state.layers(),
            staging=self.session.staging,
        )
        for shortage in shortages:
            # Where a write was refused and statvfs shows room, a quota is full: it cannot be seen.
            freed = cleaner.clean() if is_over(shortage) else cleaner.until_over(shortage)
            for name, size in freed.tiers:
                self.session.clock.listener.event("cleaned", tier=name, mb=round(size / 1e6, 1))
        return measured_anew(state)

    @property
    def _clean_below(self) -> int:
        return self.session.order.settings.space.clean_below

    @property
    def _places(self) -> tuple[Path, ...]:
        """Where layers are made, and where they are kept."""
        store = self.session.store
        return tuple(dict.fromkeys((store.local, store.root)))


def measured_anew(state: State) -> State:
    """With what is free by now."""
    return state.with_volumes(read_volumes({v.role: v.path for v in state.room.volumes}))


def _shortages(needs: Iterable[Need]) -> list[Shortage]:
    return [
        Shortage(path=Path(need.path), bytes=need.bytes + need.reserve, inodes=need.inodes)
        for need in needs
    ]
