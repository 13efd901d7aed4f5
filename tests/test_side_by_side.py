"""Packages that arrive while others are proved: each has a proof of its own, and none waits."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from preheat.edges.process import limits
from preheat.making import concurrent
from preheat.words.proof import Proof
from tests.support.index import Index
from tests.support.platforms import Platform, fake_torch, make_platform
from tests.support.starts import package
from tests.support.wheels import Project
from tests.support.workers import Worker

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

others = sorted({"one", "two", "three", "inner"} & set(sys.modules) - {__name__})
with open(os.path.join(os.environ["MEETING"], "imports"), "a") as file:
    file.write(f"{__name__} after {others}\\n")
"""


def project(name: str, code: str) -> Project:
    return Project(name=name, version="1", files={f"{name}.py": code})


BINDS = """
import socket
import time

with socket.socket() as server:
    server.bind(("127.0.0.1", {port}))
    server.listen()
    time.sleep(1)
"""

PROJECTS = (
    project("left", MEETS.format(own="left", other="right")),
    project("right", MEETS.format(own="right", other="left")),
    Project(name="holder", version="1", requires=("inner",), files={"holder.py": ""}),
    project("inner", NOTES),
    project("broken", "raise OSError('broken')\n"),
    project("hanging", HANGS),
    project("clinging", HANGS),
    *(project(name, NOTES) for name in ("one", "two", "three")),
    project("follower", "import sys\nassert 'one' in sys.modules, 'one was not there before'\n"),
    project("jealous", "import sys\nassert 'one' not in sys.modules, 'one was there before'\n"),
)

pytestmark = pytest.mark.skipif(
    concurrent.proofs_at_once() < 2, reason="needs 2 processors, and 4 GB of available memory"
)


@pytest.fixture
def worker(tmp_path: Path, index: Index, platform: Platform) -> Worker:
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    return Worker(place=tmp_path, platform=platform, index=index, extra={"MEETING": str(meeting)})


def test_packages_that_have_arrived_are_imported_at_the_same_time(worker: Worker) -> None:
    worker.write([package("left"), package("right")])
    started = worker.warm()
    assert started.bad == {}
    assert [row["status"] for row in started.document["packages"]] == ["installed", "installed"]


def test_each_is_imported_alone_and_all_of_them_in_order_once(worker: Worker) -> None:
    names = ("one", "two", "three")
    worker.write([package(name) for name in names])
    assert worker.warm().bad == {}
    noted = (worker.place / "meeting" / "imports").read_text().splitlines()
    alone = [f"{name} after []" for name in names]
    together = ["one after []", "two after ['one']", "three after ['one', 'two']"]
    assert sorted(noted) == sorted([*alone, *together])


def test_what_is_proved_at_the_same_time_is_warm_at_the_next_start(worker: Worker) -> None:
    worker.write([package("one"), package("two"), package("three")])
    assert worker.warm().bad == {}
    noted = worker.place / "meeting" / "imports"
    noted.unlink()
    again = worker.warm("--cold")
    assert {row["status"] for row in again.document["packages"]} == {"reused"}
    assert not noted.exists()


@pytest.mark.parametrize(("compile", "kept"), [("none", 0), ("imported", 3), ("all", 3)])
def test_what_lies_in_an_earlier_layer_is_proved_there_and_adds_nothing_to_it(
    worker: Worker, compile: str, kept: int
) -> None:
    worker.write([package("holder"), package("inner"), package("one")], compile=compile)
    started = worker.warm()
    assert started.bad == {}
    assert started.layer("inner") == started.layer("holder")
    noted = (worker.place / "meeting" / "imports").read_text().splitlines()
    assert sorted(noted) == [
        "inner after []",
        "inner after []",
        "one after ['inner']",
        "one after []",
    ]
    assert len(list((worker.store / "layers").rglob("*.pyc"))) == kept


