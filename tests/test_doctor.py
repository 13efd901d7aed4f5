"""`preheat doctor`: every finding by a container that has it, and its command followed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preheat.decisions.health.diagnosis import breaks_a_start, diagnose, in_order
from preheat.edges.store.self_test import NAME, try_store
from preheat.words.diagnosis import Finding, FindingCode, Harm
from preheat.words.examination import Examination, Locking, StoreState, Tools, Trial
from preheat.words.platform import Accelerator, Gpu, Torch, Volume
from tests.support import platforms
from tests.support.detected import platform
from tests.support.index import Index, offering
from tests.support.platforms import fake_nvidia, fake_torch, make_platform, tree_digest
from tests.support.starts import Answer, Ground, finished, package
from tests.support.wheels import (
    Project,
    install_egg_info,
    install_tree,
    leave_renamed,
    lose_files,
    lose_metadata,
    lose_record,
)

ROOT = Path(__file__).parents[1]
SO = "core.cpython-311-x86_64-linux-gnu.so"
GOOD = Project(name="good", version="1.0", files={"good.py": "VALUE = 1\n", "more.py": "A = 1\n"})
NEXT = Project(name="good", version="2.0", files={"good.py": "VALUE = 2\n"})


def compiled(name: str, version: str, *requires: str, **more: str) -> Project:
    """A project with an extension module."""
    extension = {f"{name}/{SO}": b"\x7fELF stand-in\n"}
    files: dict[str, str | bytes] = {f"{name}/__init__.py": "", **extension, **more}
    return Project(name=name, version=version, files=files, requires=requires)


index = offering(GOOD, NEXT)


@pytest.fixture
def site(tmp_path: Path) -> platforms.Platform:
    return make_platform(tmp_path / "venv")


@pytest.fixture
def ground(tmp_path: Path, site: platforms.Platform, index: Index) -> Ground:
    ground = Ground(root=tmp_path / "ground", python=site.python)
    ground.write(index=index)
    return ground


def doctor(ground: Ground, *arguments: str) -> Answer:
    return ground.run("doctor", "--json", *arguments)


def found(answer: Answer) -> dict[str, dict[str, Any]]:
    """The findings by code."""
    return {row["code"]: row for row in answer.document["findings"]}


def only(answer: Answer, code: FindingCode) -> dict[str, Any]:
    """The one finding of that kind; there is no other of any kind."""
    rows = answer.document["findings"]
    assert [row["code"] for row in rows] == [code.value], rows
    row: dict[str, Any] = rows[0]
    return row


def following(ground: Ground, mend: str, **environment: str) -> Answer:
    """Paste the command into a shell, and look again from there."""
    again = " ".join(f"'{word}'" for word in ground.command("doctor", "--json"))
    script = f"set -e\n{{ {mend}\n}} >&2\nset +e\n{again}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    surroundings = {**ground.surroundings(), "PATH": path, **environment}
    return finished(["sh", "-c", script], surroundings)


def mended(ground: Ground, mend: str, **environment: str) -> None:
    answer = following(ground, mend, **environment)
    assert answer.stdout, answer.stderr
    assert answer.document["findings"] == []
    assert answer.code == 0


# -- a healthy container -------------------------------------------------------------------------


def test_a_healthy_platform_has_no_findings(ground: Ground, site: platforms.Platform) -> None:
    needs = ("nvidia-cublas==13.1.1.3", "nvidia-cudnn-cu13==9.20.0.48", "triton==3.7.1")
    # Triton brings a libcupti for another CUDA of its own: that is no library twice.
    triton = compiled("triton", "3.7.1", **{"triton/lib/libcupti.so.12": "stand-in"})
    vision = compiled(
        "torchvision",
        "0.28.0",
        "torch==2.13.0",
        **{"torchvision/version.py": "__version__ = '0.28.0+cu130'\n"},
    )
    audio = compiled(
        "torchaudio", "2.11.0", **{"torchaudio/version.py": "__version__ = '2.11.0+cu130'\n"}
    )
    for project in (
        fake_torch("2.13.0+cu130", needs),
        fake_nvidia("nvidia-cublas", "13.1.1.3"),
        fake_nvidia("nvidia-cudnn-cu13", "9.20.0.48"),
        triton,
        vision,
        audio,
        compiled("numpy", "2.4.6"),
        compiled("scipy", "1.17.0", "numpy>=1.26"),
    ):
        install_tree(project, site.site)
    install_egg_info(Project(name="old", version="1.0", files={"old.py": ""}), site.site)
    before = tree_digest(site.site)
    answer = doctor(ground)
    assert answer.document["findings"] == []
    assert answer.code == 0
    assert answer.document["platform"]["distributions"] == 9
    assert tree_digest(site.site) == before
    assert "nothing is wrong" in ground.run("doctor").stdout


def test_a_look_leaves_nothing_behind(ground: Ground) -> None:
    doctor(ground)
    assert not ground.store.exists()
    assert not list(ground.root.glob(f"{NAME}*"))
    ground.store.mkdir()
    before = tree_digest(ground.store)
    doctor(ground)
    assert tree_digest(ground.store) == before


def test_a_doctor_needs_no_manifest(ground: Ground, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    command = [sys.executable, "-m", "preheat", "doctor", "--json", "--python", str(ground.python)]
    script = 'cd "$1"; shift; exec "$@"'
    store = {"PREHEAT_STORE": str(ground.store)}
    answer = finished(
        ["sh", "-c", script, "sh", str(nowhere), *command], {**ground.surroundings(), **store}
    )
    assert answer.document["findings"] == []
    assert answer.document["store"]["path"] == str(ground.store)


# -- manifest and interpreter --------------------------------------------------------------------


def test_a_wrong_manifest_is_a_finding_and_the_rest_is_looked_at(
    ground: Ground, site: platforms.Platform
) -> None:
    ground.manifest.write_text("store = 3\n", encoding="utf-8")
    (site.site / "~ood").mkdir()
    answer = doctor(ground)
    assert answer.code == 9
    assert list(found(answer)) == ["manifest", "leftovers"]
    assert str(ground.manifest) in found(answer)["manifest"]["what"]


def test_a_wrong_variable_is_a_finding(ground: Ground) -> None:
    told = replace(ground, environment={"PREHEAT_STROE": "/somewhere"})
    answer = doctor(told)
    assert "PREHEAT_STROE" in only(answer, FindingCode.MANIFEST)["what"]
    assert answer.code == 9


def test_a_wrong_argument_is_wrong_usage(ground: Ground) -> None:
    assert doctor(ground, "--set", "space.keepfree=1MB").code == 2


def test_an_interpreter_that_does_not_run_is_a_finding(ground: Ground, tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    broken.chmod(0o755)
    answer = doctor(replace(ground, python=broken))
    assert str(broken) in only(answer, FindingCode.INTERPRETER)["what"]
    assert answer.code == 9
    assert answer.document["store"] is not None
    missing = doctor(replace(ground, python=tmp_path / "nothing"))
    assert missing.code == 9


# -- distributions -------------------------------------------------------------------------------


def test_a_half_installed_distribution_is_found_and_mended(
    ground: Ground, site: platforms.Platform
) -> None:
    lose_files(install_tree(GOOD, site.site), "more.py")
    answer = doctor(ground)
    finding = only(answer, FindingCode.HALF_INSTALLED)
    assert answer.code == 9
    assert finding["harm"] == "breaks a start"
    assert "more.py" in finding["what"]
    assert "good==1.0" in finding["mend"]
    mended(ground, finding["mend"])
    assert (site.site / "more.py").exists()


def test_the_platforms_own_pip_is_used_where_it_has_one(
    tmp_path: Path, ground: Ground, index: Index
) -> None:
    index.json = False  # pip 23.0, which Debian 12 has, cannot read its own metadata there
    place = tmp_path / "with pip"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, capture_output=True)
    site = next(place.glob("lib/python3*/site-packages"))
    ours = replace(ground, python=place / "bin" / "python")
    lose_files(install_tree(GOOD, site), "good.py")
    finding = only(doctor(ours), FindingCode.HALF_INSTALLED)
    assert finding["mend"].startswith(f"'{ours.python}' -m pip install")
    mended(ours, finding["mend"])
    lose_metadata(next(site.glob("good-*.dist-info")))
    mended(ours, only(doctor(ours), FindingCode.HALF_INSTALLED)["mend"])


def test_a_truncated_file_is_found_and_mended(ground: Ground, site: platforms.Platform) -> None:
    install_tree(GOOD, site.site)
    (site.site / "good.py").write_text("", encoding="utf-8")
    finding = only(doctor(ground), FindingCode.HALF_INSTALLED)
    assert "good.py is not of the size" in finding["what"]
    mended(ground, finding["mend"])


def test_lost_metadata_are_found_and_mended(ground: Ground, site: platforms.Platform) -> None:
    lose_metadata(install_tree(GOOD, site.site))
    finding = only(doctor(ground), FindingCode.HALF_INSTALLED)
    assert "its metadata is lost" in finding["what"]
    mended(ground, finding["mend"])


def test_an_install_that_was_killed_before_its_record_is_found_and_mended(
    ground: Ground, site: platforms.Platform
) -> None:
    info = install_tree(GOOD, site.site)
    lose_record(info)
    assert doctor(ground).document["findings"] == []  # somebody signed for it
    (info / "INSTALLER").unlink()
    finding = only(doctor(ground), FindingCode.HALF_INSTALLED)
    assert finding["harm"] == "breaks in use"
    mended(ground, finding["mend"])


def test_what_a_killed_uninstall_left_is_found_and_removed(
    ground: Ground, site: platforms.Platform
) -> None:
    install_tree(GOOD, site.site)
    leave_renamed(GOOD, site.site)
    install_tree(NEXT, site.site)
    (site.site / "~it's a trap; $(x)").mkdir()
    finding = only(doctor(ground), FindingCode.LEFTOVERS)
    assert finding["harm"] == "costs time or space"
    mended(ground, finding["mend"])
    assert (site.site / "good.py").exists()


def test_what_was_uninstalled_and_never_came_back_is_found_and_restored(
    ground: Ground, site: platforms.Platform
) -> None:
    install_tree(GOOD, site.site)
    leave_renamed(GOOD, site.site)
    answer = doctor(ground)
    finding = only(answer, FindingCode.LOST)
    assert answer.code == 9
    assert "good 1.0" in finding["what"]
    mended(ground, finding["mend"])
    assert (site.site / "good.py").exists()


def test_two_versions_in_one_directory_are_found_and_mended(
    ground: Ground, site: platforms.Platform
) -> None:
    install_tree(GOOD, site.site)
    install_tree(NEXT, site.site)
    finding = only(doctor(ground), FindingCode.TWO_METADATA)
    assert "1.0, 2.0" in finding["what"]
    mended(ground, finding["mend"])
    assert (site.site / "good.py").read_text(encoding="utf-8") == "VALUE = 2\n"


def test_a_distribution_that_another_wrote_over_is_found_and_mended(
    ground: Ground, site: platforms.Platform, index: Index
) -> None:
    plain = Project(name="vision", version="1.0", files={"eye.py": "GUI = True\n"})
    headless = Project(name="vision-headless", version="1.1", files={"eye.py": "GUI = 0\n"})
    index.publish(plain, headless)
    install_tree(plain, site.site)
    install_tree(headless, site.site)
    finding = only(doctor(ground), FindingCode.OVERWRITTEN)
    assert "eye.py of vision 1.0 was overwritten by vision-headless 1.1" in finding["what"]
    mended(ground, finding["mend"])
    assert (site.site / "eye.py").read_text(encoding="utf-8") == "GUI = 0\n"


# -- CUDA and torch ------------------------------------------------------------------------------


def test_cuda_12_beside_cuda_13_is_found_and_torchs_own_is_kept(
    ground: Ground, site: platforms.Platform, index: Index
) -> None:
    def cudnn(name: str, version: str) -> Project:
        made = fake_nvidia(name, version)
        return replace(made, files={**made.files, "nvidia/cudnn/lib/libx.so.9": version * 9})

    mine = [fake_nvidia("nvidia-cublas", "13.1.1.3"), cudnn("nvidia-cudnn-cu13", "9.20.0.48")]
    other = [fake_nvidia("nvidia-cublas-cu12", "12.8.4.1"), cudnn("nvidia-cudnn-cu12", "9.10")]
    index.publish(*mine, *other)
    needs = ("nvidia-cublas==13.1.1.3", "nvidia-cudnn-cu13==9.20.0.48")
    for project in (fake_torch("2.13.0+cu130", needs), *mine, *other):
        install_tree(project, site.site)
    finding = only(doctor(ground), FindingCode.CUDA_TWICE)
    assert "nvidia-cublas-cu12 12.8.4.1 beside nvidia-cublas 13.1.1.3" in finding["what"]
    mended(ground, finding["mend"])
    left = {path.name.partition("-")[0] for path in site.site.glob("nvidia_*.dist-info")}
    assert left == {"nvidia_cublas", "nvidia_cudnn_cu13"}
    written = (site.site / "nvidia/cudnn/lib/libx.so.9").read_text(encoding="utf-8")
    assert written == "9.20.0.48" * 9


def system_cuda(ground: Ground, size: int) -> Path:
    """A cuBLAS of the image, outside of Python."""
    place = ground.root / "system" / "usr" / "local" / "cuda-12.8" / "lib64"
    place.mkdir(parents=True)
    with (place / "libcublas.so.1.2.3").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    (place / "libcublas.so.1").symlink_to("libcublas.so.1.2.3")
    return place


def test_cuda_of_the_system_before_that_of_the_wheels_is_found_and_mended(
    ground: Ground, site: platforms.Platform
) -> None:
    install_tree(fake_nvidia("nvidia-cublas", "13.1.1.3"), site.site)
    place = system_cuda(ground, 4096)
    told = replace(ground, environment={"LD_LIBRARY_PATH": f"/nowhere:{place}"})
    finding = only(doctor(told), FindingCode.SYSTEM_CUDA)
    assert finding["harm"] == "breaks in use"
    assert "libcublas.so.1" in finding["what"]
    assert finding["mend"] == "export LD_LIBRARY_PATH=/nowhere"
    mended(told, finding["mend"])


def test_a_whole_cuda_of_the_system_beside_the_wheels_is_found(
    ground: Ground, site: platforms.Platform
) -> None:
    install_tree(fake_nvidia("nvidia-cublas", "13.1.1.3"), site.site)
    place = system_cuda(ground, 300_000_000)
    info = ground.root / "system" / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    finding = only(doctor(ground), FindingCode.SYSTEM_CUDA)
    assert finding["harm"] == "costs time or space"
    assert finding["mend"].splitlines()[1] == f"rm -rf -- {place / 'libcublas.so.1.2.3'}"
    (info / "libcublas-12-8.list").write_text(
        f"/.\n{place / 'libcublas.so.1.2.3'}\n", encoding="utf-8"
    )
    owned = only(doctor(ground), FindingCode.SYSTEM_CUDA)
    assert owned["mend"].splitlines()[1] == "apt-get purge libcublas-12-8"
    mended(ground, finding["mend"])


def test_a_torch_of_two_versions_is_found_and_mended(
    ground: Ground, site: platforms.Platform, index: Index
) -> None:
    index.publish(replace(fake_torch("2.13.0"), version="2.13.0"))
    install_tree(fake_torch("2.13.0"), site.site)
    other = fake_torch("2.8.0").files["torch/version.py"]
    assert isinstance(other, str)
    version = site.site / "torch" / "version.py"
    assert len(other) < len(version.read_text(encoding="utf-8"))
    version.write_text(f"{other}#", encoding="utf-8")  # of the size that RECORD says
    answer = doctor(ground)
    finding = only(answer, FindingCode.TORCH_MIXED)
    assert answer.code == 9
    mended(ground, finding["mend"])


def test_a_library_of_torch_that_was_replaced_is_found_and_mended(
    ground: Ground, site: platforms.Platform, index: Index
) -> None:
    index.publish(fake_nvidia("nvidia-cudnn-cu13", "9.20.0.48"))
    install_tree(fake_torch("2.13.0+cu130", ("nvidia-cudnn-cu13==9.20.0.48",)), site.site)
    install_tree(fake_nvidia("nvidia-cudnn-cu13", "9.1"), site.site)
    finding = only(doctor(ground), FindingCode.TORCH_MIXED)
    assert finding["harm"] == "breaks in use"
    mended(ground, finding["mend"])


def test_a_torchvision_for_another_torch_is_found_and_mended(
    ground: Ground, site: platforms.Platform, index: Index
) -> None:
    old = compiled("torchvision", "0.24.0", "torch==2.9.0")
    index.publish(old, compiled("torchvision", "0.28.0", "torch==2.13.0"))
    # As on PyPI: the metadata lacks the local part that version.py has.
    torch = replace(fake_torch("2.13.0+cu130"), version="2.13.0")
    for project in (torch, old):
        install_tree(project, site.site)
    before = tree_digest(site.site / "torch")
    answer = doctor(ground)
    finding = only(answer, FindingCode.COMPANION)
    assert answer.code == 9
    assert "torchvision 0.24.0 was built with torch==2.9.0" in finding["what"]
    mended(ground, finding["mend"])
    assert tree_digest(site.site / "torch") == before


@pytest.mark.parametrize(
    ("torch", "audio", "harm"),
    [
        ("2.13.0+cu130", "2.11.0+cu128", "breaks a start"),
        ("2.13.0+cu130", "2.11.0+cpu", "breaks in use"),
        ("2.13.0+cpu", "2.11.0+cu130", "breaks a start"),
        ("2.13.0+cu130", "2.11.0+cu132", "breaks in use"),
    ],
)
def test_a_torchaudio_for_another_cuda_is_found(
    ground: Ground, site: platforms.Platform, torch: str, audio: str, harm: str
) -> None:
    said = {"torchaudio/version.py": f"__version__ = '{audio}'\n"}
    install_tree(fake_torch(torch), site.site)
    install_tree(compiled("torchaudio", "2.11.0", **said), site.site)
    finding = only(doctor(ground), FindingCode.COMPANION)
    assert finding["harm"] == harm
    build = torch.partition("+")[2]
    assert finding["mend"].endswith(f"/whl/{build} --reinstall --no-deps torchaudio==2.11.0")


# -- shadows -------------------------------------------------------------------------------------


def test_a_numpy_that_hides_the_one_others_were_built_against_is_found_and_mended(
    ground: Ground, site: platforms.Platform, tmp_path: Path
) -> None:
    install_tree(compiled("numpy", "1.26.4"), site.site)
    install_tree(compiled("scipy", "1.11.0", "numpy>=1.21"), site.site)
    front = tmp_path / "front"
    install_tree(compiled("numpy", "2.4.6"), front)
    told = replace(ground, environment={"PYTHONPATH": str(front)})
    finding = only(doctor(told), FindingCode.SHADOWED)
    assert finding["harm"] == "breaks in use"
    assert f"numpy 1.26.4 in {site.site} is hidden by 2.4.6 in {front}" in finding["what"]
    assert "scipy" in finding["why"]
    mended(told, finding["mend"])
    assert (site.site / "numpy").exists()


def test_a_hidden_version_that_others_require_is_found(
    ground: Ground, site: platforms.Platform, tmp_path: Path
) -> None:
    install_tree(GOOD, site.site)
    needy = Project(name="needy", version="1.0", files={"needy.py": ""}, requires=("good<2",))
    install_tree(needy, site.site)
    front = tmp_path / "front"
    install_tree(NEXT, front)
    told = replace(ground, environment={"PYTHONPATH": str(front)})
    assert "needy can do only" in only(doctor(told), FindingCode.SHADOWED)["why"]


def test_a_hidden_copy_that_nobody_misses_is_told_only_where_it_is_large(
    ground: Ground, site: platforms.Platform, tmp_path: Path
) -> None:
    install_tree(GOOD, site.site)
    front = tmp_path / "front"
    install_tree(NEXT, front)
    told = replace(ground, environment={"PYTHONPATH": str(front)})
    assert doctor(told).document["findings"] == []
    large = Project(name="large", version="1.0", files={"large.bin": os.urandom(11_000_000)})
    install_tree(large, site.site)
    install_tree(replace(large, version="1.1"), front)
    finding = only(doctor(told), FindingCode.HIDDEN_COPIES)
    assert "large 1.0" in finding["what"]
    mended(told, finding["mend"])


def test_a_layer_that_hides_what_the_platform_was_built_against_is_found(
    ground: Ground, site: platforms.Platform, index: Index
) -> None:
    app = Project(name="app", version="1.0", files={"app.py": ""}, requires=("numpy>=2",))
    index.publish(compiled("numpy", "2.4.6"), compiled("numpy", "1.26.4"), app)
    install_tree(compiled("numpy", "1.26.4"), site.site)
    install_tree(compiled("scipy", "1.11.0", "numpy>=1.21"), site.site)
    ground.write(package("app"), index=index)
    assert ground.warm().status("app") == "installed"
    finding = only(doctor(ground), FindingCode.LAYER_SHADOWS)
    assert finding["harm"] == "breaks in use"
    assert "numpy 1.26.4 by 2.4.6" in finding["what"]
    assert "scipy" in finding["why"]
    assert "numpy==1.26.4" in finding["mend"]


# -- the store -----------------------------------------------------------------------------------


def test_a_store_that_is_a_file_is_found_and_mended(ground: Ground) -> None:
    ground.store.write_text("", encoding="utf-8")
    answer = doctor(ground)
    finding = only(answer, FindingCode.STORE_NOT_WRITABLE)
    assert answer.code == 9
    mended(ground, finding["mend"])


def namespaced(ground: Ground, mounts: str, script: str) -> Answer:
    """Run a shell script where mounts are nobody else's."""
    text = f"{mounts} || exit 77\n{script}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    answer = finished(["unshare", "-m", "sh", "-c", text], {**ground.surroundings(), "PATH": path})
    if answer.code == 77 or answer.stderr.startswith("unshare"):
        pytest.skip(f"nothing can be mounted here: {answer.stderr.strip()[-200:]}")
    return answer


