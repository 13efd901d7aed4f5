"""An interrupted start leaves no process behind, whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.starts import descendants

FAMILY = """
import pathlib, signal, subprocess, sys
from preheat.edges.process import group
signal.signal(signal.SIGINT, signal.default_int_handler)

class Told(subprocess.Popen):
    def wait(self, timeout=None):
        pathlib.Path(sys.argv[3]).touch()
        return super().wait(timeout)

subprocess.Popen = Told
script = "sleep 600 & echo $! >$1.new; mv $1.new $1; wait"
command = ["/bin/sh", "-c", script, "sh", sys.argv[1]]
group.run_each(command, {"PATH": sys.argv[2]}, [b""])
"""
COMPILE = """
import sys
from pathlib import Path
from preheat.edges.platform.probe import ask_interpreter
from preheat.edges.store.staged_layer import compile_bytecode
place = Path(sys.argv[1])
compile_bytecode(place, place, ask_interpreter(sys.executable))
"""


def is_alive(process: int) -> bool:
    """Whether it runs; one that was killed and not waited for does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except FileNotFoundError:
        return False
    return state[0] != "Z"


def test_what_a_program_started_ends_with_it_when_it_is_interrupted(tmp_path: Path) -> None:
    told, waits = tmp_path / "grandchild", tmp_path / "waits"
    arguments = [str(told), os.environ["PATH"], str(waits)]
    parent = subprocess.Popen([sys.executable, "-c", FAMILY, *arguments])
    while not told.exists() or not waits.exists():
        assert parent.poll() is None
        time.sleep(0.01)
    grandchild = int(told.read_text(encoding="utf-8"))
    assert is_alive(grandchild)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(30) != 0
    until = time.monotonic() + 30
    while is_alive(grandchild) and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_alive(grandchild)


def test_no_compiler_waits_for_orders_of_somebody_who_was_killed(tmp_path: Path) -> None:
    for number in range(20):
        lines = "".join(f"def f{line}(a, b=({line},)): return [a, b]\n" for line in range(4000))
        (tmp_path / f"module_{number}.py").write_text(lines, encoding="utf-8")
    process = subprocess.Popen([sys.executable, "-c", COMPILE, str(tmp_path)])
    while not list(tmp_path.glob("__pycache__/*.pyc")):
        assert process.poll() is None
        time.sleep(0.01)
    compilers = descendants(process.pid)
    assert compilers
    process.kill()
    process.wait()
    os.kill(compilers[0], signal.SIGKILL)
    until = time.monotonic() + 20
    while any(map(is_alive, compilers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_alive, compilers))
