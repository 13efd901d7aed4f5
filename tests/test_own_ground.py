"""No test, bench or demo cleans anything outside its own directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench.ground import BUILD, PROJECT, surroundings
from preheat.edges.cleaning.cleaner import Cleaner
from preheat.edges.disk import deletion
from preheat.edges.process.environment import GROUND, SYSTEM
from preheat.edges.store.store import Store
from tests.support.own_ground import may_clean_the_machine

# One cache of each kind, below a home, a temporary directory, a system, and where variables lead.
CACHES = (
    "tmp/pip-install-x/wheel",
    "tmp/torchinductor_root/kernel",
    "home/.cache/pip/http-v2/a",
    "home/.cache/uv/archive-v0/b",
    "home/.triton/cache/c",
    "hf/hub/models/blob.incomplete",
    "conda/pkgs/d.conda",
    "extra/junk",
)
OF_THE_SYSTEM = ("var/cache/apt/archives/e.deb", "var/lib/apt/lists/f_Packages.lz4")
MAKERS = {
    "bench": "from bench.ground import surroundings; made = surroundings()",
    "demo/hear.py": "import hear; made = hear.environment(tiny=False)",
    "demo/run.py": "import os, run; run.settle(run.BUILD); made = dict(os.environ)",
}


def machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """A machine whose every cache is full and old, with a user who has moved some of them."""
    for name, place in {
        "HOME": "home",
        "TMPDIR": "tmp",
        "HF_HOME": "hf",
        "CONDA_PKGS_DIRS": "conda/pkgs",
    }.items():
        monkeypatch.setenv(name, str(root / place))
    for name in ("XDG_CACHE_HOME", "UV_CACHE_DIR", "PIP_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root / "tmp" / "torchinductor_root"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    # What a test has just made is as old as can be.
    monkeypatch.setattr(deletion._Walk, "_is_young", lambda walk, status: False)
    files = {root / name for name in CACHES} | {root / "system" / name for name in OF_THE_SYSTEM}
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(5000))
    return files


def left(files: set[Path]) -> set[Path]:
    """Those that are still there."""
    return {file for file in files if file.exists()}


@pytest.mark.parametrize("stated", ["ground", "system"])
def test_whoever_has_a_ground_of_its_own_cleans_nothing_outside_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated: str
) -> None:
    files = machine(tmp_path / "machine", monkeypatch)
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.delenv(SYSTEM, raising=False)
    monkeypatch.delenv(GROUND, raising=False)
    if stated == "ground":
        monkeypatch.setenv(GROUND, str(own))
    else:
        monkeypatch.setenv(SYSTEM, str(own / "system"))
    cleaner = Cleaner(store=Store(own / "store"), extra=[str(tmp_path / "machine" / "extra")])
    assert sum(each.bytes for each in cleaner.survey()) == 0
    cleaner.clean()
    cleaner.until_free(2**62)
    assert left(files) == files


def test_what_is_on_its_own_ground_is_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = machine(tmp_path, monkeypatch)
    monkeypatch.setenv(SYSTEM, str(tmp_path / "system"))
    Cleaner(store=Store(tmp_path / "store"), extra=[str(tmp_path / "extra")]).clean()
    assert left(files) == set()


def test_a_start_that_could_clean_the_machine_is_not_started() -> None:
    bare = {"PATH": os.environ["PATH"], "HOME": "/nowhere"}
    start = [sys.executable, "-m", "preheat", "clean", "--help"]
    for command in (start, ["unshare", "-m", *start], ["sh", "-c", "preheat clean", "preheat"]):
        with pytest.raises(AssertionError, match="could clean the caches of this machine"):
            subprocess.run(command, env=bare, check=False)
    subprocess.run(["/bin/true"], env=bare, check=True)
    done = subprocess.run(start, env={**bare, SYSTEM: "/nowhere"}, check=True, capture_output=True)
    assert b"Usage" in done.stdout


def test_only_a_program_that_may_run_preheat_needs_a_ground_of_its_own() -> None:
    assert may_clean_the_machine(["/image/bin/python3.12", "handler.py"], {})
    assert may_clean_the_machine([b"/venv/bin/preheat", "warm"], {SYSTEM: ""})
    assert not may_clean_the_machine(["/venv/bin/preheat", "warm"], {GROUND: "/own"})
    # The engine cleans nothing, and in a chroot there is another system.
    assert not may_clean_the_machine(["/venv/bin/uv", "pip", "--python", "/bin/python"], {})
    assert not may_clean_the_machine(["sh", "-c", "exec chroot $1 python", "sh", "/image"], {})


@pytest.mark.parametrize("maker", MAKERS)
def test_benches_and_demos_state_their_ground(maker: str) -> None:
    code = f"import json, sys; sys.path.insert(0, 'demo'); {MAKERS[maker]}; print(json.dumps(made))"
    said = subprocess.check_output([sys.executable, "-c", code], cwd=PROJECT, text=True)
    ground = json.loads(said.splitlines()[-1])[GROUND]
    assert Path(ground).is_relative_to(PROJECT / "build")


def test_a_bench_may_widen_its_surroundings_but_not_its_ground() -> None:
    assert surroundings(PREHEAT_LOG="none")[GROUND] == str(BUILD)