def mended_inside(ground: Ground, mounts: str, code: FindingCode) -> dict[str, Any]:
    """The finding, after its command was followed among the same mounts and it was gone."""
    command = " ".join(f"'{word}'" for word in ground.command("doctor", "--json"))
    mend = f"'{sys.executable}' -c '{_MEND_OF}' {code.value} {ground.root}/first"
    answer = namespaced(
        ground,
        mounts,
        f"{command} > {ground.root}/first\n{mend} > {ground.root}/mend || exit 1\n"
        f". {ground.root}/mend >&2\n{command}",
    )
    first = json.loads((ground.root / "first").read_text(encoding="utf-8"))
    assert code.value in [row["code"] for row in first["findings"]]
    assert code.value not in found(answer), answer.stderr
    return next(row for row in first["findings"] if row["code"] == code.value)


_MEND_OF = (
    'import json, sys; rows = json.load(open(sys.argv[2]))["findings"]; '
    'print(next(row["mend"] for row in rows if row["code"] == sys.argv[1]))'
)


@pytest.mark.root
def test_a_read_only_store_is_found_and_mended(ground: Ground) -> None:
    ground.store.mkdir()
    mounts = f"mount -t tmpfs -o ro none {ground.store}"
    finding = mended_inside(ground, mounts, FindingCode.STORE_NOT_WRITABLE)
    assert finding["mend"] == f"mount -o remount,rw {ground.store}"


