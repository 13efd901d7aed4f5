"""A cold start: the stages in order, from a manifest to a report.

probe, detect, resolve, size, plan, then for each package install, check, compile, prove and
publish; at the end everything is proved together and the pointer is left for the next start.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from preheat import resolution
from preheat.decisions.compose import Composition
from preheat.decisions.detect import Sighting, find, unmet
from preheat.decisions.fallback import best_lock
from preheat.decisions.identity import manifest_digest, platform_digest, verdict_key
from preheat.decisions.plan import Known, Planner, Progress, by_importance
from preheat.decisions.room import Room
from preheat.decisions.size import Measure
from preheat.edges import bootstrap, inventory, staging
from preheat.edges.engine import Engine, Source
from preheat.edges.fingerprint import Fingerprint, changes, fingerprint
from preheat.edges.lock_file import read_lock, write_lock
from preheat.edges.pointer import Left, keep_report, leave_pointer
from preheat.edges.probe import probe, read_volumes
from preheat.edges.proof import Limits, Stack, prove
from preheat.edges.store import LayerFacts, Store
from preheat.edges.watch import watch
from preheat.edges.wheels import Reader
from preheat.resolution import Question, Resolution
from preheat.seams import Listener
from preheat.words.errors import (
    InstallError,
    LockError,
    PlatformChangedError,
    ResolutionError,
)
from preheat.words.lock import Lock
from preheat.words.manifest import Manifest, Package
from preheat.words.plan import Action, Plan, Step, Verdict
from preheat.words.platform import Platform
from preheat.words.proof import Proof
from preheat.words.report import (
    PackageReport,
    PlatformReport,
    Report,
    Shadow,
    StageReport,
    Status,
    VolumeReport,
)
from preheat.words.settings import Settings

_STATUS: Mapping[Action, Status] = {
    Action.PLATFORM: "platform",
    Action.REUSE: "reused",
    Action.INSTALL: "installed",
    Action.SKIP: "skipped",
}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for.

    Attributes:
        manifest_file: where the manifest came from; the pointer is named by it.
        executable: the platform's interpreter.
        retry: failures that are remembered count no more, and versions are resolved anew.
        lock: a lock that must be used, or None.
    """

    manifest: Manifest
    settings: Settings
    manifest_file: Path
    executable: str
    retry: bool = False
    lock: Path | None = None


@dataclass(kw_only=True)
class Outcome:
    """What became of one package, while it is being found out."""

    step: Step
    status: Status
    reason: str
    actual: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    trace: str = ""
    remembered: bool = True
    """Whether the next start may go by it; False for what only this start's deadline decided."""
    lasting: bool = False
    """Whether it holds as long as manifest and platform do: a condition that is not met."""


