"""The second worker: a shared store that another has filled, beside uv with a cache that is warm.

Every start finds a fresh platform without the packages. preheat's store lies on the same disk as a
volume would; uv's cache on another filesystem, as it does where a volume holds it and the
environment is the container's own.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uv import find_uv_bin

from bench import cold, ground
from bench.contenders import Goods
from bench.survival import fetch
from tests.support.index import Index

ROUNDS = 7
MEMORY = Path("/dev/shm")  # noqa: S108  # only a directory of our own in it
WARM = "import preheat; preheat.warm({manifest!r}, store={store!r})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """How a worker gets ready, what it imports then, and the seconds of both."""

    name: str
    ready: Sequence[str]
    use: Sequence[str]
    environment: Mapping[str, str]
    ready_seconds: list[float] = field(default_factory=list)
    use_seconds: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Get ready, then import in a fresh process."""
        for command, seconds in ((self.ready, self.ready_seconds), (self.use, self.use_seconds)):
            begin = time.perf_counter()
            done = subprocess.run(
                command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise SystemExit(f"{self.name}: {done.stderr[-2000:]}")
            seconds.append(time.perf_counter() - begin)


def measure() -> None:
    """Fill store and cache, run the rounds, print the table and keep the figures."""
    home = ground.BUILD / "second"
    platform = ground.make_venv(home / "platform", *cold.PLATFORM, str(ground.PROJECT)).parents[1]
    tools = ground.make_venv(home / "tools", "pip").parent
    wheels = fetch(tools, home / "wheels", Goods(imports=cold.SMALL, required=(), keep_free=0))
    memory = MEMORY if os.access(MEMORY, os.W_OK) else ground.BUILD
    with (
        Index(wheels) as index,
        tempfile.TemporaryDirectory(dir=memory) as cache,
        ground.thrown_away(home / "containers") as places,
    ):
        place = cold.Place(root=places / "container", index=index.url)
        contestants = prepare(place, home, Path(cache))
        for number in range(ROUNDS + 1):
            for each in (*contestants[number % 2 :], *contestants[: number % 2]):
                place.furnish(platform)
                os.sync()
                each.run()
                # The next start finds the same paths; what is removed would cost it time.
                place.root.rename(places / f"{each.name.split()[0]}-{number}")
    for each in contestants:
        # The first start of each filled its store or its cache.
        each.ready_seconds.pop(0)
        each.use_seconds.pop(0)
    show(contestants)


def prepare(place: cold.Place, home: Path, cache: Path) -> list[Contestant]:
    """The two, each with what is shared between its starts."""
    store = home / "store"
    shutil.rmtree(store, ignore_errors=True)
    tables = (
        {"name": name, "requires": [name], "imports": [module]}
        for name, module in cold.SMALL.items()
    )
    manifest = ground.write_manifest(home / "preheat.toml", tables)
    imports = f"import {', '.join(cold.SMALL.values())}"
    warm = WARM.format(manifest=str(manifest), store=str(store))
    python = str(place.python)
    shared = {**place.environment(), "UV_CACHE_DIR": str(cache)}
    return [
        Contestant(
            name="preheat.warm",
            ready=(python, "-c", warm),
            use=(python, "-c", f"{warm}\n{imports}"),
            environment=shared,
        ),
        Contestant(
            name="uv pip install",
            ready=(find_uv_bin(), "pip", "install", "-q", "--python", python, *cold.SMALL),
            use=(python, "-c", imports),
            environment=shared,
        ),
    ]


def show(contestants: Sequence[Contestant]) -> None:
    """The table, and the figures."""
    uv = statistics.median(contestants[1].ready_seconds)
    rows = []
    for each in contestants:
        ready, use = map(statistics.median, (each.ready_seconds, each.use_seconds))
        times = f"{uv / ready:.0f}"
        rows.append([each.name, f"{ready:.3f}", f"{use:.2f}", f"{ready + use:.2f}", times])
    ground.show(
        f"a second worker, seconds; {', '.join(cold.SMALL)}, {ROUNDS} starts each",
        ("", "until ready", "until imported", "together", "times faster than uv, ready"),
        rows,
    )
    seconds = {
        each.name: {"ready": each.ready_seconds, "imported": each.use_seconds}
        for each in contestants
    }
    load = [round(each, 2) for each in os.getloadavg()]
    figures = {"packages": list(cold.SMALL), "load": load, "seconds": seconds}
    ground.keep("second", {**figures, "python": sys.version.split()[0]})