@pytest.mark.root
def test_a_small_temporary_directory_is_found_and_mended(ground: Ground) -> None:
    ground.temp.mkdir()
    mounts = f"mount -t tmpfs -o size=20m none {ground.temp}"
    finding = mended_inside(ground, mounts, FindingCode.TEMP_SMALL)
    assert finding["harm"] == "breaks in use"


@pytest.mark.root
def test_a_cache_on_another_filesystem_than_the_layers_is_found_and_mended(
    ground: Ground,
) -> None:
    # The engine's cache is in staging.
    (ground.store / "staging").mkdir(parents=True)
    mounts = f"mount -t tmpfs none {ground.store}/staging"
    finding = mended_inside(ground, mounts, FindingCode.STORE_SPLIT)
    assert finding["harm"] == "breaks a start"
    assert finding["mend"] == f"umount {ground.store}/staging"


def test_layers_linked_to_another_filesystem_are_found_and_mended(ground: Ground) -> None:
    other = Path("/dev/shm")  # noqa: S108  # the one other filesystem that most machines have
    ground.store.mkdir()
    if not other.is_dir() or other.stat().st_dev == ground.store.stat().st_dev:
        pytest.skip("there is no second filesystem here")
    with tempfile.TemporaryDirectory(dir=other) as place:
        (ground.store / "layers").symlink_to(place)
        mended(ground, only(doctor(ground), FindingCode.STORE_SPLIT)["mend"])
        assert Path(place).is_dir()


