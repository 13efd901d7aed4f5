"""The start of the worker: what is timed, what fails, and what becomes of jobs then."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import preheat
from f5_tts_worker.starting import is_of_this_machine
from tests.support.index import Index
from tests.support.wheels import Project
from worker.tests.support.running import (
    HANDLER,
    TONE_WORKER,
    RunningWorker,
    running,
    surroundings,
    tone_worker,
)
from worker.tests.support.runpod_service import RunPodService

REQUIRED = """
[index]
url = "{url}"

[space]
keep-free = 0
clean-below = 0

[[package]]
name = "transformers"
requires = ["transformers"]
imports = ["transformers"]
required = true
"""


def python(code: str, place: Path, **more: str) -> str:
    """What code prints that runs as the worker's process would."""
    done = subprocess.run(
        (sys.executable, "-c", code),
        env=surroundings(place, more),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def manifest(place: Path, text: str = "package = []\n") -> str:
    """Write a manifest and return its path."""
    place.mkdir(parents=True, exist_ok=True)
    file = place / "preheat.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def handler(
    place: Path, runpod: RunPodService, more: Mapping[str, str]
) -> AbstractContextManager[RunningWorker]:
    """The container's own program, with RunPod's environment."""
    return running((sys.executable, "-u", HANDLER), place, {**runpod.environment, **more})


# -- order -------------------------------------------------------------------------------------


def test_nothing_that_a_layer_may_hold_is_imported_before_preheat_has_run(tmp_path: Path) -> None:
    code = "import json, sys, f5_tts_worker.starting; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.split(".")[0] for name in json.loads(python(code, tmp_path))}
    installed = {"boto3", "numpy", "prometheus_client", "pydantic", "requests", "runpod"}
    assert not loaded & (installed | {"librosa", "soundfile", "torch", "transformers"})
    assert "preheat" in loaded


def test_every_stage_is_timed_in_its_order(tmp_path: Path) -> None:
    with RunPodService() as runpod, tone_worker(runpod, tmp_path) as worker:
        told = worker.wait_for("started")
    assert list(told["stages"]) == ["settings", "caches", "packages", "model", "timing"]
    assert sum(told["stages"].values()) == pytest.approx(told["seconds"], abs=0.01)
    assert told["storage"].startswith("inline, up to 7000000 bytes")
    assert told["free_bytes"] > 0


def test_model_caches_lie_with_the_workers_data(tmp_path: Path) -> None:
    code = (
        "import os; from f5_tts_worker.settings import read_settings;"
        "from f5_tts_worker.starting import point_caches; point_caches(read_settings());"
        "print(os.environ['HF_HUB_CACHE'], os.environ['HF_HOME'], os.environ['NLTK_DATA'])"
    )
    places = python(code, tmp_path).split()
    assert all(Path(place).is_relative_to(tmp_path / "data" / "models") for place in places)
    assert all(Path(place).is_dir() for place in places)


def test_a_library_that_has_read_its_cache_already_is_an_error(tmp_path: Path) -> None:
    code = (
        "import sys, types; sys.modules['huggingface_hub'] = types.ModuleType('huggingface_hub')\n"
        "from f5_tts_worker.starting import initialize_models\n"
        "print(initialize_models().failure.message)"
    )
    said = python(code, tmp_path)
    assert said == "RuntimeError: imported before the model caches were set: huggingface_hub"


# -- failures ----------------------------------------------------------------------------------


def test_a_required_package_that_is_missing_is_the_answer_to_every_job(tmp_path: Path) -> None:
    with Index(tmp_path / "index") as index, RunPodService() as runpod:
        given = {"WORKER_MANIFEST": manifest(tmp_path, REQUIRED.format(url=index.url))}
        with handler(tmp_path, runpod, given) as worker:
            failed = worker.wait_for("start-failed")
            for job in ({"text": "Hello."}, {"endpoint": "list_voices"}, {"text": ""}):
                error = runpod.error(runpod.submit(job))
                assert error.startswith("this worker's start failed at packages: ")
                assert "transformers" in error
            assert worker.process.poll() is None
    assert failed["replace"] is False
    assert failed["packages"] == {}


