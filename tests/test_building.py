"""Wheels that must match the platform: chosen, refused, or built once within limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from preheat.decisions.building import (
    jobs,
    label_refusal,
    lacking,
    refusal,
    unfit,
    wheel_name,
)
from preheat.edges.platform.fatbin import device_code
from preheat.edges.store.wheelhouse import Wheelhouse
from preheat.words.building import DeviceCode, Provenance, Target, Workshop
from preheat.words.manifest import BuildLimits
from tests.support.index import Index
from tests.support.platforms import fake_torch, make_platform
from tests.support.starts import package
from tests.support.wheels import Project, tiny_setuptools, tinybackend, write_wheel
from tests.support.workers import Worker

CUDA = Path("/usr/local/cuda")
needs_nvcc = pytest.mark.skipif(
    not (CUDA / "include" / "cuda_runtime_api.h").is_file()
    or not os.access(CUDA / "bin" / "nvcc", os.X_OK),
    reason=f"needs a CUDA toolkit in {CUDA}",
)

HERE = Target(
    abi="cpython-311-x86_64-linux-gnu",
    libc="glibc 2.36",
    torch="2.13",
    cuda="13",
    cxx11_abi="true",
    capabilities=("9.0",),
)
PLENTY = Workshop(
    processors=16,
    memory=64 * 10**9,
    free=100 * 10**9,
    compiler="/usr/bin/c++",
    nvcc="/usr/local/cuda/bin/nvcc",
    toolkit="13.0",
)
BUILT = Provenance(
    name="flash-attn",
    version="2.8.3",
    source="0" * 64,
    filename="flash_attn-2.8.3-cp311-cp311-linux_x86_64.whl",
    sha256="1" * 64,
    size=1,
    target=HERE,
    device=DeviceCode(cubins=frozenset({90})),
    seconds=1.0,
    jobs=1,
    memory=1,
    nvcc="13.0",
    when="2026-11-25T00:00:00+00:00",
)

# Really compiled by nvcc; the setup script needs torch, as flash-attn's does.
KERNEL = """
__global__ void add(float* a, const float* b) { a[threadIdx.x] += b[threadIdx.x]; }
extern "C" void launch(float* a, const float* b) { add<<<1, 32>>>(a, b); }
"""
SETUP = """
import os, pathlib, subprocess, sys
import torch
assert torch.version.cuda == "13.0"
if "MAX_JOBS" in os.environ and os.environ.get("TORCH_CUDA_ARCH_LIST"):
    here = pathlib.Path("wheel/cudaext")
    archs = [a.replace(".", "") for a in os.environ["TORCH_CUDA_ARCH_LIST"].split(";")]
    gencode = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in archs]
    nvcc = os.path.join(os.environ["CUDA_HOME"], "bin", "nvcc")
    subprocess.run([nvcc, "-shared", "-Xcompiler", "-fPIC", *gencode, "-o", here / "_ext.so",
                    here / "ext.cu"], check=True)
