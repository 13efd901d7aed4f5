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
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from preheat.decisions.identity import verdict_key
from preheat.decisions.plan import Progress
from preheat.edges.process.limits import available_memory, available_processors
from preheat.edges.proof.runner import Stack
from preheat.making.fetch import Fetched
from preheat.making.install import Installer
from preheat.proving.stack import stack_of, with_staged
from preheat.proving.trial import Trial
from preheat.words.errors import InstallError, StoreError
from preheat.words.manifest import Package
from preheat.words.plan import Action, Step
from preheat.words.proof import Proof

# An interpreter with torch, transformers and the like in it.
_BYTES_PER_PROOF = 2_000_000_000
# So long what is proved waits to be published for the proofs that read it: a startup that is killed
# in a later one should not have worked for nothing.
_PATIENCE_SECONDS = 60.0


def proofs_at_once() -> int:
    """How many there are processors and memory for, by now."""
    return min(available_processors(), available_memory() // _BYTES_PER_PROOF)


def prove_arrived(installer: Installer) -> dict[str, Proof | None]:
    """Proves the next package as soon as it is there, and meanwhile others that have arrived.

    Returns:
        Proofs by the keys of their verdicts. None for what failed beside others, which may be the
        reason: it is to be proved by itself, unless it did not come to an end in its time. Empty
        where only one proof can run at a time, and where nothing was fetched ahead.
    """
    at_once = proofs_at_once()
    if at_once < 2 or not installer.run.ahead.begun:
        return {}
    begun: list[_Begun] = []
    with ThreadPoolExecutor(at_once, thread_name_prefix="preheat-prove") as pool:
        try:
            _follow(_Lineup(installer).trials(), pool, begun)
        finally:
            for each in begun:
                each.stop()
    made = ((each.trial.key, each.proof) for each in begun)
    return {key: proof if proof.ok or proof.late else None for key, proof in made if key and proof}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Proving:
    """A proof that can begin.

    Attributes:
        key: of the package's verdict; None for that of all together.
        run: makes it, until the event says that nobody waits for it any more.
        stop: that event.
    """

    key: str | None
    run: Callable[[threading.Event], Proof | None]
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Begun:
    """A proof that goes on, or has ended."""

    trial: _Proving
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


def _follow(
    trials: Iterator[_Proving | Future[Fetched]], pool: Executor, begun: list[_Begun]
) -> None:
    """Begins each trial as soon as it can, and waits for those that have begun.

    What is still going on then is to be stopped: one before it failed, or was good for too long.

    Args:
        trials: in order; in place of one that cannot begin yet, what it waits for.
        pool: where they run.
        begun: takes those that were begun, so that an interruption can stop them.
    """
    gives_up = float("inf")
    coming = next(trials, None)
    while True:
        while isinstance(coming, _Proving) or (coming is not None and coming.done()):
            if isinstance(coming, _Proving):
                future = pool.submit(coming.run, coming.stop)
                begun.append(_Begun(trial=coming, future=future))
            coming = next(trials, None)
        bad = [number for number, each in enumerate(begun) if each.proof and not each.proof.ok]
        if bad:
            # What comes after it is planned anew without it.
            coming, trials = None, iter(())
            for each in begun[bad[0] + 1 :]:
                each.stop()
        if begun and begun[0].future.done():
            gives_up = min(gives_up, time.monotonic() + _PATIENCE_SECONDS)
        running = [each.future for each in begun if not each.future.done()]
        left = gives_up - time.monotonic()
        if not running or left <= 0:
            return
        awaited: list[Future[Any]] = [*running, *([coming] if coming is not None else [])]
        wait(awaited, timeout=None if left == float("inf") else left, return_when=FIRST_COMPLETED)


class _Lineup:
    """The packages whose turn is still to come, one after the other, as if all will work."""

    def __init__(self, installer: Installer) -> None:
        self._installer = installer
        self._session = installer.session
        self._run = installer.run
        self._platform = installer.run.state.platform

    def trials(self) -> Iterator[_Proving | Future[Fetched]]:
        """One after the other; what is fetched stands before the trial that waits for it.

        Where one cannot begin, its package's own turn says why.
        """
        with contextlib.suppress(InstallError, StoreError, OSError):
            yield from self._trials()

    def _trials(self) -> Iterator[_Proving | Future[Fetched]]:
        """Package after package; then all together."""
        run, progress = self._run, deepcopy(self._run.progress)
        good = [outcome.step.package for outcome in run.good]
        stack = stack_of(self._session.store, self._platform.interpreter, progress.layers)
        for package in run.coming:
            step = run.state.planner.step(package, progress, run.after(package))
            if step.action is Action.SKIP:
                continue
            if step.action is not Action.PLATFORM:
                within = step.layer in progress.layers or not step.layer
                layers = (*progress.layers, *([] if within else [step.layer]))
                key = verdict_key(layers, package, self._platform)
                if key in run.proofs or self._takes_gpus(package):
                    return
                if not within:
                    yield from self._awaited(step)
                    over = self._staged(step, stack)
                    if over is None:
                        return
                    stack = over
                    progress.accept(step)
                if self._session.clock.why_late(package):
                    return
                alone = Trial(packages=(package,), stack=stack, platform=self._platform)
                yield _Proving(key=key, run=partial(self._alone, alone))
            good.append(package)
        yield from self._trial_together(good, stack, progress)

    def _trial_together(
        self, good: Sequence[Package], stack: Stack, progress: Progress
    ) -> Iterator[_Proving]:
        """That of all of them, where there are others and something new."""
        prover = self._session.prover
        if len(good) < 2 or len(progress.layers) == len(self._run.progress.layers):
            return
        trial = Trial(packages=tuple(good), stack=stack, platform=self._platform, with_torch=True)
        if not prover.torch_serves(trial):
            prover.forget_torch()
            yield _Proving(key=None, run=partial(self._together, trial))

    def _awaited(self, step: Step) -> Iterator[Future[Fetched]]:
        """What is on its way; the next package is waited for, whatever else could go on."""
        fetch = self._run.ahead.coming(step)
        if fetch is None:
            return
        if step.package == self._run.coming[0]:
            wait([fetch])
        else:
            yield fetch

    def _staged(self, step: Step, beneath: Stack) -> Stack | None:
        """The path with its layer on top; None where that cannot be proved now.

        Raises:
            InstallError: it is for other GPUs, or the disk is full.
        """
        fetched = self._run.ahead.arrived(step) if step.action is Action.INSTALL else None
        if fetched is None or self._session.clock.why_late(step.package):
            return None
        self._installer.prepare(step, fetched.place, fetched.seconds)
        return with_staged(beneath, step, fetched.place, self._session.store)

    def _takes_gpus(self, package: Package) -> bool:
        """Whether its proof may need all the memory of one."""
        return package.check_gpu and bool(self._platform.accelerator.gpus)

    def _alone(self, trial: Trial, stop: threading.Event) -> Proof:
        (package,) = trial.packages
        with self._session.clock.part("prove", package.name, {}):
            return self._session.prover.prove(replace(trial, stop=stop))[package.name]

    def _together(self, trial: Trial, stop: threading.Event) -> None:
        with self._session.clock.stage("prove together"):
            self._session.prover.prove(replace(trial, stop=stop))
