"""Proofs, and the verdicts that spare them the next time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from preheat.decisions.coupling import explained
from preheat.decisions.identity import digest, verdict_key
from preheat.decisions.preload import in_any_order, missed, same_over
from preheat.edges.process.clock import Clock
from preheat.edges.proof.provided_names import brought
from preheat.edges.proof.runner import Limits, Preloaded, Stack, first_failure, prove
from preheat.edges.store.staging import Staging
from preheat.edges.store.store import Store
from preheat.words.errors import StoreError
from preheat.words.manifest import Package
from preheat.words.order import Order
from preheat.words.plan import Verdict
from preheat.words.platform import Platform
from preheat.words.proof import Libraries, Looked, Proof


class TorchAhead:
    """The platform's torch, imported while there are no layers yet to prove it over.

    Args:
        order: how long an import may take.
        staging: of the start; what torch writes goes there.
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
        staging: of the start. What packages write goes there, so that nothing of a start that is
            killed stays in TMPDIR. None for a plan, which writes no verdict either.

    Attributes:
        ahead: torch, imported before it is needed; None where nothing is proved together.
    """

    def __init__(self, order: Order, store: Store, clock: Clock, staging: Staging | None) -> None:
        self.ahead: TorchAhead | None = None
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
        self.verdicts: Mapping[str, Verdict] = (
            {}
            if order.retry
            else _binding(store.verdicts.standing(time.time()), order.manifest.package)
        )

    def of_another(self, key: str) -> Verdict | None:
        """What another start has proved since this one began."""
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
            for package, proof in zip(unknown, self.run(unknown, stack, platform), strict=True):
                proofs[package.name] = proof
                if proof.ok or not self._clock.why_late(package):
                    self.remember(verdict_key((), package, platform), proof)
        return proofs

    def run(
        self,
        packages: Sequence[Package],
        stack: Stack,
        platform: Platform,
        stop: threading.Event | None = None,
    ) -> tuple[Proof, ...]:
        """First without a GPU in sight; then, where there is one and a check asks, with it.

        Args:
            packages: to prove, one after the other in one interpreter.
            stack: what lies on its path.
            platform: what lies beneath.
            stop: set when nobody waits for the proof any more.

        Raises:
            InstallError: nobody waits for it any more.
        """
        limits = replace(self._limits(packages), stop=stop)
        proofs = {p.package: p for p in prove(packages, stack, limits)}
        again = [p for p in packages if p.check_gpu and proofs[p.name].ok]
        if again and platform.accelerator.gpus:
            for proof in prove(again, stack, replace(limits, gpu=True)):
                proofs[proof.package] = proof
        if len(packages) == 1:
            self._libraries |= {p.package: p.libraries for p in proofs.values() if p.ok}
        return tuple(explained(proofs[package.name], platform) for package in packages)

    def _limits(self, packages: Sequence[Package]) -> Limits:
        seconds = self._settings.import_timeout
        left = [self._clock.left(package) for package in packages]
        if None not in left:
            seconds = max(1.0, min(seconds, *(time for time in left if time is not None)))
        return Limits(seconds=seconds, place=self._place)

    def together(
        self, packages: Sequence[Package], stack: Stack, platform: Platform
    ) -> dict[str, Proof]:
        """All of them in one process, then the platform's torch; what fails, by name.

        Where torch imports alone but not over the layers, the last package is to blame.
        """
        digests = [layer.rpartition("/")[2] for layer in stack.layers]
        key = _key_together(digests, packages, platform)
        known = self.verdicts.get(key) or self.of_another(key)
        if key in self._stand or (known is not None and known.ok):
            return {}
        if key in self._hangs:
            # To wait for it once is enough.
            return {self._hangs[key].package: self._hangs[key]}
        guards = [_torch_guard(stack)] if platform.torch else []
        with self._clock.stage("prove together"):
            wanted = [*packages, *guards]
            found = self._after_torch(wanted, stack, platform) or self.run(wanted, stack, platform)
            proofs = {p.package: p for p in found}
            bad = {package.name: proofs[package.name] for package in packages}
            bad = {name: proof for name, proof in bad.items() if not proof.ok}
            for guard in guards:
                broken = proofs[guard.name]
                if not broken.ok and not bad and self._imports_alone(guard, platform):
                    blamed = packages[-1].name
                    bad[blamed] = replace(broken, package=blamed)
        if not bad:
            self._stands(key)
        return bad

    def over_staged(
        self,
        packages: Sequence[Package],
        staged: Stack,
        layers: Sequence[str],
        stop: threading.Event,
        platform: Platform,
    ) -> None:
        """The same over layers that are not published yet; `together` need not repeat it then.

        Args:
            packages: to prove.
            staged: their layers, as they lie on the path by now.
            layers: digests of the same.
            stop: set when nobody waits for the proof any more.
            platform: what lies beneath.

        Raises:
            InstallError: nobody waits for it any more.
        """
        key = _key_together(layers, packages, platform)
        guards = [_torch_guard(staged)] if platform.torch else []
        wanted = [*packages, *guards]
        limits = replace(self._limits(wanted), stop=stop)
        on_gpus = [p for p in packages if p.check_gpu] if platform.accelerator.gpus else []
        with self._clock.stage("prove together"):
            bad = first_failure(wanted, staged, limits)
            if bad is None and on_gpus:
                bad = first_failure(on_gpus, staged, replace(limits, gpu=True))
        if bad is None:
            self._stands(key)
        elif bad.late and bad.package in {package.name for package in packages}:
            self._hangs[key] = bad

    def _stands(self, key: str) -> None:
        self._stand.add(key)
        self.remember(key, Proof(package="*", ok=True))

    def forget_ahead(self) -> None:
        """Ends what is imported ahead, where nothing is made that it could be proved with."""
        if self.ahead is not None:
            self.ahead.close()

    def torch_serves(self, packages: Sequence[Package], stack: Stack, platform: Platform) -> bool:
        """Whether the process that has imported torch already may serve the proof of all together.

        Not where that may be something else than importing torch over the layers.
        """
        looked = self.ahead.looked() if self.ahead else None
        on_gpus = platform.accelerator.gpus and any(package.check_gpu for package in packages)
        if looked is None or on_gpus:
            return False
        return same_over(looked, brought(stack.layers, hooked=bool(stack.hooked)))

    def _after_torch(
        self, packages: Sequence[Package], stack: Stack, platform: Platform
    ) -> tuple[Proof, ...]:
        """The same in the process that has imported the platform's torch already.

        Empty where it does not serve, or where anything fails: a fresh interpreter tells then.
        """
        ahead = self.ahead
        looked = ahead.looked() if ahead and self.torch_serves(packages, stack, platform) else None
        alone = [self._libraries.get(package.name) for package in packages[:-1]]
        known = [libraries for libraries in alone if libraries is not None]
        torch = ahead.take() if ahead else None
        if torch is None:
            return ()
        with contextlib.closing(torch):
            if looked is None or len(known) < len(alone):
                return ()
            if not in_any_order(looked.libraries, known):
                return ()
            first = missed(looked, brought(stack.layers, hooked=bool(stack.hooked)))
            return torch.prove(packages, stack, first, self._limits(packages))

    def only(self, package: Package, staged: Stack, layer: str, platform: Platform) -> Proof:
        """The proof of a package that no other works beside, with the platform's torch after it.

        So it is all of them together, too: nothing is imported again to see that. Where only torch
        fails, nothing is remembered, and `together` finds out.

        Args:
            package: to prove.
            staged: its layer, before it is published.
            layer: digest of that layer.
            platform: what lies beneath.
        """
        guards = [_torch_guard(staged)] if platform.torch else []
        proof, *after = self.run([package, *guards], staged, platform)
        if proof.ok and all(each.ok for each in after):
            self._stands(_key_together([layer], [package], platform))
        return proof

    def _imports_alone(self, guard: Package, platform: Platform) -> bool:
        return self.run([guard], Stack(interpreter=platform.interpreter, layers=()), platform)[0].ok

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
        # A disk that takes no memory costs the next start time, and this one nothing.
        with contextlib.suppress(StoreError):
            self._store.verdicts.keep(verdict)


def _key_together(layers: Sequence[str], packages: Sequence[Package], platform: Platform) -> str:
    return digest([verdict_key(layers, package, platform) for package in packages])


def _torch_guard(stack: Stack) -> Package:
    """The platform's torch as a package: it imports, and from the platform."""
    check = f"import torch\nassert not torch.__file__.startswith({stack.layers!r}), torch.__file__"
    return Package(
        name="torch-of-the-platform", requires=("torch",), imports=("torch",), check=check
    )


def _binding(verdicts: Mapping[str, Verdict], packages: Sequence[Package]) -> dict[str, Verdict]:
    """A required package is tried at every start, whatever is remembered of it."""
    required = {package.name for package in packages if package.required}
    return {k: v for k, v in verdicts.items() if v.ok or v.package not in required}
