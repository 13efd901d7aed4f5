"""The warm start: what it adds to a process, beside bare Python and the installers' no-ops.

Every round runs each contestant once, in an order that turns from round to round, so that what
else the machine does meets all of them alike. preheat is compiled, as pip installs it; once more it
is as uv installs it, without bytecode, in an image that sets PYTHONDONTWRITEBYTECODE.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uv import find_uv_bin

from bench import ground

ROUNDS = 60
UNCOUNTED = 5
NAMES = ("requests", "attrs", "pyyaml", "jinja2", "python-dateutil")
IMPORTS = ("requests", "attr", "yaml", "jinja2", "dateutil.parser")

UNCOMPILED = {"PYTHONDONTWRITEBYTECODE": "1"}
PARSED = "in a warm process, preheat without bytecode"

# The clock starts with the first statement: what Python itself does before is in neither.
WARM = """
import time
begin = time.perf_counter()
import preheat
preheat.warm({manifest!r}, store={store!r})
"""
PRESET = """
import time
begin = time.perf_counter()
import sys
at = next(n for n, place in enumerate(sys.path) if place.endswith("site-packages"))
sys.path[at:at] = {paths!r}
"""
USE = """
middle = time.perf_counter()
import {imports}
print(middle - begin, time.perf_counter() - begin)
"""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A command, and what it took: the whole process, and what it says of itself where it does."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    walls: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)

    def run(self, *, count: bool) -> None:
        """Run once; an installer must end well too."""
        environment = ground.surroundings(**self.environment)
        begin = time.perf_counter()
        done = subprocess.run(
            self.command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        wall = time.perf_counter() - begin
        if not count:
            return
        self.walls.append(wall * 1000)
        if self.name.startswith("in "):
            start, use = map(float, done.stdout.split())
            self.inside.append(start * 1000)
            self.used.append(use * 1000)


def measure() -> None:
    """Make what is needed, run the rounds, print the tables and keep the figures."""
    contestants = prepare(ground.BUILD / "warm")
    print(f"{ROUNDS} rounds of {len(contestants)} contestants", flush=True)
    for number in range(UNCOUNTED + ROUNDS):
        turn = number % len(contestants)
        for each in (*contestants[turn:], *contestants[:turn]):
            each.run(count=number >= UNCOUNTED)
    by_name = {each.name: each for each in contestants}
    inside = compare_inside(by_name)
    walls = compare_walls([each for each in contestants if not each.inside])
    ratios = compare_added(by_name)
    load = [round(each, 2) for each in os.getloadavg()]
    figures = {"inside_ms": inside, "wall_ms": walls, "times_what_is_added": ratios}
    ground.keep("warm", {"packages": NAMES, "rounds": ROUNDS, "load": load, **figures})


def prepare(home: Path) -> list[Contestant]:
    """A platform with preheat and a warm store; an environment with the same packages installed."""
    platform = ground.make_venv(home / "platform", str(ground.PROJECT))
    parsed = ground.make_venv(home / "parsed", str(ground.PROJECT))
    installed = ground.make_venv(home / "installed", "pip", *NAMES)
    store = home / "store"
    shutil.rmtree(store, ignore_errors=True)
    tables = (
        {"name": name, "requires": [name], "imports": [module], "required": True}
        for name, module in zip(NAMES, IMPORTS, strict=True)
    )
    manifest = ground.write_manifest(home / "preheat.toml", tables)
    requirements = home / "requirements.txt"
    requirements.write_text("\n".join(NAMES) + "\n")
    warm_once(parsed, manifest, store)
    for file in parsed.parents[1].glob("lib/python*/site-packages/preheat/**/*.pyc"):
        file.unlink()
    paths = warm_once(platform, manifest, store)
    warm = WARM.format(manifest=str(manifest), store=str(store))
    preset = PRESET.format(paths=paths)
    use = USE.format(imports=", ".join(IMPORTS))
    python = str(platform)
    audit = [find_uv_bin(), "pip", "install", "--offline", "--python", str(installed)]
    pip = [str(installed), "-m", "pip", "install", "--disable-pip-version-check"]
    return [
        Contestant(name="in a warm process", command=[python, "-c", warm + use]),
        Contestant(
            name=PARSED,
            command=[str(parsed), "-c", warm + use],
            environment=UNCOMPILED,
        ),
        Contestant(name="in a preset process", command=[python, "-c", preset + use]),
        Contestant(name="bare python", command=[python, "-c", "pass"]),
        Contestant(name="preheat, warm start", command=[python, "-c", warm]),
        Contestant(name="uv, no-op", command=[*audit, "-r", str(requirements)]),
        Contestant(name="pip, no-op", command=[*pip, "-r", str(requirements)]),
    ]


def warm_once(platform: Path, manifest: Path, store: Path) -> list[str]:
    """The cold start that the others follow; the paths that it made."""
    code = (
        "import json, preheat, sys\n"
        "ready = preheat.warm(sys.argv[1], store=sys.argv[2])\n"
        "print(json.dumps([ready.warm, ready.paths]))\n"
    )
    command = (str(platform), "-c", code, str(manifest), str(store))
    for expected in (False, True):
        said = subprocess.check_output(command, env=ground.surroundings(PREHEAT_LOG="none"))
        warm, paths = json.loads(said)
        if warm is not expected:
            raise SystemExit(f"expected a {'warm' if expected else 'cold'} start: {said.decode()}")
    return list(paths)


def compare_inside(contestants: Mapping[str, Contestant]) -> dict[str, object]:
    """Milliseconds that a warm start adds to a process that would have had the paths anyway."""
    warm, preset = contestants["in a warm process"], contestants["in a preset process"]
    parsed = [
        ours - theirs
        for ours, theirs in zip(contestants[PARSED].inside, preset.inside, strict=True)
    ]
    added = [ours - theirs for ours, theirs in zip(warm.inside, preset.inside, strict=True)]
    whole = [ours - theirs for ours, theirs in zip(warm.used, preset.used, strict=True)]
    rows = {
        "import preheat; preheat.warm(...)": warm.inside,
        "the same paths preset by hand": preset.inside,
        "added": added,
        "added, preheat without bytecode and PYTHONDONTWRITEBYTECODE=1": parsed,
        "added, until the five are imported": whole,
    }
    ground.show(
        "inside a process, milliseconds",
        ("", "lower quartile", "median", "upper quartile"),
        ([name, *(f"{each:.2f}" for each in ground.quartiles(v))] for name, v in rows.items()),
    )
    return {name: _figures(values) for name, values in rows.items()}


def compare_walls(contestants: Sequence[Contestant]) -> dict[str, object]:
    """Whole processes, and how each compares with the warm start in the same round."""
    ours = next(each for each in contestants if each.name.startswith("preheat")).walls
    rows: list[list[str]] = []
    figures: dict[str, object] = {}
    for each in contestants:
        ratio = statistics.median(b / a for a, b in zip(ours, each.walls, strict=True))
        slower = sum(b > a for a, b in zip(ours, each.walls, strict=True))
        own = each.walls is ours
        low, middle, high = ground.quartiles(each.walls)
        rows.append(
            [
                each.name,
                f"{low:.1f}",
                f"{middle:.1f}",
                f"{high:.1f}",
                "" if own else f"{ratio:.2f}",
                "" if own else f"{slower} of {len(ours)}",
            ]
        )
        figures[each.name] = {**_figures(each.walls), "ratio_to_preheat": ratio, "slower": slower}
    columns = ("", "lower quartile", "median", "upper quartile", "times preheat's", "slower in")
    ground.show("whole processes, milliseconds", columns, rows)
    return figures


def compare_added(contestants: Mapping[str, Contestant]) -> dict[str, float]:
    """The installers' no-ops, whole processes, over what a warm start adds in the same round.

    A worker starts Python anyway, and a no-op beside it; preheat adds to that Python.
    """
    warm, preset = contestants["in a warm process"], contestants["in a preset process"]
    added = [ours - theirs for ours, theirs in zip(warm.inside, preset.inside, strict=True)]
    ratios = {
        name: round(statistics.median(b / a for a, b in zip(added, each.walls, strict=True)), 1)
        for name, each in contestants.items()
        if name.endswith("no-op")
    }
    ground.show(
        "a no-op's whole process, over what a warm start adds to a process",
        ("", "times"),
        ([name, f"{ratio:.1f}"] for name, ratio in ratios.items()),
    )
    return ratios


def _figures(values: Sequence[float]) -> dict[str, object]:
    low, middle, high = ground.quartiles(values)
    return {
        "lower_quartile": round(low, 3),
        "median": round(middle, 3),
        "upper_quartile": round(high, 3),
        "runs": len(values),
    }
