"""Processes that start others: in a session of their own, so that all of them end together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import IO

_PAGE = os.sysconf("SC_PAGE_SIZE")


def run_each(
    command: Sequence[str], environment: Mapping[str, str], inputs: Iterable[bytes]
) -> list[subprocess.CompletedProcess[bytes]]:
    """Runs a program to its end once for each input, all at a time; interrupted, nothing stays.

    What it says, by both streams, is in ``stdout``. Input and output lie in memory: a full disk
    is no reason for them to fail.

    Raises:
        OSError: it cannot be started.
    """
    with contextlib.ExitStack() as files:
        started: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        try:
            for each in inputs:
                told, said = (
                    files.enter_context(os.fdopen(os.memfd_create(name), "w+b"))
                    for name in ("input", "output")
                )
                told.write(each)
                told.seek(0)
                process = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=told,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                started.append((process, said))
            for process, _ in started:
                process.wait()
        except BaseException:
            for process, _ in started:
                kill(process)
                process.wait()
            raise
        return [_completed(command, process, said) for process, said in started]


def _completed(
    command: Sequence[str], process: subprocess.Popen[bytes], said: IO[bytes]
) -> subprocess.CompletedProcess[bytes]:
    said.seek(0)
    return subprocess.CompletedProcess(command, process.returncode, said.read())


def kill(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Kills a process that began a session, and all that it started there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def resident(session: int) -> int:
    """Bytes of memory that the processes of a session hold together; shared pages count each time.

    Read from proc(5): ``stat`` names the session, ``statm`` the resident pages.
    """
    total = 0
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"{entry.path}/stat", "rb") as file:
                # The name in parentheses may hold anything, spaces too.
                fields = file.read().rpartition(b")")[2].split()
            if int(fields[3]) == session:
                with open(f"{entry.path}/statm", "rb") as file:
                    total += int(file.read().split()[1]) * _PAGE
    return total
