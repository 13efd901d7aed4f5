"""Archives over a network that breaks: tried again, and taken up where it stopped."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from preheat.edges.index import transport
from tests.support.index import Index
from tests.support.platforms import Platform
from tests.support.starts import Ground, package
from tests.support.wheels import Project

SIZE = 6_000_000


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """An index with one large and one small release."""
    index = Index(tmp_path / "index")
    big: dict[str, str | bytes] = {"big.py": "", "big.bin": os.urandom(SIZE)}
    with index:
        index.publish(
            Project(name="big", version="1.0", files=big),
            Project(name="small", version="1.0", files={"small.py": ""}),
        )
        yield index


@pytest.fixture
def ground(tmp_path: Path, platform: Platform, index: Index) -> Ground:
    ground = Ground(root=tmp_path / "ground", python=platform.python)
    ground.write(package("big"), package("small"), index=index)
    return ground


def served(index: Index) -> int:
    """Bytes that the index sent of the large archive."""
    return sum(r.bytes_sent for r in index.requests if r.path.endswith("big-1.0-py3-none-any.whl"))


def test_a_transfer_that_breaks_again_and_again_goes_on_where_it_stopped(
    ground: Ground, index: Index
) -> None:
    index.truncate("/files/big*.whl", times=9)
    answer = ground.warm()
    assert answer.status("big") == "installed", answer.reason("big")
    assert answer.status("small") == "installed"
    # Beyond the middle, where a transfer breaks: nobody else asks for that.
    ranges = [r.range or "" for r in index.requests if r.path.endswith("big-1.0-py3-none-any.whl")]
    begins = [text[6:].partition("-")[0] for text in ranges if text.endswith("-")]
    assert any(int(begin) >= SIZE // 2 for begin in begins if begin), ranges
    # What uv began anew is lost; what the relay had is not fetched again.
    assert served(index) < 6 * SIZE


def test_without_ranges_it_ends_installed_or_with_a_reason_that_is_not_remembered(
    ground: Ground, index: Index
) -> None:
    index.ranges = False
    index.truncate("/files/big*.whl", times=9)
    answer = ground.warm()
    assert answer.code == 0
    assert answer.status("small") == "installed"
    if answer.status("big") != "installed":
        index.heal()
        assert ground.warm().status("big") == "installed"


def test_the_size_of_a_wheel_is_exact_although_the_index_is_busy_at_first(
    ground: Ground, index: Index
) -> None:
    index.fail("/files/big*.whl", status=503, times=2)
    answer = ground.run("plan", "--json")
    assert answer.packages["big"]["exact"]


def test_what_is_not_there_is_not_asked_for_again(ground: Ground, index: Index) -> None:
    index.fail("/files/big*.whl", status=404)
    ground.run("plan", "--json")
    asked = [r for r in index.requests if r.path.endswith(".whl") and "big" in r.path]
    assert 1 <= len(asked) <= 3


def test_pauses_grow_and_are_uneven() -> None:
    pauses = [[transport.pause(n) for n in range(4)] for _ in range(20)]
    assert len({tuple(row) for row in pauses}) == 20
    for row in pauses:
        assert (
            row[0]
            < row[2]
            < row[3]
            <= transport.LONGEST_PAUSE_SECONDS + transport.FIRST_PAUSE_SECONDS
        )


def test_nothing_of_a_relay_is_left() -> None:
    from preheat.edges.engine.relay import Relay

    before = threading.active_count()
    with Relay((), transport.Credentials(), 5.0):
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_a_transfer_that_stalls_goes_on_where_it_stopped(ground: Ground, index: Index) -> None:
    ground.write(package("big"), package("small"), index=index, index_timeout="2s")
    index.stall("/files/big*.whl", times=6)
    answer = ground.warm()
    assert answer.status("big") == "installed", answer.reason("big")
    ranges = [r.range or "" for r in index.requests if r.path.endswith("big-1.0-py3-none-any.whl")]
    begins = [text[6:].partition("-")[0] for text in ranges if text.endswith("-")]
    assert any(int(begin) >= SIZE // 2 for begin in begins if begin), ranges


def test_an_archive_that_changed_after_it_was_chosen_is_chosen_anew_by_the_next_start(
    ground: Ground, index: Index
) -> None:
    ground.write(package("big"), package("small"), index=index, index_timeout="2s")
    index.fail("/files/big*.whl", status=503)
    assert ground.warm().status("big") == "failed"  # its hash is chosen now, and kept
    index.heal()
    index.publish(Project(name="big", version="1.0", files={"big.py": "ANEW = 1\n"}))
    answer = ground.warm()
    assert answer.status("big") == "failed"
    assert "mismatch" in answer.reason("big")
    answer = ground.warm()
    assert answer.status("big") == "installed", answer.reason("big")
    assert ground.warm().document["warm"]


def test_credentials_reach_the_index_through_the_relay_and_no_log(
    tmp_path: Path, platform: Platform
) -> None:
    secret = "hunter2"  # noqa: S105
    index = Index(tmp_path / "index", user="worker", password=secret)
    with index:
        big: dict[str, str | bytes] = {"big.py": "", "big.bin": os.urandom(SIZE)}
        index.publish(Project(name="big", version="1.0", files=big))
        ground = Ground(root=tmp_path / "ground", python=platform.python)
        ground.write(package("big"), index={"url": index.url_with_credentials})
        index.truncate("/files/big*.whl", times=9)
        answer = ground.warm()
    assert answer.status("big") == "installed", answer.reason("big")
    assert secret not in answer.stdout + answer.stderr
    for file in ground.store.rglob("*"):
        if file.is_file() and file.name != "preheat.toml":
            assert secret.encode() not in file.read_bytes(), file
