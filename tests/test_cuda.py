"""What is told of a platform's CUDA, and from where."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from preheat.decisions.cuda import overridden
from preheat.decisions.detect import unmet
from preheat.edges.platform.cuda import read_cuda
from preheat.edges.platform.probe import probe
from preheat.words.cuda import Cuda, Fact
from preheat.words.manifest import Condition, Package, StatedCuda
from preheat.words.platform import Accelerator, Gpu, Platform
from tests.support.platforms import fake_nvidia, fake_torch, make_platform
from tests.support.wheels import Project

MANGLED = b"_ZN3c105ErrorC2ENS_14SourceLocationE"
NOWHERE = {"PATH": ""}


def seen(place: Path, projects: Iterable[Project]) -> Platform:
    """A platform with those projects, on a machine with an H200."""
    made = make_platform(place, projects=projects)
    gpu = Gpu(name="NVIDIA H200", compute_capability="9.0", memory=141 * 10**9)
    accelerator = Accelerator(driver="580.159.04", cuda="13.0", gpus=(gpu,))
    return replace(probe(str(made.python)), accelerator=accelerator)


def torch_with(path: str, content: bytes) -> Project:
    torch = fake_torch("2.13.0+cu130", requires=["nvidia-cudnn-cu13==9.19.0.56"])
    return replace(torch, files={**torch.files, path: content})


def toolkit(place: Path, header: str | None = "#define CUDA_VERSION 13000\n") -> Path:
    (place / "bin").mkdir(parents=True)
    (place / "include").mkdir()
    (place / "bin" / "nvcc").write_text("#!/bin/sh\n")
    (place / "bin" / "nvcc").chmod(0o755)
    (place / "include" / "cuda_runtime_api.h").write_text("")
    if header:
        (place / "include" / "cuda.h").write_text(header)
    return place


def rows(cuda: Cuda) -> dict[str, str]:
    return {name: fact.value for name, fact in cuda.rows()}


def test_every_fact_is_told_with_the_place_that_it_was_read_from(tmp_path: Path) -> None:
    projects = [
        torch_with("torch/lib/libc10.so", b"\x7fELF" + MANGLED + b"NSt7__cxx1112basic_string"),
        fake_nvidia("nvidia-cudnn-cu13", "9.19.0.56"),
        fake_nvidia("nvidia-nccl-cu13", "2.28.9"),
    ]
    here = seen(tmp_path / "platform", projects)
    home = toolkit(tmp_path / "cuda")

    cuda = read_cuda(here, {**NOWHERE, "CUDA_HOME": str(home)})

    assert rows(cuda) == {
        "driver": "580.159.04",
        "driver-cuda": "13.0",
        "runtime": "13.0",
        "toolkit": "13.0",
        "nvcc": str(home / "bin" / "nvcc"),
        "cudnn": "9.19.0.56",
        "nccl": "2.28.9",
        "cxx11-abi": "true",
        "compute-capability": "9.0",
    }
    sources = {name: fact.source for name, fact in cuda.rows()}
    assert sources["runtime"].endswith("torch/version.py")
    assert sources["cxx11-abi"].endswith("torch/lib/libc10.so")
    assert sources["toolkit"] == str(home / "include" / "cuda.h")
    assert sources["nvcc"] == "CUDA_HOME"
    assert sources["cudnn"].startswith("nvidia-cudnn-cu13 in ")
    assert sources["compute-capability"] == "the driver (NVML): NVIDIA H200"


@pytest.mark.parametrize(
    ("path", "content", "abi"),
    [
        ("torch/lib/libc10.so", MANGLED + b"Ss\0", "false"),
        ("torch/lib/libc10.so", MANGLED + b"NSt7__cxx1112basic_string\0", "true"),
        (
            "torch/share/cmake/Torch/TorchConfig.cmake",
            b'set(TORCH_CXX_FLAGS "-D_GLIBCXX_USE_CXX11_ABI=0")\n',
            "false",
        ),
        ("torch/lib/libc10.so", b"nothing of the kind", None),
    ],
)
def test_the_strings_that_torch_was_compiled_with_are_told(
    tmp_path: Path, path: str, content: bytes, abi: str | None
) -> None:
    here = seen(tmp_path / "platform", [torch_with(path, content)])

    assert rows(read_cuda(here, NOWHERE)).get("cxx11-abi") == abi


def test_the_library_that_torch_asks_for_counts_where_there_are_two(tmp_path: Path) -> None:
    projects = [
        fake_torch("2.13.0+cu130", requires=["nvidia-cudnn-cu13==9.19.0.56"]),
        fake_nvidia("nvidia-cudnn-cu12", "8.9.7"),
        fake_nvidia("nvidia-cudnn-cu13", "9.19.0.56"),
    ]

    assert rows(read_cuda(seen(tmp_path / "platform", projects), NOWHERE))["cudnn"] == "9.19.0.56"


def test_without_wheels_the_toolkits_own_headers_tell(tmp_path: Path) -> None:
    home = toolkit(tmp_path / "cuda", header=None)
    (home / "version.json").write_text('{"cuda": {"name": "CUDA SDK", "version": "12.8.1"}}')
    (home / "include" / "cudnn_version.h").write_text(
        "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 8\n#define CUDNN_PATCHLEVEL 0\n"
    )
    (home / "include" / "nccl.h").write_text(
        "#define NCCL_MAJOR 2\n#define NCCL_MINOR 26\n#define NCCL_PATCH 2\n"
    )
    here = seen(tmp_path / "platform", [fake_torch("2.13.0+cu130")])

    found = rows(read_cuda(here, NOWHERE, toolkit=str(home)))

    assert (found["toolkit"], found["cudnn"], found["nccl"]) == ("12.8.1", "9.8.0", "2.26.2")


def test_a_script_that_stands_for_nvcc_is_not_taken_for_a_toolkit(tmp_path: Path) -> None:
    home = toolkit(tmp_path / "cuda")
    scripts = tmp_path / "usr" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "nvcc").write_text(f'#!/bin/sh\nexec {home}/bin/nvcc "$@"\n')
    (scripts / "nvcc").chmod(0o755)
    here = seen(tmp_path / "platform", [fake_torch("2.13.0+cu130")])

    by_script = read_cuda(here, {"PATH": str(scripts)})
    by_path = read_cuda(here, {"PATH": os.pathsep.join((str(home / "bin"), str(scripts)))})

    assert by_script.nvcc is None or not by_script.nvcc.value.startswith(str(tmp_path))
    assert by_path.nvcc == Fact(value=str(home / "bin" / "nvcc"), source="PATH")


def test_a_damaged_version_file_and_a_missing_header_leave_the_version_open(tmp_path: Path) -> None:
    home = toolkit(tmp_path / "cuda", header=None)
    (home / "version.json").write_text("{")
    here = seen(tmp_path / "platform", [fake_torch("2.13.0+cu130")])

    found = rows(read_cuda(here, NOWHERE, toolkit=str(home)))

    assert "toolkit" not in found
    assert found["nvcc"] == str(home / "bin" / "nvcc")


def test_what_is_stated_holds_in_place_of_what_was_read_and_says_so() -> None:
    read = Cuda(
        runtime=Fact(value="12.8", source="version.py"), nccl=Fact(value="2.28.9", source="wheel")
    )
    stated = StatedCuda(runtime="13.0", cxx11_abi=False, compute_capability=("8.0", "9.0"))
    sources = {f"cuda.{key}": "manifest" for key in ("runtime", "cxx11-abi", "compute-capability")}

    cuda = overridden(read, stated, sources)

    assert cuda.runtime == Fact(value="13.0", source="manifest")
    assert cuda.cxx11_abi == Fact(value="false", source="manifest")
    assert [each.value for each in cuda.compute_capability] == ["8.0", "9.0"]
    assert cuda.nccl == read.nccl


def test_a_stated_compute_capability_meets_a_condition_without_a_gpu(tmp_path: Path) -> None:
    here = replace(seen(tmp_path / "platform", []), accelerator=Accelerator())
    condition = Condition(accelerator="cuda", compute_capability=">=8.0")
    wanted = Package(name="a", requires=("a",), imports=("a",), when=condition)
    stated = StatedCuda(compute_capability=("9.0",))
    cuda = overridden(here.cuda, stated, {"cuda.compute-capability": "manifest"})

    assert unmet(wanted, here) == "no CUDA device is visible here"
    assert unmet(wanted, replace(here, cuda=cuda)) is None
