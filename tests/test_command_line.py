"""The command line as scripts use it: where settings come from, and what an order means."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.index import Index, offering
from tests.support.starts import Ground, finished, package
from tests.support.wheels import Project

GOOD = Project(name="good", version="1.0", files={"good.py": "VALUE = 1\n"})
LAST = Project(name="last", version="1.0", files={"last.py": "VALUE = 1\n"})


index = offering(GOOD, LAST)


def sources(ground: Ground, *arguments: str) -> dict[str, str]:
    """Where `preheat status` says that each setting came from."""
    rows = ground.run("status", "--json", *arguments).document["settings"]
    return {row["key"]: row["source"] for row in rows}


def test_status_says_where_each_setting_came_from(ground: Ground, index: Index) -> None:
    ground.write(package("good"), index=index, retry_after="1h", import_timeout="9s")
    told = Ground(root=ground.root, python=ground.python, environment={"PREHEAT_RETRY_AFTER": "2h"})
    found = sources(told, "--set", "space.keep-free=1MB")
    assert found["retry-after"] == "environment PREHEAT_RETRY_AFTER"
    assert found["space.keep-free"] == "command line --set space.keep-free"
    assert found["store"] == "command line --store"
    assert found["import-timeout"] == f"manifest {ground.manifest}"
    assert found["deadline"] == "default"


def test_a_setting_of_the_command_line_counts(ground: Ground, index: Index) -> None:
    ground.write(package("good"), index=index)
    answer = ground.warm("--set", "space.keep-free=900TB")
    assert answer.status("good") == "skipped"
    assert "does not fit" in answer.reason("good")


@pytest.mark.parametrize("text", ["space.keepfree=1MB", "space.keep-free", "deadline=soon"])
def test_a_setting_that_is_not_one_is_wrong_usage(ground: Ground, index: Index, text: str) -> None:
    ground.write(package("good"), index=index)
    answer = ground.run("warm", "--set", text)
    assert answer.code == 2
    assert text.partition("=")[0] in answer.stderr


def test_a_relative_interpreter_starts_where_the_caller_stands(
    ground: Ground, index: Index
) -> None:
    ground.write(package("good"), index=index)
    command = ground.command("warm", "--json")
    command[command.index("--python") + 1] = os.path.relpath(ground.python)
    assert finished(command, ground.surroundings()).status("good") == "installed"


def test_a_required_package_that_is_not_wanted_here_is_not_missed(
    ground: Ground, index: Index
) -> None:
    nowhere = {"marker": "sys_platform == 'win32'"}
    ground.write(package("good"), package("last", required=True, when=nowhere), index=index)
    assert ground.run("plan").code == 0
    answer = ground.warm()
    assert answer.code == 0
    assert answer.status("last") == "skipped"
    assert ground.warm().document["warm"]


def test_a_plan_changes_nothing(ground: Ground, index: Index) -> None:
    ground.write(package("good"), index=index)
    before = sorted(ground.root.rglob("*"))
    assert ground.run("plan", "--json").document["ready"]
    made_for_the_run = {ground.root / "home", ground.temp}
    assert set(ground.root.rglob("*")) - set(before) <= made_for_the_run
    wheels = [request for request in index.requests if request.path.endswith(".whl")]
    assert wheels
    assert all(request.range for request in wheels if request.method == "GET")


def test_run_says_what_is_missing_and_why(ground: Ground, index: Index) -> None:
    ground.write(package("good"), package("lost", required=True), index=index)
    answer = ground.run("run", "true")
    assert answer.code == 3
    assert "required and not ready: lost: lost is not on the configured index" in answer.stderr
    assert "good" not in answer.stderr.rpartition("required and not ready")[2]


def test_a_wrong_password_is_told_and_a_right_one_serves_at_the_next_start(
    tmp_path: Path, ground: Ground
) -> None:
    with Index(tmp_path / "private", user="team", password="right") as index:  # noqa: S106
        index.publish(GOOD)
        wrong = index.url_with_credentials.replace("right", "wrong")
        ground.write(package("good"), index={"url": wrong})
        refused = ground.warm()
        assert refused.status("good") == "skipped"
        assert "401 Unauthorized" in refused.reason("good")
        ground.write(package("good"), index={"url": index.url_with_credentials})
        assert ground.warm().status("good") == "installed"


def test_layers_that_are_ready_are_not_late(ground: Ground, index: Index) -> None:
    ground.write(package("good"), package("last"), index=index)
    assert ground.warm().code == 0
    answer = ground.warm("--cold", "--deadline", "0.001")
    assert {answer.status("good"), answer.status("last")} == {"reused"}


def test_a_deadline_that_passes_during_the_resolution_is_the_reason(
    ground: Ground, index: Index
) -> None:
    index.hang("/simple/*")
    ground.write(package("good"), index=index)
    answer = ground.warm("--deadline", "1")
    assert answer.status("good") == "skipped"
    assert "the deadline of 1 s has passed" in answer.reason("good")


def test_a_lock_is_asked_for_even_where_the_start_would_be_warm(
    ground: Ground, index: Index
) -> None:
    ground.write(package("good"), index=index)
    assert ground.warm().code == 0
    assert ground.warm("--locked").code == 6
    assert ground.run("lock").code == 0
    assert ground.warm("--locked").code == 0


def test_when_little_is_free_what_a_killed_start_left_is_cleaned_first(
    ground: Ground, index: Index
) -> None:
    ground.write(package("good"), index=index, space={"clean-below": "900TB", "keep-free": 0})
    left = ground.store / "staging" / "0123456789ab-01234567-1-1" / "cache" / "archive-v0"
    left.mkdir(parents=True)
    (left / "junk").write_bytes(b"x" * 100_000)
    answer = ground.warm()
    assert answer.code == 0
    assert "cleaned" in answer.stderr
    assert not left.exists()


def test_the_report_counts_the_starts_and_says_how_the_last_one_went(
    ground: Ground, index: Index
) -> None:
    ground.write(package("good"), index=index)
    ground.warm()
    ground.warm()
    counted = ground.run("report", "--json").document["history"]
    assert counted == {"starts": 2, "ready": 2, "warm": 1}
    assert "the last one was warm" in ground.run("report").stdout


def test_an_empty_store_option_is_wrong_usage_and_not_the_working_directory(ground: Ground) -> None:
    command = [sys.executable, "-m", "preheat", "clean", "--store", ""]
    answer = finished(command, ground.surroundings())
    assert answer.code == 2
    assert "it is empty" in answer.stderr


def test_status_knows_that_a_setting_on_the_command_line_makes_a_start_cold(
    ground: Ground,
) -> None:
    ground.write(package("absent", imports=["os"]), index={"url": "http://127.0.0.1:9/simple"})
    answer = ground.run("status", "--json", "--set", "space.keep-free=1MB")
    assert "--set" in answer.document["why_cold"]


def test_a_working_directory_that_was_removed_takes_no_command_down(
    ground: Ground, index: Index
) -> None:
    ground.write(package("good"), index=index)
    gone = ground.root / "gone"
    gone.mkdir()
    inside = ["/bin/sh", "-c", f'cd {gone} && rmdir {gone} && exec "$@"', "sh"]
    for words in (["warm"], ["warm"], ["doctor"], ["status"]):
        gone.mkdir(exist_ok=True)
        answer = finished([*inside, *ground.command(*words)], ground.surroundings())
        assert "Traceback" not in answer.stderr
        assert answer.code == 0, answer.stderr


@pytest.mark.parametrize("command", [("warm", "--json"), ("run", "--", "true")])
def test_a_wrong_deadline_is_wrong_usage_in_a_warm_start_too(
    ground: Ground, index: Index, command: tuple[str, ...]
) -> None:
    ground.write(package("good"), index=index)
    assert ground.warm().code == 0
    name, *rest = command
    answer = ground.run(name, "--deadline", "soon", *rest)
    assert answer.code == 2
    assert "soon" in answer.stderr


def test_a_dry_run_shows_what_would_go_and_no_layer_that_a_pointer_names(
    ground: Ground, index: Index
) -> None:
    ground.write(package("good"), index=index)
    (layer,) = [ground.warm().packages["good"]["layer"]]
    os.utime(layer, (1, 1))
    plain = ground.run("clean", "--dry-run", "--json").document["tiers"]
    needy = ground.run("clean", "--dry-run", "--need", "900TB", "--json").document["tiers"]
    met = ground.run("clean", "--dry-run", "--need", "1kB", "--json").document["tiers"]
    assert layer not in [path for tier in plain for path in tier["paths"]]
    assert met == []
    assert Path(layer).is_dir()
    assert all(tier["paths"] for tier in needy)


def test_the_report_tells_seconds_and_bytes_by_stage(ground: Ground, index: Index) -> None:
    ground.write(package("good"), package("last"), index=index)
    document = ground.warm().document
    stages = {stage["name"]: stage for stage in document["stages"]}
    assert {"probe", "resolve", "install", "prove"} <= stages.keys()
    assert all(stage["seconds"] >= 0 for stage in stages.values())
    rows = document["packages"]
    for key in ("bytes_predicted", "bytes_actual", "download", "fetched"):
        assert stages["install"][key] == sum(row[key] for row in rows) > 0
        assert stages["prove"][key] == 0
    # What the index sent whole: directories of wheels were asked for as ranges.
    archives = (r for r in index.requests if r.range is None and r.path.endswith(".whl"))
    assert stages["install"]["fetched"] == sum(request.bytes_sent for request in archives)
