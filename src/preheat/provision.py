"""A cold start: the stages in order, from a manifest to a report.

probe, detect, resolve, size, plan, then for each package install, check, compile, prove and
publish; at the end everything is proved together and the pointer is left for the next start.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from preheat.account import Account, Active, Outcome, history_line, shadowed_modules
from preheat.deciding import Decided, Decision, Workplace
from preheat.decisions.plan import Progress, by_importance, load_of
from preheat.edges import bootstrap
from preheat.edges.cleaning import Cleaner, Shortage
from preheat.edges.collecting import drop_void_mark
from preheat.edges.deletion import erase
from preheat.edges.disk import answering
from preheat.edges.lock_file import write_lock
from preheat.edges.pointer import Left, keep_report, leave_pointer
from preheat.edges.probe import read_volumes
from preheat.edges.store import Staging, Store
from preheat.installing import Installer
from preheat.pace import Pace
from preheat.seams import Listener
from preheat.words.errors import StoreError
from preheat.words.lock import Lock
from preheat.words.order import Order
from preheat.words.plan import Action, Plan
from preheat.words.report import Report

# Cleaning and planning anew ends after that many shortages in one start.
_TRIES_FOR_SPACE = 3


class Provision:
    """One start. ``plan`` decides and changes nothing; ``warm`` does it."""

    def __init__(self, order: Order, listener: Listener) -> None:
        self.order = order
        self._pace = Pace(listener, order.settings.deadline)
        self._packages = by_importance(order.manifest.package)
        self._store = Store(order.settings.store)
        self._decision = Decision(order, self._store, self._pace)

    def plan(self) -> tuple[Plan, Report]:
        """The plan, and the report of a start that has not happened; nothing on disk changes.

        Raises:
            PreheatError: the platform or the lock is unusable.
        """
        with (
            answering(self._store.root),
            tempfile.TemporaryDirectory(prefix="preheat-plan-") as scratch,
        ):
            decided = self._decision.decide(_throwaway(scratch))
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
            with self._store.begin() as staging:
                self._take_over(staging)
                decided = self._decide(staging)
                decided, outcomes, progress = self._carry_out(decided, staging)
                active = self._prove_together(self._installer(decided, staging), outcomes, progress)
                decided.refuse_changed_platform()
                report = self._report(decided, outcomes, active)
            # Last of all, with nothing left to remove: a start that ends before is cold again.
            self._leave(decided, outcomes, report, active)
            # History is nobody's need: a disk that takes no more of it does not undo a start.
            with contextlib.suppress(OSError, StoreError):
                self._store.append_history(history_line(report, begin))
        return report

    # What is done

    def _take_over(self, staging: Staging) -> None:
        """What a killed start had fetched helps this one; what else it left goes."""
        adopted = any(staging.adopt_cache(dead) for dead in self._store.unreferenced_staging())
        self._store.drop_staging()
        staging.claims.prune()
        if not adopted:
            return
        low = self._free() < self.order.settings.space.clean_below
        if not low:
            # Deciding twice costs little: the resolution of the first time is kept.
            with staging.directory("first-look") as scratch:
                decided = self._decision.decide(_workplace(staging, scratch))
            low = bool(decided.planner.shortages(self._packages))
        if low:
            erase(staging.cache)
            self._pace.listener.event("cleaned", tier="what a killed start had fetched")

    def _decide(self, staging: Staging) -> Decided:
        scratch = staging.place / "engine"
        scratch.mkdir()
        decided = self._make_room(self._decision.decide(_workplace(staging, scratch)), staging)
        # From here on it is known which layers no collector may take from us.
        staging.lease.hold(decided.planner.layers(self._packages))
        return decided

    def _make_room(self, decided: Decided, staging: Staging) -> Decided:
        """Below the threshold, or where something does not fit, caches go before packages do."""
        below = self.order.settings.space.clean_below
        shortages = [
            Shortage(path=Path(need.path), bytes=need.bytes + need.reserve, inodes=need.inodes)
            for need in decided.planner.shortages(self._packages)
        ]
        if self._free() < below:
            shortages.append(Shortage(path=self._store.root, bytes=below))
        return self._clean(shortages, decided, staging) if shortages else decided

    def _clean(self, shortages: Sequence[Shortage], decided: Decided, staging: Staging) -> Decided:
        cleaner = Cleaner(
            store=self._store,
            extra=self.order.settings.space.clean,
            sites=decided.platform.interpreter.sites,
            spared=decided.planner.layers(self._packages),
            staging=staging,
        )
        for shortage in shortages:
            # Where a write was refused and statvfs shows room, a quota is full: it cannot be seen.
            freed = cleaner.clean() if shortage.over else cleaner.until_over(shortage)
            for name, size in freed.tiers:
                self._pace.listener.event("cleaned", tier=name, mb=round(size / 1e6, 1))
        return decided.measured_anew()

    def _after_shortage(
        self, decided: Decided, staging: Staging, outcome: Outcome, progress: Progress
    ) -> Decided:
        """Planned again with what is left, after what can go has gone."""
        progress.measured_anew()
        self._pace.listener.event(
            "short-of-space", package=outcome.step.package.name, reason=outcome.reason
        )
        shortages = [
            Shortage(path=Path(need.path), bytes=need.bytes + need.reserve, inodes=need.inodes)
            for need in decided.planner.room.needs(load_of(outcome.step))
            if need.bytes
        ]
        return self._clean(shortages, decided, staging)

    def _free(self) -> int:
        return read_volumes({"store": self._store.root})[0].free

    def _carry_out(
        self, decided: Decided, staging: Staging
    ) -> tuple[Decided, list[Outcome], Progress]:
        progress = Progress()
        outcomes = []
        tries_left = _TRIES_FOR_SPACE
        self._announce(decided)
        for index, package in enumerate(self._packages):
            later = self._packages[index + 1 :]
            while True:
                outcome = decided.outcome(decided.planner.step(package, progress, later))
                self._installer(decided, staging).make_ready(outcome, progress)
                if not outcome.short_of_space or not tries_left:
                    break
                tries_left -= 1
                decided = self._after_shortage(decided, staging, outcome, progress)
            if outcome.short_of_space:
                # What is smaller may still fit.
                progress.measured_anew()
                room = decided.measured_anew().planner.room
                decided = decided.with_room(room.without_room_for(load_of(outcome.step)))
            if outcome.status in ("installed", "reused"):
                progress.accept(outcome.step)
            outcomes.append(outcome)
            self._pace.listener.event(
                outcome.status,
                package=package.name,
                version=outcome.step.version,
                reason=outcome.reason,
                mb=round(outcome.actual / 1e6, 1),
                seconds=round(sum(outcome.seconds.values()), 2),
            )
        return decided, outcomes, progress

    def _installer(self, decided: Decided, staging: Staging) -> Installer:
        return Installer(
            order=self.order,
            store=self._store,
            pace=self._pace,
            staging=staging,
            decided=decided,
        )

    def _announce(self, decided: Decided) -> None:
        plan = decided.planner.plan(self._packages)
        installs = [step for step in plan.steps if step.action is Action.INSTALL]
        self._pace.listener.event(
            "planned",
            install=[step.package.name for step in installs],
            download_mb=round(sum(step.download for step in installs) / 1e6, 1),
            disk_mb=round(sum(step.disk for step in installs) / 1e6, 1),
        )

    def _prove_together(
        self, installer: Installer, outcomes: Sequence[Outcome], progress: Progress
    ) -> Active:
        """Every promised import once more, all in one process, on the exact final path.

        What fails here is taken off, and the rest is proved again until it stands.
        """
        decided = installer.decided
        while True:
            good = [outcome for outcome in outcomes if outcome.good]
            layers = _needed_layers(good, progress)
            stack = installer.stack(layers)
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
                    installer.skip_late(outcome)
        scripts: dict[str, str] = {}
        for name in layers:
            for script, target in self._store.facts(name).scripts:
                scripts.setdefault(script, target)
        activated = bootstrap.Activated(
            layers=stack.layers, hooked=stack.hooked, scripts=tuple(sorted(scripts.items()))
        )
        place = bootstrap.make(self._store, decided.platform.interpreter, activated)
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
        return account.report(self._pace, self._store)

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
                expires=expires if good else 0.0,
            ),
        )


def _throwaway(scratch: str) -> Workplace:
    """A workplace of which nothing stays."""
    return Workplace(scratch=Path(scratch), cache=Path(scratch, "cache"))


def _workplace(staging: Staging, scratch: Path) -> Workplace:
    return Workplace(scratch=scratch, cache=staging.cache, staging=staging)


def _needed_layers(good: Sequence[Outcome], progress: Progress) -> tuple[str, ...]:
    """Layers that a working package was proved over, in order."""
    needed = {name for o in good if o.status != "platform" for name in (*o.step.over, o.step.layer)}
    return tuple(name for name in progress.layers if name in needed)
