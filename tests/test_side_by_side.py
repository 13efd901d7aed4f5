"""Packages that arrive while others are proved: each has a proof of its own, and none waits."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.index import Index
from tests.support.platforms import Platform, make_platform
from tests.support.wheels import Project
from tests.support.workers import Worker, entry

MEETS = """
import os
import time

place = os.environ["MEETING"]
with open(os.path.join(place, "{own}"), "w"):
    pass
limit = time.monotonic() + 20
while not os.path.exists(os.path.join(place, "{other}")):
    assert time.monotonic() < limit, "{other} was not imported meanwhile"
    time.sleep(0.01)
"""
HANGS = """
import os
import pathlib
import time

pathlib.Path(os.environ["MEETING"], f"{__name__}-{os.getpid()}").touch()
time.sleep(600)
"""
NOTES = """
import os
import sys

others = sorted({"one", "two", "three"} & set(sys.modules) - {__name__})
with open(os.path.join(os.environ["MEETING"], "imports"), "a") as file:
    file.write(f"{__name__} after {others}\\n")
"""


def project(name: str, code: str) -> Project:
    return Project(name=name, version="1", files={f"{name}.py": code})


PROJECTS = (
    project("left", MEETS.format(own="left", other="right")),
    project("right", MEETS.format(own="right", other="left")),
    project("broken", "raise OSError('broken')\n"),
    project("hanging", HANGS),
    project("clinging", HANGS),
    *(project(name, NOTES) for name in ("one", "two", "three")),
    project("follower", "import sys\nassert 'one' in sys.modules, 'one was not there before'\n"),
    project("jealous", "import sys\nassert 'one' not in sys.modules, 'one was there before'\n"),
)

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="one processor proves one package at a time"
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with Index(tmp_path_factory.mktemp("index")) as index:
        index.publish(*PROJECTS)
        yield index


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    return make_platform(tmp_path_factory.mktemp("bare") / "venv")


@pytest.fixture
def worker(tmp_path: Path, index: Index, bare: Platform) -> Worker:
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    return Worker(place=tmp_path, platform=bare, index=index, extra={"MEETING": str(meeting)})


def test_packages_that_have_arrived_are_imported_at_the_same_time(worker: Worker) -> None:
    worker.write([entry("left"), entry("right")])
    started = worker.warm()
    assert started.bad == {}
    assert [row["status"] for row in started.report["packages"]] == ["installed", "installed"]


def test_each_is_imported_alone_and_all_of_them_in_order_once(worker: Worker) -> None:
    names = ("one", "two", "three")
    worker.write([entry(name) for name in names])
    assert worker.warm().bad == {}
    noted = (worker.place / "meeting" / "imports").read_text().splitlines()
    alone = [f"{name} after []" for name in names]
    together = ["one after []", "two after ['one']", "three after ['one', 'two']"]
    assert sorted(noted) == sorted([*alone, *together])


def test_what_is_proved_at_the_same_time_is_warm_at_the_next_start(worker: Worker) -> None:
    worker.write([entry("one"), entry("two"), entry("three")])
    assert worker.warm().bad == {}
    noted = worker.place / "meeting" / "imports"
    noted.unlink()
    again = worker.warm("--cold")
    assert {row["status"] for row in again.report["packages"]} == {"reused"}
    assert not noted.exists()


def test_a_package_that_fails_beside_others_costs_itself(worker: Worker) -> None:
    worker.write([entry("one"), entry("broken"), entry("two")])
    started = worker.warm()
    assert started.bad == {"broken": "import broken failed: OSError: broken"}
    assert started.status("one") == started.status("two") == "installed"


def test_a_package_that_works_after_another_only_is_not_taken_for_one_that_works(
    worker: Worker,
) -> None:
    worker.write([entry("one"), entry("follower")])
    started = worker.warm()
    assert "one was not there before" in started.bad["follower"]


def test_a_package_that_works_alone_only_is_taken_off_with_that_reason(worker: Worker) -> None:
    worker.write([entry("one"), entry("two"), entry("jealous")])
    started = worker.warm()
    assert started.bad["jealous"].startswith("works alone, not with the others")
    assert len(started.report["paths"]) == 2


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_start_leaves_no_proof_running(worker: Worker, how: signal.Signals) -> None:
    worker.write([entry("hanging"), entry("clinging")])
    meeting = worker.place / "meeting"
    options = (*worker.options, "--python", str(worker.platform.python))
    process = subprocess.Popen(
        (sys.executable, "-m", "preheat", "warm", "--json", *options),
        env=worker.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    limit = time.monotonic() + 60
    while len(proofs := list(meeting.iterdir())) < 2:
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.02)
    process.send_signal(how)
    process.communicate(timeout=30)
    assert process.returncode == 130
    for proof in proofs:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(proof.name.rpartition("-")[2]), 0)
            pytest.fail(f"{proof.name} still runs")
    assert list((worker.store / "staging").iterdir()) == []


def test_what_is_proved_in_time_is_there_after_a_deadline_that_others_miss(worker: Worker) -> None:
    worker.write([entry("one"), entry("hanging"), entry("clinging")], deadline="6s")
    begin = time.monotonic()
    started = worker.warm()
    assert started.status("one") == "installed"
    assert "deadline" in started.bad["hanging"]
    assert "deadline" in started.bad["clinging"]
    # Far from the ten minutes that each of them would take.
    assert time.monotonic() - begin < 60
