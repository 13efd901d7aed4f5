"""The cold start: caches empty, until a fresh process has imported what it wants.

Every contestant gets the same platform, a virtual environment with the index's torch (CUDA), an
empty home and no cache, and asks one index on this machine: a network would be another one from
round to round. The order turns from round to round. preheat starts with its default settings, and
once more for each setting that a row names.

Every start has a directory that was never used, and all of them are removed in the end: ext4 looks
at every inode that was freed in the last minutes before it takes a new one, so that a start after a
removal pays for it with seconds of system time.
"""

from __future__ import annotations

import functools
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uv import find_uv_bin

from bench import ground, naive
from bench.contenders import Goods
from bench.survival import fetch
from tests.support.index import Index

ROUNDS = 4
SLOW_ROUNDS = 2
TOOL = ground.BUILD / "preheat" / "bin" / "python"
PLATFORM = ("pip", "torch==2.13.0", "numpy==2.4.6; python_version >= '3.11'")
SMALL: Mapping[str, str] = {
    "transformers": "transformers",
    "google-cloud-speech": "google.cloud.speech",
    "faster-whisper": "faster_whisper",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What the worker imports.

    Attributes:
        imports: package to the module that it promises.
        excludes: dependencies that preheat's manifest leaves out of a package.
    """

    imports: Mapping[str, str]
    excludes: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One start's container, in a directory that was not there before.

    Attributes:
        index: address of the package index.
    """

    root: Path
    index: str = ""

    @property
    def python(self) -> Path:
        """The platform's interpreter."""
        return self.root / "platform" / "bin" / "python"

    def furnish(self, platform: Path) -> None:
        """A platform of its own, by hardlinks: installers replace files, and write into none."""
        (self.root / "tmp").mkdir(parents=True)
        shutil.copytree(platform, self.root / "platform", symlinks=True, copy_function=os.link)
        # The launcher names the interpreter that it was made for: this one is to run its own.
        launcher = self.python.with_name("pip")
        launcher.unlink(missing_ok=True)
        launcher.write_text(f'#!/bin/sh\nexec "{self.python}" -m pip "$@"\n')
        launcher.chmod(0o755)

    def environment(self) -> dict[str, str]:
        """Nothing is remembered outside; bytecode is written as Python does by itself."""
        return ground.surroundings(
            HOME=str(self.root / "home"),
            XDG_CACHE_HOME=str(self.root / "home" / ".cache"),
            TMPDIR=str(self.root / "tmp"),
            UV_CACHE_DIR=str(self.root / "home" / ".cache" / "uv"),
            PIP_CACHE_DIR=str(self.root / "home" / ".cache" / "pip"),
            PIP_DISABLE_PIP_VERSION_CHECK="1",
            PIP_CONFIG_FILE=os.devnull,
            PIP_INDEX_URL=self.index,
            UV_DEFAULT_INDEX=self.index,
            PREHEAT_INDEX_URL=self.index,
            NO_PROXY="127.0.0.1",
            no_proxy="127.0.0.1",
            PREHEAT_INTERNAL_SYSTEM=str(self.root / "system"),
            PATH=os.pathsep.join((str(self.python.parent), os.environ["PATH"])),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """How a worker starts, and what it took until everything was imported.

    Attributes:
        seconds: of each start.
        processor: seconds of processor time of each start, the index's not among them.
    """

    name: str
    start: Callable[[Place, Wanted], Sequence[Sequence[str]]]
    rounds: int
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def run(self, place: Place, wanted: Wanted) -> None:
        """Start once, in an empty container."""
        used = _processor_time()
        begin = time.perf_counter()
        for command in self.start(place, wanted):
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
        self.processor.append(_processor_time() - used)


def start_uv(place: Place, wanted: Wanted) -> Sequence[Sequence[str]]:
    """As a start script has it."""
    install = (
        find_uv_bin(),
        "pip",
        "install",
        "--quiet",
        "--python",
        str(place.python),
        *wanted.imports,
    )
    return (install, _imports(place, wanted))


def start_pip(place: Place, wanted: Wanted) -> Sequence[Sequence[str]]:
    """The same with pip, which compiles what it installs."""
    return (
        (str(place.python), "-m", "pip", "install", "-q", *wanted.imports),
        _imports(place, wanted),
    )


def start_naive(place: Place, wanted: Wanted) -> Sequence[Sequence[str]]:
    """The script that preheat replaces."""
    task = {
        "root": str(place.root),
        "clean_below": 1_000_000_000,
        "skip_below": 500_000_000,
        "packages": dict(wanted.imports),
        "required": [],
    }
    script = (str(place.python), str(naive.__file__), json.dumps(task))
    return (script, _imports(place, wanted))


def start_preheat(place: Place, wanted: Wanted, **settings: object) -> Sequence[Sequence[str]]:
    """`preheat run`, which becomes the importing process, with those settings of the manifest."""
    tables = (
        {
            "name": name,
            "requires": [name],
            "imports": [module],
            "exclude": list(wanted.excludes.get(name, ())),
        }
        for name, module in wanted.imports.items()
    )
    manifest = ground.write_manifest(place.root / "preheat.toml", tables, **settings)
    options = ("--manifest", str(manifest), "--store", str(place.root / "store"))
    command = (str(TOOL), "-m", "preheat", "run", *options, "--python", str(place.python))
    return ((*command, "--", *_imports(place, wanted)),)


def measure() -> None:
    """Run the rounds, print the table and keep the figures."""
    home = ground.BUILD / "cold"
    tools = ground.make_venv(home / "tools", "pip").parent
    wheels = fetch(tools, home / "wheels", Goods(imports=SMALL, required=(), keep_free=0))
    contestants = [
        *preheats(ROUNDS),
        Contestant(name="uv pip install", start=start_uv, rounds=ROUNDS),
        Contestant(name="pip install", start=start_pip, rounds=SLOW_ROUNDS),
        Contestant(name="naive script", start=start_naive, rounds=SLOW_ROUNDS),
    ]
    race(contestants, Wanted(imports=SMALL), wheels)
    show(contestants, SMALL)
    keep("cold", contestants, SMALL)


def preheats(rounds: int) -> list[Contestant]:
    """By default, and with the one setting that saves the most processor time."""
    imported = functools.partial(start_preheat, compile="imported")
    return [
        Contestant(name="preheat run", start=start_preheat, rounds=rounds),
        Contestant(name='preheat run, compile = "imported"', start=imported, rounds=rounds),
    ]


def make_platform() -> Path:
    """The platform that every container gets a copy of."""
    return ground.make_venv(ground.BUILD / "cold" / "platform", *PLATFORM).parents[1]


def race(
    contestants: Sequence[Contestant],
    wanted: Wanted,
    wheels: Path,
    bandwidth: float | None = None,
) -> None:
    """Start all of them in turn, as often as each says, from an index of those wheels.

    Args:
        contestants: who starts; the seconds are written into them.
        wanted: what they import.
        wheels: what the index serves.
        bandwidth: bytes a second that the index has for all connections; None for no limit.
    """
    ground.image_preheat()
    platform = make_platform()
    with (
        Index(wheels, bandwidth=bandwidth) as index,
        ground.thrown_away(ground.BUILD / "cold" / "containers") as places,
    ):
        for number in range(max(each.rounds for each in contestants)):
            turn = number % len(contestants)
            for each in (*contestants[turn:], *contestants[:turn]):
                if len(each.seconds) < each.rounds:
                    root = places / f"{_plain(each.name)}-{number}"
                    place = Place(root=root, index=index.url)
                    place.furnish(platform)
                    os.sync()
                    each.run(place, wanted)
                    print(
                        f"{each.name}: {each.seconds[-1]:.1f} s, {each.processor[-1]:.1f} s of "
                        "processor time",
                        file=sys.stderr,
                        flush=True,
                    )


def show(contestants: Sequence[Contestant], packages: Iterable[str]) -> None:
    """The table."""
    medians = {each.name: statistics.median(each.seconds) for each in contestants}
    uv = medians["uv pip install"]
    ground.show(
        f"seconds until {', '.join(packages)} were imported, caches empty",
        ("", "starts", "least", "median", "most", "of uv's", "processor"),
        (
            [
                each.name,
                str(len(each.seconds)),
                f"{min(each.seconds):.1f}",
                f"{medians[each.name]:.1f}",
                f"{max(each.seconds):.1f}",
                f"{medians[each.name] / uv:.2f}",
                f"{statistics.median(each.processor):.1f}",
            ]
            for each in contestants
        ),
    )


def keep(name: str, contestants: Sequence[Contestant], packages: Iterable[str]) -> None:
    """The figures."""
    load = [round(each, 2) for each in os.getloadavg()]
    seconds = {each.name: [round(s, 2) for s in each.seconds] for each in contestants}
    processor = {each.name: [round(s, 2) for s in each.processor] for each in contestants}
    figures = {"packages": list(packages), "load": load}
    ground.keep(name, {**figures, "seconds": seconds, "processor_seconds": processor})


def _processor_time() -> float:
    """Seconds that children used which have ended, in the user's mode and the system's."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _plain(name: str) -> str:
    """The name as that of a directory."""
    return re.sub(r"[^a-z]+", "-", name).strip("-")


def _imports(place: Place, wanted: Wanted) -> Sequence[str]:
    return (str(place.python), "-c", f"import {', '.join(wanted.imports.values())}")