class Provision:
    """One start. ``plan`` decides and changes nothing; ``warm`` does it."""

    def __init__(self, order: Order, listener: Listener) -> None:
        self.order = order
        self._listen = listener
        self._begin = time.perf_counter()
        self._started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._stages: list[StageReport] = []
        self._packages = by_importance(order.manifest.package)
        self._store = Store(order.settings.store)

    # The decision

    def plan(self) -> tuple[Plan, Report]:
        """The plan, and the report of a start that has not happened; nothing on disk changes."""
        with tempfile.TemporaryDirectory(prefix="preheat-plan-") as scratch:
            decided = self._decide(Path(scratch), cache=Path(scratch, "cache"), remember=False)
        plan = decided.planner.plan(self._packages)
        outcomes = [
            Outcome(step=step, status=_STATUS[step.action], reason=step.reason)
            for step in plan.steps
        ]
        return plan, self._report(decided, outcomes, Active())

    def lock(self, file: Path) -> Lock:
        """Resolves and writes the lock.

        Raises:
            ResolutionError: the index does not answer.
            StoreError: the file cannot be written.
        """
        with tempfile.TemporaryDirectory(prefix="preheat-lock-") as scratch:
            platform = self._probe()
            question = self._question(platform, self._packages)
            engine = self._engine(platform, Path(scratch), Path(scratch, "cache"))
            with self._stage("resolve"):
                answer = resolution.resolve(question, engine, self._reader(remember=False))
            write_lock(answer.lock, answer.contents, file)
        return answer.lock

    def _decide(self, scratch: Path, *, cache: Path, remember: bool) -> Decided:
        settings = self.order.settings
        platform = self._probe()
        volumes = read_volumes(
            {"store": str(settings.store), "cache": str(cache), "temp": tempfile.gettempdir()}
        )
        before = fingerprint(platform.interpreter.sites)
        verdicts = {} if self.order.retry else self._store.verdicts(time.time())
        settled = self._settle(platform, verdicts, remember=remember)
        left = tuple(p for p in self._packages if p.name not in settled)
        engine = self._engine(platform, scratch, cache)
        answer, trouble = self._resolution(platform, left, engine, remember=remember)
        for name, reason in (answer.refused | trouble).items():
            package = next((p for p in left if p.name == name), None)
            if package is not None:
                settled[name] = Step(package=package, action=Action.SKIP, reason=reason)
        taking_part = tuple(p for p in left if p.name not in settled)
        planner = Planner(
            composition=resolution.composition(answer, taking_part, platform),
            settled=settled,
            known=Known(layers=self._store.layers(), verdicts=_binding(verdicts, self._packages)),
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
            resolution=answer,
            unreachable=bool(trouble),
            verdicts=verdicts,
        )

    def _probe(self) -> Platform:
        with self._stage("probe"):
            return probe(self.order.executable)

    def _settle(
        self, platform: Platform, verdicts: Mapping[str, Verdict], *, remember: bool
    ) -> dict[str, Step]:
        """Packages that need no layer: unwanted here, or provided by the platform and proved."""
        settled: dict[str, Step] = {}
        provided: list[tuple[Package, Step]] = []
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
                provided.append((package, step))
        with self._stage("detect"):
            proofs = self._prove_provided([p for p, _ in provided], platform, verdicts, remember)
        for package, step in provided:
            if proofs[package.name].ok:
                settled[package.name] = step
            else:
                self._listen.event(
                    "not-importable", package=package.name, reason=proofs[package.name].reason
                )
        return settled

    def _prove_provided(
        self,
        packages: Sequence[Package],
        platform: Platform,
        verdicts: Mapping[str, Verdict],
        remember: bool,
    ) -> dict[str, Proof]:
        proofs = {}
        unknown = []
        for package in packages:
            known = verdicts.get(verdict_key((), package, platform))
            if known is None:
                unknown.append(package)
            else:
                proofs[package.name] = Proof(
                    package=package.name, ok=known.ok, reason=known.reason
                )
        if unknown:
            stack = Stack(interpreter=platform.interpreter, layers=())
            for proof in self._prove(unknown, stack, platform):
                proofs[proof.package] = proof
                if remember:
                    package = next(p for p in unknown if p.name == proof.package)
                    self._remember(verdict_key((), package, platform), proof)
        return proofs

    def _resolution(
        self, platform: Platform, left: tuple[Package, ...], engine: Engine, *, remember: bool
    ) -> tuple[Resolution, dict[str, str]]:
        """The lock that counts, and what cannot be had because the index does not answer."""
        question = self._question(platform, left)
        reader = self._reader(remember=remember)
        if self.order.lock is not None:
            lock = self._given_lock(self.order.lock, platform)
            return resolution.from_lock(lock, question, reader), {}
        kept_file = self._store.lock_file(
            manifest_digest(self.order.manifest), platform_digest(platform)
        )
        kept = self._kept_lock(kept_file)
        if kept is not None:
            return resolution.from_lock(kept, question, reader), {}
        empty = Lock(distributions=(), manifest="", platform="")
        if not left:
            return resolution.from_lock(empty, question, reader), {}
        try:
            with self._stage("resolve"):
                answer = resolution.resolve(question, engine, reader)
        except ResolutionError as error:
            if not error.data.get("unreachable"):
                raise
            self._listen.event("index-unreachable", reason=error.message)
            lock, missing = best_lock(left, platform, self._older_locks(platform)) or (
                empty,
                tuple(left),
            )
            reason = "the index cannot be reached and the store has no earlier resolution of it"
            if self.order.settings.offline:
                reason = "offline, and neither platform nor store has it"
            return (
                resolution.from_lock(lock, question, reader),
                {package.name: reason for package in missing},
            )
        if remember:
            write_lock(answer.lock, answer.contents, kept_file)
        return answer, {}

    def _given_lock(self, file: Path, platform: Platform) -> Lock:
        lock = read_lock(file)
        if lock.manifest != manifest_digest(self.order.manifest):
            raise LockError(
                f"{file} was made for another manifest", hint="make it again: preheat lock"
            )
        if lock.platform != platform_digest(platform):
            raise LockError(
                f"{file} was made for another platform (other Python, or other distributions)",
                hint="make it again on this platform: preheat lock",
            )
        return lock

    def _kept_lock(self, file: Path) -> Lock | None:
        """The resolution of an earlier start; one with refusals holds until they are retried."""
        if self.order.retry:
            return None
        try:
            lock = read_lock(file)
            age = time.time() - file.stat().st_mtime
        except (LockError, OSError):
            return None
        fresh = not lock.refused or age < self.order.settings.retry_after
        return lock if fresh or self.order.settings.offline else None

    def _older_locks(self, platform: Platform) -> list[Lock]:
        suffix = f"-{platform_digest(platform)[:16]}.toml"
        files = [f for f in (self._store.root / "locks").glob("*.toml") if f.name.endswith(suffix)]
        locks = []
        for file in sorted(files, key=lambda f: f.stat().st_mtime, reverse=True):
            with contextlib.suppress(LockError):
                locks.append(read_lock(file))
        return locks

    def _question(self, platform: Platform, packages: tuple[Package, ...]) -> Question:
        return Question(
            manifest=self.order.manifest,
            packages=packages,
            platform=platform,
            protect=self.order.settings.protected,
        )

    def _engine(self, platform: Platform, scratch: Path, cache: Path) -> Engine:
        settings = self.order.settings
        source = Source(
            index=settings.index, timeout=settings.index_timeout, offline=settings.offline
        )
        return Engine(platform, source, cache=cache, scratch=scratch)

    def _reader(self, *, remember: bool) -> Reader:
        settings = self.order.settings
        indexes = [*settings.index.extra, *([settings.index.url] if settings.index.url else [])]
        return Reader(
            self._store.contents,
            indexes=indexes,
            timeout=0 if settings.offline else settings.index_timeout,
            remember=remember,
        )

    # The deed

    def warm(self) -> Report:
        """Makes the packages ready and leaves the pointer.

        Raises:
            PreheatError: the store, the platform or the lock is unusable. A package that cannot
                be had raises nothing: the report says so.
        """
        self._store.prepare()
        with self._store.stage() as place, self._store.engine_cache() as cache:
            decided = self._decide(place, cache=cache, remember=True)
            outcomes, progress = self._carry_out(decided)
            active = self._prove_together(decided, outcomes, progress)
            if not fits_as_found(decided):
                raise_changed(decided)
            report = self._report(decided, outcomes, active)
            keep_report(
                self._store, self.order.manifest_file, decided.platform.interpreter, report
            )
            self._leave(decided, outcomes, report, active)
        self._store.append_history(_history_line(report))
        return report

    def _carry_out(self, decided: Decided) -> tuple[list[Outcome], Progress]:
        progress = Progress()
        outcomes = []
        self._announce(decided)
        for index, package in enumerate(self._packages):
            step = decided.planner.step(package, progress, self._packages[index + 1 :])
            outcome = Outcome(step=step, status=_STATUS[step.action], reason=step.reason)
            outcome.lasting = unmet(package.when, decided.platform) is not None
            if step.action in (Action.INSTALL, Action.REUSE):
                self._make_ready(outcome, decided, progress)
            if outcome.status in ("installed", "reused"):
                progress.accept(step)
            outcomes.append(outcome)
            self._listen.event(
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
        self._listen.event(
            "planned",
            install=[step.package.name for step in installs],
            download_mb=round(sum(step.download for step in installs) / 1e6, 1),
            disk_mb=round(sum(step.disk for step in installs) / 1e6, 1),
        )

    def _make_ready(self, outcome: Outcome, decided: Decided, progress: Progress) -> None:
        step = outcome.step
        left = self._time_left(step.package)
        if left is not None and left <= 0:
            outcome.status, outcome.remembered = "skipped", False
            outcome.reason = f"the deadline of {self.order.settings.deadline:g} s has passed"
            return
        key = verdict_key((*progress.layers, step.layer), step.package, decided.platform)
        known = decided.verdicts.get(key)
        if step.action is Action.REUSE and known is not None and known.ok:
            return
        try:
            if step.action is Action.INSTALL:
                proof = self._install(outcome, decided, progress, left)
            else:
                proof = self._prove_reused(step, decided, progress)
        except InstallError as error:
            outcome.status, outcome.reason = "failed", error.message
            outcome.trace = str(error.data.get("wall", ""))
            if error.data.get("deadline"):
                outcome.status, outcome.remembered = "skipped", False
            return
        outcome.seconds["prove"] = proof.seconds
        self._remember(key, proof)
        if not proof.ok:
            outcome.status, outcome.reason, outcome.trace = "failed", proof.reason, proof.trace

    def _install(
        self, outcome: Outcome, decided: Decided, progress: Progress, left: float | None
    ) -> Proof:
        step = outcome.step
        interpreter = decided.platform.interpreter
        composition = decided.planner.composition
        with self._store.stage() as place:
            target = place / "layer"
            target.mkdir()
            with self._timed(outcome, "install", step), self._watched(step):
                decided.engine.install(
                    step.distributions, target, decided.resolution.request, timeout=left
                )
                contents = [(d, composition.contents[d.name]) for d in step.distributions]
                staging.check(target, contents)
                scripts = staging.take_scripts(target)
            if self.order.settings.compile:
                with self._timed(outcome, "compile", step):
                    final = self._store.layer(step.layer)
                    staging.compile_bytecode(target, final, interpreter)
            hooked = staging.is_hooked(target)
            stack = self._stack(decided, progress, extra=(str(target), hooked))
            proof = self._prove([step.package], stack, decided.platform)[0]
            if not proof.ok:
                return proof
            if not fits_as_found(decided):
                raise_changed(decided)
            measured = staging.measure(target)
            outcome.actual = measured.disk
            facts = LayerFacts(
                digest=step.layer,
                package=step.package.name,
                distributions=tuple((d.name, d.version) for d in step.distributions),
                payload=measured.payload,
                disk=measured.disk,
                files=measured.files,
                hooked=hooked,
                scripts=scripts,
            )
            self._store.publish(target, facts)
        return proof

    def _prove_reused(self, step: Step, decided: Decided, progress: Progress) -> Proof:
        extra = None
        if step.layer and step.layer not in progress.layers:
            facts = self._store.facts(step.layer)
            extra = (str(self._store.layer(step.layer)), facts.hooked)
        stack = self._stack(decided, progress, extra=extra)
        return self._prove([step.package], stack, decided.platform)[0]

    def _stack(
        self, decided: Decided, progress: Progress, extra: tuple[str, bool] | None = None
    ) -> Stack:
        layers = [str(self._store.layer(name)) for name in progress.layers]
        hooked = [
            str(self._store.layer(name))
            for name in progress.layers
            if self._store.facts(name).hooked
        ]
        if extra is not None:
            layers.append(extra[0])
            hooked += [extra[0]] if extra[1] else []
        return Stack(
            interpreter=decided.platform.interpreter, layers=tuple(layers), hooked=tuple(hooked)
        )

    def _prove(
        self, packages: Sequence[Package], stack: Stack, platform: Platform
    ) -> tuple[Proof, ...]:
        """First without a GPU in sight; then, where there is one and a check asks, with it."""
        seconds = self.order.settings.import_timeout
        left = min((t for t in map(self._time_left, packages) if t is not None), default=None)
        if left is not None:
            seconds = max(1.0, min(seconds, left))
        proofs = {p.package: p for p in prove(packages, stack, Limits(seconds=seconds))}
        again = [p for p in packages if p.check_gpu and proofs[p.name].ok]
        if again and platform.accelerator.gpus:
            for proof in prove(again, stack, Limits(seconds=seconds, gpu=True)):
                proofs[proof.package] = proof
        return tuple(proofs[package.name] for package in packages)

    def _prove_together(
        self, decided: Decided, outcomes: list[Outcome], progress: Progress
    ) -> Active:
        """Every promised import once more, all in one process, on the exact final path.

        What fails here is taken off, from the last to the first, until the rest stands.
        """
        while True:
            good = [o for o in outcomes if o.status in ("platform", "reused", "installed")]
            layers = _needed_layers(good, progress)
            packages = [o.step.package for o in good]
            stack = self._stack(decided, Progress(layers=list(layers)))
            torch = ("torch",) if decided.platform.torch and layers else ()
            stack = replace(stack, platform_imports=torch)
            key = _together_key(layers, packages, decided.platform)
            known = decided.verdicts.get(key)
            if not layers or (known is not None and known.ok):
                break
            with self._stage("prove together"):
                proofs = self._prove(packages, stack, decided.platform)
            bad = {proof.package: proof for proof in proofs if not proof.ok}
            if not bad:
                self._remember(key, Proof(package="*", ok=True))
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

    def _remember(self, key: str, proof: Proof) -> None:
        expires = 0.0 if proof.ok else time.time() + self.order.settings.retry_after
        self._store.remember(
            Verdict(
                key=key,
                package=proof.package,
                ok=proof.ok,
                reason=proof.reason,
                seconds=round(proof.seconds, 3),
                expires=expires,
            )
        )

    def _time_left(self, package: Package) -> float | None:
        """Seconds until the deadline; a required package is waited for, however long it takes."""
        deadline = self.order.settings.deadline
        if deadline is None or package.required:
            return None
        return deadline - (time.perf_counter() - self._begin)

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        self._listen.progress(name, 0, 1)
        try:
            yield
        finally:
            seconds = time.perf_counter() - begin
            self._stages.append(StageReport(name=name, seconds=round(seconds, 3)))
            self._listen.progress(name, 1, 1)

    @contextlib.contextmanager
    def _timed(self, outcome: Outcome, name: str, step: Step) -> Iterator[None]:
        begin = time.perf_counter()
        label = f"{name} {step.package.name}"
        self._listen.progress(label, 0, max(1, step.disk))
        try:
            yield
        finally:
            outcome.seconds[name] = round(time.perf_counter() - begin, 3)
            self._listen.progress(label, 1, 1)

    def _watched(self, step: Step) -> contextlib.AbstractContextManager[None]:
        label, total = f"install {step.package.name}", max(2, step.disk)

        def filled(size: int) -> None:
            self._listen.progress(label, min(size, total - 1), total)

        return watch(str(self._store.root), filled)

    # The account

    def _report(
        self, decided: Decided, outcomes: Sequence[Outcome], active: Active
    ) -> Report:
        states = {o.step.package.name: o.status for o in outcomes}
        return Report(
            ready=all(
                o.status in ("platform", "reused", "installed")
                for o in outcomes
                if o.step.package.required
            ),
            warm=False,
            seconds=round(time.perf_counter() - self._begin, 3),
            packages=tuple(self._package_report(o) for o in outcomes),
            capabilities=_capabilities(self.order.manifest, states, decided.platform),
            paths=active.layers,
            volumes=self._volume_reports(decided),
            stages=tuple(self._stages),
            platform=_platform_report(decided.platform, self.order.settings.protected),
            started=self._started,
            store=str(self._store.root),
            bootstrap=active.bootstrap,
        )

    def _package_report(self, outcome: Outcome) -> PackageReport:
        step = outcome.step
        ready = outcome.status in ("reused", "installed")
        return PackageReport(
            name=step.package.name,
            status=outcome.status,
            required=step.package.required,
            version=step.version,
            reason=outcome.reason,
            layer=str(self._store.layer(step.layer)) if ready and step.layer else None,
            bytes_predicted=step.disk,
            bytes_actual=outcome.actual,
            download=step.download,
            payload=step.payload,
            exact=step.exact,
            distributions=tuple(f"{d.name}=={d.version}" for d in step.distributions),
            shadows=tuple(
                Shadow(name=name, platform=theirs, layer=ours)
                for name, theirs, ours in step.shadows
            ),
            seconds=outcome.seconds,
            trace=outcome.trace,
        )

    def _volume_reports(self, decided: Decided) -> tuple[VolumeReport, ...]:
        volumes = decided.planner.room.volumes
        after = read_volumes({volume.role: volume.path for volume in volumes})
        return tuple(
            VolumeReport(
                role=one.role,
                path=one.path,
                kind=one.kind,
                before=one.free,
                after=two.free,
                quota_known=one.quota_known,
            )
            for one, two in zip(volumes, after, strict=True)
        )

    def _leave(
        self, decided: Decided, outcomes: Sequence[Outcome], report: Report, active: Active
    ) -> None:
        """The pointer; it expires at once where the next start must not go by this one."""
        good = report.ready and all(o.remembered for o in outcomes) and not decided.unreachable
        passing = any(o.status in ("failed", "skipped") and not o.lasting for o in outcomes)
        expires = time.time() + self.order.settings.retry_after if passing else float("inf")
        leave_pointer(
            self._store,
            Left(
                manifest=self.order.manifest_file,
                interpreter=decided.platform.interpreter,
                report=report,
                hooked=active.hooked,
                bootstrap=active.bootstrap,
                shadowed=_shadowed_modules(outcomes, decided.planner.composition),
                expires=expires if good else 0.0,
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Decided:
    """All that was found out before anything is changed."""

    platform: Platform
    before: Fingerprint
    planner: Planner
    engine: Engine
    resolution: Resolution
    unreachable: bool
    verdicts: Mapping[str, Verdict]


@dataclass(frozen=True, kw_only=True)
class Active:
    """What goes on the path in the end."""

    layers: tuple[str, ...] = ()
    hooked: tuple[str, ...] = ()
    bootstrap: str = ""


def fits_as_found(decided: Decided) -> bool:
    """Whether the platform's files are as they were when the start began."""
    return fingerprint(decided.platform.interpreter.sites) == decided.before


def raise_changed(decided: Decided) -> None:
    """Refuses to go on.

    Raises:
        PlatformChangedError: with the first files that changed.
    """
    found = changes(decided.before, fingerprint(decided.platform.interpreter.sites))
    raise PlatformChangedError(
        f"{len(found)} files of the platform changed during the start, {found[0]} first; "
        "nothing more is published",
        hint="stop whatever else installs into the platform, then start again",
        paths=found[:5],
    )


def _sighting(package: Package, platform: Platform) -> Sighting:
    path = platform.interpreter.path
    own = [platform.find(requirement.name.lower()) for requirement in package.requirements]
    return Sighting(
        resolvable={name: inventory.resolvable(name, path) for name in package.imports},
        truncated={d.name: inventory.truncated(d) for d in own if d is not None},
    )


def _binding(
    verdicts: Mapping[str, Verdict], packages: Sequence[Package]
) -> dict[str, Verdict]:
    """A required package is tried at every start, whatever is remembered of it."""
    required = {package.name for package in packages if package.required}
    return {k: v for k, v in verdicts.items() if v.ok or v.package not in required}


def _needed_layers(good: Sequence[Outcome], progress: Progress) -> tuple[str, ...]:
    """Layers that a working package was proved over, in order."""
    needed = {name for o in good if o.status != "platform" for name in (*o.step.over, o.step.layer)}
    return tuple(name for name in progress.layers if name in needed)


def _together_key(
    layers: Sequence[str], packages: Sequence[Package], platform: Platform
) -> str:
    from preheat.decisions.identity import digest

    return digest([verdict_key(tuple(layers), package, platform) for package in packages])


def _capabilities(
    manifest: Manifest, states: Mapping[str, Status], platform: Platform
) -> dict[str, str | None]:
    """The first of each capability's packages that works; other names are the platform's own."""
    found: dict[str, str | None] = {}
    for capability, names in manifest.capabilities.items():
        found[capability] = next(
            (
                name
                for name in names
                if states.get(name) in ("platform", "reused", "installed")
                or (name not in states and platform.find(name) is not None)
            ),
            None,
        )
    return found


def _platform_report(platform: Platform, protect: tuple[str, ...]) -> PlatformReport:
    from preheat.decisions.protect import protected

    interpreter = platform.interpreter
    return PlatformReport(
        python=interpreter.version,
        executable=interpreter.executable,
        abi=interpreter.abi,
        libc=interpreter.libc,
        torch=platform.torch.version if platform.torch else None,
        cuda=platform.torch.cuda if platform.torch else None,
        driver=platform.accelerator.driver,
        gpus=tuple(f"{g.name} ({g.compute_capability})" for g in platform.accelerator.gpus),
        distributions=sum(d.state.present for d in platform.distributions),
        leftovers=tuple(
            f"{left.name}: {left.state.value}" + (f" ({left.missing[0]})" if left.missing else "")
            for left in platform.leftovers
        ),
        protected=protected(platform, protect),
    )


def _shadowed_modules(
    outcomes: Sequence[Outcome], composition: Composition
) -> tuple[str, ...]:
    """Import names of platform distributions that a layer hides."""
    names: set[str] = set()
    for outcome in outcomes:
        if outcome.status not in ("reused", "installed"):
            continue
        for name, _, _ in outcome.step.shadows:
            names |= {
                path.split("/")[0].removesuffix(".py")
                for path, _ in composition.contents[name].files
                if path.endswith(".py") and path.count("/") <= 1
            }
    return tuple(sorted(name for name in names if name.isidentifier()))


def _history_line(report: Report) -> dict[str, object]:
    return {
        "started": report.started,
        "ready": report.ready,
        "warm": report.warm,
        "seconds": report.seconds,
        "packages": {package.name: package.status for package in report.packages},
    }