"""


def cudaext(**files: str) -> Project:
    return Project(
        name="cudaext",
        version="1.0",
        files={"cudaext/__init__.py": "VALUE = 1\n", "cudaext/ext.cu": KERNEL, **files},
    )


def worker(
    place: Path,
    index: Index,
    stated: Mapping[str, object] | None = None,
    cuda: Mapping[str, object] | None = None,
    **settings: object,
) -> Worker:
    """A worker on CUDA torch, for an H200 that is not here; the arguments replace its keys."""
    platform = make_platform(place / "platform", projects=[fake_torch("2.13.0+cu130")])
    made = Worker(place=place, platform=platform, index=index)
    keys: dict[str, object] = {
        "build": True,
        "build-isolation": False,
        "build-requires": ["setuptools"],
        "build-limits": {"memory": "200MB", "disk": "1MB"},
        **(stated or {}),
    }
    facts = {"compute-capability": ["9.0"], "toolkit": str(CUDA), "cxx11-abi": True}
    made.write([{**package("cudaext"), **keys}], cuda={**facts, **(cuda or {})}, **settings)
    return made


@pytest.fixture
def index(tmp_path: Path) -> Index:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    index = Index(shelf)
    index.publish(tinybackend(), tiny_setuptools())
    return index


# -- what fits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("2.8.3+cu13torch2.13cxx11abiTRUE", None),
        ("2.8.3", None),
        ("0.0.33+pt213cu130", None),
        ("2.8.3+cu12torch2.13cxx11abiTRUE", "is for CUDA 12, and torch brings 13"),
        ("2.8.3+cu126torch2.13", "is for CUDA 12, and torch brings 13"),
        ("2.8.3+cu13torch2.11cxx11abiTRUE", "is for torch 2.11, and 2.13 is here"),
        (
            "2.8.3+cu13torch2.13cxx11abiFALSE",
            "is for C++11 ABI false, and torch was compiled with true",
        ),
        ("0.0.33+pt29cu130", "is for torch 2.9, and 2.13 is here"),
    ],
)
def test_a_ready_wheels_label_tells_whether_it_is_for_this_platform(
    version: str, why: str | None
) -> None:
    assert label_refusal(version, HERE) == why


@pytest.mark.parametrize(
    ("cubins", "ptx", "capability", "runs"),
    [
        ({90}, set(), "9.0", True),
        ({90}, set(), "8.0", False),
        ({80}, set(), "8.6", True),
        ({86}, set(), "8.0", False),
        ({80}, set(), "9.0", False),
        (set(), {80}, "12.0", True),
        (set(), {90}, "8.0", False),
        ({80, 90}, {90}, "10.0", True),
        ({100}, set(), "10.3", True),
        (set(), set(), "9.0", True),
    ],
)
def test_machine_code_runs_within_a_major_capability_and_ptx_on_all_later_ones(
    cubins: set[int], ptx: set[int], capability: str, runs: bool
) -> None:
    device = DeviceCode(cubins=frozenset(cubins), ptx=frozenset(ptx))
    assert (lacking(device, [capability]) is None) is runs


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (HERE, None),
        (replace(HERE, libc="glibc 2.39"), None),
        (replace(HERE, capabilities=()), None),
        (replace(HERE, libc="glibc 2.31"), "was built on glibc 2.36, and glibc 2.31 is here"),
        (replace(HERE, torch="2.11"), "was built for torch 2.13, and 2.11 is here"),
        (replace(HERE, cuda="12"), "was built for CUDA 13, and 12 is here"),
        (
            replace(HERE, capabilities=("8.0", "9.0")),
            "is compiled for sm_90 alone, and compute capability 8.0 is here",
        ),
    ],
)
def test_a_built_wheel_serves_the_platforms_that_it_matches_and_no_other(
    target: Target, why: str | None
) -> None:
    assert unfit(BUILT, target) == why


def test_the_wheel_that_flash_attn_would_need_is_named_as_upstream_names_it() -> None:
    there = replace(HERE, torch="2.11")
    assert wheel_name("flash-attn", "2.8.3.post2", there, ("cp312", "x86_64")) == (
        "flash_attn-2.8.3.post2+cu13torch2.11cxx11abiTRUE-cp312-cp312-linux_x86_64.whl"
    )


# -- what a build needs ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workshop", "limits", "left", "sentence"),
    [
        ({}, {}, None, None),
        ({"compiler": ""}, {}, None, "a build needs a C++ compiler, and none is on PATH"),
        ({"nvcc": ""}, {}, None, "a build needs nvcc of CUDA 13, and there is no CUDA toolkit"),
        (
            {"toolkit": "12.8"},
            {},
            None,
            "a build needs nvcc of CUDA 13, as torch has, and /usr/local/cuda/bin/nvcc is of 12.8",
        ),
        (
            {"memory": 4 * 10**9},
            {},
            None,
            "a build needs 5.0 GB of memory for each job, and 4.0 GB are available",
        ),
        (
            {"free": 10**9},
            {},
            None,
            "a build needs 2.0 GB of disk, and 1.0 GB can be taken",
        ),
        (
            {"processors": 2},
            {"cpu_time": 12500.0},
            None,
            "the build takes about 104 minutes with 2 jobs, and 30 are allowed "
            "(build-limits.time, deadline)",
        ),
        ({"processors": 16}, {"cpu_time": 12500.0}, None, None),
        (
            {"processors": 16},
            {"cpu_time": 12500.0},
            300.0,
            "the build takes about 17 minutes with 12 jobs, and 5 are allowed "
            "(build-limits.time, deadline)",
        ),
    ],
)
def test_a_build_that_cannot_end_well_is_refused_in_one_sentence(
    workshop: dict[str, object],
    limits: dict[str, float],
    left: float | None,
    sentence: str | None,
) -> None:
    shop = replace(PLENTY, **workshop)  # type: ignore[arg-type]  # fields by name
    asked = BuildLimits(**limits)  # type: ignore[arg-type]  # fields by name
    said = refusal(shop, asked, HERE, left)
    assert said == sentence


def test_as_many_jobs_run_as_there_is_memory_for() -> None:
    five = BuildLimits(memory=5 * 10**9)
    assert jobs(PLENTY, five) == 12
    assert jobs(replace(PLENTY, memory=7 * 10**9), five) == 1
    assert jobs(replace(PLENTY, processors=2), five) == 2


# -- what is compiled in -----------------------------------------------------------------------


@needs_nvcc
def test_the_architectures_of_a_library_are_read_from_it(tmp_path: Path) -> None:
    (tmp_path / "k.cu").write_text(KERNEL)
    gencode = ["80,code=sm_80", "90,code=sm_90", "90,code=compute_90"]
    command = [str(CUDA / "bin" / "nvcc"), "-shared", "-Xcompiler", "-fPIC"]
    command += [f"-gencode=arch=compute_{each}" for each in gencode]
    subprocess.run([*command, "-o", "k.so", "k.cu"], cwd=tmp_path, check=True)
    (tmp_path / "empty.so").touch()
    (tmp_path / "noise.so").write_bytes(b"\x50\xed\x55\xba" * 100 + b"\0" * 64)

    found = device_code(sorted(tmp_path.glob("*.so")))

    assert found == DeviceCode(cubins=frozenset({80, 90}), ptx=frozenset({90}))


# -- builds, really ----------------------------------------------------------------------------


@needs_nvcc
def test_a_cuda_extension_is_built_once_kept_with_its_provenance_and_serves_who_has_no_compiler(
    tmp_path: Path, index: Index
) -> None:
    with index:
        index.publish_sdist(cudaext(), SETUP)
        first = worker(tmp_path / "first", index)
        planned = first.preheat(sys.executable, "plan", "--python", str(first.platform.python))
        made = first.warm()
        (kept,) = Wheelhouse(root=first.store / "built").all()

        # Another platform beside the same torch, and nothing to compile with.
        bare = {"toolkit": str(tmp_path / "nowhere")}
        second = worker(tmp_path / "second", index, compile="none", cuda=bare)
        begin = time.monotonic()
        reused = second.warm("--store", str(first.store), PATH="/nonexistent")
        took = time.monotonic() - begin

    assert "built here first" in planned.reason("cudaext")
    assert made.status("cudaext") == "installed", made.reason("cudaext")
    assert kept.provenance.device.cubins == {90}
    assert kept.provenance.target.torch == "2.13"
    assert (kept.provenance.nvcc, kept.provenance.jobs > 0) == ("13.0", True)
    assert made.package("cudaext")["seconds"]["build"] > 0
    assert reused.status("cudaext") == "installed", reused.reason("cudaext")
    assert "build" not in reused.package("cudaext")["seconds"]
    assert (reused.layer("cudaext") / "cudaext" / "_ext.so").is_file()
    assert took < 60


@needs_nvcc
def test_a_wheel_for_another_gpu_is_not_reused(tmp_path: Path, index: Index) -> None:
    with index:
        index.publish_sdist(cudaext(), SETUP)
        first = worker(tmp_path / "first", index)
        first.warm()
        other = worker(tmp_path / "other", index, cuda={"compute-capability": ["8.0"]})
        made = other.warm("--store", str(first.store))
        kept = list(Wheelhouse(root=first.store / "built").all())

    assert made.status("cudaext") == "installed", made.reason("cudaext")
    assert sorted(sorted(each.provenance.device.cubins) for each in kept) == [[80], [90]]


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [
        ({"cuda": {"toolkit": "/nonexistent"}}, "and there is no CUDA toolkit"),
        ({"package": {"build-limits": {"memory": "9TB"}}}, "of memory for each job"),
        ({"package": {"build-limits": {"memory": "1MB", "disk": "900TB"}}}, "of disk, and"),
        (
            {"package": {"build-limits": {"memory": "1MB", "disk": "1MB", "cpu-time": "7d"}}},
            "minutes with",
        ),
    ],
)
@needs_nvcc
def test_what_is_missing_for_a_build_is_named_and_nothing_is_built(
    tmp_path: Path,
    index: Index,
    manifest: dict[str, dict[str, object]],
    sentence: str,
) -> None:
    with index:
        index.publish_sdist(cudaext(), SETUP)
        made = worker(tmp_path, index, manifest.get("package"), manifest.get("cuda")).warm()

    assert made.status("cudaext") == "skipped"
    assert sentence in made.reason("cudaext")
    assert "cudaext-1.0+cu13torch2.13cxx11abiTRUE" in made.reason("cudaext")
    assert not list((tmp_path / "store" / "built").iterdir())


@needs_nvcc
def test_wheels_are_built_ahead_of_time_by_a_command_of_its_own(
    tmp_path: Path, index: Index
) -> None:
    with index:
        index.publish_sdist(cudaext(), SETUP)
        here = worker(tmp_path, index)
        options = ("--python", str(here.platform.python))
        command = (sys.executable, "-m", "preheat", "build", *here.options, *options)
        built = here.run((*command, "--json"))
        kept = here.run((*command, "--json"))
        refused = here.run(
            (
                *command,
                "--json",
                "--set",
                "cuda.toolkit=/nonexistent",
                "--set",
                "cuda.compute-capability=8.0",
            )
        )
        table = here.run(command)
        started = here.warm()

    documents = [json.loads(each.stdout) for each in (built, kept, refused)]
    assert [each.code for each in (built, kept, refused)] == [0, 0, 3]
    assert [each["wheels"][0]["status"] for each in documents] == ["built", "kept", "refused"]
    made = documents[0]["wheels"][0]["provenance"]
    assert (made["device"], made["nvcc"]) == ({"cubins": [90], "ptx": []}, "13.0")
    assert "there is no CUDA toolkit" in documents[2]["wheels"][0]["reason"]
    assert "sm_90" in table.stdout
    assert started.status("cudaext") == "installed"
    assert "build" not in started.package("cudaext")["seconds"]


def test_a_build_is_ended_at_its_limit_and_not_tried_again_by_surprise(
    tmp_path: Path, index: Index
) -> None:
    endless = "import os, subprocess\nif 'MAX_JOBS' in os.environ: subprocess.run(['sleep', '987'])"
    limits = {"time": "2s", "memory": "1MB", "disk": "1MB", "cuda": False}
    with index:
        index.publish_sdist(cudaext(), endless)
        here = worker(tmp_path, index, stated={"build-limits": limits})
        begin = time.monotonic()
        ended = here.warm()
        took = time.monotonic() - begin
        again = here.warm("--cold")
        retried = here.warm("--retry")
    alive = [cmd for cmd in _command_lines() if cmd.startswith(b"sleep\0987")]

    assert ended.status("cudaext") == "failed"
    assert "its build was ended after" in ended.reason("cudaext")
    assert took < 60
    assert again.status("cudaext") == "skipped"
    assert "failed before on this platform: its build was ended" in again.reason("cudaext")
    assert retried.status("cudaext") == "failed"
    assert not alive
    assert not list((tmp_path / "store" / "staging").iterdir())


def test_a_build_that_failed_ahead_of_time_is_not_begun_again_by_the_next_start(
    tmp_path: Path, index: Index
) -> None:
    tries = tmp_path / "tries"
    failing = (
        "import os, pathlib\n"
        "if 'MAX_JOBS' in os.environ:\n"
        f"    open({str(tries)!r}, 'a').write('x')\n"
        "    raise SystemExit('the compiler does not like it')\n"
    )
    limits = {"memory": "1MB", "disk": "1MB", "cuda": False}
    with index:
        index.publish_sdist(cudaext(), failing)
        here = worker(tmp_path / "worker", index, stated={"build-limits": limits})
        options = (*here.options, "--python", str(here.platform.python))
        command = (sys.executable, "-m", "preheat", "build", "--json", *options)
        built, started = here.run(command), here.warm()
        after_start = tries.read_text()
        again = here.run(command)

    assert (built.code, again.code) == (3, 3)
    assert json.loads(built.stdout)["wheels"][0]["status"] == "failed"
    assert started.status("cudaext") == "skipped"
    assert "failed before on this platform: " in started.reason("cudaext")
    assert after_start == "x"
    # Asked for by name, it is tried.
    assert tries.read_text() == "xx"


# The clock by which the log says how far a long stage is; all others go on as they do.
HURRIED = """
from datetime import datetime, timedelta
from preheat.cli import main, progress

