"""Processes that start others: in a session of their own, so that all of them end together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence


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
