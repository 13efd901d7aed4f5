"""A cold startup: the stages in order, from a manifest to a report.

probe, detect, resolve, size, plan, then for each package install, check, compile, prove and
publish; at the end everything is proved together and the pointer is left for the next startup.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from preheat.decisions.coupling import blamed
from preheat.decisions.plan import load_of
from preheat.decisions.room import at_once
from preheat.edges.cleaning.layers import drop_void_mark
from preheat.edges.disk.atomic import answering
from preheat.edges.disk.deletion import erase
from preheat.edges.platform.fingerprint import refuse_changes
from preheat.edges.store import child_bootstrap
from preheat.edges.store.pointer_writer import Left, keep_report, leave_pointer
from preheat.making.concurrent import prove_arrived
from preheat.making.fetch import Ahead, Fetcher, Wanted
from preheat.making.install import Installer, skip_late
from preheat.making.report import (
    Account,
    Active,
    history_line,
    linked_libraries,
    shadowed_modules,
)
from preheat.making.room import RoomMaker
from preheat.making.run import Run
from preheat.planning.lock import keep_releases
from preheat.planning.older import older_release
from preheat.planning.session import Session, looking, working
from preheat.planning.state import State
from preheat.planning.survey import Surveyor
from preheat.proving.prover import TorchAhead
from preheat.proving.stack import stack_of
from preheat.proving.trial import Trial
from preheat.words.errors import LockError, StoreError
from preheat.words.listener import Listener
from preheat.words.manifest import Package
from preheat.words.order import Order
from preheat.words.outcome import Cause, Outcome
from preheat.words.plan import Action, Plan, Step
from preheat.words.report import Report

# So many older releases of a companion of torch are tried where the newest one fails.
_OLDER_TRIED = 3


class Provision:
    """One startup. ``plan`` decides and changes nothing; ``warm`` does it."""

    def __init__(self, order: Order, listener: Listener) -> None:
        self._order = order
        self._listener = listener

    def plan(self) -> tuple[Plan, Report]:
        """The plan, and the report of a startup that has not happened; the disk stays as it is.

        Raises:
            PreheatError: the platform or the lock is unusable.
        """
        with looking(self._order, self._listener) as session:
            state = Surveyor(session).survey()
        plan = state.plan()
        outcomes = [state.outcome(step) for step in plan.steps]
        account = Account(session=session, state=state, outcomes=outcomes, active=Active())
        return plan, account.report()

    def warm(self) -> Report:
        """Makes the packages ready and leaves the pointer.

        Raises:
            PreheatError: the store, the platform or the lock is unusable, or a disk refuses. A
                package that cannot be had raises nothing: the report says so.
        """
        begin = time.time()
        with working(self._order, self._listener) as session:
            drop_void_mark(session.store)
            made = _Startup(session).make()
        with answering(session.store.root):
            # Last of all, with nothing left to remove: a startup that ends before is cold again.
            _leave(made)
            # History is nobody's need: a disk that takes no more of it does not undo a startup.
            with contextlib.suppress(OSError, StoreError):
                session.store.history.append(history_line(made.report, begin))
        return made.report


@dataclass(frozen=True, kw_only=True, slots=True)
class _Made:
    """A startup that has done its work.

    Attributes:
        active: what goes on the path.
    """

    session: Session
    run: Run
    active: Active
    report: Report


class _Startup:
    """The stages of one startup that makes what its plan lacks."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._clock = session.clock
        self._room = RoomMaker(session=session)

    def make(self) -> _Made:
        """Everything from the first look to the report.

        Raises:
            PreheatError: the platform or the lock is unusable, or a disk refuses.
        """
        session = self._session
        with contextlib.closing(TorchAhead(session.order, session.own_staging)) as torch:
            self._take_over()
            session.prover.torch = torch
            run, active = self._carry_out(self._room.survey())
            state = run.state
            refuse_changes(state.before, state.platform.interpreter.sites)
            account = Account(session=session, state=state, outcomes=run.outcomes, active=active)
            return _Made(session=session, run=run, active=active, report=account.report())

    def _take_over(self) -> None:
        """What a killed startup had fetched helps this one; what else it left goes."""
        store, staging = self._session.store, self._session.own_staging
        adopted = any(staging.adopt_cache(dead) for dead in store.unreferenced_staging())
        store.drop_staging()
        staging.claims.prune()
        if not adopted:
            return
        low = self._room.is_low
        if not low:
            # Deciding twice costs little: the resolution of the first time is kept.
            with staging.directory("first-look") as scratch:
                low = bool(Surveyor(self._session.in_scratch(scratch)).survey().shortages())
        if low:
            erase(staging.cache)
            self._clock.listener.event("cleaned", tier="what a killed start had fetched")

    def _carry_out(self, state: State) -> tuple[Run, Active]:
        """Package after package, then all together.

        What comes later is fetched meanwhile, where all has room.
        """
        session, plan = self._session, self._announce(state)
        installs = [step for step in plan.steps if step.action is Action.INSTALL]
        if not installs:
            session.prover.forget_torch()
        fetcher = Fetcher(session=session, engine=state.engine, request=state.request)
        with Ahead(fetcher, session.own_staging) as ahead:
            run = Run(state=state, ahead=ahead)
            installer = Installer(session=session, fetcher=fetcher, run=run)
            if _has_room_ahead(installs, state):
                fetchable = (step for step in installs if not state.unbuilt(step))
                ahead.begin(Wanted(step=s, contents=state.contents(s)) for s in fetchable)
            for package in state.packages:
                run.proofs |= prove_arrived(installer)
                outcome = self._make_ready(installer, package)
                run.conclude(outcome)
                self._tell(outcome)
            return run, self._prove_together(run)

    def _make_ready(self, installer: Installer, package: Package) -> Outcome:
        """One package's turn: planned anew where a pack is damaged, or a disk was full.

        Where it fails with the platform's libraries, too: then it brings its own.
        """
        run = installer.run
        while True:
            outcome = self._try(installer, package)
            known = run.state.planner.known.layers
            if outcome.cause is Cause.PACK and outcome.step.layer in known:
                # It is gone by now: planned again, it is a layer like one that never was.
                self._tell(outcome)
                run.state = run.state.without_layer(outcome.step.layer)
            elif outcome.status == "failed" and outcome.step.left_out:
                self._tell(outcome)
                # What it shared is not where it was planned to be.
                run.replan(run.state.bringing(package, outcome.reason))
            elif outcome.cause is Cause.NO_ROOM and run.spend_try():
                self._room.after_shortage(run, outcome)
            else:
                break
        if outcome.cause is Cause.NO_ROOM:
            self._room.without_room_for(run, outcome)
        return self._with_older(installer, outcome) or outcome

    def _with_older(self, installer: Installer, newest: Outcome) -> Outcome | None:
        """Where a companion of torch fails for which no release is this torch's own: older ones.

        Returns:
            The first that works; None where none does: all is as the newest one left it then.
        """
        run, outcome, before = installer.run, newest, installer.run.state
        if self._session.order.lock is not None:
            # Nothing but what a given lock names.
            return None
        for _ in range(_OLDER_TRIED):
            older = self._older(run, outcome)
            if older is None:
                break
            self._tell(outcome)
            run.replan(older)
            outcome = self._try(installer, newest.step.package)
            if outcome.good:
                self._keep_releases(run.state)
                return outcome
        run.state = before
        return None

    def _older(self, run: Run, outcome: Outcome) -> State | None:
        """What is known with an older release in place of the one that failed, if one may do."""
        step = outcome.step
        broken = outcome.status == "failed" or step.failed
        if not broken or not outcome.remembered or self._clock.why_late(step.package):
            return None
        said = f"{outcome.reason}\n{outcome.trace}"
        failed = step.failed or step.distributions
        companion = blamed(failed, step.package, said, run.state.platform)
        if companion is None:
            return None
        return older_release(run.state, companion, outcome.reason, self._session.reader)

    def _keep_releases(self, state: State) -> None:
        """The next startup goes by what was found; where a disk does not keep it, it searches."""
        if state.lock is not None:
            with contextlib.suppress(LockError, StoreError):
                keep_releases(state.lock, state.composition.lock, state.composition.contents)

    def _try(self, installer: Installer, package: Package) -> Outcome:
        """Built, where it must be; then installed, or taken from the store, and proved."""
        outcome = installer.run.planned(package)
        if installer.build_missing(outcome) and outcome.good:
            # Its size is known now.
            seconds, outcome = outcome.seconds, installer.run.planned(package)
            outcome.seconds |= seconds
        if outcome.good:
            installer.make_ready(outcome)
        return outcome

    def _prove_together(self, run: Run) -> Active:
        """Every promised import once more, all in one process, on the exact final path.

        What fails here is taken off, and the rest is proved again until it stands.
        """
        session, platform = self._session, run.state.platform
        while True:
            layers = run.needed_layers
            stack = stack_of(session.store, platform.interpreter, layers)
            if not layers:
                break
            packages = tuple(outcome.step.package for outcome in run.good)
            trial = Trial(packages=packages, stack=stack, platform=platform, with_torch=True)
            bad = session.prover.failing_together(trial)
            if not bad:
                break
            for outcome in run.good:
                proof = bad.get(outcome.step.package.name)
                if proof is not None:
                    reason = f"works alone, not with the others: {proof.reason}"
                    outcome.fail(reason, trace=proof.trace)
                    skip_late(self._clock, outcome)
        place = child_bootstrap.of_layers(session.store, platform.interpreter, layers)
        return Active(layers=stack.layers, bootstrap=str(place))

    # What is said

    def _announce(self, state: State) -> Plan:
        plan = state.plan()
        installs = [step for step in plan.steps if step.action is Action.INSTALL]
        self._clock.listener.event(
            "planned",
            install=[step.package.name for step in installs],
            download_mb=round(sum(step.download for step in installs) / 1e6, 1),
            disk_mb=round(sum(step.disk for step in installs) / 1e6, 1),
        )
        return plan

    def _tell(self, outcome: Outcome) -> None:
        self._clock.listener.event(
            outcome.status,
            package=outcome.step.package.name,
            version=outcome.step.version,
            reason=outcome.reason,
            mb=round(outcome.actual / 1e6, 1),
            seconds=round(sum(outcome.seconds.values()), 2),
        )


def _leave(made: _Made) -> None:
    """The report, and the pointer; it expires at once where nobody must go by this startup."""
    order, store, state = made.session.order, made.session.store, made.run.state
    outcomes, interpreter = made.run.outcomes, state.platform.interpreter
    keep_report(store, order.manifest_file, interpreter, made.report)
    good = made.report.ready and all(o.remembered for o in outcomes) and not state.unanswered
    passing = any(not o.good and o.cause is not Cause.UNMET for o in outcomes)
    expires = time.time() + order.settings.retry_after if passing else float("inf")
    leave_pointer(
        store,
        Left(
            manifest=order.manifest_file,
            interpreter=interpreter,
            report=made.report,
            layers=made.active.layers,
            bootstrap=made.active.bootstrap,
            shadowed=shadowed_modules(outcomes, state.composition),
            libraries=linked_libraries(outcomes),
            expires=expires if good else 0.0,
        ),
    )


def _has_room_ahead(installs: Sequence[Step], state: State) -> bool:
    """Whether all that is installed may lie in the engine's cache and in staging at once."""
    if len(installs) < 2 or state.room.refusal(at_once([load_of(s) for s in installs])) is not None:
        return False
    return state.room.links
