"""The cold start of the four packages of a speech worker, two of which import torch.

As `cold`, with transformers, google-cloud-speech, whisperx and f5-tts. Installers without bounds
replace the platform's torch and install 8 GB; preheat's manifest leaves out what only serves
whisperx's transcription and f5-tts's training. One start of each installer, since each takes
minutes and up to 14 GB. Once from an index without a limit, as `cold` does, and once from one that
gives 1 Gbit/s. Needs 45 GB of disk while it runs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bench import cold, ground
from bench.payload import EXCLUDES, REQUIREMENTS, planned
from bench.scales import unconstrained_pins

ROUNDS = 2
SLOW_ROUNDS = 1
LINES: Mapping[str, float | None] = {"cold-four": None, "cold-four-1-gbit": 125e6}
"""Names of figures, and the bytes a second that the index has for all connections."""
BUILD_TOOLS = ("setuptools", "wheel")
"""What source distributions of the four ask for when they are built."""


def measure() -> None:
    """Run the starts, print the tables and keep the figures."""
    home = ground.BUILD / "cold-four"
    python = cold.make_platform() / "bin" / "python"
    tools = ground.make_venv(home / "tools", "pip").parent
    wheels = fetch(tools, home / "wheels", python)
    wanted = cold.Wanted(imports=REQUIREMENTS, excludes=EXCLUDES)
    for name, bandwidth in LINES.items():
        contestants = [
            *cold.preheats(ROUNDS),
            cold.Contestant(name="uv pip install", start=cold.start_uv, rounds=SLOW_ROUNDS),
            cold.Contestant(name="pip install", start=cold.start_pip, rounds=SLOW_ROUNDS),
        ]
        cold.race(contestants, wanted, wheels, bandwidth)
        if bandwidth:
            print(f"\nfrom an index that gives {bandwidth * 8 / 1e9:g} Gbit/s:")
        cold.show(contestants, REQUIREMENTS)
        cold.keep(name, contestants, REQUIREMENTS)


def fetch(tools: Path, wheels: Path, python: Path) -> Path:
    """The archives of both solutions, in the versions of the day or of an earlier run."""
    stamp = wheels / "whole"
    if stamp.exists():
        return wheels
    print("fetching archives, about 5 GB", file=sys.stderr, flush=True)
    wheels.mkdir(parents=True, exist_ok=True)
    command = (str(tools / "pip"), "download", "--quiet", "--no-deps", "--dest", str(wheels))
    ours = planned(python, wheels.parent / "plan", EXCLUDES)
    for pins in (unconstrained_pins(python, REQUIREMENTS), (*ours, *BUILD_TOOLS)):
        subprocess.run((*command, *pins), check=True)
    stamp.touch()
    return wheels
