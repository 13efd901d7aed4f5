"""Where the seconds go: each promised import by module, before and after `preheat slim`.

The layers are those of `bench slim`, made again where they are gone. Every import runs in a fresh
process under `-X importtime`, once uncounted, so that files and bytecode are there.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from bench import ground, slim
from bench.payload import REQUIREMENTS

ROUNDS = 1
COSTLIEST = 10
_LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|( +)(\S+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """One import.

    Attributes:
        seconds: of the whole import.
        modules: how many were loaded for it.
        costliest: distribution's or package's top-level name to the seconds of its modules' own.
    """

    seconds: float
    modules: int
    costliest: tuple[tuple[str, float], ...]


def measure() -> None:
    """Profile, print the tables and keep the figures."""
    before, after = slim.stages()
    profiles = {}
    for name in REQUIREMENTS.values():
        whole, slimmer = profile(name, before), profile(name, after)
        profiles[name] = {"before": _figures(whole), "after": _figures(slimmer)}
        ground.show(
            f"{name}: {whole.seconds:.2f} s, {whole.modules} modules; after slim "
            f"{slimmer.seconds:.2f} s, {slimmer.modules} modules",
            ("the ten costliest", "own seconds", "share"),
            (
                [top, f"{seconds:.3f}", f"{seconds / whole.seconds:.0%}"]
                for top, seconds in whole.costliest
            ),
        )
    load = [round(each, 2) for each in os.getloadavg()]
    ground.keep("imports", {"load": load, "rounds": ROUNDS, "imports": profiles})


def profile(module: str, stage: slim.Served) -> Profile:
    """The median of a few imports of that module."""
    found = [_once(module, stage) for _ in range(ROUNDS + 1)][1:]
    middle = statistics.median_low([each.seconds for each in found])
    return next(each for each in found if each.seconds == middle)


def _once(module: str, stage: slim.Served) -> Profile:
    done = subprocess.run(
        (str(stage.python), "-X", "importtime", "-c", f"import {module}"),
        env=ground.surroundings(
            PYTHONPATH=os.pathsep.join(map(str, stage.paths)), HF_HUB_OFFLINE="1"
        ),
        capture_output=True,
        text=True,
        check=True,
        cwd=ground.BUILD,
    )
    rows = [match.groups() for match in map(_LINE.match, done.stderr.splitlines()) if match]
    # What Python loads by itself comes first and is not of the import; its last module is `site`.
    start = max((n for n, row in enumerate(rows) if row[3] == "site"), default=-1)
    return _profile([(name, int(own)) for own, _, _, name in rows[start + 1 :]])


def _profile(rows: Sequence[tuple[str, int]]) -> Profile:
    tops: dict[str, float] = {}
    for name, own in rows:
        top = name.partition(".")[0]
        tops[top] = tops.get(top, 0.0) + own / 1e6
    costliest = sorted(tops.items(), key=lambda item: -item[1])[:COSTLIEST]
    return Profile(
        seconds=sum(tops.values()),
        modules=len(rows),
        costliest=tuple((top, round(seconds, 4)) for top, seconds in costliest),
    )


def _figures(each: Profile) -> dict[str, object]:
    return {
        "seconds": round(each.seconds, 3),
        "modules": each.modules,
        "costliest": dict(each.costliest),
    }
