"""The first sight of a platform: every distribution against its RECORD, beside pip's inspection.

`PREHEAT_BENCH_PYTHON` names another interpreter than a venv with CUDA torch made for it.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from uv import find_uv_bin

from bench import ground
from preheat.edges import inventory, records
from preheat.edges.probe import ask_interpreter, probe

ROUNDS = 20


def measure() -> None:
    """Probe by turns without and with a memory, and ask pip and uv for what they list."""
    named = os.environ.get("PREHEAT_BENCH_PYTHON")
    python = Path(named) if named else ground.make_venv(ground.BUILD / "sight", "pip", "torch")
    executable = str(python)
    with TemporaryDirectory() as place:
        memory = inventory.Memory(place=Path(place), keeps=True)
        found = probe(executable, memory).distributions
        contestants: dict[str, Callable[[], object]] = {
            "asking the interpreter alone": lambda: ask_interpreter(executable),
            "probe, at first sight": lambda: probe(executable),
            "probe, seen before": lambda: probe(executable, memory),
            "uv pip list": lambda: _run(find_uv_bin(), "pip", "list", "--python", executable),
            "pip inspect": lambda: _run(executable, "-m", "pip", "inspect"),
        }
        taken: dict[str, list[float]] = {name: [] for name in contestants}
        names = list(contestants)
        for number in range(ROUNDS + 1):
            turn = number % len(names)
            for name in (*names[turn:], *names[:turn]):
                begin = time.perf_counter()
                contestants[name]()
                if number:
                    taken[name].append((time.perf_counter() - begin) * 1000)
    files = sum(len(records.lines(os.path.join(d.metadata, "RECORD")) or ()) for d in found)
    print(f"{len(found)} distributions, {files} files in their RECORDs")
    ground.show(
        "milliseconds",
        ("", "lower quartile", "median", "upper quartile"),
        ([name, *(f"{each:.1f}" for each in ground.quartiles(v))] for name, v in taken.items()),
    )
    medians = {name: round(ground.quartiles(values)[1], 2) for name, values in taken.items()}
    ground.keep(
        "sight", {"distributions": len(found), "files": files, "rounds": ROUNDS, "ms": medians}
    )


def _run(*command: str) -> None:
    subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, cwd="/"
    )
