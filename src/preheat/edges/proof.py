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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from preheat import activation
from preheat.edges import proof_child
from preheat.edges.surroundings import for_proof
from preheat.words.manifest import Package
from preheat.words.platform import Interpreter
from preheat.words.proof import Proof

_STARTUP_ALLOWANCE = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """What lies on the path of a proof: layers in order, those with ``.pth`` files, the platform.

    Attributes:
        platform_imports: modules that must come from the platform in the end, torch for one.
    """

    interpreter: Interpreter
    layers: tuple[str, ...]
    hooked: tuple[str, ...] = ()
    platform_imports: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long one package may take, in seconds, and whether GPUs are visible."""

    seconds: float
    gpu: bool = False


def prove(packages: Sequence[Package], stack: Stack, limits: Limits) -> tuple[Proof, ...]:
    """Imports and checks the packages one after the other in one interpreter.

    A package that raises costs itself; one that hangs, exits or kills the interpreter costs
    itself too: the rest is proved again without it. A failed import of the platform's own is
    blamed on the last package.
    """
    left = list(packages)
    proofs: dict[str, Proof] = {}
    while left:
        seen, fatal = _run(left, stack, limits)
        proofs.update(seen)
        if fatal is None:
            break
        proofs[fatal.package] = fatal
        # What went before a death was in the same process: it is proved anew, without it.
        left = [p for p in left if p.name != fatal.package and _worth_again(proofs, p)]
    return tuple(proofs[package.name] for package in packages)


def _worth_again(proofs: dict[str, Proof], package: Package) -> bool:
    known = proofs.get(package.name)
    return known is None or known.ok


def _run(
    packages: Sequence[Package], stack: Stack, limits: Limits
) -> tuple[dict[str, Proof], Proof | None]:
    with tempfile.TemporaryDirectory(prefix="preheat-proof-", ignore_cleanup_errors=True) as place:
        environment = for_proof(os.environ, place, gpu=limits.gpu)
        read, write = os.pipe()
        source = inspect.getsource(activation) + inspect.getsource(proof_child)
        process = subprocess.Popen(
            [stack.interpreter.executable, "-B", "-c", f"{source}\nmain(activate)\n", str(write)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=place,
            pass_fds=(write,),
            start_new_session=True,
        )
        os.close(write)
        try:
            assert process.stdin is not None
            with process.stdin as task:
                task.write(json.dumps(_task(packages, stack)).encode())
            return _listen(process, read, packages, limits)
        finally:
            os.close(read)
            _end(process)


def _task(packages: Iterable[Package], stack: Stack) -> dict[str, object]:
    return {
        "layers": stack.layers,
        "hooked": stack.hooked,
        "sites": stack.interpreter.sites,
        "platform_imports": stack.platform_imports,
        "packages": [
            {
                "name": package.name,
                "imports": package.imports,
                "check": package.check,
                "check_is_module": package.check_module is not None,
            }
            for package in packages
        ],
    }


def _listen(
    process: subprocess.Popen[bytes], read: int, packages: Sequence[Package], limits: Limits
) -> tuple[dict[str, Proof], Proof | None]:
    seconds = {package.name: package.import_timeout or limits.seconds for package in packages}
    proofs: dict[str, Proof] = {}
    spent: dict[str, float] = {}
    current = packages[0].name
    doing = "start"
    deadline = time.monotonic() + seconds[current] + _STARTUP_ALLOWANCE
    complaints: list[bytes] = []
    for answer in _answers(process, read, complaints, lambda: deadline):
        name = str(answer.get("package") or packages[-1].name)
        if answer.get("finished"):
            return proofs, None
        if answer.get("started"):
            if name != current:
                current = name
                deadline = time.monotonic() + seconds[current]
            doing = str(answer["what"])
        elif answer.get("ok"):
            spent[name] = spent.get(name, 0.0) + float(str(answer["seconds"]))
        elif "error" in answer:
            proofs[name] = Proof(
                package=name,
                ok=False,
                reason=f"{answer['what']} failed: {answer['error']}",
                trace=str(answer.get("trace", "")),
            )
        elif answer.get("done") and name not in proofs:
            proofs[name] = Proof(package=name, ok=True, seconds=spent.get(name, 0.0))
    timed_out = time.monotonic() >= deadline
    _end(process)
    words = b"".join(complaints).decode("utf-8", "replace").strip()[-2000:]
    if timed_out:
        reason = f"{doing} did not return within {seconds[current]:g} s"
    else:
        reason = f"{doing} killed the interpreter ({_death(process.returncode)})"
    return proofs, Proof(package=current, ok=False, reason=reason, trace=words)


def _answers(
    process: subprocess.Popen[bytes], read: int, complaints: list[bytes], deadline: object
) -> Iterator[dict[str, object]]:
    """Answers as they come, until the descriptor closes or the deadline passes."""
    assert process.stderr is not None
    assert callable(deadline)
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(read, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        while True:
            left = float(deadline()) - time.monotonic()
            if left <= 0:
                return
            for key, _ in selector.select(min(left, 1.0)):
                chunk = os.read(key.fd, 65536)
                if key.fd != read:
                    complaints.append(chunk)
                    del complaints[:-64]
                    if not chunk:
                        selector.unregister(key.fileobj)
                    continue
                if not chunk:
                    return
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stderr is not None:
        process.stderr.close()


def _death(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-returncode).name
    return f"exit {returncode}"