@pytest.mark.parametrize(
    ("injected", "words"),
    [("retval=0", "holds it twice"), ("error=ENOLCK", "refuses to lock")],
)
def test_a_store_without_working_locks_is_found(
    ground: Ground, tmp_path: Path, injected: str, words: str
) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace, to take the locks away")
    ground.store.mkdir()
    log = str(tmp_path / "strace")
    wrapped = [strace, "-f", "-qq", "-o", log, "-e", f"inject=flock:{injected}"]
    answer = finished([*wrapped, *ground.command("doctor", "--json")], ground.surroundings())
    if not answer.stdout:
        pytest.skip(f"nothing can be traced here: {answer.stderr.strip()[-200:]}")
    finding = only(answer, FindingCode.NO_LOCKS)
    assert words in finding["what"]
    assert finding["mend"].splitlines()[-1].startswith("export PREHEAT_STORE=")
    assert not list(ground.store.iterdir())


def test_locks_that_work_are_seen_to_exclude_other_processes(tmp_path: Path) -> None:
    trial = try_store(tmp_path / "not" / "yet")
    assert trial.locking is Locking.EXCLUDES
    assert trial.links
    assert trial.place == str(tmp_path)
    assert not list(tmp_path.iterdir())


def test_little_free_space_is_found(ground: Ground) -> None:
    below = only(doctor(ground, "--set", "space.clean-below=900TB"), FindingCode.SPACE)
    assert below["harm"] == "costs time or space"
    assert "preheat clean --need 900000000MB" in below["mend"]
    short = only(doctor(ground, "--set", "space.keep-free=900TB"), FindingCode.SPACE)
    assert short["harm"] == "breaks in use"