def test_a_required_package_that_raises_is_the_answer_to_every_job(tmp_path: Path) -> None:
    broken = Project(
        name="transformers",
        version="5.0.0",
        files={"transformers/__init__.py": "raise RuntimeError('built for another torch')\n"},
    )
    with Index(tmp_path / "index") as index, RunPodService() as runpod:
        index.publish(broken)
        given = {"WORKER_MANIFEST": manifest(tmp_path, REQUIRED.format(url=index.url))}
        with handler(tmp_path, runpod, given) as worker:
            worker.wait_for("start-failed")
            error = runpod.error(runpod.submit({"text": "Hello."}))
    assert "built for another torch" in error


def test_a_wrong_setting_is_the_answer_to_every_job(tmp_path: Path) -> None:
    given = {"WORKER_MANIFEST": manifest(tmp_path), "WORKER_CONCURRENCY": "many"}
    with RunPodService() as runpod, handler(tmp_path, runpod, given):
        error = runpod.error(runpod.submit({"text": "Hello."}))
    assert "WORKER_CONCURRENCY is 'many'" in error


def test_a_model_that_cannot_be_loaded_is_the_answer_to_every_job(tmp_path: Path) -> None:
    given = {"WORKER_MANIFEST": manifest(tmp_path)}
    with RunPodService() as runpod, handler(tmp_path, runpod, given) as worker:
        failed = worker.wait_for("start-failed")
        error = runpod.error(runpod.submit({"text": "Hello."}))
    assert list(failed["stages"])[-1] == "model"
    assert error == (
        "this worker's start failed at model: ModuleNotFoundError: No module named 'f5_tts'"
    )


def test_a_fault_of_the_machine_ends_the_worker_so_that_it_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "no-directory").touch()
    given = {"WORKER_MANIFEST": manifest(tmp_path), "PREHEAT_STORE": str(tmp_path / "no-directory")}
    with RunPodService() as runpod, handler(tmp_path, runpod, given) as worker:
        failed = worker.wait_for("start-failed")
        assert worker.ended() == 1
        runpod.wait_for_ping(lambda ping: ping.get("status") == "unhealthy")
        (told,) = runpod.pings()
    assert failed["replace"] is True
    assert told["check"] == "this_machine_can_serve"
    assert "packages: " in told["reason"]


def test_the_worker_serves_one_job_from_the_command_line(tmp_path: Path) -> None:
    given = {"WORKER_MANIFEST": manifest(tmp_path)}
    job = json.dumps({"input": {"text": ""}})
    command = (sys.executable, "-u", HANDLER, "--test_input", job)
    with running(command, tmp_path, given) as worker:
        assert worker.ended() == 1
        assert "start failed at model" in worker.text()


@pytest.mark.parametrize(
    ("error", "of_the_machine"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EROFS, "Read-only file system"), True),
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (FileNotFoundError(errno.ENOENT, "no such file"), False),
        (ModuleNotFoundError("No module named 'f5_tts'"), False),
        (preheat.RequiredPackageError("required and not ready: f5-tts"), False),
        (ValueError("no such model"), False),
    ],
)
def test_a_fault_of_the_machine_is_told_from_one_of_the_worker(
    error: Exception, of_the_machine: bool
) -> None:
    assert is_of_this_machine(error) is of_the_machine


def test_a_fault_of_the_machine_is_seen_through_what_was_made_of_it() -> None:
    def keep() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as full:
            raise RuntimeError("the model cannot be kept") from full

    with pytest.raises(RuntimeError) as failed:
        keep()
    assert is_of_this_machine(failed.value)


@pytest.mark.root
@pytest.mark.parametrize(
    ("variable", "options", "said"),
    [
        ("WORKER_DATA", "ro", "caches: OSError"),
        ("TMPDIR", "size=20m", "bytes are free for temporary files"),
    ],
)
def test_a_disk_that_cannot_be_used_ends_the_worker(
    tmp_path: Path, variable: str, options: str, said: str
) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mount = f'mount -t tmpfs -o {options} none {place} || exit 77; exec "$@"'
    command = ("unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-u", TONE_WORKER)
    given = {"WORKER_MANIFEST": manifest(tmp_path), variable: str(place)}
    with RunPodService() as runpod:
        environment = {**runpod.environment, **given}
        with running(command, tmp_path, environment) as worker:
            code = worker.ended()
            if code == 77:
                pytest.skip("filesystems cannot be mounted here")
            assert code == 1, worker.text()
        runpod.wait_for_ping(lambda ping: ping.get("status") == "unhealthy")
        (told,) = runpod.pings()
    assert said in told["reason"]
