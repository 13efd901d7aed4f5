"""A worker in a process of its own, as the platform runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.starts import environment
from worker.tests.support.runpod_service import RunPodService

HANDLER = Path(__file__).parents[2] / "runpod-handler.py"
TONE_WORKER = Path(__file__).with_name("tone_worker.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningWorker:
    """The process, and what it writes to its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        """Everything it has written."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """Its own structured lines of one kind."""
        lines = (line for line in self.text().splitlines() if line.startswith('{"time"'))
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def wait_for(self, name: str, timeout: float = 60.0) -> dict[str, Any]:
        """The first event of that kind; it must come."""
        end = time.monotonic() + timeout
        while not (found := self.events(name)):
            assert self.process.poll() is None, (
                f"ended with {self.process.returncode}:\n{self.text()}"
            )
            assert time.monotonic() < end, f"no {name} within {timeout} s:\n{self.text()}"
            time.sleep(0.05)
        return found[0]

    def ended(self, timeout: float = 60.0) -> int:
        """How it ended; it must end."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s:\n{self.text()}") from None


@contextmanager
def running(
    command: Sequence[str | Path], place: Path, settings: Mapping[str, str]
) -> Iterator[RunningWorker]:
    """Run a worker until the test is over; it gets nothing of the caller's settings."""
    place.mkdir(parents=True, exist_ok=True)
    log = place / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=place,
            env=surroundings(place, settings),
            start_new_session=True,
        )
        try:
            yield RunningWorker(process=process, log=log)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def surroundings(place: Path, more: Mapping[str, str]) -> dict[str, str]:
    """What a worker is started with: its data and its store lie below that directory too."""
    own = {
        "WORKER_DATA": str(place / "data"),
        "PREHEAT_STORE": str(place / "store"),
        # What a missing credential asks for at an address that does not answer.
        "NO_GCE_CHECK": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    # Some machines with a GPU have their driver there.
    if libraries := os.environ.get("LD_LIBRARY_PATH"):
        own["LD_LIBRARY_PATH"] = libraries
    return environment(place, {**own, **more})


@contextmanager
def tone_worker(service: RunPodService, place: Path, **settings: str) -> Iterator[RunningWorker]:
    """The whole worker but for F5-TTS: a tone speaks, and times its own words."""
    place.mkdir(parents=True, exist_ok=True)
    manifest = place / "preheat.toml"
    manifest.write_text("package = []\n", encoding="utf-8")
    stated = {"WORKER_MANIFEST": str(manifest), **service.environment, **settings}
    with running((sys.executable, "-u", TONE_WORKER), place, stated) as worker:
        worker.wait_for("started")
        yield worker