def test_a_damaged_layer_is_found_and_made_again(ground: Ground, index: Index) -> None:
    ground.write(package("good"), index=index)
    assert ground.warm().status("good") == "installed"
    (layer,) = ground.layers()
    assert doctor(ground).document["findings"] == []
    (layer / "good.py").unlink()
    answer = doctor(ground)
    finding = only(answer, FindingCode.DAMAGED_LAYER)
    assert answer.code == 9
    assert "good.py of good 2.0 is missing" in finding["what"]
    mended(ground, finding["mend"])
    assert (layer / "good.py").exists()


def test_the_remains_of_a_layer_are_found_and_removed(ground: Ground) -> None:
    (ground.store / "layers" / ("0123" * 8)).mkdir(parents=True)
    (ground.store / "layers" / "something of somebody else").mkdir()
    finding = only(doctor(ground), FindingCode.DAMAGED_LAYER)
    assert finding["harm"] == "costs time or space"
    mended(ground, finding["mend"])


def test_the_same_distribution_in_two_layers_is_found_and_mended(
    ground: Ground, index: Index, tmp_path: Path
) -> None:
    large = Project(name="large", version="1.0", files={"large.bin": os.urandom(11_000_000)})
    index.publish(
        large,
        Project(name="one", version="1.0", files={"one.py": ""}, requires=("large",)),
        Project(name="two", version="1.0", files={"two.py": ""}, requires=("large",)),
    )
    ground.write(package("one"), index=index)
    assert ground.warm().status("one") == "installed"
    other = Ground(root=tmp_path / "other", python=ground.python)
    other.write(package("two"), index=index)
    answer = other.run("warm", "--json", store=ground.store)
    assert answer.document["packages"][0]["status"] == "reused" or len(ground.layers()) == 2
    finding = only(doctor(ground), FindingCode.DUPLICATES)
    assert "large 1.0 (11." in finding["what"]
    if shutil.which("hardlink") is None:
        pytest.skip("needs hardlink, to follow the command")
    mended(ground, finding["mend"])