begin = datetime.now().astimezone()

class Hurried(datetime):
    @classmethod
    def now(cls, zone=None):
        return begin + 20 * (datetime.now().astimezone() - begin)

progress.datetime = Hurried
main.main()
"""


def test_a_build_tells_how_long_it_has_gone_on(tmp_path: Path, index: Index) -> None:
    slow = "import os, time\nif 'MAX_JOBS' in os.environ: time.sleep(1.5)"
    limits = {"time": "60s", "memory": "1MB", "disk": "1MB", "cuda": False}
    with index:
        index.publish_sdist(cudaext(), slow)
        here = worker(tmp_path, index, stated={"build-limits": limits})
        options = (*here.options, "--python", str(here.platform.python))
        made = here.run((sys.executable, "-c", HURRIED, "warm", "--json", *options))

    assert made.status("cudaext") == "installed", made.reason("cudaext")
    assert 'progress name="build cudaext" percent=' in made.stderr


def test_what_a_build_requires_and_cannot_have_is_said_with_its_failure(
    tmp_path: Path, index: Index
) -> None:
    needy = "import the_tool_that_is_nowhere\n"
    limits = {"memory": "1MB", "disk": "1MB", "cuda": False}
    with index:
        index.publish_sdist(cudaext(), needy)
        stated = {"build-limits": limits, "build-requires": ["setuptools", "nowhere-to-be-had"]}
        made = worker(tmp_path, index, stated=stated).warm("-v")

    assert made.status("cudaext") == "skipped"
    assert "nowhere-to-be-had" in made.package("cudaext")["trace"]


def test_bug_6_nothing_is_compiled_where_the_manifest_does_not_allow_it(
    tmp_path: Path, index: Index
) -> None:
    telling = "import pathlib\npathlib.Path({!r}).touch()\n".format(str(tmp_path / "compiled"))
    with index:
        index.publish_sdist(cudaext(), telling)
        here = worker(tmp_path / "worker", index, stated={"build": False})
        made = here.warm()

    assert made.code == 0
    assert made.status("cudaext") == "skipped"
    assert not (tmp_path / "compiled").exists()


def _command_lines() -> Iterator[bytes]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield (process / "cmdline").read_bytes()


# -- ready wheels ------------------------------------------------------------------------------


def labelled(label: str) -> Project:
    return Project(
        name="cudaext",
        version=f"1.0+{label}",
        files={"cudaext/__init__.py": f"LABEL = {label!r}\n"},
    )


def test_of_ready_wheels_in_a_directory_the_platforms_own_is_taken(
    tmp_path: Path, index: Index
) -> None:
    shelf = tmp_path / "wheels"
    for label in ("cu12torch2.13cxx11abitrue", "cu13torch2.13cxx11abitrue", "cu13torch2.9"):
        write_wheel(labelled(label), shelf)
    with index:
        here = worker(tmp_path / "worker", index, stated={"build": False})
        document = here.manifest.read_text().replace(
            "[index]\n", f"[index]\nfind-links = [{json.dumps(str(shelf))}]\n"
        )
        here.manifest.write_text(document)
        made = here.warm()

    assert made.status("cudaext") == "installed", made.reason("cudaext")
    assert made.package("cudaext")["version"] == "1.0+cu13torch2.13cxx11abitrue"


def test_ready_wheels_for_other_platforms_alone_are_refused_before_a_download(
    tmp_path: Path, index: Index
) -> None:
    with index:
        index.publish(labelled("cu12torch2.13cxx11abitrue"))
        made = worker(tmp_path / "worker", index, stated={"build": False}).warm()
        fetched = [r for r in index.requests if r.path.startswith("/files/") and r.bytes_sent]

    assert made.status("cudaext") == "skipped"
    assert made.reason("cudaext") == (
        "no wheel of cudaext is for this platform: 1.0+cu12torch2.13cxx11abitrue is for CUDA 12, "
        "and torch brings 13"
    )
    assert not fetched


@needs_nvcc
def test_a_ready_wheel_that_is_compiled_for_other_gpus_is_not_published(
    tmp_path: Path, index: Index
) -> None:
    (tmp_path / "k.cu").write_text(KERNEL)
    nvcc = [str(CUDA / "bin" / "nvcc"), "-shared", "-Xcompiler", "-fPIC"]
    subprocess.run(
        [*nvcc, "-gencode=arch=compute_80,code=sm_80", "-o", "k.so", "k.cu"],
        cwd=tmp_path,
        check=True,
    )
    library = (tmp_path / "k.so").read_bytes()
    with index:
        index.publish(
            Project(
                name="cudaext",
                version="1.0",
                files={"cudaext/__init__.py": "", "cudaext/_ext.so": library},
            )
        )
        here = worker(tmp_path / "worker", index, stated={"build": False})
        made = here.warm()

    assert made.status("cudaext") == "failed"
    assert made.reason("cudaext") == (
        "cudaext is compiled for sm_80 alone, and compute capability 9.0 is here"
    )
    assert not here.published()
