"""The worker as in a container: its image read-only below, and little room to write above.

The image is the lower side of an overlay, as every container's root is; store, models, home and
temporary files share one filesystem of the size that the test names.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from worker.tests.support.real import RealGround, make_ground, remove, write_manifest
from worker.tests.support.running import HANDLER, RunningWorker, running
from worker.tests.support.runpod_service import RunPodService

pytestmark = [pytest.mark.big, pytest.mark.network, pytest.mark.root]

TEXT = "The first sentence is said here, and it is not short. The second one is said after it."
MINUTES = 900.0
SPACE = {"keep-free": "500MB", "clean-below": "1GB"}  # what preheat keeps by itself

OVERLAY = """
mount -t tmpfs -o size={size} none {disk} || exit 77
mkdir {disk}/upper {disk}/work {disk}/tmp {disk}/home
mount -t overlay overlay -o lowerdir={image},upperdir={disk}/upper,workdir={disk}/work {image} \
  || exit 77
exec "$@"
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a start in so little room, and of a job."""

    start: dict[str, Any]
    result: dict[str, Any]
    used: int
    """Bytes of the filesystem."""
    over_the_image: list[str]
    """Files that were written where the image has its own."""
    log: str


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealGround]:
    """The image."""
    made = make_ground(tmp_path_factory.mktemp("image"))
    yield made
    remove(made)


def within(size: int, ground: RealGround, place: Path) -> Outcome:
    """Start the worker with so many bytes to write to, and send it a job."""
    disk = place / "disk"
    disk.mkdir(parents=True)
    mounts = OVERLAY.format(size=size, disk=disk, image=ground.home / "platform")
    command = ("unshare", "--mount", "sh", "-c", mounts, "sh", ground.python, "-u", HANDLER)
    own = {
        "PREHEAT_STORE": str(disk / "store"),
        "WORKER_DATA": str(disk / "data"),
        "TMPDIR": str(disk / "tmp"),
        "HOME": str(disk / "home"),
        "PYTHONDONTWRITEBYTECODE": "",
    }
    manifest = write_manifest(place, {"space": SPACE})
    with RunPodService() as runpod:
        environment = {**ground.environment(manifest), **runpod.environment, **own}
        with running(command, place, environment) as worker:
            start = end_of_start(worker)
            result = runpod.result(runpod.submit({"text": TEXT, "nfe_step": 4}), MINUTES)
            seen = Path(f"/proc/{worker.process.pid}/root{disk}")
            room = os.statvfs(seen)
            upper = (path for path in (seen / "upper").rglob("*") if path.is_file())
            return Outcome(
                start=start,
                result=result,
                used=(room.f_blocks - room.f_bfree) * room.f_frsize,
                over_the_image=[path.name for path in upper if path.suffix != ".pyc"],
                log=worker.text(),
            )


def end_of_start(worker: RunningWorker) -> dict[str, Any]:
    """The line of the start, however it ended."""
    end = time.monotonic() + MINUTES
    while time.monotonic() < end:
        if worker.process.poll() == 77:
            pytest.skip("filesystems cannot be mounted here")
        for name in ("started", "start-failed"):
            for line in worker.events(name):
                return line
        time.sleep(0.2)
    raise AssertionError(worker.text())


@pytest.mark.parametrize("gigabytes", [pytest.param(3.0, marks=pytest.mark.long), 1.5, 0.7])
def test_in_little_room_the_worker_serves_or_says_clearly_why_not(
    ground: RealGround, tmp_path: Path, gigabytes: float
) -> None:
    size = int(gigabytes * 1e9)
    outcome = within(size, ground, tmp_path)
    start = outcome.start
    sys.stdout.write(
        f"\n{gigabytes} GB: {outcome.used / 1e6:.0f} MB used, {start['seconds']:.0f} s,"
        f" {start['packages']}\n  without {start['unavailable']}\n  failure: {start['failure']}\n"
    )
    assert "Errno 28" not in outcome.log
    assert "No space left" not in outcome.log
    assert outcome.over_the_image == []
    if start["failure"] is None:
        assert outcome.result["output"]["status"] == "completed"
        assert outcome.used <= size - 400_000_000  # bytecode of the image's own comes on top
        assert set(outcome.result["output"]["unavailable"]) == set(start["unavailable"])
    else:
        assert gigabytes < 1.0
        assert "f5-tts" in outcome.result["error"]
        assert "free" in outcome.result["error"]
