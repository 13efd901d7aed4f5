"""The first sight of a platform: every distribution against its RECORD, beside pip's inspection.

Each look is that of a fresh process, as a start's is; what a start imports before is not counted,
what it imports for the look is. `PREHEAT_BENCH_PYTHON` names another interpreter than that of a
venv with 200 distributions (without NVIDIA's libraries, which are few and large), made for it. On a
machine that is busy with other things, `chrt -f 1` before the command (root) keeps them out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from uv import find_uv_bin

from bench import ground
from preheat.edges.platform import inventory, records
from preheat.edges.platform.probe import probe

ROUNDS = 20
PROVIDED = ("pip", "torch==2.13.0", "transformers", "google-cloud-speech", "f5-tts", "whisperx")
LEFT_OUT = (
    "cuda-bindings",
    "cuda-toolkit",
    "nvidia-cublas",
    "nvidia-cuda-runtime",
    "nvidia-cudnn-cu13",
    "nvidia-cusparselt-cu13",
    "nvidia-nccl-cu13",
    "nvidia-nvshmem-cu13",
)

LOOK = """
import sys, time
import preheat.making.provision
from pathlib import Path
from preheat.edges.platform import inventory
from preheat.edges.platform.probe import ask_interpreter, probe

_, what, executable, place = sys.argv
memory = inventory.Memory(place=Path(place), keeps=False) if place else None
begin = time.perf_counter()
ask_interpreter(executable) if what == "ask" else probe(executable, memory)
print((time.perf_counter() - begin) * 1000)
"""


def measure() -> None:
    """Look by turns without and with a memory, and ask pip and uv for what they list."""
    named = os.environ.get("PREHEAT_BENCH_PYTHON")
    executable = named or str(_platform())
    with TemporaryDirectory() as place:
        found = probe(executable, inventory.Memory(place=Path(place), keeps=True)).distributions
        contestants: dict[str, Callable[[], float]] = {
            "asking the interpreter alone": lambda: _look("ask", executable, ""),
            "probe, at first sight": lambda: _look("probe", executable, ""),
            "probe, seen before": lambda: _look("probe", executable, place),
            "uv pip list": lambda: _timed(find_uv_bin(), "pip", "list", "--python", executable),
            "pip inspect": lambda: _timed(executable, "-m", "pip", "inspect"),
        }
        taken: dict[str, list[float]] = {name: [] for name in contestants}
        names = list(contestants)
        for number in range(ROUNDS + 1):
            turn = number % len(names)
            for name in (*names[turn:], *names[:turn]):
                milliseconds = contestants[name]()
                if number:
                    taken[name].append(milliseconds)
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


def _platform() -> Path:
    overrides = ground.BUILD / "sight.overrides"
    overrides.parent.mkdir(parents=True, exist_ok=True)
    overrides.write_text("".join(f"{name}; python_version < '3'\n" for name in LEFT_OUT))
    return ground.make_venv(ground.BUILD / "sight", "--override", str(overrides), *PROVIDED)


def _look(what: str, executable: str, place: str) -> float:
    command = [sys.executable, "-c", LOOK, what, executable, place]
    done = subprocess.run(
        command, env=ground.surroundings(), stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


def _timed(*command: str) -> float:
    begin = time.perf_counter()
    subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, cwd="/"
    )
    return (time.perf_counter() - begin) * 1000
