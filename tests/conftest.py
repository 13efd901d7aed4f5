"""What a test may need of the machine, and why it is skipped where that is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.support.index import Index

BIG = 25_000_000_000  # bytes that the biggest tests may need at once


def not_asked_for() -> str | None:
    """Why tests that download gigabytes do not run: nobody asked, or CI lacks the disk."""
    if os.environ.get("TEST_BIG") == "1":
        return None
    if os.environ.get("CI") != "true":
        return "set TEST_BIG=1 to download GBs"
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free >= BIG:
        return None
    return f"needs {BIG / 1e9:.0f} GB free in {tempfile.gettempdir()}, which has {free / 1e9:.0f}"


def not_long() -> str | None:
    """Why the rest of a long table does not run: CI has an hour."""
    return None if os.environ.get("TEST_BIG") == "1" else "set TEST_BIG=1: the whole table is long"


def not_root() -> str | None:
    """Why filesystems cannot be mounted."""
    return None if os.geteuid() == 0 else "needs root"


@cache
def no_index() -> str | None:
    """Why the index that uv is configured for cannot be used; asked once a session."""
    resolve = [find_uv_bin(), "pip", "compile", "-", "--no-deps", "--no-cache", "--quiet"]
    try:
        subprocess.run(
            resolve, input="iniconfig", capture_output=True, text=True, timeout=60, check=True
        )
    except subprocess.TimeoutExpired:
        return "the package index does not answer"
    except subprocess.CalledProcessError as error:
        return f"the package index cannot be used: {' '.join(error.stderr.split())[:200]}"
    return None


def no_gpu() -> str | None:
    """Why nothing can run on a GPU."""
    # The driver lists them there; what preheat is told by its library is what tests are about.
    return None if Path("/proc/driver/nvidia/gpus").is_dir() else "no NVIDIA GPU"


# In this order, so that the index is not asked on behalf of a test that will not run.
MISSING: dict[str, Callable[[], str | None]] = {
    "big": not_asked_for,
    "long": not_long,
    "root": not_root,
    "gpu": no_gpu,
    "network": no_index,
}


@pytest.fixture(autouse=True, scope="session")
def nothing_of_the_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test cleans what apt and conda keep for the whole machine, whatever it forgets to say."""
    with pytest.MonkeyPatch.context() as session:
        session.setenv("PREHEAT_INTERNAL_SYSTEM", str(tmp_path_factory.mktemp("system")))
        yield


@pytest.fixture(scope="module")
def index(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Index]:
    """An index of the test module's own `PROJECTS`."""
    with Index(tmp_path_factory.mktemp("index")) as index:
        index.publish(*request.module.PROJECTS)
        yield index


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs this machine does not meet."""
    for marker, missing in MISSING.items():
        if item.get_closest_marker(marker) and (reason := missing()):
            pytest.skip(reason)
