"""What the measurements share: environments to measure in, tables for people, JSON for programs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import tomli_w
from uv import find_uv_bin

PROJECT = Path(__file__).resolve().parents[1]
BUILD = PROJECT / "build" / "bench"
OWN_GROUND = {"PREHEAT_INTERNAL_GROUND": str(BUILD)}
"""Where space is short preheat cleans caches: while a bench runs, in this directory only."""


class Named(Protocol):
    """Whoever takes part in a measurement."""

    @property
    def name(self) -> str:
        """For the table."""


C = TypeVar("C", bound=Named)


def make_venv(where: Path, *provides: str) -> Path:
    """Make a virtual environment with all of that, or take an earlier run's; its interpreter."""
    interpreter = where / "bin" / "python"
    stamp = where / "provides"
    wanted = "\n".join(provides)
    if stamp.exists() and stamp.read_text() == wanted and str(PROJECT) not in provides:
        return interpreter
    print(
        f"making {where.relative_to(PROJECT)} with {', '.join(map(_short, provides))}", flush=True
    )
    uv("venv", "--quiet", "--clear", "--python", sys.executable, str(where))
    # Images are mostly built by pip, which compiles what it installs.
    install = ["pip", "install", "--quiet", "--compile-bytecode", "--python", str(interpreter)]
    uv(*install, "--reinstall-package", "preheat", *provides)
    stamp.write_text(wanted)
    return interpreter


def image_preheat() -> Path:
    """The interpreter of an environment with preheat in it, compiled as an image has it."""
    return make_venv(BUILD / "preheat", str(PROJECT))


def uv(*arguments: str) -> None:
    """Run uv with this machine's own configuration."""
    subprocess.run((find_uv_bin(), *arguments), check=True)


def chosen(contenders: Iterable[C]) -> tuple[C, ...]:
    """Those whose names begin as `PREHEAT_BENCH_ONLY` says; all of them where it says nothing."""
    only = os.environ.get("PREHEAT_BENCH_ONLY", "")
    return tuple(each for each in contenders if each.name.startswith(only))


def platform_preheat(*arguments: str, **environment: str) -> str:
    """What a command of preheat's prints, whatever it ends with; it runs where this bench does.

    A machine with a GPU may have preheat on PYTHONPATH only.
    """
    inherited = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    done = subprocess.run(
        (sys.executable, "-m", "preheat", *arguments),
        env={**surroundings(), **inherited, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.stdout


@contextlib.contextmanager
def thrown_away(place: Path) -> Iterator[Path]:
    """An empty directory, removed in the end; what a killed run left there goes first."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place)


def surroundings(**more: str) -> dict[str, str]:
    """The environment without settings of preheat's and Python's that would change the result."""
    ours = ("PREHEAT_", "PYTHON")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**clean, **OWN_GROUND, **more}


def write_manifest(
    file: Path, packages: Iterable[Mapping[str, object]], **settings: object
) -> Path:
    """Write those tables and settings as a manifest."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(tomli_w.dumps({**settings, "package": list(packages)}), encoding="utf-8")
    return file


def preheat(*arguments: str) -> dict[str, object]:
    """Run a command of preheat's with `--json`, its progress shown; return its document."""
    done = subprocess.run(
        (sys.executable, "-m", "preheat", *arguments, "--json"),
        env=surroundings(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    document: dict[str, object] = json.loads(done.stdout)
    return document


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: the first column to the left, figures to the right."""
    table = [list(columns), *map(list, rows)]
    widths = [max(len(row[n]) for row in table) for n in range(len(columns))]
    print(f"\n{title}")
    for row in table:
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *rest]))


def keep(name: str, document: Mapping[str, object]) -> None:
    """Write the figures as JSON."""
    BUILD.mkdir(parents=True, exist_ok=True)
    file = BUILD / f"{name}.json"
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"figures: {file.relative_to(PROJECT)}")


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _short(provided: str) -> str:
    return "preheat" if provided == str(PROJECT) else provided
