"""Proofs, and the verdicts that spare them the next time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from preheat.decisions.coupling import explained
from preheat.decisions.identity import verdict_key
from preheat.decisions.preload import in_any_order, missed, same_over
from preheat.edges.process.clock import Clock
from preheat.edges.proof.provided_names import brought
from preheat.edges.proof.runner import Limits, Preloaded, Stack, prove, prove_until_failure
from preheat.edges.store.staging import Staging
from preheat.edges.store.store import Store
from preheat.proving.trial import TORCH, Trial, torch_over
from preheat.words.errors import StoreError
from preheat.words.manifest import Package
from preheat.words.order import Order
from preheat.words.plan import Verdict
from preheat.words.platform import Platform
from preheat.words.proof import Brought, Libraries, Looked, Proof


class TorchAhead:
    """The platform's torch, imported while there are no layers yet to prove it over.

    Args:
        order: how long an import may take.
        staging: of the startup; what torch writes goes there.
    """

    def __init__(self, order: Order, staging: Staging) -> None:
        self._limits = Limits(seconds=order.settings.import_timeout, place=staging.place)
        self._begun = False
        self._process: Preloaded | None = None
        self._looked: Looked | None = None

    def begin(self, platform: Platform) -> None:
        """Begins to import it, where the platform has one; once in its life."""
        if platform.torch and not self._begun:
            self._begun = True
            executable = platform.interpreter.executable
            self._process = Preloaded(executable, ["torch"], self._limits)

    def looked(self) -> Looked | None:
        """What torch looked for, once it is imported; None where nothing can go on from there."""
        if self._process is not None and self._looked is None:
            self._looked = self._process.looked()
            if self._looked is None:
                self.close()
        return self._looked

    def take(self) -> Preloaded | None:
        """The process, for one proof; whoever takes it closes it."""
        process, self._process, self._looked = self._process, None, None
        return process

    def close(self) -> None:
        """Ends it, where nobody has taken it."""
        process = self.take()
        if process is not None:
            process.close()


class Prover:
    """Proves packages over layers on one platform, and remembers what came of it.

    Args:
        order: limits, and how long a failure is remembered.
        store: where verdicts are kept.
        clock: the clock; a proof ends with the deadline.
        staging: of the startup. What packages write goes there, so that nothing of one that is
            killed stays in TMPDIR. None for a plan, which writes no verdict either.

    Attributes:
        torch: the platform's, imported before it is needed; None where nobody has it imported.
    """

    def __init__(self, order: Order, store: Store, clock: Clock, staging: Staging | None) -> None:
        self.torch: TorchAhead | None = None
        self._settings = order.settings
        self._store = store
        self._clock = clock
        self._remembers = staging is not None
        self._place = staging.place if staging else None
        self._begin = time.time()
        self._anew = order.retry
        self._libraries: dict[str, Libraries] = {}
        self._stand: set[str] = set()
        self._hangs: dict[str, Proof] = {}
        self._order = order

    @cached_property
    def verdicts(self) -> Mapping[str, Verdict]:
        """What earlier startups proved, as it was when this one first asked, by key."""
        if self._anew:
            return {}
        return _binding(self._store.verdicts.standing(time.time()), self._order.manifest.package)

    def of_another(self, key: str) -> Verdict | None:
        """What another startup has proved since this one began."""
        verdict = None if self._anew else self._store.verdicts.get(key)
        if verdict is None or verdict.ok:
            return verdict
        made = verdict.expires - self._settings.retry_after
        return verdict if made >= self._begin else None

    def provided(self, packages: Sequence[Package], platform: Platform) -> dict[str, Proof]:
        """Whether the platform's own packages really import, by name."""
        proofs = {}
        unknown = []
        for package in packages:
            known = self.verdicts.get(verdict_key((), package, platform))
            if known is None:
                unknown.append(package)
            else:
                proofs[package.name] = Proof(package=package.name, ok=known.ok, reason=known.reason)
        if unknown:
            stack = Stack(interpreter=platform.interpreter, layers=())
            trial = Trial(packages=tuple(unknown), stack=stack, platform=platform)
            found = self.prove(trial)
            for package in unknown:
                proof = proofs[package.name] = found[package.name]
                if proof.ok or not self._clock.why_late(package):
                    self.remember(verdict_key((), package, platform), proof)
        return proofs

    def prove(self, trial: Trial) -> dict[str, Proof]:
        """Imports everything in a fresh interpreter, and checks it; proofs by name.

        First without a GPU in sight; then, where there is one and a check asks, with it. The proof
        of torch is among them where the trial wants it. Of a trial that can be stopped, proofs end
        with the first failure.

        Raises:
            Cancelled: nobody waits for it any more.
        """
        limits = replace(self._limits(trial.wanted), stop=trial.stop)
        attempt = prove if trial.stop is None else prove_until_failure
        found = {p.package: p for p in attempt(trial.wanted, trial.stack, limits)}
        if trial.stop is None or all(proof.ok for proof in found.values()):
            good = [package for package in trial.on_gpus if found[package.name].ok]
            if good:
                again = attempt(good, trial.stack, replace(limits, gpu=True))
                found |= {proof.package: proof for proof in again}
        self._note(trial, found)
        return {name: explained(proof, trial.platform) for name, proof in found.items()}

    def failing_together(self, trial: Trial) -> dict[str, Proof]:
        """What fails of packages that are to work together with the platform's torch, by name.

        What is known is not proved again, and a process that has imported torch already goes on
        where it serves. Where torch imports alone but not over the layers, the last package is to
        blame.
        """
        key = trial.key
        known = self.verdicts.get(key) or self.of_another(key)
        if key in self._stand or (known is not None and known.ok):
            return {}
        if key in self._hangs:
            # To wait for it once is enough.
            return {self._hangs[key].package: self._hangs[key]}
        with self._clock.stage("prove together"):
            proofs = self._after_torch(trial) or self.prove(trial)
            bad = {p.name: proofs[p.name] for p in trial.packages if not proofs[p.name].ok}
            torch = proofs.get(TORCH)
            if torch is not None and not torch.ok and not bad and self._torch_imports(trial):
                blamed = trial.packages[-1].name
                bad[blamed] = replace(torch, package=blamed)
        if not bad:
            self._stands(key)
        return bad

    def _note(self, trial: Trial, found: Mapping[str, Proof]) -> None:
        """What a later trial need not find out again."""
        if len(trial.packages) == 1:
            self._libraries |= {p.package: p.libraries for p in found.values() if p.ok}
        bad = next((proof for proof in found.values() if not proof.ok), None)
        if trial.with_torch and bad is None:
            self._stands(trial.key)
        elif trial.stop is not None and bad is not None and bad.late and bad.package != TORCH:
            self._hangs[trial.key] = bad

    def _stands(self, key: str) -> None:
        if key not in self._stand:
            self._stand.add(key)
            self.remember(key, Proof(package="*", ok=True))

    def _limits(self, packages: Sequence[Package]) -> Limits:
        seconds = self._settings.import_timeout
        left = [self._clock.left(package) for package in packages]
        if None not in left:
            seconds = max(1.0, min(seconds, *(time for time in left if time is not None)))
        return Limits(seconds=seconds, place=self._place)

    def forget_torch(self) -> None:
        """Ends what is imported ahead, where nothing is made that it could be proved with."""
        if self.torch is not None:
            self.torch.close()

    def torch_serves(self, trial: Trial) -> bool:
        """Whether the process that has imported torch already may serve that trial.

        Not where that may be something else than importing torch over the layers.
        """
        looked = self.torch.looked() if self.torch else None
        return looked is not None and not trial.on_gpus and same_over(looked, _brought(trial))

    def _after_torch(self, trial: Trial) -> dict[str, Proof]:
        """Proofs by the process that has imported the platform's torch already.

        Empty where it does not serve, or where anything fails: a fresh interpreter tells then.
        """
        serves = self.torch_serves(trial)
        looked = self.torch.looked() if self.torch and serves else None
        process = self.torch.take() if self.torch else None
        if process is None:
            return {}
        with contextlib.closing(process):
            alone = [self._libraries.get(each.name) for each in trial.wanted[:-1]]
            known = [libraries for libraries in alone if libraries is not None]
            if looked is None or len(known) < len(alone):
                return {}
            if not in_any_order(looked.libraries, known):
                return {}
            first, limits = missed(looked, _brought(trial)), self._limits(trial.wanted)
            found = process.prove(trial.wanted, trial.stack, first, limits)
        good = {proof.package: proof for proof in found if proof.ok}
        return good if len(good) == len(trial.wanted) else {}

    def _torch_imports(self, trial: Trial) -> bool:
        """Whether the platform's torch imports with no layer on the path."""
        bare = Stack(interpreter=trial.platform.interpreter, layers=())
        guard = torch_over(trial.stack)
        alone = Trial(packages=(guard,), stack=bare, platform=trial.platform)
        return self.prove(alone)[TORCH].ok

    def remember(self, key: str, proof: Proof) -> None:
        """Keeps the verdict; a failure expires."""
        if not self._remembers:
            return
        expires = 0.0 if proof.ok else time.time() + self._settings.retry_after
        verdict = Verdict(
            key=key,
            package=proof.package,
            ok=proof.ok,
            reason=proof.reason,
            seconds=round(proof.seconds, 3),
            expires=expires,
        )
        # A disk that takes no memory costs the next startup time, and this one nothing.
        with contextlib.suppress(StoreError):
            self._store.verdicts.keep(verdict)


def _brought(trial: Trial) -> Brought:
    stack = trial.stack
    return brought(stack.paths, has_pth=bool(stack.with_pth))


def _binding(verdicts: Mapping[str, Verdict], packages: Sequence[Package]) -> dict[str, Verdict]:
    """A required package is tried at every startup, whatever is remembered of it."""
    required = {package.name for package in packages if package.required}
    return {k: v for k, v in verdicts.items() if v.ok or v.package not in required}
