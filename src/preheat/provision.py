"""A cold start: the stages in order, from a manifest to a report.

probe, detect, resolve, size, plan, then for each package install, check, compile, prove and
publish; at the end everything is proved together and the pointer is left for the next start.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from preheat.account import Account, Active, Outcome, history_line, shadowed_modules
from preheat.decisions.detect import Sighting, find, unmet
from preheat.decisions.identity import verdict_key
from preheat.decisions.plan import Known, Planner, Progress, by_importance
from preheat.decisions.room import Room
from preheat.decisions.size import Measure
from preheat.edges import bootstrap, inventory, staging
from preheat.edges.engine import Engine, Source
from preheat.edges.fingerprint import Fingerprint, changes, fingerprint
from preheat.edges.lock_file import write_lock
from preheat.edges.pointer import Left, keep_report, leave_pointer
from preheat.edges.probe import probe, read_volumes
from preheat.edges.proof import Stack
from preheat.edges.store import LayerFacts, Store
from preheat.edges.watch import watch
from preheat.edges.wheels import Reader
from preheat.locks import Locks
from preheat.pace import Pace
from preheat.proving import Prover
from preheat.resolution import Question, composition, resolve
from preheat.seams import Listener
from preheat.words.engine import Request
from preheat.words.errors import InstallError, PlatformChangedError
from preheat.words.lock import Lock
from preheat.words.manifest import Package
from preheat.words.order import Order
from preheat.words.plan import Action, Plan, Step
from preheat.words.platform import Platform
from preheat.words.proof import Proof
from preheat.words.report import Report


@dataclass(frozen=True, kw_only=True)
class Decided:
    """All that is found out before anything is changed.

    Attributes:
        before: the platform's files, as they were found.
        unanswered: the index was silent about some packages.
        walls: what the solver said about each package that it refused.
    """

    platform: Platform
    before: Fingerprint
    planner: Planner
    engine: Engine
    request: Request
    prover: Prover
    unanswered: bool
    walls: dict[str, str]

    def outcome(self, step: Step) -> Outcome:
        """The outcome to begin with: as planned."""
        planned = Outcome.planned(step)
        planned.lasting = unmet(step.package.when, self.platform) is not None
        planned.trace = self.walls.get(step.package.name, "")
        return planned


class Provision:
    """One start. ``plan`` decides and changes nothing; ``warm`` does it."""

    def __init__(self, order: Order, listener: Listener) -> None:
        self.order = order
        self._pace = Pace(listener, order.settings.deadline)
        self._packages = by_importance(order.manifest.package)
        self._store = Store(order.settings.store)

    def plan(self) -> tuple[Plan, Report]:
        """The plan, and the report of a start that has not happened; nothing on disk changes.

        Raises:
            PreheatError: the platform or the lock is unusable.
        """
        with tempfile.TemporaryDirectory(prefix="preheat-plan-") as scratch:
            decided = self._decide(Path(scratch), cache=Path(scratch, "cache"), remember=False)
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
            with self._pace.stage("probe"):
                platform = probe(self.order.executable)
            cache = Path(scratch, "cache")
            engine = self._engine(platform, (), scratch=Path(scratch), cache=cache)
            with self._pace.stage("resolve"):
                found = resolve(
                    self._question(platform, self._packages), engine, self._reader(remember=False)
                )
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
        with self._store.stage() as scratch, self._store.engine_cache() as cache:
            decided = self._decide(scratch, cache=cache, remember=True)
            outcomes, progress = self._carry_out(decided)
            active = self._prove_together(decided, outcomes, progress)
            _refuse_changed_platform(decided)
            report = self._report(decided, outcomes, active)
            self._leave(decided, outcomes, report, active)
        self._store.append_history(history_line(report, begin))
        return report

    # What is decided

    def _decide(self, scratch: Path, *, cache: Path, remember: bool) -> Decided:
        settings = self.order.settings
        with self._pace.stage("probe"):
            platform = probe(self.order.executable)
            before = fingerprint(platform.interpreter.sites)
        places = {"store": settings.store, "cache": self._store.cache}
        volumes = read_volumes({**places, "temp": tempfile.gettempdir()})
        prover = Prover(self.order, self._store, self._pace, remember=remember)
        settled = self._settle(platform, prover)
        left = tuple(p for p in self._packages if p.name not in settled)
        engine = self._engine(platform, left, scratch=scratch, cache=cache)
        locks = Locks(
            order=self.order,
            store=self._store,
            pace=self._pace,
            reader=self._reader(remember=remember),
            remember=remember,
        )
        answer = locks.answer(self._question(platform, left), engine)
        for package in left:
            reason = (answer.resolution.refused | answer.unanswered).get(package.name)
            if reason:
                settled[package.name] = Step(package=package, action=Action.SKIP, reason=reason)
        taking_part = tuple(p for p in left if p.name not in settled)
        planner = Planner(
            composition=composition(answer.resolution, taking_part, platform),
            settled=settled,
            known=Known(layers=self._store.layers(), verdicts=prover.verdicts),
            room=Room(volumes=volumes, keep_free=settings.space.keep_free),
            measure=Measure.of(
                volumes[0], version=platform.interpreter.version, compiled=settings.compile
            ),
            compiled=settings.compile,
        )
        return Decided(
            platform=platform,
            before=before,
            planner=planner,
            engine=engine,
            request=answer.resolution.request,
            prover=prover,
            unanswered=bool(answer.unanswered),
            walls=answer.resolution.walls,
        )

    def _settle(self, platform: Platform, prover: Prover) -> dict[str, Step]:
        """Packages that need no layer: unwanted here, or provided by the platform and proved."""
        settled: dict[str, Step] = {}
        provided: list[Step] = []
        for package in self._packages:
            reason = unmet(package.when, platform)
            if reason:
                settled[package.name] = Step(package=package, action=Action.SKIP, reason=reason)
                continue
            finding = find(package, platform, _sighting(package, platform))
            if finding.present:
                step = Step(
                    package=package,
                    action=Action.PLATFORM,
                    reason=finding.reason,
                    version=finding.version,
                )
                provided.append(step)
        with self._pace.stage("detect"):
            proofs = prover.provided([step.package for step in provided], platform)
        for step in provided:
            proof = proofs[step.package.name]
            if proof.ok:
                settled[step.package.name] = step
            else:
                self._pace.listener.event(
                    "not-importable", package=step.package.name, reason=proof.reason
                )
        return settled

    def _question(self, platform: Platform, packages: tuple[Package, ...]) -> Question:
        return Question(
            manifest=self.order.manifest,
            packages=packages,
            platform=platform,
            protect=self.order.settings.protected,
        )

    def _engine(
        self, platform: Platform, packages: Sequence[Package], *, scratch: Path, cache: Path
    ) -> Engine:
        settings = self.order.settings

        def patience() -> float | None:
            left = [self._pace.left(package) for package in packages]
            return None if None in left else max((t for t in left if t is not None), default=None)

        source = Source(
            index=settings.index,
            timeout=settings.index_timeout,
            offline=settings.offline,
            patience=patience,
        )
        return Engine(platform, source, cache=cache, scratch=scratch)

    def _reader(self, *, remember: bool) -> Reader:
        settings = self.order.settings
        return Reader(
            self._store.contents,
            indexes=[*settings.index.extra, settings.index.url or ""],
            timeout=None if settings.offline else settings.index_timeout,
            remember=remember,
        )

    # What is done

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
        if self._is_late(step.package):
            self._skip_late(outcome)
            return
        layers = [*progress.layers, *([step.layer] if step.layer not in progress.layers else [])]
        key = verdict_key([name for name in layers if name], step.package, decided.platform)
        known = decided.prover.verdicts.get(key)
        if step.action is Action.REUSE and known is not None and known.ok:
            return
        try:
            if step.action is Action.INSTALL:
                proof = self._install(outcome, decided, progress)
            else:
                stack = self._stack(decided, [name for name in layers if name])
                proof = decided.prover.run([step.package], stack, decided.platform)[0]
        except InstallError as error:
            outcome.status, outcome.reason = "failed", error.message
            outcome.trace = str(error.data.get("wall", ""))
            if error.data.get("deadline"):
                self._skip_late(outcome)
            return
        outcome.seconds["prove"] = round(proof.seconds, 3)
        if not proof.ok and self._is_late(step.package):
            self._skip_late(outcome)
            return
        decided.prover.remember(key, proof)
        if not proof.ok:
            outcome.status, outcome.reason, outcome.trace = "failed", proof.reason, proof.trace

    def _is_late(self, package: Package) -> bool:
        left = self._pace.left(package)
        return left is not None and left <= 0

    def _skip_late(self, outcome: Outcome) -> None:
        """Only this start is in a hurry: the next one tries again."""
        outcome.status, outcome.remembered = "skipped", False
        outcome.reason = f"the deadline of {self._pace.deadline:g} s has passed"

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
            _refuse_changed_platform(decided)
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


def _refuse_changed_platform(decided: Decided) -> None:
    """Nothing is published beside a platform that is not as it was found.

    Raises:
        PlatformChangedError: with the first files that changed.
    """
    now = fingerprint(decided.platform.interpreter.sites)
    if now == decided.before:
        return
    found = changes(decided.before, now)
    raise PlatformChangedError(
        f"{len(found)} files of the platform changed during the start, {found[0]} first; "
        "nothing more is published",
        hint="stop whatever else writes to the platform, then start again",
        paths=found[:5],
    )


def _sighting(package: Package, platform: Platform) -> Sighting:
    path = platform.interpreter.path
    own = [platform.find(name) for name in package.names]
    return Sighting(
        resolvable={name: inventory.resolvable(name, path) for name in package.imports},
        truncated={d.name: inventory.truncated(d) for d in own if d is not None},
    )


def _needed_layers(good: Sequence[Outcome], progress: Progress) -> tuple[str, ...]:
    """Layers that a working package was proved over, in order."""
    needed = {name for o in good if o.status != "platform" for name in (*o.step.over, o.step.layer)}
    return tuple(name for name in progress.layers if name in needed)
