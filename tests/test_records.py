"""RECORD files against the files that are there, by one process or by several."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from preheat.edges.platform import records, records_pool


@pytest.fixture
def crowd(tmp_path: Path) -> tuple[str, list[str]]:
    """Twelve distributions, so large that helpers are called, with three files missing."""
    names = []
    for number in range(12):
        info = tmp_path / f"d{number}-1.0.dist-info"
        info.mkdir()
        package = tmp_path / f"d{number}" / ("long" * 20)
        package.mkdir(parents=True)
        rows = []
        for file in range(1000):
            (package / f"m{file}.py").touch()
            rows.append(f"{package.relative_to(tmp_path)}/m{file}.py,sha256=abc,0\n")
        rows += ["../../bin/gone,,\n", f"d{number}/__pycache__/gone.pyc,,\n"]
        (info / "RECORD").write_text("".join(rows))
        names.append(info.name)
    for number in (0, 5, 11):
        (tmp_path / f"d{number}" / ("long" * 20) / "m7.py").unlink()
    return str(tmp_path), names


def _missing(location: str, names: list[str]) -> records.Missing:
    with records_pool.compared(location, names) as answer:
        return answer()


def _noted(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that are begun from here on."""
    begun: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[call-overload]
            begun.append(self)

    monkeypatch.setattr("subprocess.Popen", Noted)
    return begun


def test_what_is_missing_is_found_by_several_processes_as_by_one(
    crowd: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    location, names = crowd
    begun = _noted(monkeypatch)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    alone = _missing(location, names)
    assert not begun
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    together = _missing(location, names)
    assert len(begun) == 2
    assert together == alone
    long = "long" * 20
    assert {name: rows for name, rows in together.items() if rows} == {
        f"d{n}-1.0.dist-info": [f"d{n}/{long}/m7.py"] for n in (0, 5, 11)
    }


@pytest.mark.parametrize("stand_in", ["/bin/false", "/nowhere/python", "/bin/cat"])
def test_a_helper_that_cannot_help_costs_time_only(
    crowd: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, stand_in: str
) -> None:
    location, names = crowd
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("sys.executable", stand_in)
    assert sum(bool(rows) for rows in _missing(location, names).values()) == 3


def test_what_a_helper_drew_and_did_not_live_to_tell_is_compared_again(
    crowd: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    location, names = crowd
    thief = tmp_path / "thief"
    thief.write_text(f"#!{sys.executable}\nimport os, sys\nos.read(int(sys.argv[5]), 100)\n")
    thief.chmod(0o755)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("sys.executable", str(thief))
    begun = _noted(monkeypatch)
    with records_pool.compared(location, names) as answer:
        begun[0].wait(timeout=30)
        found = answer()
    assert set(found) == set(names)
    assert sum(bool(rows) for rows in found.values()) == 3


def test_no_helper_is_left_when_the_caller_fails(
    crowd: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    location, names = crowd
    begun = _noted(monkeypatch)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    with pytest.raises(KeyboardInterrupt), records_pool.compared(location, names):
        raise KeyboardInterrupt
    assert len(begun) == 1
    assert begun[0].returncode is not None


def test_no_record_is_told_from_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "none-1.dist-info").mkdir()
    (tmp_path / "empty-1.dist-info").mkdir()
    (tmp_path / "empty-1.dist-info" / "RECORD").touch()
    found = _missing(str(tmp_path), ["none-1.dist-info", "empty-1.dist-info"])
    assert found == {"none-1.dist-info": None, "empty-1.dist-info": []}


def test_quoted_rows_name_files_with_commas_and_quotes(tmp_path: Path) -> None:
    info = tmp_path / "odd-1.dist-info"
    info.mkdir()
    (tmp_path / 'a,"b".py').touch()
    (info / "RECORD").write_text('"a,""b"".py",,0\n"c,d.py",,0\n')
    assert _missing(str(tmp_path), [info.name]) == {info.name: ["c,d.py"]}


def test_a_broken_link_is_there_and_an_absolute_row_is_not_looked_at(tmp_path: Path) -> None:
    info = tmp_path / "odd-1.dist-info"
    info.mkdir()
    (tmp_path / "link.py").symlink_to("nowhere")
    (info / "RECORD").write_text("link.py,,\n/usr/bin/nowhere-at-all,,\n")
    assert _missing(str(tmp_path), [info.name]) == {info.name: []}


def test_a_directory_that_went_meanwhile_tells_of_nobodys_files(tmp_path: Path) -> None:
    assert _missing(str(tmp_path / "gone"), ["a-1.dist-info"]) == {"a-1.dist-info": None}
