"""Packages that arrive while others are proved, proved at the same time.

Each is proved alone over what comes before it, as in its own turn, but without waiting for the
proofs of the others; and so are all of them together. What is published is decided when each one's
turn comes, after these proofs: they read the layers where they are staged.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile

from preheat.account import Outcome
from preheat.decisions.identity import verdict_key
from preheat.decisions.plan import Progress
from preheat.edges.memory import available_memory
from preheat.edges.proof import Stack
from preheat.fetching import Fetched
from preheat.installing import Installer
from preheat.stacking import stack_of, with_staged
from preheat.words.errors import InstallError
from preheat.words.manifest import Package
from preheat.words.plan import Action, Step
from preheat.words.proof import Proof

# An interpreter with torch, transformers and the like in it, in bytes.
_TAKES = 2_000_000_000
# So soon it is seen that another package has arrived, in seconds.
_LOOKS = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    """A proof that can begin.

    Attributes:
        key: of the verdict; empty for that of all together.
        run: makes it, until the event says that nobody waits for it any more.
        stop: that event.
    """

    key: str
    run: Callable[[threading.Event], Proof | None]
    stop: threading.Event = field(default_factory=threading.Event)


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

    def prove(self, packages: Sequence[Package]) -> dict[str, Proof]:
        """Proofs by the keys of their verdicts; none where one can be made at a time.

        Args:
            packages: whose turn is still to come, the next one first.
        """
        places = min(len(os.sched_getaffinity(0)), available_memory() // _TAKES)
        if places < 2:
            return {}
        begun: list[tuple[_Trial, Future[Proof | None]]] = []
        with ThreadPoolExecutor(places, thread_name_prefix="preheat-prove") as pool:
            try:
                self._go_on(self._trials(packages), pool, begun)
            except BaseException:
                for trial, future in begun:
                    trial.stop.set()
                    future.cancel()
                raise
        proofs = {trial.key: _proof(future) for trial, future in begun if trial.key}
        return {key: proof for key, proof in proofs.items() if proof is not None}

    def _go_on(
        self,
        trials: Iterator[_Trial | None],
        pool: ThreadPoolExecutor,
        begun: list[tuple[_Trial, Future[Proof | None]]],
    ) -> None:
        """Begins each as soon as it can, and waits for all."""
        while True:
            ready = takewhile(lambda trial: trial is not None, trials)
            begun += [(each, pool.submit(each.run, each.stop)) for each in ready if each]
            running = [future for _, future in begun if not future.done()]
            if not running:
                return
            wait(running, timeout=_LOOKS, return_when=FIRST_COMPLETED)
            proofs = [_proof(future) for _, future in begun]
            bad = next((i for i, proof in enumerate(proofs) if proof and not proof.ok), None)
            if bad is not None:
                # What comes after it is planned anew without it.
                trials = iter(())
                for trial, future in begun[bad + 1 :]:
                    trial.stop.set()
                    future.cancel()

    def _trials(self, packages: Sequence[Package]) -> Iterator[_Trial | None]:
        """Package after package, planned as if all will work; None while the next is on its way."""
        installer, progress = self.installer, self.progress.copy()
        ahead, decided = installer.ahead, installer.decided
        good = [outcome.step.package for outcome in self.outcomes if outcome.good]
        stack = stack_of(installer.store, decided, progress.layers)
        for index, package in enumerate(packages):
            step = decided.planner.step(package, progress, tuple(packages[index + 1 :]))
            if step.action is Action.SKIP:
                continue
            if step.action is not Action.PLATFORM:
                key = verdict_key((*progress.layers, step.layer), package, decided.platform)
                if key in installer.proofs:
                    return
                if index == 0:
                    ahead.wait_for(step)
                while ahead.is_coming(step):
                    yield None
                fetched = ahead.arrived(step)
                if fetched is None or not self._is_prepared(step, fetched):
                    return
                stack = with_staged(stack, step, fetched.place, installer.store)
                progress.accept(step)
                yield _Trial(key=key, run=partial(self._alone, package, stack))
            good.append(package)
        layers = tuple(progress.layers)
        if len(good) < 2 or len(layers) == len(self.progress.layers):
            # Not together, or nothing new.
            return
        if not decided.prover.torch_serves(good, stack, decided.platform):
            decided.prover.forget_ahead()
            yield _Trial(key="", run=partial(self._together, good, stack, layers))

    def _is_prepared(self, step: Step, fetched: Fetched) -> bool:
        """Whether it can be proved now; where something is wrong, its own turn says what."""
        if step.package.check_gpu and self.installer.decided.platform.accelerator.gpus:
            # Of a GPU, one proof may take all the memory.
            return False
        with contextlib.suppress(InstallError, OSError):
            self.installer.prepare(step, fetched.place, fetched.seconds)
            return True
        return False

    def _alone(self, package: Package, stack: Stack, stop: threading.Event) -> Proof:
        decided = self.installer.decided
        with self.installer.pace.part("prove", package.name, {}):
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


def _proof(future: Future[Proof | None]) -> Proof | None:
    """What came of it; nothing while it lasts, and where it was not brought to its end."""
    ended = future.done() and not future.cancelled() and future.exception() is None
    return future.result() if ended else None
