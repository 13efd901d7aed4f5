"""What a test may need of the machine, and why it is skipped where that is missing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.support.index import Index
from tests.support.mounts import mounts_of_our_own
from tests.support.platforms import Platform, make_platform
from tests.support.starts import Ground
from tests.support.workers import make_host

BIG = 25_000_000_000  # bytes that the biggest tests may need at once
PATIENCE = 7200  # seconds for a test that downloads gigabytes, or that is a long table


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


@pytest.fixture(autouse=True, scope="session")
def children_can_be_interrupted() -> None:
    """What a test starts ends at SIGINT, also where these tests run in a script's background.

    There SIGINT is ignored from the start, and children inherit that; a function that does
    nothing has the same effect here, and is not inherited.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: None)


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform without anything, which no test changes."""
    return make_platform(tmp_path_factory.mktemp("platform") / "venv")


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform without anything but preheat, which no test changes."""
    return make_host(tmp_path_factory.mktemp("host"))


@pytest.fixture
def ground(tmp_path: Path, platform: Platform) -> Ground:
    """A ground with nothing on it."""
    return Ground(root=tmp_path / "ground", python=platform.python)


@pytest.fixture(scope="module")
def usual_umask() -> Iterator[None]:
    """Others may read what the module's tests make, whatever the umask of who runs them."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def own_mounts() -> Iterator[None]:
    """What the test mounts nobody else sees."""
    with mounts_of_our_own():
        yield


@pytest.fixture(scope="module")
def index(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Index]:
    """An index of the test module's own `PROJECTS`."""
    with Index(tmp_path_factory.mktemp("index")) as index:
        index.publish(*request.module.PROJECTS)
        yield index


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Give long tests the time that they may take."""
    all_are_long = os.environ.get("TEST_BIG") == "1"
    for item in items:
        if all_are_long or item.get_closest_marker("big") or item.get_closest_marker("table"):
            item.add_marker(pytest.mark.timeout(PATIENCE))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs this machine does not meet."""
    for marker, missing in MISSING.items():
        if item.get_closest_marker(marker) and (reason := missing()):
            pytest.skip(reason)
