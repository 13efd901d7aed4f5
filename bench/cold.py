"""The cold start: caches empty, until a fresh process has imported what it wants.

Every contestant gets the same platform, a virtual environment with the index's torch (CUDA), an
empty home and no cache. The order turns from round to round, and preheat appears by its command
line, as `preheat run -- python -c "import ..."`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uv import find_uv_bin

from bench import ground, naive

ROUNDS = 5
PLATFORM = ("pip", "torch==2.13.0", "numpy==2.4.6; python_version >= '3.11'")
SMALL: Mapping[str, str] = {
    "transformers": "transformers",
    "google-cloud-speech": "google.cloud.speech",
    "faster-whisper": "faster_whisper",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One start's container: everything in it is thrown away afterwards."""

    root: Path

    @property
    def python(self) -> Path:
        """The platform's interpreter."""
        return self.root / "platform" / "bin" / "python"

    def furnish(self, platform: Path) -> None:
        """A platform of its own, by hardlinks: installers replace files, and write into none."""
        shutil.rmtree(self.root, ignore_errors=True)
        (self.root / "tmp").mkdir(parents=True)
        shutil.copytree(platform, self.root / "platform", symlinks=True, copy_function=os.link)

    def environment(self) -> dict[str, str]:
        """Nothing is remembered outside; bytecode is written as Python does by itself."""
        return ground.surroundings(
            HOME=str(self.root / "home"),
            XDG_CACHE_HOME=str(self.root / "home" / ".cache"),
            TMPDIR=str(self.root / "tmp"),
            UV_CACHE_DIR=str(self.root / "home" / ".cache" / "uv"),
            PIP_CACHE_DIR=str(self.root / "home" / ".cache" / "pip"),
            PIP_DISABLE_PIP_VERSION_CHECK="1",
            PREHEAT_INTERNAL_SYSTEM=str(self.root / "system"),
            PATH=os.pathsep.join((str(self.python.parent), os.environ["PATH"])),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """How a worker starts, and what it took: seconds until installed, and until imported."""

    name: str
    start: Callable[[Place, Mapping[str, str]], Sequence[Sequence[str]]]
    rounds: int
    seconds: list[float] = field(default_factory=list)

    def run(self, place: Place, goods: Mapping[str, str]) -> None:
        """Start once, in an empty container."""
        begin = time.perf_counter()
        for command in self.start(place, goods):
            done = subprocess.run(
                command,
                env=place.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                cwd=place.root,
                check=False,
            )
            if done.returncode:
                raise SystemExit(f"{self.name}: {done.stderr[-2000:]}")
        self.seconds.append(time.perf_counter() - begin)


def start_uv(place: Place, goods: Mapping[str, str]) -> Sequence[Sequence[str]]:
    """As a start script has it."""
    install = (find_uv_bin(), "pip", "install", "--quiet", "--python", str(place.python), *goods)
    return (install, _imports(place, goods))


def start_pip(place: Place, goods: Mapping[str, str]) -> Sequence[Sequence[str]]:
    """The same with pip, which compiles what it installs."""
    return ((str(place.python), "-m", "pip", "install", "-q", *goods), _imports(place, goods))


def start_naive(place: Place, goods: Mapping[str, str]) -> Sequence[Sequence[str]]:
    """The script that preheat replaces."""
    task = {
        "root": str(place.root),
        "clean_below": 1_000_000_000,
        "skip_below": 500_000_000,
        "packages": dict(goods),
        "required": [],
    }
    script = (str(place.python), str(naive.__file__), json.dumps(task))
    return (script, _imports(place, goods))


def start_preheat(place: Place, goods: Mapping[str, str]) -> Sequence[Sequence[str]]:
    """`preheat run`, which becomes the importing process."""
    tables = (
        {"name": name, "requires": [name], "imports": [module]} for name, module in goods.items()
    )
    manifest = ground.write_manifest(place.root / "preheat.toml", tables)
    options = ("--manifest", str(manifest), "--store", str(place.root / "store"))
    command = (sys.executable, "-m", "preheat", "run", *options, "--python", str(place.python))
    return ((*command, "--", *_imports(place, goods)),)


CONTESTANTS = (
    ("preheat", start_preheat, ROUNDS),
    ("uv pip install", start_uv, ROUNDS),
    ("pip install", start_pip, 1),
    ("naive script", start_naive, 1),
)


def measure() -> None:
    """Run the rounds, print the table and keep the figures."""
    platform = ground.make_venv(ground.BUILD / "cold" / "platform", *PLATFORM).parents[1]
    place = Place(root=ground.BUILD / "cold" / "container")
    contestants = [Contestant(name=n, start=start, rounds=r) for n, start, r in CONTESTANTS]
    for number in range(ROUNDS):
        turn = number % len(contestants)
        for each in (*contestants[turn:], *contestants[:turn]):
            if len(each.seconds) < each.rounds:
                place.furnish(platform)
                each.run(place, SMALL)
                print(f"{each.name}: {each.seconds[-1]:.1f} s", flush=True)


def _imports(place: Place, goods: Mapping[str, str]) -> Sequence[str]:
    return (str(place.python), "-c", f"import {', '.join(goods.values())}")