def test_a_layer_with_what_the_platform_has_by_now_is_found_and_removed(
    ground: Ground, index: Index, site: platforms.Platform
) -> None:
    files: dict[str, str | bytes] = {"large.py": "", "large.bin": os.urandom(11_000_000)}
    large = Project(name="large", version="1.0", files=files)
    index.publish(large)
    ground.write(package("large"), index=index)
    assert ground.warm().status("large") == "installed"
    install_tree(large, site.site)
    assert ground.warm().status("large") == "platform"
    finding = only(doctor(ground), FindingCode.DUPLICATES)
    mended(ground, finding["mend"])
    assert ground.layers() == []


# -- what cannot be had here, from plain values --------------------------------------------------


TOOLS = Tools(python="/venv/bin/python", prefix="/venv", pip=True, managed=False, uv="/bin/uv")


def volume(role: str, kind: str = "ext4", **more: Any) -> Volume:
    values = {"path": "/s", "device": 1, "block": 4096, "directory": 4096, "free": 10**12}
    return Volume(role=role, kind=kind, **{**values, "inodes": None, **more})


def store(trial: Trial | None = None, **volumes: Volume) -> StoreState:
    return StoreState(
        root="/s",
        local="/s",
        trial=trial or Trial(place="/s", mount="/", locking=Locking.EXCLUDES),
        volumes=volumes,
        clean_below=0,
        keep_free=0,
    )


