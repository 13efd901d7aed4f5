"""Hosts in small: namespaces held by one process, and gone with it.

What is mounted on such a host, and its network, can be seen from nowhere else. This process
looks at its files through `Host.path`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("unshare", "nsenter", "setpriv", "ip", "mount")
NOBODY = 65534

_SECONDS = 30.0
_CLONE_NEWNET = 0x40000000


def no_hosts() -> str | None:
    """Why there can be none here."""
    if os.geteuid() != 0:
        return "needs root"
    missing = missing_tools(TOOLS)
    if missing:
        return f"needs {', '.join(missing)}"
    trial = ("unshare", "--net", "--mount", "--propagation", "private", "true")
    if subprocess.run(trial, capture_output=True, check=False).returncode:
        return "needs namespaces of mounts and of the network"
    return None


def missing_tools(names: Sequence[str]) -> list[str]:
    """Those of the programs that are not installed."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [name for name in names if shutil.which(name, path=path) is None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """One host.

    Attributes:
        process: the id of the process that holds its namespaces.
        user: who its commands run as; root where None.
    """

    name: str
    process: int
    user: int | None = None

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line that runs those arguments on this host."""
        enter = ["nsenter", f"--target={self.process}", "--net", "--mount", "--pid"]
        if self.user is not None:
            identity = (f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups")
            enter += ["setpriv", *identity, "--inh-caps=-all"]
        return [*enter, *map(str, arguments)]

    def run(
        self,
        *arguments: str | Path,
        environment: Mapping[str, str] | None = None,
        timeout: float = _SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here to its end; its exit status is the caller's."""
        return subprocess.run(
            self.command(*arguments),
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def must(self, *arguments: str | Path) -> str:
        """Run a command that has to end well; return what it printed."""
        done = self.run(*arguments)
        if done.returncode:
            raise RuntimeError(f"{self.name}: {arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def path(self, inside: Path) -> Path:
        """Where this process finds what is at that absolute path on the host."""
        return Path(f"/proc/{self.process}/root", *inside.parts[1:])

    def cover(self, directory: Path, *kept: Path) -> None:
        """Mount an empty tmpfs that anyone may enter there; what is `kept` in it stays in place."""
        shelf = Path(self.must("mktemp", "--directory", "--tmpdir=/run").strip())
        for number, place in enumerate(kept):
            self.must("mkdir", shelf / str(number))
            self.must("mount", "--rbind", place, shelf / str(number))
        self.must("mount", "-t", "tmpfs", "-o", "mode=755", "none", directory)
        for number, place in enumerate(kept):
            self.must("mkdir", "--parents", place)
            self.must("mount", "--move", shelf / str(number), place)
            self.must("rmdir", shelf / str(number))
        self.must("rmdir", shelf)

    def open_up(self, *places: Path) -> None:
        """Let everyone reach the places, which may lie below directories closed to others."""
        closed: dict[Path, list[Path]] = {}
        for place in places:
            shut = [each for each in place.parents if not os.stat(each).st_mode & 0o001]
            if shut:
                closed.setdefault(shut[-1], []).append(place)
        for directory, kept in closed.items():
            self.cover(directory, *kept)

    def relay(self, stack: contextlib.ExitStack, port: int) -> None:
        """Let this host find at its own loopback port what this process finds at that of its own.

        Sockets belong to the namespace that they were made in, whoever uses them later.
        """
        made: list[socket.socket] = []
        maker = threading.Thread(target=lambda: made.append(self._listener(port)))
        maker.start()
        maker.join()
        if not made:
            raise RuntimeError(f"{self.name}: no socket at port {port}")
        stack.enter_context(_relaying(made[0], port))

    def _listener(self, port: int) -> socket.socket:
        with open(f"/proc/{self.process}/ns/net", "rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        return socket.create_server(("127.0.0.1", port), backlog=128)


def start_host(stack: contextlib.ExitStack, name: str, log: Path) -> Host:
    """Namespaces of its own, as different from the others' as another machine's; see `Host`."""
    unshared = ("unshare", "--net", "--mount", "--pid", "--mount-proc", "--propagation", "private")
    parent = spawn(stack, (*unshared, "--fork", "--kill-child", "sleep", "infinity"), log)
    held = 0
    for _ in patience(f"{name} has no namespaces", log):
        with contextlib.suppress(OSError, ValueError):
            held = int(Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii"))
            if Path(f"/proc/{held}/comm").read_text(encoding="ascii") == "sleep\n":
                break
    host = Host(name=name, process=held)
    host.must("ip", "link", "set", "lo", "up")
    # A machine is known by the random id of its boot.
    boot = log.with_suffix(".boot-id")
    boot.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
    host.must("mount", "--bind", boot, "/proc/sys/kernel/random/boot_id")
    return host


def spawn(stack: contextlib.ExitStack, command: Sequence[str], log: Path) -> int:
    """A process that ends with the stack, or with this process whatever becomes of it; its id."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            ("setpriv", "--pdeathsig", "KILL", *command),  # noqa: S607
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    stack.callback(_end, process)
    return process.pid


def patience(complaint: str, log: Path) -> Iterator[None]:
    """Turns to look again in, until time is up.

    Raises:
        RuntimeError: it is; with what the log says.
    """
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        yield
        time.sleep(0.05)
    raise RuntimeError(f"{complaint}: {log.read_text(errors='replace')}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The child first: what entered a namespace waits for it there, and takes its leave."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii")
    for child in children.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    if not children:
        process.kill()
    process.wait()


@contextlib.contextmanager
def _relaying(listener: socket.socket, port: int) -> Iterator[None]:
    """Serve until the end; then hang up on everyone and wait for every thread."""
    calls: list[_Call] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                calls.append(_Call(listener.accept()[0], port))

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
        listener.close()
        for call in calls:
            call.hang_up()


class _Call:
    """Two connections as one."""

    def __init__(self, near: socket.socket, port: int) -> None:
        self._near, self._far = near, socket.create_connection(("127.0.0.1", port))
        self._there = threading.Thread(target=_pump, args=(self._near, self._far))
        self._back = threading.Thread(target=self._until_the_end)
        self._there.start()
        self._back.start()

    def hang_up(self) -> None:
        """End it, whoever is still speaking."""
        for end in (self._near, self._far):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._back.join()

    def _until_the_end(self) -> None:
        with self._near, self._far:
            _pump(self._far, self._near)
            self._there.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
