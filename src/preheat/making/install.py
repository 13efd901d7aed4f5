"""One package after the other: claimed, installed, checked, compiled, proved, published."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from preheat.decisions.building import lacking, target_of
from preheat.decisions.identity import verdict_key
from preheat.decisions.plan import Progress
from preheat.edges.cleaning.layers import available
from preheat.edges.disk.atomic import failed, refusal
from preheat.edges.disk.deletion import erase
from preheat.edges.index.wheels import Reader
from preheat.edges.platform.fatbin import device_code
from preheat.edges.process.clock import Clock
from preheat.edges.store import staged_layer
from preheat.edges.store.staging import Staging
from preheat.edges.store.store import Store
from preheat.making.fetch import Ahead, Arrived, Fetcher
from preheat.planning.state import Decided
from preheat.proving.stack import loads, stack_of, with_staged
from preheat.words.errors import InstallError, PackError, StoreError
from preheat.words.layer import LayerFacts
from preheat.words.outcome import Outcome
from preheat.words.plan import Action, Step
from preheat.words.proof import Proof

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class Installer:
    """Brings packages to their proof, for one start.

    Attributes:
        fetcher: how they come into staging.
        staging: this start's own.
        ahead: what was fetched before its turn.
        proofs: those that were made before their turn, by the keys of their verdicts; None for one
            that says little and is to be made again.
        last: whether nothing is to be made after this one.
        only: whether nothing works beside it either.
    """

    fetcher: Fetcher
    staging: Staging
    ahead: Ahead
    proofs: Mapping[str, Proof | None] = field(default_factory=dict)
    last: bool = False
    only: bool = False

    @property
    def store(self) -> Store:
        """Where layers are published."""
        return self.fetcher.store

    @property
    def clock(self) -> Clock:
        """The clock of this start."""
        return self.fetcher.clock

    @property
    def decided(self) -> Decided:
        """What was found out."""
        return self.fetcher.decided

    def with_built(self, outcome: Outcome, progress: Progress, reader: Reader) -> Decided:
        """Has what the step lacks built; what fails is written into its outcome."""
        decided, step = self.decided, outcome.step
        layers = [*progress.layers, step.layer]
        for source in decided.unbuilt(step):
            if skip_late(self.clock, outcome):
                break
            try:
                with (
                    self._claimed(source.key, step) as claimed,
                    self.clock.part("build", step.package.name, outcome.seconds),
                ):
                    kept = decided.builder.kept_of(source)
                    if kept is None and claimed:
                        kept = decided.builder.build(
                            source, decided.engine, decided.request, self.staging
                        )
            except (InstallError, StoreError, OSError) as error:
                failure = _failure(self.store.root, error)
                self._fail(outcome, failure, verdict_key(layers, step.package, decided.platform))
                break
            if kept is None:
                skip_late(self.clock, outcome)
                break
            decided = decided.with_wheel(source, kept, reader)
        return decided

    def make_ready(self, outcome: Outcome, progress: Progress) -> None:
        """Brings one package to its proof; what fails is written into its outcome."""
        step = outcome.step
        if step.action not in (Action.INSTALL, Action.REUSE):
            return
        layers = [*progress.layers, *([step.layer] if step.layer not in progress.layers else [])]
        names = [name for name in layers if name]
        key = verdict_key(names, step.package, self.decided.platform)
        try:
            if step.layer:
                # What was not foreseen, since another package failed, is held from here on.
                self.staging.lease.add(step.layer)
            if step.action is Action.REUSE:
                self._bring(outcome)
                self._reuse(outcome, names, key)
                self._pack(outcome)
            elif self.proofs.get(key) or not skip_late(self.clock, outcome):
                # What was proved before the deadline is not late for having waited for others.
                self._make(outcome, progress, names, key)
        except (InstallError, StoreError, OSError) as error:
            # A damaged pack is gone by now: planned again, it is a layer like one that never was.
            outcome.damaged = isinstance(error, PackError)
            self._fail(outcome, _failure(self.store.root, error), key)
        finally:
            if not self.ahead.begun:
                # Else others are being linked from there; all of it goes in the end.
                self.staging.give_back_archives()

    def _make(self, outcome: Outcome, progress: Progress, layers: Sequence[str], key: str) -> None:
        fetched = self.ahead.take(outcome.step)
        if fetched is not None:
            outcome.seconds |= fetched.seconds
            if self.last:
                self.ahead.give_back()
            with fetched.held:
                place = fetched.place
                proof = self.proofs.get(key) or self._prove(outcome, progress, place)
                self._judge(outcome, self._finish(outcome, proof, place, fetched.arrived), key)
            return
        with self._claimed(outcome.step.layer, outcome.step) as claimed:
            if not claimed and skip_late(self.clock, outcome):
                return
            if not self._is_made(outcome, key):
                self._judge(outcome, self._install(outcome, progress), key)
            elif outcome.good:
                self._bring(outcome)
                self._reuse(outcome, layers, key)

    # Others at the same work

    @contextlib.contextmanager
    def _claimed(self, key: str, step: Step) -> Iterator[bool]:
        """Ours to make; waited for, while another start makes it, as long as the deadline lets."""
        told = False

        def wait(seconds: float) -> bool:
            nonlocal told
            if not told:
                self.clock.listener.event("waiting", package=step.package.name, layer=step.layer)
                told = True
            self.clock.listener.progress(f"wait for another start: {step.package.name}", 0, 1)
            return not self.clock.why_late(step.package)

        with self.staging.claims.claimed(key, wait) as claimed:
            if told:
                self.clock.listener.progress(f"wait for another start: {step.package.name}", 1, 1)
            yield claimed

    def _is_made(self, outcome: Outcome, key: str) -> bool:
        """Whether another start has made the layer since ours planned, or failed to."""
        step = outcome.step
        if step.layer in available(self.store):
            reason = "another start has just made its layer"
            outcome.step = replace(step, action=Action.REUSE, reason=reason)
            outcome.status, outcome.reason = "reused", reason
            return True
        verdict = self.decided.prover.of_another(key)
        if verdict is None or verdict.ok:
            return False
        outcome.status, outcome.reason = "failed", verdict.reason
        return True

    def _bring(self, outcome: Outcome) -> None:
        """Unpacks its layer to the local disk, where that is not done yet."""
        step = outcome.step
        if not step.layer or step.layer in self.store.layers():
            return
        with self.clock.part("unpack", step.package.name, outcome.seconds):
            facts = self.store.unpack(
                step.layer, self.staging, lambda seconds: not self.clock.why_late(step.package)
            )
            outcome.actual = facts.disk

    def _reuse(self, outcome: Outcome, layers: Sequence[str], key: str) -> None:
        prover = self.decided.prover
        known = prover.verdicts.get(key) or prover.of_another(key)
        if known is not None and known.ok:
            return
        made = self.proofs.get(key)
        if made is not None:
            self._judge(outcome, made, key)
            return
        if skip_late(self.clock, outcome):
            return
        with self.clock.part("prove", outcome.step.package.name, {}):
            stack = stack_of(self.store, self.decided.platform.interpreter, layers)
            needed = loads(outcome.step, self.store.layer(outcome.step.layer))
            proof = prover.run(
                [outcome.step.package], replace(stack, loads=needed), self.decided.platform
            )[0]
        self._judge(outcome, proof, key)

    # Making it ourselves

    def _fail(self, outcome: Outcome, error: InstallError, key: str) -> None:
        outcome.status, outcome.reason = "failed", error.message
        outcome.trace = str(error.data.get("output", ""))
        outcome.short_of_space = bool(error.data.get("full")) or self._is_full()
        if skip_late(self.clock, outcome):
            return
        if outcome.short_of_space:
            outcome.status = "skipped"
            outcome.reason = f"the disk, or a quota on it, was full: {error.message}"
            # The engine fetches again what it still needs; what is to be written now is small.
            self.ahead.drop()
            erase(self.staging.cache)
        elif error.data.get("passing"):
            outcome.remembered = False
        else:
            if error.data.get("changed") and self.decided.lock is not None:
                # The index serves another archive by now: the next start asks it what it has.
                outcome.remembered = False
                erase(self.decided.lock)
            failure = Proof(package=outcome.step.package.name, ok=False, reason=error.message)
            self.decided.prover.remember(key, failure)

    def _is_full(self) -> bool:
        """Whether it was the disk, whatever the engine took it for."""
        if refusal(self.staging.place) in _FULL:
            return True
        volumes = self.decided.planner.room.volumes
        # The first one is where layers are made.
        known = volumes[0].quota_known
        return not known and staged_layer.is_hollow(self.staging.cache)

    def _judge(self, outcome: Outcome, proof: Proof, key: str) -> None:
        outcome.seconds["prove"] = round(proof.seconds, 3)
        if not proof.ok and skip_late(self.clock, outcome):
            return
        self.decided.prover.remember(key, proof)
        if not proof.ok:
            outcome.status, outcome.reason, outcome.trace = "failed", proof.reason, proof.trace

    def _install(self, outcome: Outcome, progress: Progress) -> Proof:
        """Into staging, and on from there."""
        step = outcome.step
        with self.staging.directory(f"layer-{step.layer[:16]}") as target:
            with self.clock.part("install", step.package.name, outcome.seconds):
                arrived = self.fetcher.fetch(step, target)
            proof = self._prove(outcome, progress, target)
            return self._finish(outcome, proof, target, arrived)

    def prepare(self, step: Step, place: Path, seconds: dict[str, float]) -> None:
        """Makes a checked layer in staging what can be proved.

        Args:
            step: what it is for.
            place: where it lies.
            seconds: how long that takes is added to them.

        Raises:
            InstallError: it is for other GPUs, or the disk is full.
        """
        if step.bytecode == "all":
            with self.clock.part("compile", step.package.name, seconds):
                final = self.store.layer(step.layer)
                staged_layer.compile_bytecode(place, final, self.decided.platform.interpreter)
        self._refuse_other_gpus(step, place)

    def _prove(self, outcome: Outcome, progress: Progress, target: Path) -> Proof:
        """Alone, over what was made before."""
        step = outcome.step
        self.prepare(step, target, outcome.seconds)
        beneath = stack_of(self.store, self.decided.platform.interpreter, progress.layers)
        stack = with_staged(beneath, step, target, self.store)
        prover, platform = self.decided.prover, self.decided.platform
        with self.clock.part("prove", step.package.name, {}):
            if self.only:
                return prover.only(step.package, stack, step.layer, platform)
            return prover.run([step.package], stack, platform)[0]

    def _finish(self, outcome: Outcome, proof: Proof, target: Path, arrived: Arrived) -> Proof:
        """Publishes what was proved."""
        step = outcome.step
        outcome.fetched += arrived.fetched
        if not proof.ok:
            # The staged path is gone when somebody reads this.
            here = f"{target}/"
            return replace(
                proof,
                reason=proof.reason.replace(here, ""),
                trace=proof.trace.replace(here, ""),
            )
        if proof.unwritten:
            # A layer without a part of its bytecode would be slow for ever, and say nothing of it.
            raise InstallError(
                f"bytecode was not written whole: {proof.unwritten}", passing=True, full=True
            )
        self.ahead.sync(target)
        self.decided.refuse_changed_platform()
        measured = staged_layer.measure(target)
        self.ahead.wait_until_synced()
        outcome.actual = measured.disk
        facts = LayerFacts(
            digest=step.layer,
            package=step.package.name,
            distributions=tuple((d.name, d.version) for d in step.distributions),
            payload=measured.payload,
            disk=measured.disk,
            files=measured.files,
            has_pth=staged_layer.has_pth(target),
            scripts=arrived.scripts,
            links=tuple((e.path, e.target) for e in step.links if (target / e.path).is_symlink()),
        )
        self.store.publish(target, facts)
        self._pack(outcome)
        return proof

    def _refuse_other_gpus(self, step: Step, target: Path) -> None:
        """A wheel for other GPUs imports here, and fails when it is called.

        Raises:
            InstallError: with the architectures that it was compiled for.
        """
        if step.package.build_isolation:
            return
        wanted = target_of(self.decided.platform, step.package.build_limits).capabilities
        own = sorted(file for file in target.rglob("*.so") if not file.is_symlink())
        why = lacking(device_code(own), wanted)
        if why:
            raise InstallError(f"{step.package.name} {why}")

    def _pack(self, outcome: Outcome) -> None:
        """For the next worker, where the volume has no pack of the layer yet.

        One that cannot take it costs that worker's speed, not this start.
        """
        step = outcome.step
        if not self.store.packed or not step.layer or self._is_kept(step.layer):
            return
        size = self.store.facts(step.layer).disk
        reason = f"it does not fit on the volume of {self.store.root}"
        if self.decided.measured_anew().planner.room.takes_packs(size):
            try:
                with self.clock.part("pack", step.package.name, outcome.seconds):
                    file = self.store.pack(step.layer)
                if refusal(file.parent) not in _FULL:
                    return
                # What is small is still to be written: verdicts, the pointer.
                with contextlib.suppress(OSError):
                    file.unlink()
            except StoreError as error:
                reason = error.message
        self.clock.listener.event("not-packed", package=step.package.name, reason=reason)

    def _is_kept(self, digest: str) -> bool:
        image = self.store.image
        in_image = image is not None and image.witness(digest).is_file()
        return in_image or self.store.packs.place(digest).exists()


def skip_late(clock: Clock, outcome: Outcome) -> bool:
    """Only this start is in a hurry: the next one tries again."""
    late = clock.why_late(outcome.step.package)
    if late:
        outcome.status, outcome.reason, outcome.remembered = "skipped", late, False
    return late is not None


def _failure(store: Path, error: InstallError | StoreError | OSError) -> InstallError:
    """A disk that refused in the middle is this start's trouble, and not the package's."""
    if isinstance(error, InstallError):
        return error
    if isinstance(error, StoreError):
        return InstallError(error.message, hint=error.hint, passing=True)
    known = failed(store, error)
    full = error.errno in _FULL
    return InstallError(known.message, hint=known.hint, passing=True, full=full)
