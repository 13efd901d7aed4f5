"""Growth: a plan and a warm start against 1, 10, 100 and 500 distributions, in layer or platform.

The distributions are tiny and made here, each with three modules, and served by an index on this
machine. In the layer: one package requires all the others. On the platform: they are installed
there, and the package is one more.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench import ground
from bench.warm import WARM
from tests.support.index import Index
from tests.support.wheels import Project, write_wheel

COUNTS = (1, 10, 100, 500)
ROUNDS = 9
PLANS = 3
NAME = "growth-package"
WORDS = {"layer": "in the layer", "platform": "on the platform"}
SAID = "\nprint(time.perf_counter() - begin)\n"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A number of distributions, where they are, and what was measured."""

    where: str
    count: int
    python: Path
    manifest: Path
    store: Path
    index: str
    plan: list[float] = field(default_factory=list)
    locked: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)

    def prepare(self) -> None:
        """The cold start and the lock that the others go by."""
        shutil.rmtree(self.store, ignore_errors=True)
        for command in ("lock", "warm"):
            self._preheat(command)

    def measure_plan(self) -> None:
        """Whole processes of `preheat plan`, for an empty store and with the lock."""
        empty = str(self.store.with_name("empty"))
        for more, seconds in ((("--store", empty), self.plan), (("--locked",), self.locked)):
            begin = time.perf_counter()
            self._preheat("plan", *more)
            seconds.append(time.perf_counter() - begin)

    def measure_warm(self) -> None:
        """What the warm start takes inside a process."""
        code = WARM.format(manifest=str(self.manifest), store=str(self.store)) + SAID
        said = subprocess.check_output((str(self.python), "-c", code), env=self._environment())
        self.warm.append(float(said) * 1000)

    def _preheat(self, command: str, *more: str) -> None:
        options = ["--manifest", str(self.manifest), "--json", *more]
        if "--store" not in more:
            options += ["--store", str(self.store)]
        subprocess.run(
            (str(self.python), "-m", "preheat", command, *options),
            env=self._environment(),
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def _environment(self) -> dict[str, str]:
        return ground.surroundings(
            PREHEAT_LOG="none",
            PREHEAT_INDEX_URL=self.index,
            NO_PROXY="127.0.0.1",
            no_proxy="127.0.0.1",
        )


def measure() -> None:
    """Make the wheels and the platforms, run the rounds, print the table and keep the figures."""
    home = ground.BUILD / "growth"
    platform = ground.make_venv(home / "platform", str(ground.PROJECT))
    wheels = home / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    for project in projects():
        write_wheel(project, wheels)
    with Index(wheels) as index:
        cases = [case for n in COUNTS for case in cases_of(n, home, platform, index)]
        for each in cases:
            each.prepare()
        for number in range(ROUNDS):
            for each in cases:
                if number < PLANS:
                    each.measure_plan()
                each.measure_warm()
    show(cases)


def projects() -> list[Project]:
    """As many as the largest count needs, and the packages that require them."""
    made = [_project(f"growth-part-{n:03}") for n in range(max(COUNTS))]
    for count in COUNTS:
        requires = tuple(each.name for each in made[: count - 1])
        made.append(_project(f"{NAME}-{count}", requires))
    return made


def cases_of(count: int, home: Path, platform: Path, index: Index) -> list[Case]:
    """That many in the layer, and that many on the platform."""
    filled = home / f"platform-{count}"
    python = filled / "bin" / "python"
    shutil.rmtree(filled, ignore_errors=True)
    shutil.copytree(platform.parents[1], filled, symlinks=True)
    names = [f"growth-part-{n:03}" for n in range(count)]
    ground.uv("pip", "install", "-q", "--default-index", index.url, "--python", str(python), *names)
    places = {"layer": (count, platform), "platform": (1, python)}
    found = []
    for where, (wanted, interpreter) in places.items():
        name = f"{NAME}-{wanted}"
        place = home / f"{where}-{count}"
        table = {"name": name, "requires": [name], "imports": [name.replace("-", "_")]}
        manifest = ground.write_manifest(place / "preheat.toml", [table])
        found.append(
            Case(
                where=where,
                count=count,
                python=interpreter,
                manifest=manifest,
                store=place / "store",
                index=index.url,
            )
        )
    return found


def show(cases: list[Case]) -> None:
    """The table, and the figures."""
    rows = [
        (
            f"{each.count} {WORDS[each.where]}",
            statistics.median(each.plan),
            statistics.median(each.locked),
            statistics.median(each.warm),
        )
        for each in sorted(cases, key=lambda each: (each.where, each.count))
    ]
    ground.show(
        "whole processes of a plan, seconds; a warm start inside a process, milliseconds",
        ("distributions", "plan", "plan --locked", "warm start, ms"),
        ([name, f"{plan:.2f}", f"{lock:.2f}", f"{warm:.2f}"] for name, plan, lock, warm in rows),
    )
    kept = {
        name: {"plan": round(plan, 3), "locked": round(lock, 3), "warm_ms": round(warm, 3)}
        for name, plan, lock, warm in rows
    }
    load = [round(each, 2) for each in os.getloadavg()]
    ground.keep("growth", {"rounds": ROUNDS, "load": load, "medians": kept})


def _project(name: str, requires: tuple[str, ...] = ()) -> Project:
    module = name.replace("-", "_")
    files = {f"{module}/{each}.py": "X = 1\n" * 50 for each in ("__init__", "one", "two")}
    return Project(name=name, version="1.0", files=files, requires=requires)
