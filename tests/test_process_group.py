"""An interrupted start leaves no process behind, whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

FAMILY = """
import signal, sys
from preheat.edges import process_group
signal.signal(signal.SIGINT, signal.default_int_handler)
script = "sleep 600 & echo $! >$1.new; mv $1.new $1; wait"
process_group.run(["/bin/sh", "-c", script, "sh", sys.argv[1]], {"PATH": sys.argv[2]})
"""


def is_alive(process: int) -> bool:
    """Whether it runs; one that was killed and not waited for does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except FileNotFoundError:
        return False
    return state[0] != "Z"


def test_what_a_program_started_ends_with_it_when_it_is_interrupted(tmp_path: Path) -> None:
    told = tmp_path / "grandchild"
    parent = subprocess.Popen([sys.executable, "-c", FAMILY, str(told), os.environ["PATH"]])
    while not told.exists():
        time.sleep(0.01)
    grandchild = int(told.read_text(encoding="utf-8"))
    assert is_alive(grandchild)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(30) != 0
    until = time.monotonic() + 30
    while is_alive(grandchild) and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_alive(grandchild)
