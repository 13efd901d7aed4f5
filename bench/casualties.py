"""What an installer accepted, held against the wheels that it should have installed."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.ground import OWN_GROUND
from tests.support.wheels import Project

# Imports one after the other, so that a broken one does not hide the next.
_IMPORT = """
import importlib, json, sys
failed = []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed.append(f"{name}: {type(error).__name__}: {error}")
print(json.dumps(failed))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """What is wrong with an environment that was accepted; nothing, if it is whole.

    Attributes:
        files: of the wheels, missing or with other bytes.
        records: rows of a RECORD without their file, and distributions without a RECORD.
        imports: packages that cannot be imported, with the reason.
    """

    files: tuple[str, ...]
    records: tuple[str, ...]
    imports: tuple[str, ...]

    @property
    def any(self) -> bool:
        """Whether anything at all is wrong."""
        return bool(self.files or self.records or self.imports)


def projects() -> tuple[Project, ...]:
    """Twelve projects with some five hundred files, one of them with two hundred.

    Every module of a package is imported with it; next to each lies a file of data.
    """
    sizes = {"large": 100, "medium": 40, "wide": 30}
    sizes |= {f"small{letter}": 8 for letter in "abcdefghi"}
    return tuple(_project(name, modules) for name, modules in sizes.items())


def examine(paths: Sequence[Path], wanted: Sequence[Project], python: str) -> Damage:
    """Compares what lies in those directories with what the projects' wheels hold.

    Args:
        paths: directories that modules are imported from.
        wanted: what should be there.
        python: an interpreter that has none of it by itself.
    """
    done = subprocess.run(
        [python, "-B", "-c", _IMPORT, *(project.name for project in wanted)],
        env={"PYTHONPATH": os.pathsep.join(map(str, paths)), **OWN_GROUND},
        stdout=subprocess.PIPE,
        check=True,
    )
    return Damage(
        files=tuple(text for project in wanted for text in _bad_files(project, paths)),
        records=tuple(text for project in wanted for text in _bad_rows(project, paths)),
        imports=tuple(json.loads(done.stdout)),
    )


def _project(name: str, modules: int) -> Project:
    names = [f"m{number:03}" for number in range(modules)]
    files: dict[str, str | bytes] = {
        f"{name}/__init__.py": "".join(f"from {name} import {each}\n" for each in names)
    }
    for number, each in enumerate(names):
        # Mostly small, as packages are, and some that take more than one write.
        size = 60_000 if number % 20 == 0 else 700
        files[f"{name}/{each}.py"] = f"NAME = {each!r}\n"
        files[f"{name}/{each}.dat"] = (f"{name} {each} ".encode() * size)[:size]
    return Project(name=name, version="1.0", files=files)


def _bad_files(project: Project, paths: Sequence[Path]) -> Iterator[str]:
    for name, content in project.files.items():
        data = content.encode() if isinstance(content, str) else content
        place = next((p / name for p in paths if (p / name).is_file()), None)
        if place is None:
            yield f"{name} is missing"
        elif place.read_bytes() != data:
            yield f"{name} has other bytes"


def _bad_rows(project: Project, paths: Sequence[Path]) -> Iterator[str]:
    record = Path(project.dist_info, "RECORD")
    site = next((place for place in paths if (place / record).is_file()), None)
    if site is None:
        yield f"{record} is missing"
        return
    with (site / record).open(encoding="utf-8", newline="") as rows:
        for row in csv.reader(rows):
            if row and not (site / row[0]).exists():
                yield f"{row[0]} is in {record} only"
