"""Proves packages by real imports, in a fresh interpreter with the platform underneath."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from preheat.edges.proof.process import ProofProcess
from preheat.words.errors import Cancelled, InstallError
from preheat.words.layer import LayerPath
from preheat.words.manifest import Package
from preheat.words.platform import Interpreter
from preheat.words.proof import Looked, Proof

_STARTUP_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """What lies on the path of a proof: layers in order, over the platform.

    Attributes:
        kept: layers whose modules' bytecode is kept, each with the place where it will lie.
        loads: package name to links in its layer, each with the library that it leads to.
    """

    interpreter: Interpreter
    layers: tuple[LayerPath, ...]
    kept: tuple[tuple[str, str], ...] = ()
    loads: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[str, ...]:
        """The layers' directories, in order."""
        return tuple(layer.path for layer in self.layers)

    @property
    def with_pth(self) -> tuple[str, ...]:
        """Those that hold ``.pth`` files."""
        return tuple(layer.path for layer in self.layers if layer.has_pth)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long one package may take, in seconds, and whether GPUs are visible.

    Attributes:
        place: where what packages write goes, for as long as the proof takes; TMPDIR if None.
        stop: set when nobody waits for the proof any more.
    """

    seconds: float
    gpu: bool = False
    place: Path | None = None
    stop: threading.Event | None = None

    def of(self, package: Package) -> float:
        """What that package may take: its own limit where it states one."""
        return min(self.seconds, package.import_timeout or self.seconds)


def prove(packages: Sequence[Package], stack: Stack, limits: Limits) -> tuple[Proof, ...]:
    """Imports and checks the packages one after the other in one interpreter.

    A package that raises costs itself; one that hangs, exits or kills the interpreter costs
    itself too: the rest is proved again without it.

    Raises:
        Cancelled: nobody waits for it any more.
    """
    left = list(packages)
    proofs: dict[str, Proof] = {}
    while left:
        dialogue = _Dialogue(left, limits)
        dialogue.go(stack)
        _refuse_stopped(limits)
        proofs.update({proof.package: proof for proof in dialogue.said})
        if dialogue.fatal is None:
            break
        # What went before a death was in the same process: it is proved anew, without it.
        failed = {name for name, proof in proofs.items() if not proof.ok}
        left = [package for package in left if package.name not in failed]
    return tuple(proofs[package.name] for package in packages)


def prove_until_failure(
    packages: Sequence[Package], stack: Stack, limits: Limits
) -> tuple[Proof, ...]:
    """Imports and checks the packages in one interpreter, no further than the first that fails.

    Returns:
        As many proofs as there are packages, all good; or fewer, the last of which is not.

    Raises:
        Cancelled: nobody waits for it any more.
    """
    dialogue = _Dialogue(packages, limits, to_the_end=False)
    dialogue.go(stack)
    _refuse_stopped(limits)
    return dialogue.said


def _refuse_stopped(limits: Limits) -> None:
    if limits.stop is not None and limits.stop.is_set():
        raise Cancelled("nobody waits for the proof any more")


def opened(packages: Sequence[Package], stack: Stack, limits: Limits) -> frozenset[str]:
    """Files of the layers that are opened or mapped while all of the packages are proved.

    Raises:
        InstallError: a package fails, and what it would have opened is not known.
    """
    dialogue = _Dialogue(packages, limits, traced=True)
    dialogue.go(stack)
    bad = dialogue.fatal or next((proof for proof in dialogue.said if not proof.ok), None)
    if bad is not None:
        raise InstallError(f"{bad.package} does not work: {bad.reason}", output=bad.trace)
    return frozenset(dialogue.opened)


class Preloaded:
    """An interpreter that imports modules of the platform before there are layers to prove."""

    def __init__(self, executable: str, modules: Sequence[str], limits: Limits) -> None:
        self._deadline = time.monotonic() + limits.seconds + _STARTUP_SECONDS
        self._process = ProofProcess(executable, place=limits.place)
        self._process.hand({"ahead": modules, "last": False})

    def close(self) -> None:
        """Ends it, whether anybody has made use of it or not."""
        self._process.close()

    def looked(self) -> Looked | None:
        """What they looked for, once they are imported; None where they could not be."""
        answer = self._process.answer(self._deadline)
        if answer is None or answer["state"] != "ahead":
            return None
        return Looked(
            modules=frozenset(answer["modules"]),
            found=frozenset(answer["found"]),
            distributions=frozenset(map(canonicalize_name, answer["distributions"])),
            groups=frozenset(answer["groups"]),
            libraries={name: tuple(files) for name, files in answer["libraries"].items()},
        )

    def prove(
        self, packages: Sequence[Package], stack: Stack, first: Sequence[str], limits: Limits
    ) -> tuple[Proof, ...]:
        """As `prove_until_failure`, once; what fails here says little, since torch came first.

        Args:
            packages: to import and check, one after the other.
            stack: what lies on the path from now on.
            first: modules that are imported before them, as far as they can be.
            limits: how long that may take.
        """
        dialogue = _Dialogue(packages, limits, to_the_end=False)
        dialogue.go_on(self._process, stack, first)
        return dialogue.said


class _Dialogue:
    """One interpreter and what it said.

    Attributes:
        fatal: the package that ended the interpreter or the patience, and how.
        opened: paths below the layers, where they are traced.
    """

    def __init__(
        self,
        packages: Sequence[Package],
        limits: Limits,
        *,
        traced: bool = False,
        to_the_end: bool = True,
    ) -> None:
        self.opened: list[str] = []
        self._traced = traced
        self._to_the_end = to_the_end
        self._proofs: dict[str, Proof] = {}
        self.fatal: Proof | None = None
        self._packages = {package.name: package for package in packages}
        self._limits = limits
        self._current = packages[0].name
        self._doing = "start"
        self._spent: dict[str, float] = {}
        self._deadline = time.monotonic() + limits.of(packages[0]) + _STARTUP_SECONDS

    @property
    def said(self) -> tuple[Proof, ...]:
        """The proofs in order, as far as it came."""
        return tuple(self._proofs.values())

    def go(self, stack: Stack) -> None:
        """Starts an interpreter, listens to the end, and leaves nothing running."""
        limits = self._limits
        started = ProofProcess(stack.interpreter.executable, place=limits.place, gpu=limits.gpu)
        with contextlib.closing(started) as process:
            self.go_on(process, stack)

    def go_on(self, process: ProofProcess, stack: Stack, first: Sequence[str] = ()) -> None:
        """Listens to the end of an interpreter that has started.

        Args:
            process: that interpreter.
            stack: what lies on its path.
            first: modules that are imported before the packages, as far as they can be.
        """
        task = {
            "layers": stack.paths,
            "hooked": stack.with_pth,
            "sites": stack.interpreter.sites,
            "kept": stack.kept,
            "traced": self._traced,
            "first": first,
            "packages": [
                {**_entry(each), "loads": stack.loads.get(each.name, ())}
                for each in self._packages.values()
            ],
            "last": True,
        }
        process.hand(task)
        finished = False
        while not finished and (answer := self._answer(process)) is not None:
            finished = self._hear(answer)
        late = time.monotonic() >= self._deadline
        process.end()
        if not finished:
            self.fatal = self._proofs[self._current] = self._death(process, late=late)

    def _answer(self, process: ProofProcess) -> dict[str, Any] | None:
        return process.answer(self._deadline, self._limits.stop)

    def _hear(self, answer: dict[str, Any]) -> bool:
        """Takes one answer down; True for the last one."""
        state, name = answer["state"], answer.get("package", "")
        if state == "opened":
            self.opened += answer["paths"]
        if state == "begun":
            if name != self._current or self._doing == "start":
                self._current = name
                self._deadline = time.monotonic() + self._limits.of(self._packages[name])
            self._doing = answer["what"]
        elif state == "done":
            self._spent[name] = self._spent.get(name, 0.0) + answer["seconds"]
        elif state == "failed":
            self._proofs[name] = Proof(
                package=name,
                ok=False,
                reason=f"{answer['what']} failed: {answer['error']}",
                trace=answer.get("trace", ""),
            )
        elif state == "proved":
            self._proofs[name] = Proof(
                package=name,
                ok=True,
                seconds=self._spent.get(name, 0.0),
                unwritten=answer["unwritten"],
                libraries={name: tuple(files) for name, files in answer["libraries"].items()},
            )
        return bool(state == "finished" or (state == "failed" and not self._to_the_end))

    def _death(self, process: ProofProcess, *, late: bool) -> Proof:
        if late:
            limit = self._limits.of(self._packages[self._current])
            reason = f"{self._doing} did not return within {limit:g} s"
        else:
            reason = f"{self._doing} ended the interpreter ({_spelled(process.returncode)})"
        trace = process.complaints()
        return Proof(package=self._current, ok=False, reason=reason, trace=trace, late=late)


def _entry(package: Package) -> dict[str, object]:
    return {
        "name": package.name,
        "imports": package.imports,
        "check": package.check,
        "check_is_module": package.check_module is not None,
    }


def _spelled(status: int | None) -> str:
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit {status}"
