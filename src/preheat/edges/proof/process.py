"""An interpreter of the platform that proves what it is handed, and says so line by line."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import selectors
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preheat import activation
from preheat.edges.process import group
from preheat.edges.process.environment import for_proof
from preheat.edges.proof import child

_COMPLAINT_CHARACTERS = 2000
# How long it takes until it is seen that nobody waits for the answer any more.
_LOOK_SECONDS = 0.2


class ProofProcess:
    """One interpreter, from its start until it is closed: nothing of it is left then.

    Args:
        executable: the interpreter.
        place: where what packages write goes, for as long as the process lives; TMPDIR if None.
        gpu: whether GPUs are visible.

    Attributes:
        returncode: how it ended, once it has been ended.
    """

    def __init__(self, executable: str, *, place: Path | None, gpu: bool = False) -> None:
        self.returncode: int | None = None
        self._buffer = b""
        self._held = contextlib.ExitStack()
        try:
            own = self._held.enter_context(
                tempfile.TemporaryDirectory(
                    prefix="preheat-proof-", dir=place, ignore_cleanup_errors=True
                )
            )
            self._place = Path(own)
            complaints = tempfile.TemporaryFile()  # noqa: SIM115  # until it is closed
            self._complaints = self._held.enter_context(complaints)
            self._answers, write = os.pipe()
            self._held.callback(os.close, self._answers)
            source = inspect.getsource(activation) + inspect.getsource(child)
            try:
                self._process = subprocess.Popen(
                    [executable, "-B", "-c", f"{source}\nmain(activate)\n", str(write)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=self._complaints,
                    env=for_proof(os.environ, own, gpu=gpu),
                    cwd=own,
                    pass_fds=(write,),
                    start_new_session=True,
                )
            finally:
                os.close(write)
        except BaseException:
            self._held.close()
            raise

    def close(self) -> None:
        """Ends it, and removes what it wrote."""
        self.end()
        self._held.close()

    def hand(self, task: Mapping[str, object]) -> None:
        """Gives it something to do. Its own standard input ends with the last task."""
        file = self._place / "task.json"
        file.write_text(json.dumps(task), encoding="utf-8")
        stream = self._process.stdin
        if stream is None:
            return
        # One that has ended already says so by the end of its answers.
        with contextlib.suppress(BrokenPipeError):
            stream.write(f"{file}\n".encode())
            stream.flush()
        if task["last"]:
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def answer(self, deadline: float, stop: threading.Event | None = None) -> dict[str, Any] | None:
        """The next answer; None when it says no more, or the deadline has passed.

        Args:
            deadline: by ``time.monotonic()``.
            stop: set when nobody waits for it any more.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0 or (stop is not None and stop.is_set()):
                    return None
                if selector.select(left if stop is None else min(left, _LOOK_SECONDS)):
                    chunk = os.read(self._answers, 65536)
                    if not chunk:
                        return None
                    self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """Ends it with all that it started; one that ended by itself keeps its own status."""
        if self.returncode is not None:
            # Its number may be another process's by now.
            return
        self._process.poll()
        group.kill(self._process)
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self.returncode = self._process.wait()

    def complaints(self) -> str:
        """The end of what it wrote to standard error."""
        self._complaints.seek(0)
        return self._complaints.read().decode("utf-8", "replace").strip()[-_COMPLAINT_CHARACTERS:]
