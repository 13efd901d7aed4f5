"""What a newcomer stumbled over once, and nobody should again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from preheat.edges.platform.fingerprint import changes, fingerprint
from tests.support.index import Index, offering
from tests.support.starts import Ground, package
from tests.support.wheels import Project

GOOD = Project(name="good", version="1.0", files={"good.py": "VALUE = 1\n"})


index = offering(GOOD)


def test_a_hardlink_that_comes_and_goes_elsewhere_is_no_write_to_the_platform(
    tmp_path: Path,
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "module.py").write_text("A = 1\n", encoding="utf-8")
    before = fingerprint([str(site)])
    (tmp_path / "cache.py").hardlink_to(site / "module.py")
    assert changes(before, fingerprint([str(site)])) == ()
    linked = fingerprint([str(site)])
    (tmp_path / "cache.py").unlink()
    assert changes(linked, fingerprint([str(site)])) == ()


@pytest.mark.parametrize("hidden", [False, True], ids=["plainly", "with its time set back"])
def test_a_write_of_the_same_size_shows(tmp_path: Path, hidden: bool) -> None:
    file = tmp_path / "site" / "module.py"
    file.parent.mkdir()
    file.write_text("A = 1\n", encoding="utf-8")
    was = file.stat()
    before = fingerprint([str(file.parent)])
    time.sleep(0.01)  # the clock of a filesystem ticks in milliseconds
    file.write_text("A = 2\n", encoding="utf-8")
    if hidden:
        os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert changes(before, fingerprint([str(file.parent)])) == (str(file),)


def test_a_required_package_that_was_refused_is_asked_for_at_the_next_start(
    ground: Ground, index: Index
) -> None:
    ground.write(package("late", required=True), index=index)
    assert ground.warm().code == 3
    index.publish(Project(name="late", version="1.0", files={"late.py": ""}))
    assert ground.warm().code == 0


@pytest.mark.parametrize(
    "line", ['store = "kept"  # where', "\"store\" = 'kept'", 'store="kept"'], ids=repr
)
def test_a_store_that_the_manifest_states_is_found_however_it_is_written(
    ground: Ground, index: Index, line: str
) -> None:
    ground.write(package("good"), index=index)
    text = ground.manifest.read_text(encoding="utf-8")
    ground.manifest.write_text(f"{line}\n{text}", encoding="utf-8")
    command = ground.command("warm", "--json")
    at = command.index("--store")
    del command[at : at + 2]
    for warm in (False, True):
        done = subprocess.run(
            command, env=ground.surroundings(), capture_output=True, text=True, check=True
        )
        assert f'"warm": {str(warm).lower()}' in done.stdout
    assert (ground.root / "kept" / "layers").is_dir()


def test_status_says_why_the_next_start_is_cold(ground: Ground, index: Index) -> None:
    ground.write(package("good"), index=index)
    assert "no start has left a pointer" in ground.run("status").stdout
    ground.warm()
    assert "the next start is warm" in ground.run("status").stdout
    ground.write(package("good", check="import good"), index=index)
    assert "the next start is cold: the manifest has changed" in ground.run("status").stdout


def test_warm_ends_with_what_is_required_and_not_ready(ground: Ground, index: Index) -> None:
    ground.write(package("lost", required=True), index=index)
    last = ground.run("warm").stderr.strip().splitlines()[-1]
    assert last == "preheat: required and not ready: lost: lost is not on the configured index"


def test_run_names_what_is_not_available_before_the_program_needs_it(
    ground: Ground, index: Index
) -> None:
    ground.write(package("good"), package("lost"), index=index)
    assert ground.run("run", "true").code == 0
    warm = ground.run("run", "true")
    assert "preheat: not available: lost: lost is not on the configured index" in warm.stderr


def test_in_a_log_a_row_is_a_line_without_padding(ground: Ground, index: Index) -> None:
    ground.write(package("good"), package("n" * 60, check="x = 1"), index=index)
    lines = ground.run("plan").stdout.splitlines()
    assert any(line.endswith("is not on the configured index") for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_a_cold_start_ends_when_the_worker_that_it_works_for_is_killed(tmp_path: Path) -> None:
    child = (
        "from preheat.edges.process.child import end_with_parent as end\n"
        "end()\nimport time\ntime.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys, time\n"
        "own = {**os.environ, 'PREHEAT_INTERNAL_PARENT': str(os.getpid())}\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], env=own)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        time.sleep(1)
        worker.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _runs(pid):
        time.sleep(0.05)
    assert not _runs(pid)


def test_a_log_of_an_unknown_kind_is_wrong_usage(ground: Ground, index: Index) -> None:
    ground.write(package("good"), index=index)
    told = Ground(root=ground.root, python=ground.python, environment={"PREHEAT_LOG": "foo"})
    answer = told.run("warm")
    assert answer.code == 2
    assert "bars, text, json, none" in answer.stderr


def _runs(pid: int) -> bool:
    """Whether that process is there, and no zombie."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
