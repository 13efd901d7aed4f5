"""The table of platforms: what preheat plans for the F5-TTS worker on each, held offline.

`python -m tests.support.recording` records it anew; each record's `review` says why its plan is
right, written by whoever looked at it.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from preheat.words.coupling import COMPANIONS
from tests.support import recorded
from tests.support.index import Index

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the recorded wheels are for x86-64"
)

NAMES = recorded.names()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    shelf = tmp_path_factory.mktemp("recorded") / "shelf"
    recorded.write_shelf(recorded.releases(), shelf)
    with Index(shelf) as index:
        yield index


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_for_a_platform_is_the_one_that_was_reviewed(
    name: str, tmp_path: Path, index: Index
) -> None:
    record = recorded.document(name)
    assert recorded.rows_on(record, recorded.worker(), tmp_path, index.url) == record["plan"]


@pytest.mark.parametrize("name", NAMES)
def test_the_companions_that_go_with_a_platforms_torch_are_those_that_were_reviewed(
    name: str, tmp_path: Path, index: Index
) -> None:
    record = recorded.document(name)
    found = recorded.rows_on(record, recorded.companions(), tmp_path, index.url)
    assert found == record["companions"]


@pytest.mark.parametrize("name", NAMES)
def test_no_plan_brings_torch_or_what_goes_with_another_one(name: str) -> None:
    record = recorded.document(name)
    torch = Version(record["torch"])
    for row in (*record["plan"], *record["companions"]):
        assert "torch" not in row["brings"]
        for companion, version in row["brings"].items():
            goes = COMPANIONS[companion].specifier((torch.major, torch.minor))
            assert SpecifierSet(goes).contains(version), (companion, version)


def test_the_table_spans_torch_cuda_and_python_as_they_are_in_use() -> None:
    records = [recorded.document(name) for name in NAMES]
    assert len(records) >= 12
    assert {record["source"] for record in records} == {"index", "by hand"}
    assert all(record["review"] for record in records)
    cudas = {record["cuda"] for record in records}
    assert {"11.8", "12.1", "12.4", "12.6", "12.8", "13.0", None} <= cudas
    torches = {tuple(Version(record["torch"]).release[:2]) for record in records}
    assert {(2, minor) for minor in (4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15)} <= torches
    pythons = {record["python"].rpartition(".")[0] for record in records}
    assert pythons == {"3.10", "3.11", "3.12", "3.13"}
