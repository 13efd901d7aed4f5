"""One package after the other: claimed, installed, checked, compiled, proved, published."""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass, replace
from pathlib import Path

from preheat.decisions.building import lacking, target_of
from preheat.decisions.identity import verdict_key
from preheat.edges.cleaning.layers import available
from preheat.edges.disk.atomic import failed, refusal
from preheat.edges.disk.deletion import erase
from preheat.edges.platform.fatbin import device_code
from preheat.edges.platform.fingerprint import refuse_changes
from preheat.edges.process.clock import Clock
from preheat.edges.store import staged_layer
from preheat.edges.store.store import Store
from preheat.making.fetch import Arrived, Fetcher, Wanted
from preheat.making.room import measured_anew
from preheat.making.run import Run
from preheat.planning.session import Session, claimed
from preheat.proving.stack import loads, stack_of, with_staged
from preheat.proving.trial import Trial
from preheat.words.errors import (
    ArchiveChanged,
    DiskFull,
    InstallError,
    PackError,
    StoreError,
    Transient,
)
from preheat.words.layer import LayerFacts
from preheat.words.outcome import Cause, Outcome
from preheat.words.plan import Action, Step
from preheat.words.proof import Proof

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Installer:
    """Brings packages to their proof, one startup's after the other.

    Attributes:
        session: of the startup.
        fetcher: how they come into staging.
        run: how far the startup has come.
    """

    session: Session
    fetcher: Fetcher
    run: Run

    def build_missing(self, outcome: Outcome) -> bool:
        """Has what the step lacks built; what fails is written into its outcome.

        Returns:
            Whether there are wheels now that were not there when the step was planned.
        """
        session, step, builder = self.session, outcome.step, self.run.state.builder
        built = False
        for source in self.run.state.unbuilt(step):
            if skip_late(session.clock, outcome):
                break
            try:
                with (
                    self._claimed(source.key, step) as ours,
                    session.clock.part("build", step.package.name, outcome.seconds),
                ):
                    kept = builder.kept_of(source)
                    if kept is None and ours:
                        kept = builder.build(source, self.run.state.request)
            except (InstallError, StoreError, OSError) as error:
                self._fail(outcome, error)
                break
            if kept is None:
                skip_late(session.clock, outcome)
                break
            wheel = replace(source.locked, archive=kept.archive)
            held = session.built_reader.read([wheel])
            self.run.state = self.run.state.with_wheel(source, kept, held)
            built = True
        return built

    def make_ready(self, outcome: Outcome) -> None:
        """Brings one package to its proof; what fails is written into its outcome."""
        step, staging = outcome.step, self.session.own_staging
        if step.action not in (Action.INSTALL, Action.REUSE):
            return
        try:
            if step.layer:
                # What was not foreseen, since another package failed, is held from here on.
                staging.lease.add(step.layer)
            if step.action is Action.REUSE:
                self._bring(outcome)
                self._reuse(outcome)
                self._pack(outcome)
            elif self._proved_before(step) or not skip_late(self.session.clock, outcome):
                # What was proved before the deadline is not late for having waited for others.
                self._make(outcome)
        except (InstallError, StoreError, OSError) as error:
            self._fail(outcome, error)
        finally:
            if not self.run.ahead.begun:
                # Else others are being linked from there; all of it goes in the end.
                staging.give_back_archives()

    def prepare(self, step: Step, place: Path, seconds: dict[str, float]) -> None:
        """Makes a checked layer in staging what can be proved.

        Args:
            step: what it is for.
            place: where it lies.
            seconds: how long that takes is added to them.

        Raises:
            InstallError: it is for other GPUs.
            DiskFull: there is no room for its bytecode.
        """
        if step.bytecode == "all":
            with self.session.clock.part("compile", step.package.name, seconds):
                final = self.session.store.layer(step.layer)
                interpreter = self.run.state.platform.interpreter
                staged_layer.compile_bytecode(place, final, interpreter)
        self._refuse_other_gpus(step, place)

    def key(self, step: Step) -> str:
        """Of the verdict about its package, over the layers so far and its own."""
        return verdict_key(self.run.layers_with(step.layer), step.package, self.run.state.platform)

    def _proved_before(self, step: Step) -> Proof | None:
        return self.run.proofs.get(self.key(step))

    def _make(self, outcome: Outcome) -> None:
        step, ahead = outcome.step, self.run.ahead
        fetched = ahead.take(step)
        if fetched is not None:
            outcome.seconds |= fetched.seconds
            if self.run.is_last(step.package):
                ahead.give_back()
            with fetched.held:
                proof = self._proved_before(step) or self._prove(outcome, fetched.place)
                self._judge(outcome, self._finish(outcome, proof, fetched.place, fetched.arrived))
            return
        with self._claimed(step.layer, step) as ours:
            if not ours and skip_late(self.session.clock, outcome):
                return
            if not self._is_made(outcome):
                self._judge(outcome, self._install(outcome))
            elif outcome.good:
                self._bring(outcome)
                self._reuse(outcome)

    # Others at the same work

    def _claimed(self, key: str, step: Step) -> contextlib.AbstractContextManager[bool]:
        """Ours to make; waited for, while another startup makes it, up to the deadline."""
        return claimed(self.session, key, [step.package], step.layer)

    def _is_made(self, outcome: Outcome) -> bool:
        """Whether another startup has made the layer since ours planned, or failed to."""
        step = outcome.step
        if step.layer in available(self.session.store):
            reason = "another start has just made its layer"
            outcome.step = replace(step, action=Action.REUSE, reason=reason)
            outcome.status, outcome.reason = "reused", reason
            return True
        verdict = self.session.prover.of_another(self.key(step))
        if verdict is None or verdict.ok:
            return False
        outcome.fail(verdict.reason)
        return True

    def _bring(self, outcome: Outcome) -> None:
        """Unpacks its layer to the local disk, where that is not done yet."""
        step = outcome.step
        clock, store = self.session.clock, self.session.store
        if not step.layer or step.layer in store.layers():
            return
        with clock.part("unpack", step.package.name, outcome.seconds):
            staging = self.session.own_staging
            facts = store.unpack(
                step.layer, staging, lambda seconds: not clock.why_late(step.package)
            )
            outcome.actual = facts.disk

    def _reuse(self, outcome: Outcome) -> None:
        """Proves it, where nobody has over these layers."""
        step, prover, key = outcome.step, self.session.prover, self.key(outcome.step)
        known = prover.verdicts.get(key) or prover.of_another(key)
        if known is not None and known.ok:
            return
        proof = self._proved_before(step)
        if proof is None:
            if skip_late(self.session.clock, outcome):
                return
            store, platform = self.session.store, self.run.state.platform
            with self.session.clock.part("prove", step.package.name, {}):
                stack = stack_of(store, platform.interpreter, self.run.layers_with(step.layer))
                stack = replace(stack, loads=loads(step, store.layer(step.layer)))
                proof = self._alone(Trial(packages=(step.package,), stack=stack, platform=platform))
        self._judge(outcome, proof)

    # Making it ourselves

    def _fail(self, outcome: Outcome, error: InstallError | StoreError | OSError) -> None:
        """Writes down what stood in the way; the package's own failure is remembered."""
        failure, session = _failure(self.session.store.root, error), self.session
        outcome.fail(failure.message, trace=failure.output)
        if not skip_late(session.clock, outcome):
            if isinstance(failure, DiskFull) or self._is_full():
                why = f"the disk, or a quota on it, was full: {failure.message}"
                outcome.skip(why, Cause.NO_ROOM)
                # The engine fetches again what it still needs; what is to be written now is small.
                self.run.ahead.drop()
                erase(session.cache)
            elif isinstance(failure, Transient):
                outcome.cause = Cause.TRANSIENT
            else:
                if isinstance(failure, ArchiveChanged) and self.run.state.lock is not None:
                    # The next startup asks the index what it has by now.
                    outcome.cause = Cause.ARCHIVE_CHANGED
                    erase(self.run.state.lock)
                proof = Proof(package=outcome.step.package.name, ok=False, reason=failure.message)
                session.prover.remember(self.key(outcome.step), proof)
        if isinstance(error, PackError):
            outcome.cause = Cause.PACK

    def _is_full(self) -> bool:
        """Whether it was the disk, whatever the engine took it for."""
        staging = self.session.own_staging
        if refusal(staging.place) in _FULL:
            return True
        # The first one is where layers are made.
        known = self.run.state.room.volumes[0].quota_known
        return not known and staged_layer.is_hollow(staging.cache)

    def _judge(self, outcome: Outcome, proof: Proof) -> None:
        outcome.seconds["prove"] = round(proof.seconds, 3)
        if not proof.ok and skip_late(self.session.clock, outcome):
            return
        self.session.prover.remember(self.key(outcome.step), proof)
        if not proof.ok:
            outcome.fail(proof.reason, trace=proof.trace)

    def _install(self, outcome: Outcome) -> Proof:
        """Into staging, and on from there."""
        step = outcome.step
        wanted = Wanted(step=step, contents=self.run.state.contents(step))
        with self.session.own_staging.directory(f"layer-{step.layer[:16]}") as target:
            with self.session.clock.part("install", step.package.name, outcome.seconds):
                arrived = self.fetcher.fetch(wanted, target)
            proof = self._prove(outcome, target)
            return self._finish(outcome, proof, target, arrived)

    def _prove(self, outcome: Outcome, target: Path) -> Proof:
        """Alone, over what was made before."""
        step, run, store = outcome.step, self.run, self.session.store
        self.prepare(step, target, outcome.seconds)
        platform = run.state.platform
        beneath = stack_of(store, platform.interpreter, run.progress.layers)
        stack = with_staged(beneath, step, target, store)
        with self.session.clock.part("prove", step.package.name, {}):
            # What no other works beside is proved together with all others by the same process.
            trial = Trial(
                packages=(step.package,),
                stack=stack,
                platform=platform,
                with_torch=run.is_only(step.package),
            )
            return self._alone(trial)

    def _alone(self, trial: Trial) -> Proof:
        (package,) = trial.packages
        return self.session.prover.prove(trial)[package.name]

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
            raise DiskFull(f"bytecode was not written whole: {proof.unwritten}")
        self.run.ahead.sync(target)
        state = self.run.state
        refuse_changes(state.before, state.platform.interpreter.sites)
        measured = staged_layer.measure(target)
        self.run.ahead.wait_until_synced()
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
        self.session.store.publish(target, facts)
        self._pack(outcome)
        return proof

    def _refuse_other_gpus(self, step: Step, target: Path) -> None:
        """A wheel for other GPUs imports here, and fails when it is called.

        Raises:
            InstallError: with the architectures that it was compiled for.
        """
        if step.package.build_isolation:
            return
        wanted = target_of(self.run.state.platform, step.package.build_limits).capabilities
        own = sorted(file for file in target.rglob("*.so") if not file.is_symlink())
        why = lacking(device_code(own), wanted)
        if why:
            raise InstallError(f"{step.package.name} {why}")

    def _pack(self, outcome: Outcome) -> None:
        """For the next worker, where the volume has no pack of the layer yet.

        One that cannot take it costs that worker's speed, not this startup.
        """
        step, store = outcome.step, self.session.store
        if not store.packed or not step.layer or _is_kept(store, step.layer):
            return
        size = store.facts(step.layer).disk
        reason = f"it does not fit on the volume of {store.root}"
        if measured_anew(self.run.state).room.takes_packs(size):
            try:
                with self.session.clock.part("pack", step.package.name, outcome.seconds):
                    file = store.pack(step.layer)
                if refusal(file.parent) not in _FULL:
                    return
                # What is small is still to be written: verdicts, the pointer.
                with contextlib.suppress(OSError):
                    file.unlink()
            except StoreError as error:
                reason = error.message
        self.session.clock.listener.event("not-packed", package=step.package.name, reason=reason)


def _is_kept(store: Store, digest: str) -> bool:
    """Whether the volume or the image has the layer already."""
    image = store.image
    in_image = image is not None and image.witness(digest).is_file()
    return in_image or store.packs.place(digest).exists()


def skip_late(clock: Clock, outcome: Outcome) -> bool:
    """Whether the deadline has passed: then it is left out, and the next startup tries it."""
    late = clock.why_late(outcome.step.package)
    if late:
        outcome.skip(late, Cause.DEADLINE)
    return late is not None


def _failure(store: Path, error: InstallError | StoreError | OSError) -> InstallError:
    """A disk that refused in the middle is this startup's trouble, and not the package's."""
    if isinstance(error, InstallError):
        return error
    if isinstance(error, StoreError):
        return Transient(error.message, hint=error.hint)
    known = failed(store, error)
    kind = DiskFull if error.errno in _FULL else Transient
    return kind(known.message, hint=known.hint)
