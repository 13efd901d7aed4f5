"""A cold start: the stages in order, from a manifest to a report.

probe, detect, resolve, size, plan, then for each package install, check, compile, prove and
publish; at the end everything is proved together and the pointer is left for the next start.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from preheat.decisions.baking import composing_order, image_first
from preheat.decisions.coupling import blamed
from preheat.decisions.plan import Progress, load_of
from preheat.decisions.room import at_once
from preheat.edges.cleaning.layers import drop_void_mark
from preheat.edges.disk.atomic import answering
from preheat.edges.disk.deletion import erase
from preheat.edges.engine.lock_file import write_lock
from preheat.edges.process.clock import Clock
from preheat.edges.store import child_bootstrap
from preheat.edges.store.open import open_store
from preheat.edges.store.pointer_writer import Left, keep_report, leave_pointer
from preheat.edges.store.staging import Staging
from preheat.making.concurrent import SideBySide
from preheat.making.fetch import Ahead, Fetcher
from preheat.making.install import Installer, skip_late
from preheat.making.report import (
    Account,
    Active,
    history_line,
    linked_libraries,
    shadowed_modules,
)
from preheat.making.room import RoomMaker
from preheat.planning.state import Decided
from preheat.planning.survey import Decision, Workplace
from preheat.proving.prover import TorchAhead
from preheat.proving.stack import stack_of
from preheat.words.building import Work
from preheat.words.errors import LockError, StoreError
from preheat.words.listener import Listener
from preheat.words.lock import Lock
from preheat.words.manifest import Package
from preheat.words.order import Order
from preheat.words.outcome import Outcome
from preheat.words.plan import Action, Plan
from preheat.words.proof import Proof
from preheat.words.report import Report

# Cleaning and planning anew ends after that many shortages in one start.
_TRIES_FOR_SPACE = 3
# So many older releases of a companion of torch are tried where the newest one fails.
_OLDER_TRIED = 3


@dataclass(kw_only=True, slots=True)
class _Course:
    """Where a start stands while it goes from package to package.

    Attributes:
        proofs: those that were made before their turn, as the installer has them.
        tries_left: how often what does not fit may still be planned anew.
    """

    decided: Decided
    staging: Staging
    ahead: Ahead
    progress: Progress = field(default_factory=Progress)
    outcomes: list[Outcome] = field(default_factory=list)
    proofs: dict[str, Proof | None] = field(default_factory=dict)
    tries_left: int = _TRIES_FOR_SPACE


class Provision:
    """One start. ``plan`` decides and changes nothing; ``warm`` does it."""

    def __init__(self, order: Order, listener: Listener) -> None:
        self.order = order
        self._clock = Clock(listener, order.settings.deadline)
        self._packages = image_first(order.manifest.package, order.only or ())
        self._store = open_store(order.settings)
        self._decision = Decision(order, self._store, self._clock)

    def plan(self) -> tuple[Plan, Report]:
        """The plan, and the report of a start that has not happened; nothing on disk changes.

        Raises:
            PreheatError: the platform or the lock is unusable.
        """
        with (
            answering(self._store.root),
            tempfile.TemporaryDirectory(prefix="preheat-plan-") as scratch,
        ):
            decided = self._decided(_throwaway(scratch))
        plan = decided.planner.plan(self._packages)
        outcomes = [decided.outcome(step) for step in plan.steps]
        return plan, self._report(decided, outcomes, Active())

    def lock(self, file: Path) -> Lock:
        """Resolves and writes the lock.

        Raises:
            ResolutionError: the index does not answer.
            StoreError: the file cannot be written.
        """
        with (
            answering(self._store.root),
            tempfile.TemporaryDirectory(prefix="preheat-lock-") as scratch,
        ):
            found = self._decision.resolve(_throwaway(scratch))
            write_lock(found.lock, found.contents, file)
        return found.lock

    def build(self) -> tuple[Work, ...]:
        """Has the store keep every wheel that is compiled against this platform.

        Raises:
            PreheatError: the store or the platform is unusable, or the index does not answer.
        """
        with answering(self._store.root):
            self._store.prepare()
            with self._store.begin() as staging:
                decided = self._decide(staging)
                return tuple(
                    decided.builder.ahead_of_time(source, decided.engine, decided.request, staging)
                    for source in decided.sources
                )

    def warm(self) -> Report:
        """Makes the packages ready and leaves the pointer.

        Raises:
            PreheatError: the store, the platform or the lock is unusable, or a disk refuses. A
                package that cannot be had raises nothing: the report says so.
        """
        begin = time.time()
        with answering(self._store.root):
            self._store.prepare()
            drop_void_mark(self._store)
            with (
                self._store.begin() as staging,
                contextlib.closing(TorchAhead(self.order, staging)) as torch,
            ):
                self._take_over(staging)
                decided = self._decide(staging, torch)
                decided, outcomes, active = self._carry_out(decided, staging)
                decided.refuse_changed_platform()
                report = self._report(decided, outcomes, active)
            # Last of all, with nothing left to remove: a start that ends before is cold again.
            self._leave(decided, outcomes, report, active)
            # History is nobody's need: a disk that takes no more of it does not undo a start.
            with contextlib.suppress(OSError, StoreError):
                self._store.history.append(history_line(report, begin))
        return report

    # What is done

    def _take_over(self, staging: Staging) -> None:
        """What a killed start had fetched helps this one; what else it left goes."""
        adopted = any(staging.adopt_cache(dead) for dead in self._store.unreferenced_staging())
        self._store.drop_staging()
        staging.claims.prune()
        if not adopted:
            return
        low = self._room(staging).is_low
        if not low:
            # Deciding twice costs little: the resolution of the first time is kept.
            with staging.directory("first-look") as scratch:
                decided = self._decided(_workplace(staging, scratch))
            low = bool(decided.planner.shortages(self._packages))
        if low:
            erase(staging.cache)
            self._clock.listener.event("cleaned", tier="what a killed start had fetched")

    def _decide(self, staging: Staging, torch: TorchAhead | None = None) -> Decided:
        scratch = staging.place / "engine"
        scratch.mkdir()
        decided = self._decided(replace(_workplace(staging, scratch), torch=torch))
        decided = self._room(staging).before(decided)
        # From here on it is known which layers no collector may take from us.
        staging.lease.hold(decided.planner.layers(self._packages))
        return decided

    def _decided(self, workplace: Workplace) -> Decided:
        """What is found out; what the image holds of it comes first from then on."""
        decided = self._decision.decide(workplace)
        if decided.planner.known.baked:
            manifest, known = self.order.manifest, decided.planner.known
            self._packages = composing_order(decided.planner, manifest.package, known.baked)
        return decided

    def _room(self, staging: Staging) -> RoomMaker:
        return RoomMaker(
            order=self.order,
            store=self._store,
            clock=self._clock,
            packages=self._packages,
            staging=staging,
        )

    def _carry_out(
        self, decided: Decided, staging: Staging
    ) -> tuple[Decided, list[Outcome], Active]:
        """Package after package, then all together.

        What comes later is fetched meanwhile, where all has room.
        """
        plan = self._announce(decided)
        if not any(step.action is Action.INSTALL for step in plan.steps):
            decided.prover.forget_ahead()
        with Ahead(self._fetcher(decided), staging) as ahead:
            course = _Course(decided=decided, staging=staging, ahead=ahead)
            if _has_room_ahead(plan, decided):
                installs = (step for step in plan.steps if step.action is Action.INSTALL)
                ahead.begin(step for step in installs if not decided.unbuilt(step))
            for index, package in enumerate(self._packages):
                self._prove_arrived(course, self._packages[index:])
                outcome = self._make_ready(course, package, self._packages[index + 1 :])
                if outcome.status in ("installed", "reused"):
                    course.progress.accept(outcome.step)
                elif outcome.status == "failed":
                    # What it shared goes to others now: nothing is as it was planned.
                    ahead.drop()
                course.outcomes.append(outcome)
                self._tell(outcome)
            active = self._prove_together(course.decided, course.outcomes, course.progress)
        return course.decided, course.outcomes, active

    def _prove_arrived(self, course: _Course, packages: tuple[Package, ...]) -> None:
        """Proves the next one as soon as it is there, and meanwhile others that have arrived."""
        course.proofs |= SideBySide(
            installer=self._installer(course), outcomes=course.outcomes, progress=course.progress
        ).prove(packages)

    def _make_ready(self, course: _Course, package: Package, later: tuple[Package, ...]) -> Outcome:
        """One package's turn: planned anew where a pack is damaged, or a disk was full.

        Where it fails with the platform's libraries, too: then it brings its own.
        """
        room = self._room(course.staging)
        while True:
            outcome = self._try(course, package, later)
            if outcome.damaged and outcome.step.layer in course.decided.planner.known.layers:
                self._tell(outcome)
                course.decided = course.decided.without_layer(outcome.step.layer)
                continue
            if outcome.status == "failed" and outcome.step.left_out:
                self._tell(outcome)
                # What it shared is not where it was planned to be.
                course.ahead.drop()
                course.decided = course.decided.bringing(package, outcome.reason)
                continue
            if not outcome.short_of_space or not course.tries_left:
                break
            course.tries_left -= 1
            course.decided = room.after_shortage(course.decided, outcome, course.progress)
        if outcome.short_of_space:
            course.decided = room.without_room_for(course.decided, outcome, course.progress)
        return self._with_older(course, outcome, later)

    def _with_older(self, course: _Course, newest: Outcome, later: tuple[Package, ...]) -> Outcome:
        """Where a companion of torch fails for which no release is this torch's own: older ones.

        The first that works is used; where none does, all is as the newest one left it.
        """
        outcome, package, decided = newest, newest.step.package, course.decided
        for _ in range(_OLDER_TRIED):
            failed = outcome.step.failed or outcome.step.distributions
            broken = outcome.status == "failed" or bool(outcome.step.failed)
            if not broken or not outcome.remembered or self._clock.why_late(package):
                break
            if self.order.lock is not None:
                # Nothing but what a given lock names.
                break
            said = f"{outcome.reason}\n{outcome.trace}"
            companion = blamed(failed, package, said, decided.platform)
            older = companion and course.decided.with_older(
                companion, outcome.reason, self._decision.reader
            )
            if not older:
                break
            self._tell(outcome)
            course.ahead.drop()
            course.decided = older
            outcome = self._try(course, package, later)
        if outcome.good and outcome is not newest:
            # A disk that does not keep it costs the next start the same tries.
            with contextlib.suppress(LockError, StoreError):
                course.decided.keep_lock()
            return outcome
        course.decided = decided
        return newest

    def _try(self, course: _Course, package: Package, later: tuple[Package, ...]) -> Outcome:
        """Built, where it must be; then installed, or taken from the store, and proved."""
        outcome = self._planned(course, package, later)
        built = self._installer(course).with_built(outcome, course.progress, self._decision.reader)
        if built is not course.decided and outcome.good:
            seconds, course.decided = outcome.seconds, built
            outcome = self._planned(course, package, later)
            outcome.seconds |= seconds
        if outcome.good:
            last = all(each.name in course.decided.planner.fixed for each in later)
            only = last and not _work_beside(course.outcomes, later, course.decided)
            installer = replace(self._installer(course), last=last, only=only)
            installer.make_ready(outcome, course.progress)
        return outcome

    def _planned(self, course: _Course, package: Package, later: tuple[Package, ...]) -> Outcome:
        decided = course.decided
        return decided.outcome(decided.planner.step(package, course.progress, later))

    def _tell(self, outcome: Outcome) -> None:
        self._clock.listener.event(
            outcome.status,
            package=outcome.step.package.name,
            version=outcome.step.version,
            reason=outcome.reason,
            mb=round(outcome.actual / 1e6, 1),
            seconds=round(sum(outcome.seconds.values()), 2),
        )

    def _fetcher(self, decided: Decided) -> Fetcher:
        return Fetcher(order=self.order, store=self._store, clock=self._clock, decided=decided)

    def _installer(self, course: _Course) -> Installer:
        fetcher = self._fetcher(course.decided)
        return Installer(
            fetcher=fetcher, staging=course.staging, ahead=course.ahead, proofs=course.proofs
        )

    def _announce(self, decided: Decided) -> Plan:
        plan = decided.planner.plan(self._packages)
        installs = [step for step in plan.steps if step.action is Action.INSTALL]
        self._clock.listener.event(
            "planned",
            install=[step.package.name for step in installs],
            download_mb=round(sum(step.download for step in installs) / 1e6, 1),
            disk_mb=round(sum(step.disk for step in installs) / 1e6, 1),
        )
        return plan

    def _prove_together(
        self, decided: Decided, outcomes: Sequence[Outcome], progress: Progress
    ) -> Active:
        """Every promised import once more, all in one process, on the exact final path.

        What fails here is taken off, and the rest is proved again until it stands.
        """
        while True:
            good = [outcome for outcome in outcomes if outcome.good]
            layers = _needed_layers(good, progress)
            stack = stack_of(self._store, decided.platform.interpreter, layers)
            if not layers:
                break
            packages = [outcome.step.package for outcome in good]
            bad = decided.prover.together(packages, stack, decided.platform)
            if not bad:
                break
            for outcome in good:
                proof = bad.get(outcome.step.package.name)
                if proof is not None:
                    outcome.status, outcome.trace = "failed", proof.trace
                    outcome.reason = f"works alone, not with the others: {proof.reason}"
                    skip_late(self._clock, outcome)
        place = child_bootstrap.of_layers(self._store, decided.platform.interpreter, layers)
        return Active(layers=stack.layers, hooked=stack.hooked, bootstrap=str(place))

    # What is said and left

    def _report(self, decided: Decided, outcomes: Sequence[Outcome], active: Active) -> Report:
        account = Account(
            order=self.order,
            platform=decided.platform,
            volumes=decided.planner.room.volumes,
            outcomes=outcomes,
            active=active,
        )
        return account.report(self._clock, self._store)

    def _leave(
        self, decided: Decided, outcomes: Sequence[Outcome], report: Report, active: Active
    ) -> None:
        """The report, and the pointer; it expires at once where nobody must go by this start."""
        file, interpreter = self.order.manifest_file, decided.platform.interpreter
        keep_report(self._store, file, interpreter, report)
        good = report.ready and all(o.remembered for o in outcomes) and not decided.unanswered
        passing = any(not outcome.good and not outcome.lasting for outcome in outcomes)
        expires = time.time() + self.order.settings.retry_after if passing else float("inf")
        leave_pointer(
            self._store,
            Left(
                manifest=file,
                interpreter=interpreter,
                report=report,
                hooked=active.hooked,
                bootstrap=active.bootstrap,
                shadowed=shadowed_modules(outcomes, decided.planner.composition),
                libraries=linked_libraries(outcomes),
                expires=expires if good else 0.0,
            ),
        )


def _throwaway(scratch: str) -> Workplace:
    """A workplace of which nothing stays."""
    return Workplace(scratch=Path(scratch), cache=Path(scratch, "cache"))


def _workplace(staging: Staging, scratch: Path) -> Workplace:
    return Workplace(scratch=scratch, cache=staging.cache, staging=staging)


def _has_room_ahead(plan: Plan, decided: Decided) -> bool:
    """Whether all that is installed may lie in the engine's cache and in staging at once."""
    loads = [load_of(step) for step in plan.steps if step.action is Action.INSTALL]
    if len(loads) < 2 or decided.planner.room.refusal(at_once(loads)) is not None:
        return False
    return decided.planner.room.links


def _work_beside(outcomes: Sequence[Outcome], later: Sequence[Package], decided: Decided) -> bool:
    """Whether other packages work, made before or provided by the platform."""
    fixed = (decided.planner.fixed[each.name] for each in later)
    return any(outcome.good for outcome in outcomes) or any(
        step.action is Action.PLATFORM for step in fixed
    )


def _needed_layers(good: Sequence[Outcome], progress: Progress) -> tuple[str, ...]:
    """Layers that a working package was proved over, in order."""
    needed = {name for o in good if o.status != "platform" for name in (*o.step.over, o.step.layer)}
    return tuple(name for name in progress.layers if name in needed)
