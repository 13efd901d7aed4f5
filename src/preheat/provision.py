"""A cold start: the stages in order, from a manifest to a report.

probe, detect, resolve, size, plan, then for each package install, check, compile, prove and
publish; at the end everything is proved together and the pointer is left for the next start.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from preheat.account import Account, Active, Outcome, history_line, shadowed_modules
from preheat.deciding import Decided, Decision, Workplace
from preheat.decisions.identity import verdict_key
from preheat.decisions.plan import Progress, by_importance
from preheat.edges import bootstrap, staging
from preheat.edges.cleaning import CACHE, Cleaner
from preheat.edges.lock_file import write_lock
from preheat.edges.pointer import Left, keep_report, leave_pointer
from preheat.edges.probe import read_volumes
from preheat.edges.proof import Stack
from preheat.edges.store import LayerFacts, Store
from preheat.edges.watch import watch
from preheat.pace import Pace
from preheat.seams import Listener
from preheat.words.errors import InstallError
from preheat.words.lock import Lock
from preheat.words.order import Order
from preheat.words.plan import Action, Plan, Step
from preheat.words.proof import Proof
from preheat.words.report import Report


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
        with tempfile.TemporaryDirectory(prefix="preheat-plan-") as scratch:
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
        with tempfile.TemporaryDirectory(prefix="preheat-lock-") as scratch:
            found = self._decision.resolve(_throwaway(scratch))
            write_lock(found.lock, found.contents, file)
        return found.lock

    def warm(self) -> Report:
        """Makes the packages ready and leaves the pointer.

        Raises:
            PreheatError: the store, the platform or the lock is unusable. A package that cannot
                be had raises nothing: the report says so.
        """
        begin = time.time()
        self._store.prepare()
        self._give_up_leftovers()
        with self._store.stage() as scratch, self._store.engine_cache() as cache:
            workplace = Workplace(scratch=scratch, cache=cache, lasting=True)
            decided = self._make_room(self._decision.decide(workplace))
            outcomes, progress = self._carry_out(decided)
            active = self._prove_together(decided, outcomes, progress)
            decided.refuse_changed_platform()
            report = self._report(decided, outcomes, active)
            self._leave(decided, outcomes, report, active)
        self._store.append_history(history_line(report, begin))
        return report

    # What is done

    def _give_up_leftovers(self) -> None:
        """What a killed start left in the engine's cache helps this one, where there is room."""
        if self._store.cache_is_empty():
            return
        low = self._free() < self.order.settings.space.clean_below
        if not low:
            # Deciding twice costs little: the resolution of the first time is kept.
            with self._store.stage() as scratch, self._store.engine_cache(keep=True) as cache:
                workplace = Workplace(scratch=scratch, cache=cache, lasting=True)
                decided = self._decision.decide(workplace)
            low = decided.planner.wanted(self._packages) is not None
        if low and self._store.drop_cache():
            self._pace.listener.event("cleaned", tier=CACHE.name)

    def _make_room(self, decided: Decided) -> Decided:
        """Below the threshold, or where something does not fit, caches go before packages do."""
        below = self.order.settings.space.clean_below
        wanted = decided.planner.wanted(self._packages) or 0
        if self._free() >= max(wanted, below):
            return decided
        cleaner = Cleaner(
            store=self._store,
            extra=self.order.settings.space.clean,
            sites=decided.platform.interpreter.sites,
        )
        freed = cleaner.until_free(max(wanted, below))
        for name, size in freed.tiers:
            self._pace.listener.event("cleaned", tier=name, mb=round(size / 1e6, 1))
        room = decided.planner.room
        volumes = read_volumes({volume.role: volume.path for volume in room.volumes})
        planner = replace(decided.planner, room=replace(room, volumes=volumes))
        return replace(decided, planner=planner)

    def _free(self) -> int:
        return read_volumes({"store": self._store.root})[0].free

    def _carry_out(self, decided: Decided) -> tuple[list[Outcome], Progress]:
        progress = Progress()
        outcomes = []
        self._announce(decided)
        for index, package in enumerate(self._packages):
            step = decided.planner.step(package, progress, self._packages[index + 1 :])
            outcome = decided.outcome(step)
            if step.action in (Action.INSTALL, Action.REUSE):
                self._make_ready(outcome, decided, progress)
            if outcome.status in ("installed", "reused"):
                progress.accept(step)
            outcomes.append(outcome)
            self._pace.listener.event(
                outcome.status,
                package=package.name,
                version=step.version,
                reason=outcome.reason,
                mb=round(outcome.actual / 1e6, 1),
                seconds=round(sum(outcome.seconds.values()), 2),
            )
        return outcomes, progress

    def _announce(self, decided: Decided) -> None:
        plan = decided.planner.plan(self._packages)
        installs = [step for step in plan.steps if step.action is Action.INSTALL]
        self._pace.listener.event(
            "planned",
            install=[step.package.name for step in installs],
            download_mb=round(sum(step.download for step in installs) / 1e6, 1),
            disk_mb=round(sum(step.disk for step in installs) / 1e6, 1),
        )

    def _make_ready(self, outcome: Outcome, decided: Decided, progress: Progress) -> None:
        """Brings one package to its proof; what fails is written into its outcome."""
        step = outcome.step
        layers = [*progress.layers, *([step.layer] if step.layer not in progress.layers else [])]
        key = verdict_key([name for name in layers if name], step.package, decided.platform)
        known = decided.prover.verdicts.get(key)
        if step.action is Action.REUSE and known is not None and known.ok:
            return
        if self._skip_late(outcome):
            return
        try:
            if step.action is Action.INSTALL:
                proof = self._install(outcome, decided, progress)
            else:
                stack = self._stack(decided, [name for name in layers if name])
                with self._pace.part("prove", step.package.name, {}):
                    proof = decided.prover.run([step.package], stack, decided.platform)[0]
        except InstallError as error:
            outcome.status, outcome.reason = "failed", error.message
            outcome.trace = str(error.data.get("wall", ""))
            if self._skip_late(outcome):
                return
            if error.data.get("passing"):
                outcome.remembered = False
            else:
                failed = Proof(package=step.package.name, ok=False, reason=error.message)
                decided.prover.remember(key, failed)
            return
        outcome.seconds["prove"] = round(proof.seconds, 3)
        if not proof.ok and self._skip_late(outcome):
            return
        decided.prover.remember(key, proof)
        if not proof.ok:
            outcome.status, outcome.reason, outcome.trace = "failed", proof.reason, proof.trace

    def _skip_late(self, outcome: Outcome) -> bool:
        """Only this start is in a hurry: the next one tries again."""
        late = self._pace.late(outcome.step.package)
        if late:
            outcome.status, outcome.reason, outcome.remembered = "skipped", late, False
        return late is not None

    def _install(self, outcome: Outcome, decided: Decided, progress: Progress) -> Proof:
        """Into staging, checked, compiled, proved, published."""
        step = outcome.step
        name = step.package.name
        interpreter = decided.platform.interpreter
        with self._store.stage() as place:
            target = place / "layer"
            target.mkdir()
            with self._pace.part("install", name, outcome.seconds), self._watched(step):
                decided.engine.install(
                    step.distributions,
                    target,
                    decided.request,
                    timeout=self._pace.left(step.package),
                )
                contents = decided.planner.composition.contents
                staging.check(target, [(d, contents[d.name]) for d in step.distributions])
                scripts = staging.take_scripts(target)
            if self.order.settings.compile:
                with self._pace.part("compile", name, outcome.seconds):
                    final = self._store.layer(step.layer)
                    staging.compile_bytecode(target, final, interpreter)
            hooked = staging.is_hooked(target)
            stack = self._stack(decided, progress.layers)
            stack = replace(
                stack,
                layers=(*stack.layers, str(target)),
                hooked=(*stack.hooked, *([str(target)] if hooked else [])),
            )
            with self._pace.part("prove", name, {}):
                proof = decided.prover.run([step.package], stack, decided.platform)[0]
            if not proof.ok:
                # The staged path is gone when somebody reads this.
                here = f"{target}/"
                return replace(
                    proof,
                    reason=proof.reason.replace(here, ""),
                    trace=proof.trace.replace(here, ""),
                )
            decided.refuse_changed_platform()
            measured = staging.measure(target)
            outcome.actual = measured.disk
            facts = LayerFacts(
                digest=step.layer,
                package=name,
                distributions=tuple((d.name, d.version) for d in step.distributions),
                payload=measured.payload,
                disk=measured.disk,
                files=measured.files,
                hooked=hooked,
                scripts=scripts,
            )
            self._store.publish(target, facts)
        return proof

    def _watched(self, step: Step) -> contextlib.AbstractContextManager[None]:
        label, total = f"install {step.package.name}", max(2, step.disk)

        def filled(size: int) -> None:
            self._pace.listener.progress(label, min(size, total - 1), total)

        return watch(str(self._store.root), filled)

    def _stack(self, decided: Decided, layers: Sequence[str]) -> Stack:
        return Stack(
            interpreter=decided.platform.interpreter,
            layers=tuple(str(self._store.layer(name)) for name in layers),
            hooked=tuple(
                str(self._store.layer(name)) for name in layers if self._store.facts(name).hooked
            ),
        )

    def _prove_together(
        self, decided: Decided, outcomes: Sequence[Outcome], progress: Progress
    ) -> Active:
        """Every promised import once more, all in one process, on the exact final path.

        What fails here is taken off, and the rest is proved again until it stands.
        """
        while True:
            good = [outcome for outcome in outcomes if outcome.good]
            layers = _needed_layers(good, progress)
            stack = self._stack(decided, layers)
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
                    self._skip_late(outcome)
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
    return Workplace(scratch=Path(scratch), cache=Path(scratch, "cache"), lasting=False)


def _needed_layers(good: Sequence[Outcome], progress: Progress) -> tuple[str, ...]:
    """Layers that a working package was proved over, in order."""
    needed = {name for o in good if o.status != "platform" for name in (*o.step.over, o.step.layer)}
    return tuple(name for name in progress.layers if name in needed)
