"""One package after the other: claimed, installed, checked, compiled, proved, published."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from preheat.account import Outcome
from preheat.deciding import Decided
from preheat.decisions.identity import verdict_key
from preheat.decisions.plan import Progress
from preheat.edges import staging as staged
from preheat.edges.collecting import available
from preheat.edges.deletion import erase
from preheat.edges.disk import failed, refusal
from preheat.edges.proof import Stack
from preheat.edges.store import LayerFacts, Staging, Store
from preheat.edges.watch import Gauge, watch
from preheat.pace import Pace
from preheat.words.errors import InstallError, StoreError
from preheat.words.order import Order
from preheat.words.plan import Action, Step
from preheat.words.proof import Proof

_MB = 1e6
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class Installer:
    """Brings packages to their proof, for one start.

    Attributes:
        decided: what was found out; its room may be measured anew in between.
        staging: this start's own.
    """

    order: Order
    store: Store
    pace: Pace
    staging: Staging
    decided: Decided

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
                self._reuse(outcome, names, key)
            elif not self.skip_late(outcome):
                self._make(outcome, progress, names, key)
        except InstallError as error:
            self._fail(outcome, error, key)
        except StoreError as error:
            self._fail(outcome, InstallError(error.message, hint=error.hint, passing=True), key)
        except OSError as error:
            self._fail(outcome, _disk_error(self.store.root, error), key)
        finally:
            self.staging.give_back_archives()

    def _make(self, outcome: Outcome, progress: Progress, layers: Sequence[str], key: str) -> None:
        with self._claimed(outcome.step) as claimed:
            if not claimed and self.skip_late(outcome):
                return
            if not self._is_made(outcome, key):
                self._judge(outcome, self._install(outcome, progress), key)
            elif outcome.good:
                self._reuse(outcome, layers, key)

    def stack(self, layers: Sequence[str]) -> Stack:
        """Published layers as they lie on a path."""
        return Stack(
            interpreter=self.decided.platform.interpreter,
            layers=tuple(str(self.store.layer(name)) for name in layers),
            hooked=tuple(
                str(self.store.layer(name)) for name in layers if self.store.facts(name).hooked
            ),
        )

    def skip_late(self, outcome: Outcome) -> bool:
        """Only this start is in a hurry: the next one tries again."""
        late = self.pace.late(outcome.step.package)
        if late:
            outcome.status, outcome.reason, outcome.remembered = "skipped", late, False
        return late is not None

    # Others at the same work

    @contextlib.contextmanager
    def _claimed(self, step: Step) -> Iterator[bool]:
        """Ours to make; waited for, while another start makes it, as long as the deadline lets."""
        told = False

        def wait(seconds: float) -> bool:
            nonlocal told
            if not told:
                self.pace.listener.event("waiting", package=step.package.name, layer=step.layer)
                told = True
            self.pace.listener.progress(f"wait for another start: {step.package.name}", 0, 1)
            return not self.pace.late(step.package)

        with self.staging.claims.claimed(step.layer, wait) as claimed:
            if told:
                self.pace.listener.progress(f"wait for another start: {step.package.name}", 1, 1)
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

    def _reuse(self, outcome: Outcome, layers: Sequence[str], key: str) -> None:
        prover = self.decided.prover
        known = prover.verdicts.get(key) or prover.of_another(key)
        if known is not None and known.ok:
            return
        if self.skip_late(outcome):
            return
        with self.pace.part("prove", outcome.step.package.name, {}):
            proof = prover.run([outcome.step.package], self.stack(layers), self.decided.platform)[0]
        self._judge(outcome, proof, key)

    # Making it ourselves

    def _fail(self, outcome: Outcome, error: InstallError, key: str) -> None:
        outcome.status, outcome.reason = "failed", error.message
        outcome.trace = str(error.data.get("wall", ""))
        outcome.short_of_space = bool(error.data.get("full")) or self._is_full()
        if self.skip_late(outcome):
            return
        if outcome.short_of_space:
            outcome.status = "skipped"
            outcome.reason = f"the disk, or a quota on it, was full: {error.message}"
            # The engine fetches again what it still needs; what is to be written now is small.
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
        known = all(volume.quota_known for volume in volumes if volume.role == "store")
        return not known and staged.is_hollow(self.staging.cache)

    def _judge(self, outcome: Outcome, proof: Proof, key: str) -> None:
        outcome.seconds["prove"] = round(proof.seconds, 3)
        if not proof.ok and self.skip_late(outcome):
            return
        self.decided.prover.remember(key, proof)
        if not proof.ok:
            outcome.status, outcome.reason, outcome.trace = "failed", proof.reason, proof.trace

    def _install(self, outcome: Outcome, progress: Progress) -> Proof:
        """Into staging, checked, compiled, proved, published."""
        step = outcome.step
        name = step.package.name
        interpreter = self.decided.platform.interpreter
        with self.staging.directory(f"layer-{step.layer[:16]}") as target:
            with self.pace.part("install", name, outcome.seconds), self._watched(step):
                self.decided.engine.install(
                    step.distributions,
                    target,
                    self.decided.request,
                    timeout=self.pace.left(step.package),
                )
                contents = self.decided.planner.composition.contents
                staged.check(target, [(d, contents[d.name]) for d in step.distributions])
                scripts = staged.take_scripts(target)
            if step.bytecode == "all":
                with self.pace.part("compile", name, outcome.seconds):
                    final = self.store.layer(step.layer)
                    staged.compile_bytecode(target, final, interpreter)
            hooked = staged.is_hooked(target)
            proof = self._prove_staged(step, target, progress, hooked=hooked)
            if not proof.ok:
                # The staged path is gone when somebody reads this.
                here = f"{target}/"
                return replace(
                    proof,
                    reason=proof.reason.replace(here, ""),
                    trace=proof.trace.replace(here, ""),
                )
            self.decided.refuse_changed_platform()
            measured = staged.measure(target)
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
            self.store.publish(target, facts)
        return proof

    def _prove_staged(self, step: Step, target: Path, progress: Progress, *, hooked: bool) -> Proof:
        stack = self.stack(progress.layers)
        stack = replace(
            stack,
            layers=(*stack.layers, str(target)),
            hooked=(*stack.hooked, *([str(target)] if hooked else [])),
            kept=(str(target), str(self.store.layer(step.layer)))
            if step.bytecode == "imported"
            else None,
        )
        with self.pace.part("prove", step.package.name, {}):
            return self.decided.prover.run([step.package], stack, self.decided.platform)[0]

    def _watched(self, step: Step) -> contextlib.AbstractContextManager[None]:
        """Tells how far it is; stops it where something else eats the disk meanwhile."""
        label, total = f"install {step.package.name}", max(2, step.disk)
        # It was planned to leave twice that; what the plan did not know of has taken it.
        least = self.order.settings.space.keep_free // 2

        def told(size: int, free: int) -> None:
            self.pace.listener.progress(label, min(size, total - 1), total, free=free)

        def short(free: int) -> None:
            self.decided.engine.interrupt(
                InstallError(
                    f"something else has taken space from {self.store.root}: stopped with "
                    f"{free / _MB:,.0f} MB left",
                    passing=True,
                    full=True,
                )
            )

        place = str(self.store.root)
        return watch(Gauge(place=place, told=told, least=least, short=short))


def _disk_error(store: Path, error: OSError) -> InstallError:
    """A disk that refused in the middle: this start's trouble, and not the package's."""
    known: StoreError = failed(store, error)
    full = error.errno in _FULL
    return InstallError(known.message, hint=known.hint, passing=True, full=full)
