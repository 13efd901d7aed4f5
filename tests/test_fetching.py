"""Packages are fetched ahead of their turn, and that costs nobody anything."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from preheat.making import fetch
from preheat.making.fetch import Ahead
from tests.support.index import Index
from tests.support.platforms import Platform
from tests.support.starts import TIMEOUT, Ground, package
from tests.support.wheels import Project

NAMES = ("north", "east", "south", "west")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """Four packages of some size, one whose import takes long, and one that fails."""
    with Index(tmp_path / "index") as index:
        for name in NAMES:
            files: dict[str, str | bytes] = {f"{name}.py": "", f"{name}.bin": os.urandom(200_000)}
            index.publish(Project(name=name, version="1.0", files=files))
        index.publish(
            Project(name="common", version="1.0", files={"common.py": ""}),
            Project(name="slow", version="1.0", files={"slow.py": "import time\ntime.sleep(3)\n"}),
            Project(
                name="broken",
                version="1.0",
                files={"broken.py": "import common\nraise OSError('no such library')\n"},
                requires=("common",),
            ),
            Project(
                name="heir",
                version="1.0",
                files={"heir.py": "import common\n"},
                requires=("common",),
            ),
        )
        yield index


def test_all_that_comes_later_is_fetched_while_the_first_package_is_proved(
    tmp_path: Path, platform: Platform, index: Index
) -> None:
    ground = Ground(root=tmp_path / "ground", python=platform.python)
    ground.write(package("slow"), *map(package, NAMES), index=index)
    answer = ground.warm()
    assert answer.code == 0
    lines = answer.stderr.splitlines()
    proved = next(n for n, line in enumerate(lines) if "installed package=slow" in line)
    for name in NAMES:
        assert any(f'name="install {name}"' in line for line in lines[:proved]), name
    assert ground.staged() == []


def test_an_error_of_the_disk_is_told_to_whoever_would_publish_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(place: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(place))

    with Ahead(cast("Any", None), cast("Any", None)) as ahead:
        ahead.begin(())
        ahead.sync(tmp_path)
        ahead.wait_until_synced()
        monkeypatch.setattr(fetch, "sync_filesystem", refuse)
        ahead.sync(tmp_path)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                ahead.wait_until_synced()


def test_what_was_dropped_meanwhile_need_not_reach_the_disk(tmp_path: Path) -> None:
    with Ahead(cast("Any", None), cast("Any", None)) as ahead:
        ahead.begin(())
        ahead.sync(tmp_path / "gone")
        ahead.wait_until_synced()


def test_what_was_fetched_beside_a_package_that_fails_is_planned_anew(
    tmp_path: Path, platform: Platform, index: Index
) -> None:
    ground = Ground(root=tmp_path / "ground", python=platform.python)
    ground.write(package("broken"), package("heir"), package("north"), index=index)
    answer = ground.warm()
    assert {name: answer.status(name) for name in ("broken", "heir", "north")} == {
        "broken": "failed",
        "heir": "installed",
        "north": "installed",
    }
    # What it would have shared lies with the next who needs it.
    assert "common==1.0" in answer.packages["heir"]["distributions"]
    assert (Path(answer.packages["heir"]["layer"]) / "common.py").is_file()
    assert ground.staged() == []
    assert list((ground.store / "claims").iterdir()) == []


def test_starts_that_want_the_same_in_other_orders_never_wait_for_each_other_for_ever(
    tmp_path: Path, platform: Platform, index: Index
) -> None:
    store = tmp_path / "store"
    starts = []
    for turn in range(6):
        ground = Ground(root=tmp_path / f"ground{turn}", python=platform.python)
        order = [*NAMES[turn % 4 :], *NAMES[: turn % 4]]
        ground.write(*map(package, order[:: -1 if turn > 3 else 1]), index=index)
        starts.append(
            subprocess.Popen(
                ground.command("warm", "--json", store=store),
                env=ground.surroundings(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process in starts:
        out, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, err
        assert out.count('"status": "installed"') + out.count('"status": "reused"') == len(NAMES)
    assert len([place for place in (store / "layers").iterdir() if place.is_dir()]) == len(NAMES)
