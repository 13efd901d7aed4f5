"""Room while a start goes on: what is watched, given up, planned again, or left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from preheat.edges.cleaning.conda import unused_packages
from preheat.edges.disk.usage import Gauge, watch
from tests.support.index import Index
from tests.support.mounts import mount_tmpfs
from tests.support.platforms import Platform
from tests.support.starts import Ground, package
from tests.support.wheels import Project

MB = 1_000_000


@dataclass(frozen=True)
class Small:
    """A start whose store, temp and home lie on one small filesystem of their own."""

    ground: Ground
    disk: Path
    index: Index

    def free(self) -> int:
        """Bytes that may be taken."""
        stats = os.statvfs(self.disk)
        return stats.f_bavail * stats.f_frsize

    def write(self, *packages: dict[str, object], **space: object) -> None:
        """The manifest."""
        settings = {"keep-free": 0, "clean-below": 0, **space}
        self.ground.write(*packages, index=self.index, space=settings)

    def warm(self, *arguments: str) -> subprocess.Popen[str]:
        """A start under way."""
        return subprocess.Popen(
            self.ground.command("warm", "--json", *arguments, store=self.disk / "store"),
            env={
                **self.ground.surroundings(),
                "HOME": str(self.disk / "home"),
                "TMPDIR": str(self.disk / "tmp"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finished(self, start: subprocess.Popen[str]) -> tuple[dict[str, dict[str, object]], str]:
        """Its packages by name, and what it said meanwhile; nothing half-made is left."""
        stdout, stderr = start.communicate(timeout=120)
        sys.stderr.write(stderr)  # shown where the test fails
        for name in ("staging", "claims"):
            assert os.listdir(self.disk / "store" / name) == [], stderr
        found = json.loads(stdout)["packages"]
        return {each["name"]: each for each in found}, stderr


@pytest.fixture
def small(tmp_path: Path, platform: Platform, own_mounts: None) -> Iterator[Small]:
    disk = mount_tmpfs(tmp_path / "disk", "64m")
    for name in ("home", "tmp"):
        (disk / name).mkdir()
    with Index(tmp_path / "index") as index:
        ground = Ground(root=tmp_path / "ground", python=platform.python)
        yield Small(ground=ground, disk=disk, index=index)


def heavy(name: str, size: int) -> Project:
    """A release of that many bytes that do not compress."""
    return Project(
        name=name, version="1.0", files={f"{name}.py": "", f"{name}.bin": os.urandom(size)}
    )


def eat(small: Small, start: subprocess.Popen[str], file: Path) -> None:
    """Somebody else takes all but 12 MB as soon as the engine has begun to write."""
    staging = small.disk / "store" / "staging"
    until = time.monotonic() + 60
    while not any(staging.glob("*/layer-*/*")) and not any(staging.glob("*/cache/archive-v*/*")):
        assert start.poll() is None, start.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.01)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as handle:
        os.posix_fallocate(handle.fileno(), 0, small.free() - 12 * MB)


@pytest.mark.root
def test_a_start_stops_before_the_last_block_when_something_else_eats_the_disk(
    small: Small,
) -> None:
    small.index.publish(heavy("fat", 20 * MB), heavy("slim", 100_000))
    small.index.slow("/files/fat*", 6 * MB)
    small.write(package("fat"), package("slim"), **{"keep-free": 10 * MB})
    start = small.warm()
    eat(small, start, small.disk / "somebody-elses")
    least = small.free()
    while start.poll() is None:
        least = min(least, small.free())
        time.sleep(0.002)
    found, said = small.finished(start)
    assert start.returncode == 0
    assert least > 0
    assert "something else has taken space" in said
    assert found["fat"]["status"] == "skipped"
    assert "does not fit" in str(found["fat"]["reason"])
    assert (small.disk / "somebody-elses").exists()


@pytest.mark.root
def test_what_was_stopped_is_planned_again_after_cleaning(small: Small) -> None:
    small.index.publish(heavy("fat", 20 * MB))
    small.index.slow("/files/fat*", 6 * MB)
    small.write(package("fat"), **{"keep-free": 10 * MB})
    start = small.warm()
    # What eats the disk is a dead start's: that can go, and then there is room again.
    eat(small, start, small.disk / "store" / "staging" / "0123456789ab-01234567-1-1" / "file")
    found, said = small.finished(start)
    assert "short-of-space" in said
    assert found["fat"]["status"] == "installed", found["fat"]["reason"]


@pytest.mark.root
def test_shortage_gives_up_layers_that_nobody_uses_before_packages(small: Small) -> None:
    small.index.publish(heavy("old", 40 * MB), heavy("new", 40 * MB))
    small.write(package("old"))
    assert small.finished(small.warm())[0]["old"]["status"] == "installed"
    (old,) = (small.disk / "store" / "layers").iterdir()
    then = time.time() - 3600
    os.utime(old / ".preheat.json", (then, then))
    small.write(package("new"))
    found, said = small.finished(small.warm())
    assert found["new"]["status"] == "installed", said
    assert not old.exists()
    assert "layers that nobody uses" in said


@pytest.mark.root
def test_shortage_never_takes_a_layer_that_a_living_process_uses(small: Small) -> None:
    small.index.publish(heavy("old", 40 * MB), heavy("new", 40 * MB))
    small.write(package("old"))
    assert small.finished(small.warm())[0]["old"]["status"] == "installed"
    (old,) = (small.disk / "store" / "layers").iterdir()
    then = time.time() - 3600
    os.utime(old / ".preheat.json", (then, then))
    command = small.ground.command("run", store=small.disk / "store")
    worker = subprocess.Popen(
        [*command, "--", "sh", "-c", "echo up; exec sleep 100"],
        env=small.ground.surroundings(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "up\n"
        small.write(package("new"))
        found, _ = small.finished(small.warm())
        assert found["new"]["status"] == "skipped"
        assert old.exists()
    finally:
        worker.kill()
        worker.communicate()
    found, _ = small.finished(small.warm("--cold"))
    assert found["new"]["status"] == "installed"
    assert not old.exists()


@pytest.mark.root
def test_what_fits_only_without_bytecode_is_installed_without_and_says_so(small: Small) -> None:
    lines = "".join(f"def f{n}(a, b):\n    return a * {n} + b\n" for n in range(2000))
    files: dict[str, str | bytes] = {f"wordy/m{n}.py": lines for n in range(520)}
    small.index.publish(
        Project(name="wordy", version="1.0", files={**files, "wordy/__init__.py": ""})
    )
    small.write(package("wordy"))
    code = sum(len(text) for text in files.values())
    room = code + 8 * MB
    assert room < small.free() < 2 * code
    found, said = small.finished(small.warm())
    assert found["wordy"]["status"] == "installed", found["wordy"]["reason"]
    assert "without bytecode" in str(found["wordy"]["reason"])
    assert not list((small.disk / "store" / "layers").glob("*/wordy/__pycache__"))
    again, _ = small.finished(small.warm())
    assert again["wordy"]["status"] == "reused", said


def test_a_gauge_tells_what_was_lost_and_calls_once_when_it_is_too_little(
    tmp_path: Path,
) -> None:
    told: list[tuple[int, int]] = []
    short: list[int] = []
    called = threading.Event()

    def on_short(free: int) -> None:
        short.append(free)
        called.set()

    gauge = Gauge(
        place=str(tmp_path),
        told=lambda lost, free: told.append((lost, free)),
        least=2**62,
        short=on_short,
    )
    with watch(gauge):
        assert called.wait(10)
        time.sleep(1.2)
    assert len(short) == 1
    assert told
    assert all(lost >= 0 and free > 0 for lost, free in told)


# -- conda ---------------------------------------------------------------------------------------


def conda_package(root: Path, name: str) -> None:
    """An extracted package in a package cache."""
    (root / "pkgs" / name / "info").mkdir(parents=True)
    (root / "pkgs" / name / "info" / "index.json").touch()


def test_condas_packages_that_no_environment_was_made_of_are_unused(tmp_path: Path) -> None:
    root, home, elsewhere = tmp_path / "conda", tmp_path / "home", tmp_path / "elsewhere"
    for name in ("base-1-0", "named-1-0", "listed-1-0", "loose-1-0"):
        conda_package(root, name)
    (root / "pkgs" / "not-a-package").mkdir()
    for place, name in (
        (root, "base-1-0"),
        (root / "envs" / "a", "named-1-0"),
        (elsewhere, "listed-1-0"),
    ):
        (place / "conda-meta").mkdir(parents=True)
        (place / "conda-meta" / f"{name}.json").touch()
    (home / ".conda").mkdir(parents=True)
    (home / ".conda" / "environments.txt").write_text(f"{elsewhere}\n", encoding="utf-8")
    assert unused_packages(str(root / "pkgs"), str(home)) == ("loose-1-0",)


def test_a_package_cache_outside_an_installation_is_left_alone(tmp_path: Path) -> None:
    conda_package(tmp_path, "loose-1-0")
    assert unused_packages(str(tmp_path / "pkgs"), str(tmp_path)) == ()
    assert unused_packages(str(tmp_path / "absent"), str(tmp_path)) == ()
