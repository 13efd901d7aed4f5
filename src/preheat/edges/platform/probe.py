"""Reads what this machine provides, without importing any of it.

The interpreter is asked in a child of its own, so that ``--python`` and the running one are the
same case; everything else is files: distributions, torch's own version file, ``/proc``.
"""

from __future__ import annotations

import ast
import contextlib
import glob
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator

from preheat.edges.platform import inventory
from preheat.edges.platform.nvml import read_accelerator
from preheat.edges.platform.version_file import constants_in
from preheat.edges.process.environment import without_layers
from preheat.words.errors import PlatformError
from preheat.words.platform import Accelerator, Interpreter, Platform, Torch

# Runs in the platform's interpreter, which may not have preheat: standard library only.
# It imports nothing that an interpreter has not loaded: the answer is Python's own spelling.
_ASK = """
import os, sys
from importlib.machinery import EXTENSION_SUFFIXES
path = [p for p in sys.path if p and os.path.isdir(p)]
sites = [p for p in path if os.path.basename(p) in ("site-packages", "dist-packages")]
name, host = sys.implementation.name, os.uname()
def spelled(v):
    text = "%d.%d.%d" % v[:3]
    return text if v.releaselevel == "final" else text + v.releaselevel[0] + str(v.serial)
version = spelled(sys.version_info)
markers = {
    "implementation_name": name,
    "implementation_version": spelled(sys.implementation.version),
    "os_name": os.name,
    "platform_machine": host.machine,
    "platform_release": host.release,
    "platform_system": host.sysname,
    "platform_version": host.version,
    "python_full_version": version,
    "platform_python_implementation": {"cpython": "CPython", "pypy": "PyPy"}.get(name, name),
    "python_version": "%d.%d" % sys.version_info[:2],
    "sys_platform": sys.platform,
}
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION")
except (OSError, ValueError):
    libc = "musl"
print("preheat-probe:" + repr(dict(
    base_executable=getattr(sys, "_base_executable", None) or sys.executable,
    version=version, full_version=sys.version,
    abi=EXTENSION_SUFFIXES[0].strip(".").rpartition(".")[0],
    cache_tag=sys.implementation.cache_tag, libc=libc, machine=host.machine,
    prefix=sys.prefix,
    path=path, sites=sites, markers=markers,
)))
"""
_OLDEST_PYTHON = (3, 10)
_TIMEOUT_SECONDS = 60.0


def probe(executable: str, memory: inventory.Memory | None = None) -> Platform:
    """Everything the platform of that interpreter provides.

    Args:
        executable: path of a Python; a venv's symlink is kept as it is.
        memory: inventories that were made before.

    Raises:
        PlatformError: it cannot be run, or is older than Python 3.10.
    """
    accelerators: list[Accelerator] = []
    driver = threading.Thread(target=lambda: accelerators.append(read_accelerator()))
    driver.start()
    with _asked(executable) as answer:
        # Not waited for: its site directories mostly are where they are thought to be.
        early = {place: inventory.at(place, memory) for place in _likely_sites(executable)}
        interpreter = _interpreter(executable, answer)
    found = [early.get(place) or inventory.at(place, memory) for place in interpreter.path]
    driver.join()
    return Platform(
        interpreter=interpreter,
        distributions=inventory.visible(found),
        accelerator=next(iter(accelerators), Accelerator()),
        torch=read_torch(interpreter.path),
    )


def ask_interpreter(executable: str) -> Interpreter:
    """Runs the interpreter once, with bytecode writing off, and returns what it says of itself.

    Raises:
        PlatformError: it cannot be run, or is older than Python 3.10.
    """
    with _asked(executable) as answer:
        return _interpreter(executable, answer)


@contextlib.contextmanager
def _asked(executable: str) -> Iterator[subprocess.Popen[str]]:
    """The interpreter's process while it answers; it has ended afterwards."""
    try:
        elsewhere = tempfile.gettempdir()
    except OSError as error:
        raise PlatformError(
            f"there is no place for temporary files: {error.strerror}",
            hint="set TMPDIR to a directory on a writable volume",
        ) from error
    try:
        process = subprocess.Popen(
            [executable, "-B", "-c", _ASK],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=without_layers(os.environ),
            cwd=elsewhere,
        )
    except OSError as error:
        raise _unusable(executable, error) from error
    with process:
        try:
            yield process
        finally:
            process.kill()


def _unusable(executable: str, why: object) -> PlatformError:
    return PlatformError(
        f"the interpreter {executable} cannot be run: {why}",
        hint="name a Python of the platform with --python",
    )


def _likely_sites(executable: str) -> list[str]:
    if executable == sys.executable:
        return [place for place in sys.path if place.endswith(("site-packages", "dist-packages"))]
    prefix = os.path.dirname(os.path.dirname(os.path.abspath(executable)))
    return glob.glob(f"{glob.escape(prefix)}/lib/python3.*/site-packages")


def _interpreter(executable: str, process: subprocess.Popen[str]) -> Interpreter:
    try:
        stdout, stderr = process.communicate(timeout=_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise _unusable(executable, error) from error
    line = next((text for text in stdout.splitlines() if text.startswith("preheat-probe:")), None)
    if process.returncode != 0 or line is None:
        raise PlatformError(
            f"the interpreter {executable} did not answer (exit {process.returncode}): "
            f"{stderr.strip()[-500:]}",
            hint="name a Python of the platform with --python",
        )
    facts = ast.literal_eval(line.partition(":")[2])
    major, minor = (int(part) for part in facts["version"].split(".")[:2])
    if (major, minor) < _OLDEST_PYTHON:
        raise PlatformError(
            f"{executable} is Python {facts['version']}; preheat needs 3.10 or newer",
            hint="name another interpreter with --python",
        )
    return Interpreter(
        executable=executable,
        path=tuple(facts.pop("path")),
        sites=tuple(facts.pop("sites")),
        **facts,
    )


def read_torch(path: tuple[str, ...]) -> Torch | None:
    """Torch's version and CUDA, read from the ``version.py`` that its build writes."""
    for entry in path:
        found = constants_in(os.path.join(entry, "torch", "version.py"))
        if found.get("__version__"):
            cuda = found.get("cuda")
            return Torch(version=str(found["__version__"]), cuda=str(cuda) if cuda else None)
    return None
