"""The plan for 184 distributions: from a lock, and without one beside uv's dry run.

Every plan without a lock, and every dry run, begins with an empty cache and asks the index that uv
is configured for. From a lock no index is asked; a dry run with the cache of the one before stands
beside it.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uv import find_uv_bin

from bench import ground
from bench.payload import PLATFORM, REQUIREMENTS, tables
from bench.scales import belongs_to_the_platform
from preheat.edges.platform.probe import probe

ROUNDS = 15
ASKING = 4
"""Rounds in which those run that ask the index."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A whole process, and its seconds."""

    name: str
    command: Sequence[str]
    rounds: int
    emptied: Path | None = None
    seconds: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Run once, from an empty cache where there is to be one."""
        if self.emptied is not None:
            shutil.rmtree(self.emptied, ignore_errors=True)
        begin = time.perf_counter()
        done = subprocess.run(
            self.command,
            env=ground.surroundings(PREHEAT_LOG="none"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{self.name}: {done.stderr[-2000:]}")
        self.seconds.append(time.perf_counter() - begin)


def measure() -> None:
    """Run the rounds, print the table and keep the figures."""
    contestants = prepare(ground.BUILD / "plan")
    for number in range(ROUNDS):
        turn = number % len(contestants)
        for each in (*contestants[turn:], *contestants[:turn]):
            if len(each.seconds) < each.rounds:
                each.run()
    medians = {each.name: statistics.median(each.seconds) for each in contestants}
    dry = medians["uv's dry run, the same bounds"]
    ground.show(
        f"seconds, whole processes: a plan for {', '.join(REQUIREMENTS)}",
        ("", "runs", "least", "median", "most", "of uv's dry run"),
        (
            [
                each.name,
                str(len(each.seconds)),
                f"{min(each.seconds):.2f}",
                f"{medians[each.name]:.2f}",
                f"{max(each.seconds):.2f}",
                f"{medians[each.name] / dry:.2f}",
            ]
            for each in contestants
        ),
    )
    load = [round(each, 2) for each in os.getloadavg()]
    seconds = {each.name: [round(s, 3) for s in each.seconds] for each in contestants}
    ground.keep("plan", {"packages": list(REQUIREMENTS), "load": load, "seconds": seconds})


def prepare(home: Path) -> list[Contestant]:
    """A platform with CUDA torch, a manifest with its lock, and uv with the same bounds."""
    ours = str(ground.image_preheat().with_name("preheat"))
    platform = ground.make_venv(ground.BUILD / "payload" / "platform", *PLATFORM)
    locked = ground.write_manifest(home / "preheat.toml", tables({}))
    fresh = ground.write_manifest(home / "fresh" / "preheat.toml", tables({}))
    store = home / "store"
    options = ("--python", str(platform), "--manifest")
    lock = (ours, "lock", *options, str(locked), "--store", str(store))
    subprocess.run(lock, check=True, env=ground.surroundings(PREHEAT_LOG="none"))
    bounds = home / "bounds.txt"
    held = [d for d in probe(str(platform)).distributions if belongs_to_the_platform(d.name)]
    bounds.write_text("".join(f"{each.name}=={each.version}\n" for each in held))
    plan = (ours, "plan", "--json", *options)
    dry = (find_uv_bin(), "pip", "install", "--dry-run", "--quiet", "--python", str(platform))
    bounded = (*dry, "-c", str(bounds), *REQUIREMENTS)
    cache = home / "cache"
    return [
        Contestant(
            name="preheat plan --locked",
            command=(*plan, str(locked), "--store", str(store), "--locked"),
            rounds=ROUNDS,
        ),
        Contestant(
            name="preheat plan",
            command=(*plan, str(fresh), "--store", str(home / "none")),
            rounds=ASKING,
        ),
        Contestant(
            name="uv's dry run, the same bounds",
            command=(*bounded, "--cache-dir", str(cache)),
            rounds=ASKING,
            emptied=cache,
        ),
        Contestant(
            name="uv's dry run, no bounds",
            command=(*dry, *REQUIREMENTS, "--cache-dir", str(cache)),
            rounds=ASKING,
            emptied=cache,
        ),
        Contestant(
            name="uv's dry run, the same bounds, cache kept",
            command=(*bounded, "--cache-dir", str(home / "kept")),
            rounds=ASKING + 1,
        ),
    ]
