"""Processes that start others: in a session of their own, so that all of them end together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

_PAGE = os.sysconf("SC_PAGE_SIZE")


def run(
    command: Sequence[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[bytes]:
    """Runs a program to its end, both its streams in ``stdout``; interrupted, nothing of it stays.

    What it started would wait for its orders for ever: killing the program alone leaves them.

    Raises:
        OSError: it cannot be started.
    """
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate()
    except BaseException:
        kill(process)
        process.communicate()
        raise
    return subprocess.CompletedProcess(command, process.returncode, output)


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
