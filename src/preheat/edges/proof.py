"""Proves packages by real imports, in a fresh interpreter with the platform underneath."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from preheat import activation
from preheat.edges import process_group, proof_child
from preheat.edges.surroundings import for_proof
from preheat.words.errors import InstallError
from preheat.words.manifest import Package
from preheat.words.platform import Interpreter
from preheat.words.proof import Proof

_STARTUP_ALLOWANCE = 30.0
_COMPLAINT_KEPT = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """What lies on the path of a proof: layers in order, over the platform.

    Attributes:
        hooked: those of the layers that hold ``.pth`` files.
        kept: the layer whose modules' bytecode is kept, and where that layer will lie; or None.
        loads: package name to links in its layer, each with the library that it leads to.
    """

    interpreter: Interpreter
    layers: tuple[str, ...]
    hooked: tuple[str, ...] = ()
    kept: tuple[str, str] | None = None
    loads: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long one package may take, in seconds, and whether GPUs are visible.

    Attributes:
        place: where what packages write goes, for as long as the proof takes; TMPDIR if None.
    """

    seconds: float
    gpu: bool = False
    place: Path | None = None

    def of(self, package: Package) -> float:
        """What that package may take: its own limit where it states one."""
        return min(self.seconds, package.import_timeout or self.seconds)


def prove(packages: Sequence[Package], stack: Stack, limits: Limits) -> tuple[Proof, ...]:
    """Imports and checks the packages one after the other in one interpreter.

    A package that raises costs itself; one that hangs, exits or kills the interpreter costs
    itself too: the rest is proved again without it.
    """
    left = list(packages)
    proofs: dict[str, Proof] = {}
    while left:
        run = _Run(left, limits)
        run.go(stack)
        proofs.update(run.proofs)
        if run.fatal is None:
            break
        proofs[run.fatal.package] = run.fatal
        # What went before a death was in the same process: it is proved anew, without it.
        failed = {name for name, proof in proofs.items() if not proof.ok}
        left = [package for package in left if package.name not in failed]
    return tuple(proofs[package.name] for package in packages)


def opened(packages: Sequence[Package], stack: Stack, limits: Limits) -> frozenset[str]:
    """Files of the layers that are opened or mapped while all of the packages are proved.

    Raises:
        InstallError: a package fails, and what it would have opened is not known.
    """
    run = _Run(packages, limits, traced=True)
    run.go(stack)
    bad = run.fatal or next((proof for proof in run.proofs.values() if not proof.ok), None)
    if bad is not None:
        raise InstallError(f"{bad.package} does not work: {bad.reason}", wall=bad.trace)
    return frozenset(run.opened)


class _Run:
    """One interpreter and what it said.

    Attributes:
        proofs: by package, as far as it came.
        fatal: the package that ended the interpreter or the patience, and how.
        opened: paths below the layers, where they are traced.
    """

    def __init__(
        self, packages: Sequence[Package], limits: Limits, *, traced: bool = False
    ) -> None:
        self.opened: list[str] = []
        self._traced = traced
        self.proofs: dict[str, Proof] = {}
        self.fatal: Proof | None = None
        self._packages = {package.name: package for package in packages}
        self._limits = limits
        self._current = packages[0].name
        self._doing = "start"
        self._spent: dict[str, float] = {}
        self._deadline = time.monotonic() + limits.of(packages[0]) + _STARTUP_ALLOWANCE

    def go(self, stack: Stack) -> None:
        """Starts the interpreter, listens to the end, and leaves nothing running."""
        with (
            tempfile.TemporaryDirectory(
                prefix="preheat-proof-", dir=self._limits.place, ignore_cleanup_errors=True
            ) as place,
            tempfile.TemporaryFile() as complaints,
        ):
            process, answers = self._start(stack, place, complaints)
            try:
                finished = any(self._hear(answer) for answer in self._answers(answers))
            finally:
                os.close(answers)
                late = time.monotonic() >= self._deadline
                _end(process)
            if not finished:
                self.fatal = self._death(process.returncode, complaints, late=late)

    def _start(
        self, stack: Stack, place: str, complaints: IO[bytes]
    ) -> tuple[subprocess.Popen[bytes], int]:
        task = {
            "layers": stack.layers,
            "hooked": stack.hooked,
            "sites": stack.interpreter.sites,
            "kept": stack.kept,
            "traced": self._traced,
            "packages": [
                {**_entry(each), "loads": stack.loads.get(each.name, ())}
                for each in self._packages.values()
            ],
        }
        source = inspect.getsource(activation) + inspect.getsource(proof_child)
        answers, write = os.pipe()
        with tempfile.TemporaryFile() as handed:
            handed.write(json.dumps(task).encode())
            handed.seek(0)
            process = subprocess.Popen(
                [
                    stack.interpreter.executable,
                    "-B",
                    "-c",
                    f"{source}\nmain(activate)\n",
                    str(write),
                ],
                stdin=handed,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                env=for_proof(os.environ, place, gpu=self._limits.gpu),
                cwd=place,
                pass_fds=(write,),
                start_new_session=True,
            )
        os.close(write)
        return process, answers

    def _answers(self, descriptor: int) -> Iterator[dict[str, Any]]:
        """Answers as they come, until the other side closes or the deadline passes."""
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while (left := self._deadline - time.monotonic()) > 0:
                if not selector.select(left):
                    continue
                chunk = os.read(descriptor, 65536)
                if not chunk:
                    return
                *lines, buffer = (buffer + chunk).split(b"\n")
                yield from map(json.loads, lines)

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
            self.proofs[name] = Proof(
                package=name,
                ok=False,
                reason=f"{answer['what']} failed: {answer['error']}",
                trace=answer.get("trace", ""),
            )
        elif state == "proved":
            self.proofs[name] = Proof(
                package=name,
                ok=True,
                seconds=self._spent.get(name, 0.0),
                unwritten=answer["unwritten"],
            )
        return bool(state == "finished")

    def _death(self, status: int | None, complaints: IO[bytes], *, late: bool) -> Proof:
        complaints.seek(0)
        words = complaints.read().decode("utf-8", "replace").strip()[-_COMPLAINT_KEPT:]
        if late:
            limit = self._limits.of(self._packages[self._current])
            reason = f"{self._doing} did not return within {limit:g} s"
        else:
            reason = f"{self._doing} ended the interpreter ({_spelled(status)})"
        return Proof(package=self._current, ok=False, reason=reason, trace=words)


def _entry(package: Package) -> dict[str, object]:
    return {
        "name": package.name,
        "imports": package.imports,
        "check": package.check,
        "check_is_module": package.check_module is not None,
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends it with all that it started; one that ended by itself keeps its own status."""
    process.poll()
    process_group.kill(process)
    process.wait()


def _spelled(status: int | None) -> str:
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit {status}"
