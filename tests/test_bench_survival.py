"""The bench on small disks: its instruments see what is there, and preheat stands them."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import ground, naive, survival
from bench.contenders import LOWER, Goods
from bench.oracle import Oracle, sets_of
from bench.residue import Snapshot, Weight, holding, left_over, weight_of
from bench.smalldisk import Space
from bench.verdicts import Row
from tests.support.wheels import Project, install_tree, write_wheel

PROJECT = Path(__file__).resolve().parents[1]
MB = 1_000_000

# Mounts what nobody else sees, and prints every row; 77 where nothing may be mounted.
SWEEP = """
import json, sys
from dataclasses import asdict, replace
from pathlib import Path
from bench import survival
from bench.contenders import CONTENDERS, LOWER, Goods, Place
from bench.smalldisk import keep_mounts_private
here = Path(sys.argv[1])
try:
    keep_mounts_private()
except OSError as error:
    print(error, file=sys.stderr)
    sys.exit(77)
goods = Goods(
    imports={"tinybase": "tinybase", "tinyheavy": "tinyheavy", "tinylight": "tinylight"},
    required=("tinybase",),
    keep_free=1_000_000,
)
course = survival.Course(
    name="tiny",
    goods=goods,
    kinds=("tmpfs",),
    sizes=(3_000_000, 20_000_000, 60_000_000),
    contenders=tuple(each for each in CONTENDERS if each.name in ("uv", LOWER)),
    around=(),
)
place = Place(root=here / "memory" / "disk", tools=here)
rows, _ = survival.sweep(course, here / "wheels", place)
print(json.dumps([{**asdict(row), "outcome": row.outcome} for row in rows]))
"""


def goods(*required: str) -> Goods:
    """Three packages, of which those are required."""
    names = ("first", "second", "third")
    return Goods(imports={name: name for name in names}, required=required, keep_free=10)


def oracle(wanted: Goods, **bytes_of: int) -> Oracle:
    """An oracle over packages that share nothing; each has one inode, and a spare one at work."""
    sets = sets_of(wanted)
    return Oracle(
        goods=wanted,
        weights={n: Weight(bytes=sum(bytes_of[e] for e in n), inodes=len(n)) for n in sets},
        bare={n: Weight(bytes=sum(9 * bytes_of[e] // 10 for e in n), inodes=len(n)) for n in sets},
        working={n: Weight(bytes=len(n), inodes=1 if n else 0) for n in sets},
    )


def test_a_small_package_is_kept_where_a_larger_and_more_important_one_does_not_fit() -> None:
    judge = oracle(goods(), first=50, second=500, third=30)
    assert judge.keeps(Space(bytes=92, inodes=9)) == ("first", "third")
    # A tenth of it is bytecode. One byte less, and what the installer itself holds does not fit.
    assert judge.keeps(Space(bytes=89, inodes=9)) == ("first", "third")
    assert judge.keeps(Space(bytes=88, inodes=9)) == ("first",)


def test_a_required_package_goes_before_the_optional_ones_above_it() -> None:
    judge = oracle(goods("third"), first=80, second=80, third=50)
    assert judge.keeps(Space(bytes=70, inodes=9)) == ("third",)


def test_inodes_can_be_what_does_not_fit() -> None:
    judge = oracle(goods(), first=1, second=1, third=1)
    assert judge.keeps(Space(bytes=10_000, inodes=3)) == ("first", "second")


def test_what_no_package_holds_is_junk_and_a_second_name_of_what_one_holds_is_not(
    tmp_path: Path,
) -> None:
    root, site = tmp_path / "disk", tmp_path / "disk" / "site"
    install_tree(Project(name="old", version="1", files={"old.py": ""}), site)
    before = Snapshot.of(root)
    install_tree(
        Project(name="kept", version="1", files={"kept/a.py": "A = 1\n"}, requires=("below",)), site
    )
    install_tree(Project(name="below", version="1", files={"below.py": "B = 1\n"}), site)
    install_tree(Project(name="stray", version="1", files={"stray.py": "C = 1\n"}), site)
    (site / "kept" / "__pycache__").mkdir()
    (site / "kept" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"x")
    (site / "kept" / "__pycache__" / "gone.cpython-311.pyc").write_bytes(b"x")
    cache = root / "cache"
    cache.mkdir()
    os.link(site / "below.py", cache / "linked")
    (cache / "archive").write_bytes(b"x" * 5000)

    found = left_over(root, holding([site], ["kept"]), before)

    names = {str(Path(path).relative_to(root)) for path in found}
    gone = "site/kept/__pycache__/gone.cpython-311.pyc"
    stray = {name for name in names if "stray" in name}
    assert names - stray == {"cache", "cache/archive", gone}
    assert "site/stray.py" in stray
    assert weight_of(found).bytes >= 5000


def test_a_file_that_a_package_promises_and_lacks_is_told(tmp_path: Path) -> None:
    install_tree(Project(name="half", version="1", files={"half.py": "", "other.py": ""}), tmp_path)
    (tmp_path / "other.py").unlink()
    assert holding([tmp_path], ["half"]).missing == (str(tmp_path / "other.py"),)


def test_a_changed_platform_is_noticed_and_an_added_file_is_none(tmp_path: Path) -> None:
    for name in ("same", "changed", "removed"):
        (tmp_path / name).write_text(name)
    before = Snapshot.of(tmp_path)
    (tmp_path / "changed").write_text("something else")
    (tmp_path / "removed").unlink()
    (tmp_path / "added").write_text("")
    assert sorted(Path(path).name for path in before.changed(tmp_path)) == ["changed", "removed"]


def test_the_naive_script_does_not_see_a_submodule_that_is_there() -> None:
    code = "from bench.naive import can_import; print(can_import('xml.dom.minidom'))"
    said = subprocess.check_output([sys.executable, "-c", code], cwd=PROJECT, text=True)
    assert said.strip() == "False"


def test_the_naive_script_s_cleanup_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rest").write_text("")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    naive.cleanup_disk_space()
    assert (tmp_path / "rest").exists()


def test_a_start_that_says_it_is_ready_and_is_not_has_lied() -> None:
    row = a_row()
    assert row.outcome == "ready"
    assert replace(row, ready=False).outcome == "lied"
    assert replace(row, ready=False, status=3, refusal="does not fit").outcome == "refused"
    assert replace(row, ready=False, status=3).outcome == "failed"
    late = replace(row, ready=False, status=3, refusal="does not fit", no_space=True)
    assert late.outcome == "failed"


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(ground, "make_venv", None)
    with pytest.raises(SystemExit, match="needs root"):
        survival.measure()


@pytest.mark.root
def test_on_small_disks_preheat_keeps_what_fits_and_uv_runs_out_of_space(tmp_path: Path) -> None:
    write_wheels(tmp_path / "wheels")
    done = subprocess.run(
        [sys.executable, "-c", SWEEP, str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    ours = [row for row in rows if row["contender"] == LOWER]
    uv = [row for row in rows if row["contender"] == "uv"]

    assert [row["outcome"] for row in ours] == ["refused", "ready", "ready"]
    assert [row["importable"] for row in ours[1:]] == [
        ["tinybase", "tinylight"],
        ["tinybase", "tinyheavy", "tinylight"],
    ]
    for row in ours:
        assert not row["no_space"], row["output"]
        assert row["junk_entries"] == 0, row["junk_examples"]
        assert row["lowest"] >= row["reserve"]
        assert row["platform_changed"] == row["broken"] == 0
    # On the smallest disk the engine's own room is more than all that is free.
    assert [row["missed"] for row in ours[1:]] == [[], []]
    # The same eyes see the others run out of space.
    assert [row["outcome"] for row in uv] == ["failed", "failed", "ready"]
    assert uv[1]["no_space"]
    assert uv[1]["junk"] > 0
    assert uv[1]["missed"] == ["tinybase", "tinylight"]


def write_wheels(directory: Path) -> None:
    """Three packages of 3, 40 and 0.1 MB that no archive makes smaller."""
    noise = random.Random(3)  # noqa: S311  # the same bytes every time, and no secret
    directory.mkdir()
    for name, size in (("tinybase", 3 * MB), ("tinyheavy", 40 * MB), ("tinylight", MB // 10)):
        files: dict[str, str | bytes] = {
            f"{name}/__init__.py": "",
            f"{name}/data.bin": noise.randbytes(size),
        }
        write_wheel(Project(name=name, version="1.0", files=files), directory)


def a_row() -> Row:
    """A start without fault."""
    return Row(
        kind="tmpfs",
        contender="preheat",
        free=100,
        free_inodes=100,
        status=0,
        ready=True,
        refusal="",
        importable=("first",),
        broken=0,
        no_space=False,
        ran_out=False,
        junk=0,
        junk_entries=0,
        junk_examples=(),
        records=0,
        peak=10,
        peak_inodes=10,
        lowest=90,
        lowest_inodes=90,
        end=90,
        reserve=10,
        platform_changed=0,
        fitting=("first",),
        missed=(),
        to_spare=0,
        to_spare_inodes=0,
        seconds=1.0,
        output="",
    )
