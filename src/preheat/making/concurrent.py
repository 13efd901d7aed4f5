"""Packages that arrive while others are proved, proved at the same time.

Each is proved alone over what comes before it, as in its own turn, but without waiting for the
proofs of the others; and so are all of them together. What is published is decided when each one's
turn comes, after these proofs: they read the layers where they are staged.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

from preheat.decisions.identity import verdict_key
from preheat.decisions.plan import Progress
from preheat.edges.process.limits import available_memory, available_processors
from preheat.edges.proof.runner import Stack
from preheat.making.install import Installer
from preheat.proving.stack import stack_of, with_staged
from preheat.words.errors import InstallError, StoreError
from preheat.words.manifest import Package
from preheat.words.outcome import Outcome
from preheat.words.plan import Action, Step
from preheat.words.proof import Proof

# An interpreter with torch, transformers and the like in it, in bytes.
_TAKES = 2_000_000_000
# So soon it is seen that another package has arrived, in seconds.
_LOOKS = 0.05
# So long what is proved waits to be published for the proofs that read it, in seconds: a start that
# is killed in a later one should not have worked for nothing.
_PATIENCE = 60.0


def proofs_at_once() -> int:
    """How many there are processors and memory for, by now."""
    return min(available_processors(), available_memory() // _TAKES)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    """A proof that can begin.

    Attributes:
        key: of the package's verdict; None for that of all together.
        run: makes it, until the event says that nobody waits for it any more.
        stop: that event.
    """

    key: str | None
    run: Callable[[threading.Event], Proof | None]
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(kw_only=True, slots=True)
class _Begun:
    """A proof that goes on, or has ended."""

    trial: _Trial
    future: Future[Proof | None]

    @property
    def proof(self) -> Proof | None:
        """What came of it; None while it lasts, or where it was not brought to its end."""
        future = self.future
        ended = future.done() and not future.cancelled() and future.exception() is None
        return future.result() if ended else None

    def stop(self) -> None:
        """Nobody waits for it any more."""
        self.trial.stop.set()
        self.future.cancel()


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """Proves what has arrived before its turn, for one start.

    Attributes:
        installer: how layers are made ready to be proved.
        outcomes: of the packages whose turn has been.
        progress: what they have placed.
    """

    installer: Installer
    outcomes: Sequence[Outcome]
    progress: Progress

    def prove(self, packages: Sequence[Package]) -> dict[str, Proof | None]:
        """Proofs by the keys of their verdicts, of the next package and of some after it.

        Empty where only one proof can run at a time, and where nothing was fetched ahead. None for
        what failed beside others, which may be the reason: it is to be proved by itself, unless it
        did not come to an end in its time.

        Args:
            packages: whose turn is still to come, the next one first.
        """
        at_once = proofs_at_once()
        if at_once < 2 or not self.installer.ahead.begun:
            return {}
        begun: list[_Begun] = []
        with ThreadPoolExecutor(at_once, thread_name_prefix="preheat-prove") as pool:
            try:
                self._go_on(self._trials(packages), pool, begun)
            finally:
                for each in begun:
                    each.stop()
        made = ((each.trial.key, each.proof) for each in begun)
        return {
            key: proof if proof.ok or proof.late else None for key, proof in made if key and proof
        }

    def _go_on(
        self, trials: Iterator[_Trial | None], pool: ThreadPoolExecutor, begun: list[_Begun]
    ) -> None:
        """Begins each as soon as it can, and waits for them; what is left is to be stopped."""
        proved_at = float("inf")
        while True:
            while trial := next(trials, None):
                begun.append(_Begun(trial=trial, future=pool.submit(trial.run, trial.stop)))
            running = [each.future for each in begun if not each.future.done()]
            if not running:
                return
            wait(running, timeout=_LOOKS, return_when=FIRST_COMPLETED)
            bad = [number for number, each in enumerate(begun) if each.proof and not each.proof.ok]
            if bad:
                # What comes after it is planned anew without it.
                trials = iter(())
                for each in begun[bad[0] + 1 :]:
                    each.stop()
            if begun[0].future.done():
                proved_at = min(proved_at, time.monotonic())
            if time.monotonic() - proved_at > _PATIENCE:
                return

    def _trials(self, packages: Sequence[Package]) -> Iterator[_Trial | None]:
        """One after the other; None while the next is on its way.

        Where one cannot begin, its package's own turn says why.
        """
        with contextlib.suppress(InstallError, StoreError, OSError):
            yield from self._planned(packages)

    def _planned(self, packages: Sequence[Package]) -> Iterator[_Trial | None]:
        """Package after package, as if all will work; then all together."""
        installer, progress = self.installer, deepcopy(self.progress)
        decided = installer.decided
        good = [outcome.step.package for outcome in self.outcomes if outcome.good]
        stack = stack_of(installer.store, decided.platform.interpreter, progress.layers)
        for index, package in enumerate(packages):
            step = decided.planner.step(package, progress, tuple(packages[index + 1 :]))
            if step.action is Action.SKIP:
                continue
            if step.action is not Action.PLATFORM:
                within = step.layer in progress.layers or not step.layer
                layers = (*progress.layers, *([] if within else [step.layer]))
                key = verdict_key(layers, package, decided.platform)
                if key in installer.proofs or self._takes_gpus(package):
                    return
                if not within:
                    yield from self._awaited(step, first=index == 0)
                    over = self._staged(step, stack)
                    if over is None:
                        return
                    stack = over
                    progress.accept(step)
                if installer.clock.why_late(package):
                    return
                yield _Trial(key=key, run=partial(self._alone, package, stack))
            good.append(package)
        layers = tuple(progress.layers)
        if len(good) < 2 or len(layers) == len(self.progress.layers):
            # Not together, or nothing new.
            return
        if not decided.prover.torch_serves(good, stack, decided.platform):
            decided.prover.forget_ahead()
            yield _Trial(key=None, run=partial(self._together, good, stack, layers))

    def _awaited(self, step: Step, *, first: bool) -> Iterator[None]:
        """Until it is there, or will not be: the next one is waited for."""
        if first:
            self.installer.ahead.wait_for(step)
        while self.installer.ahead.is_coming(step):
            yield None

    def _staged(self, step: Step, beneath: Stack) -> Stack | None:
        """The path with its layer on top; None where that cannot be proved now.

        Raises:
            InstallError: it is for other GPUs, or the disk is full.
        """
        installer = self.installer
        fetched = installer.ahead.arrived(step) if step.action is Action.INSTALL else None
        if fetched is None or installer.clock.why_late(step.package):
            return None
        installer.prepare(step, fetched.place, fetched.seconds)
        return with_staged(beneath, step, fetched.place, installer.store)

    def _takes_gpus(self, package: Package) -> bool:
        """Whether its proof may need all the memory of one."""
        return package.check_gpu and bool(self.installer.decided.platform.accelerator.gpus)

    def _alone(self, package: Package, stack: Stack, stop: threading.Event) -> Proof:
        decided = self.installer.decided
        with self.installer.clock.part("prove", package.name, {}):
            return decided.prover.run([package], stack, decided.platform, stop)[0]

    def _together(
        self,
        packages: Sequence[Package],
        stack: Stack,
        layers: Sequence[str],
        stop: threading.Event,
    ) -> None:
        decided = self.installer.decided
        decided.prover.over_staged(packages, stack, layers, stop, decided.platform)