def test_a_driver_too_old_for_torchs_cuda_is_found() -> None:
    gpu = Gpu(name="NVIDIA L4", compute_capability="8.9", memory=24 * 10**9)
    old = Accelerator(driver="550.54", cuda="12.4", gpus=(gpu,))
    torch = Torch(version="2.13.0+cu130", cuda="13.0")
    (finding,) = diagnose(Examination(tools=TOOLS, platform=platform(torch=torch, accelerator=old)))
    assert finding.code is FindingCode.DRIVER
    assert finding.mend.endswith("/whl/cu126 --force-reinstall torch")
    # Within one major version an older driver will do.
    near = Torch(version="2.9.0+cu128", cuda="12.8")
    assert diagnose(Examination(tools=TOOLS, platform=platform(torch=near, accelerator=old))) == ()


def test_a_torch_without_cuda_beside_a_gpu_is_found() -> None:
    gpu = Gpu(name="NVIDIA L4", compute_capability="8.9", memory=24 * 10**9)
    new = Accelerator(driver="580.1", cuda="13.0", gpus=(gpu,))
    bare = Torch(version="2.13.0+cpu", cuda=None)
    (finding,) = diagnose(Examination(tools=TOOLS, platform=platform(torch=bare, accelerator=new)))
    assert finding.code is FindingCode.CPU_TORCH
    assert diagnose(Examination(tools=TOOLS, platform=platform(torch=bare))) == ()