def test_what_two_checks_cannot_have_at_the_same_time_they_have_one_after_the_other(
    worker: Worker,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        check = BINDS.format(port=free.getsockname()[1])
    worker.write([package("one", check=check), package("two", check=check)])
    assert worker.warm().bad == {}


def test_a_package_that_hangs_beside_others_is_waited_for_once(worker: Worker) -> None:
    worker.write([package("one"), package("hanging")], import_timeout="4s")
    started = worker.warm()
    assert started.bad == {"hanging": "import hanging did not return within 4 s"}
    # Alone, and together with the other meanwhile.
    assert len(list((worker.place / "meeting").glob("hanging-*"))) <= 2


def test_a_proof_that_others_wait_for_too_long_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(concurrent, "_PATIENCE_SECONDS", 0.1)
    good = Proof(package="good", ok=True)

    def endless(stop: threading.Event) -> None:
        assert stop.wait(60)

    trials = (
        concurrent._Proving(key="good", run=lambda stop: good),
        concurrent._Proving(key="endless", run=endless),
    )
    begun: list[concurrent._Begun] = []
    with ThreadPoolExecutor(2) as pool:
        concurrent._follow(iter(trials), pool, begun)
        assert [each.future.done() for each in begun] == [True, False]
        for each in begun:
            each.stop()
    assert begun[0].proof == good


def test_a_package_that_fails_beside_others_costs_itself(worker: Worker) -> None:
    worker.write([package("one"), package("broken"), package("two")])
    started = worker.warm()
    assert started.bad == {"broken": "import broken failed: OSError: broken"}
    assert started.status("one") == started.status("two") == "installed"


def test_a_package_that_works_after_another_only_is_not_taken_for_one_that_works(
    worker: Worker,
) -> None:
    worker.write([package("one"), package("follower")])
    started = worker.warm()
    assert "one was not there before" in started.bad["follower"]


def test_a_package_that_works_alone_only_is_taken_off_with_that_reason(worker: Worker) -> None:
    worker.write([package("one"), package("two"), package("jealous")])
    started = worker.warm()
    assert started.bad["jealous"].startswith("works alone, not with the others")
    assert len(started.document["paths"]) == 2


@pytest.fixture(scope="module")
def slow_torch(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    torch = fake_torch()
    sleeps = {"torch/__init__.py": "import time\ntime.sleep(600)\n"}
    slow = replace(torch, files={**torch.files, **sleeps})
    return make_platform(tmp_path_factory.mktemp("slow") / "venv", projects=[slow])


def test_an_interrupted_start_leaves_no_proof_running_while_it_waits_for_torch(
    worker: Worker, slow_torch: Platform
) -> None:
    worker = replace(worker, platform=slow_torch)
    worker.write([package("one"), package("hanging")])
    interrupt(worker, proofs=1, how=signal.SIGTERM)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_start_leaves_no_proof_running(worker: Worker, how: signal.Signals) -> None:
    worker.write([package("hanging"), package("clinging")])
    interrupt(worker, proofs=2, how=how)


def interrupt(worker: Worker, proofs: int, how: signal.Signals) -> None:
    """Start, and interrupt it once so many proofs hang; nothing of them is left."""
    meeting = worker.place / "meeting"
    process = worker.ground.spawn("warm", "--json")
    limit = time.monotonic() + 60
    while len(hanging := list(meeting.glob("*ing-*"))) < proofs:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.02)
    process.send_signal(how)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130, said
    for proof in hanging:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(proof.name.rpartition("-")[2]), 0)
            pytest.fail(f"{proof.name} still runs")
    assert list((worker.store / "staging").iterdir()) == []


def test_what_is_proved_in_time_is_there_after_a_deadline_that_others_miss(worker: Worker) -> None:
    worker.write([package("one"), package("hanging"), package("clinging")], deadline="6s")
    begin = time.monotonic()
    started = worker.warm()
    assert started.status("one") == "installed"
    assert "deadline" in started.bad["hanging"]
    assert "deadline" in started.bad["clinging"]
    # Far from the ten minutes that each of them would take.
    assert time.monotonic() - begin < 60


# -- what a container may take -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "processors"),
    [
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_a_quota_counts_as_so_many_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], processors: int | None
) -> None:
    limit(tmp_path, monkeypatch, files)
    assert limits.available_processors() == (processors or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("files", "left"),
    [
        (
            {
                "memory.max": "5000000",
                "memory.current": "4000000",
                "memory.stat": "anon 1\ninactive_file 500000\n",
            },
            1_500_000,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "5000000",
                "memory/memory.usage_in_bytes": "4000000",
                "memory/memory.stat": "cache 1\ntotal_inactive_file 250000\n",
            },
            1_250_000,
        ),
    ],
)
def test_a_limit_on_memory_counts_without_what_is_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], left: int
) -> None:
    limit(tmp_path, monkeypatch, files)
    assert limits.available_memory() == left
    limit(tmp_path / "none", monkeypatch, {"memory.max": "max"})
    assert limits.available_memory() > left


def limit(place: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.rstrip() + "\n")
    monkeypatch.setattr(limits, "_CGROUP", place)
