"""Becomes a command that finds a manifest's packages on its path."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from preheat import lease, start
from preheat.commands.warm import Listening, Startup, follow, go_cold


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """Everything that a command needs.

    Attributes:
        packages: what became of each package of the manifest.
        environment: the variables of the command.
        lease: on the layers that it imports from.
    """

    packages: tuple[start.PackageState, ...]
    environment: dict[str, str]
    lease: lease.Lease


def prepare(startup: Startup, listening: Listening) -> Launch:
    """Makes the packages ready, and holds their layers.

    Raises:
        RequiredPackageError: a required package is not ready.
        PreheatError: the manifest is wrong, or the store or the platform unusable.
    """
    report = follow(startup, listening) or go_cold(startup, listening)
    if not report["ready"]:
        place = startup.invocation.same_place(startup.invocation.manifest)
        command = shlex.join(["preheat", "report", *place])
        raise start.required_error(report["packages"], hint=f"the whole report: {command}")
    held = _hold(report)
    if held is None:
        # A collector was faster; what it took is made again.
        report = go_cold(startup, listening)
        held = _hold(report) or lease.Lease.none()
    environment = _environment(report["bootstrap"])
    if report["shared"]:
        environment[lease.SHARED] = held.file
    return Launch(
        packages=tuple(map(start.PackageState, report["packages"])),
        environment=environment,
        lease=held,
    )


def other_python(launch: Launch, command: Sequence[str], python: str) -> str | None:
    """The Python that a command starts, where that is not the one that the packages are for."""
    program = shutil.which(command[0], path=launch.environment["PATH"])
    if program is None or not re.fullmatch(r"python[\d.]*", os.path.basename(program)):
        return None
    try:
        with open(program, "rb") as file:
            is_script = file.read(2) == b"#!"
    except OSError:
        return None
    # Of a script, a version manager's shim say, nobody knows which Python it starts.
    return program if not is_script and _home(program) != _home(python) else None


def _home(program: str) -> str:
    """Where a Python finds its packages from: its virtual environment, or the program's directory.

    A `pyvenv.cfg` counts beside the program as it was called, or one directory up, and before
    symbolic links are followed (https://docs.python.org/3/library/site.html).
    """
    beside = os.path.dirname(os.path.abspath(program))
    for place in (beside, os.path.dirname(beside)):
        if os.path.isfile(os.path.join(place, "pyvenv.cfg")):
            return os.path.realpath(place)
    return os.path.dirname(os.path.realpath(program))


def become(launch: Launch, command: Sequence[str]) -> NoReturn:
    """Replaces this process by the command, which goes on holding the lease.

    Raises:
        OSError: there is no such command, or it cannot be run.
    """
    launch.lease.outlive_exec()
    # Python ignores them for itself, and what is ignored stays ignored over exec: a command whose
    # reader is gone would go on.
    mine = {ignored: signal.getsignal(ignored) for ignored in (signal.SIGPIPE, signal.SIGXFSZ)}
    for ignored in mine:
        signal.signal(ignored, signal.SIG_DFL)
    try:
        _exec(command, launch.environment)
    finally:
        for ignored, handler in mine.items():
            signal.signal(ignored, handler)


def _exec(command: Sequence[str], environment: dict[str, str]) -> NoReturn:
    program = command[0]
    try:
        os.execvpe(program, list(command), environment)  # noqa: S606  # becoming it is the job
    except PermissionError:
        # A directory of PATH that this user may not search gives the same error as such a file.
        places = environment["PATH"].split(os.pathsep)
        if "/" in program or any(os.path.isfile(os.path.join(at, program)) for at in places):
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None


def _hold(report: Mapping[str, Any]) -> lease.Lease | None:
    return start.hold({**report, "layers": report["paths"]})


def _environment(bootstrap: str) -> dict[str, str]:
    """This process's variables, changed so that children activate the layers."""
    from preheat.edges.process.environment import BOOTSTRAP, without_layers

    environment = without_layers(os.environ)
    if "PYTHONDONTWRITEBYTECODE" not in os.environ:
        del environment["PYTHONDONTWRITEBYTECODE"]
    rest = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([bootstrap, *([rest] if rest else [])])
    environment[BOOTSTRAP] = bootstrap
    scripts = os.path.join(bootstrap, "bin")
    environment["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)])
    return environment