def test_a_store_on_a_network_filesystem_is_told_as_a_note() -> None:
    there = volume("store", "fuse.mfsmount", quota_known=False)
    (finding,) = diagnose(Examination(tools=TOOLS, store=store(store=there)))
    assert finding.code is FindingCode.LOCKS_MAY_BE_LOCAL
    assert finding.harm is Harm.NOTE
    assert not breaks_a_start([finding])


def test_a_filesystem_without_hardlinks_is_found() -> None:
    trial = Trial(place="/s", mount="/", locking=Locking.EXCLUDES, links=False)
    here = store(trial, store=volume("store"))
    (finding,) = diagnose(Examination(tools=TOOLS, store=here))
    assert finding.code is FindingCode.NO_HARDLINKS


def test_few_inodes_are_found() -> None:
    here = store(store=volume("store", inodes=200))
    (finding,) = diagnose(Examination(tools=TOOLS, store=here))
    assert "200 free inodes" in finding.what


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (13, "chown -R \"$(id -u):$(id -g)\" '/a b'  # as root"),
        (28, "preheat clean"),
        (122, "preheat clean"),
        (30, "mount -o remount,rw /a"),
    ],
)
def test_each_refusal_of_a_store_has_its_own_command(error: int, mend: str) -> None:
    trial = Trial(place="/a b", mount="/a", error=error)
    (finding,) = diagnose(Examination(tools=TOOLS, store=store(trial)))
    assert finding.code is FindingCode.STORE_NOT_WRITABLE
    assert finding.mend == mend


def test_no_temporary_directory_breaks_a_start() -> None:
    findings = diagnose(Examination(tools=TOOLS, temp_error="No usable temporary directory"))
    assert [finding.code for finding in findings] == [FindingCode.TEMP_UNUSABLE]
    assert breaks_a_start(findings)


FINDINGS = st.builds(
    Finding,
    code=st.sampled_from(FindingCode),
    harm=st.sampled_from(Harm),
    what=st.text(max_size=3),
    why=st.just(""),
    mend=st.text(max_size=3),
)


@given(st.lists(FINDINGS), st.randoms())
def test_findings_stand_in_order_of_harm_however_they_came(rows: list[Finding], by: Any) -> None:
    ordered = in_order(rows)
    ranks = [finding.harm.rank for finding in ordered]
    assert ranks == sorted(ranks)
    shuffled = list(rows)
    by.shuffle(shuffled)
    assert in_order(shuffled) == ordered
    assert breaks_a_start(rows) == (bool(ordered) and ordered[0].harm is Harm.START)


# -- how it is told ------------------------------------------------------------------------------


def test_the_text_gives_each_command_on_a_line_of_its_own(
    ground: Ground, site: platforms.Platform
) -> None:
    lose_files(install_tree(GOOD, site.site), "more.py")
    (site.site / "~ther\n[bold]").mkdir()
    answer = ground.run("doctor")
    assert answer.code == 9
    rows = found(doctor(ground))
    lines = answer.stdout.splitlines()
    assert f"    {rows['half-installed']['mend']}" in lines
    assert answer.stdout.index("half-installed") < answer.stdout.index("leftovers")
    assert lines[-1] == "2 findings: 1 breaks a start, 1 costs time or space"


def test_every_finding_is_explained_in_the_guide() -> None:
    text = (ROOT / "docs" / "how-to" / "doctor.md").read_text(encoding="utf-8")
    for code in FindingCode:
        assert f"| `{code.value}` |" in text
    for harm in Harm:
        assert harm.value in text
