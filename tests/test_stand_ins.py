"""The platform's CUDA libraries in place of NVIDIA's wheels: left out, found, proved, told."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from preheat.decisions.stand_ins import (
    Wheel,
    asked_of,
    bound_to,
    copies,
    is_candidate,
    stand_in,
    stems,
    suffices,
)
from preheat.edges.store.pack import read_index
from preheat.edges.store.thinning import held_by, thinned
from preheat.words.layer import LayerFacts
from preheat.words.lock import Archive, Contents, Locked
from preheat.words.stand_in import Library, LibraryDirectory
from tests.support.index import Index
from tests.support.libraries import NEEDS_COMPILER, cublas, cublas_lt, gemm, nvidia_cublas
from tests.support.platforms import Platform, fake_torch, make_platform, tree_digest
from tests.support.starts import Answer, package
from tests.support.wheels import Project
from tests.support.workers import Worker, distributions_in

HERE = "13.1.1.3"
"""The release of cuBLAS that the platforms have."""

MAPPED = """
import gemm, re
answer = gemm.answer()
maps = open("/proc/self/maps").read()
print(answer, *sorted(set(re.findall(r"/.*libcublas.*", maps))))
"""

# A package that asks for the distribution, and not only for its libraries.
ASKS = gemm("asks", ["nvidia-cublas>=13.0"])
ASKS = replace(
    ASKS,
    files={
        **ASKS.files,
        "asks/__init__.py": "import importlib.metadata\n"
        "importlib.metadata.version('nvidia-cublas')\n",
    },
)

PROJECTS = (
    nvidia_cublas("12.9.1.4"),
    nvidia_cublas("13.0.2.14"),
    nvidia_cublas(HERE),
    # A later release brings one more library.
    nvidia_cublas("13.6.0.2", "libcublasEmu.so.13"),
    gemm(),
    gemm("modest", ["nvidia-cublas>=13.0.0.19"]),
    gemm("demanding", ["nvidia-cublas>=13.6"]),
    gemm("exact", ["nvidia-cublas==13.0.2.14"]),
    gemm("elderly", ["nvidia-cublas<13"]),
    ASKS,
)


def bundled(version: str = HERE) -> Project:
    """A torch that holds its CUDA libraries itself, as conda's and NVIDIA's images have it."""
    torch = fake_torch("2.13.0+cu130")
    files = {
        "torch/lib/libcublas.so.13": cublas(version),
        "torch/lib/libcublasLt.so.13": cublas_lt(),
    }
    return replace(torch, files={**torch.files, **files})


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform whose torch holds the libraries."""
    return make_platform(tmp_path_factory.mktemp("image") / "venv", projects=[bundled()])


@pytest.fixture
def worker(tmp_path: Path, image: Platform, index: Index) -> Worker:
    """A worker on that platform; nothing of this machine's own CUDA is seen."""
    index.forget_requests()
    return Worker(place=tmp_path / "worker", platform=image, index=index)


def started(worker: Worker, *names: str, **tables: object) -> Answer:
    """A cold start with those packages."""
    worker.write([package(name) for name in names], **tables)
    return worker.warm()


def stood_in(result: Answer, name: str) -> dict[str, Mapping[str, Any]]:
    """What the platform's libraries stand in for in a package's layer, by distribution."""
    return {row["name"]: row for row in result.package(name)["stand_ins"]}


def links(layer: Path) -> dict[str, str]:
    """Every link in a layer, by its path there."""
    found = (path for path in layer.rglob("*") if path.is_symlink())
    return {str(path.relative_to(layer)): os.readlink(path) for path in found}


# -- libraries that torch holds --------------------------------------------------------------


@NEEDS_COMPILER
def test_a_wheel_whose_libraries_torch_holds_is_left_out_and_the_loader_finds_torchs(
    worker: Worker, image: Platform
) -> None:
    before = tree_digest(image.python.parents[1])

    result = started(worker, "gemm")

    assert result.status("gemm") == "installed", result.reason("gemm")
    assert distributions_in(result.layer("gemm")) == {"gemm-1.0"}
    assert not worker.index.downloaded("nvidia-cublas")
    lib = image.site / "torch" / "lib"
    assert links(result.layer("gemm")) == {
        f"nvidia/cu13/lib/{name}": str(lib / name)
        for name in ("libcublas.so.13", "libcublasLt.so.13")
    }
    answer, *mapped = worker.after(result, MAPPED).splitlines()[0].split()
    assert answer == "1"
    assert mapped == [str(lib / "libcublas.so.13"), str(lib / "libcublasLt.so.13")]
    assert tree_digest(image.python.parents[1]) == before


@NEEDS_COMPILER
def test_the_plan_tells_what_is_left_out_where_it_is_and_the_bytes_that_this_spares(
    worker: Worker, image: Platform
) -> None:
    worker.write([package("gemm"), package("modest")])
    python = ("--python", str(image.python))
    plan = worker.preheat(sys.executable, "plan", *python)
    told = worker.run((sys.executable, "-m", "preheat", "plan", *worker.options, *python)).stdout

    wheel = nvidia_cublas(HERE)
    size = sum(len(content) for content in wheel.files.values())
    row = stood_in(plan, "gemm")["nvidia-cublas"]
    assert row["version"] == HERE
    assert row["place"] == str(image.site / "torch" / "lib")
    assert not row["on_platform"]
    assert row["download"] == worker.index.published[wheel.wheel_name].size
    assert row["bytes"] == pytest.approx(size, rel=0.01)
    assert plan.package("gemm")["bytes_spared"] == row["bytes"]
    # Two packages need it, and it would have been installed once.
    assert stood_in(plan, "modest").keys() == {"nvidia-cublas"}
    assert plan.package("modest")["bytes_spared"] == 0
    assert f"gemm uses the platform's nvidia-cublas {HERE} of {row['place']}" in told
    assert f"{size / 1e6:.1f} MB of CUDA libraries are the platform's, and in no layer" in told


@NEEDS_COMPILER
def test_a_wheel_of_a_later_minor_release_than_the_platforms_is_installed_where_it_is_asked_for(
    worker: Worker,
) -> None:
    result = started(worker, "demanding")

    assert stood_in(result, "demanding") == {}
    assert "nvidia_cublas-13.6.0.2" in distributions_in(result.layer("demanding"))
    assert worker.after(result, "import demanding; print(demanding.answer())") == "6"


@NEEDS_COMPILER
def test_libraries_of_another_major_release_do_not_stand_in(
    tmp_path: Path, index: Index, image: Platform
) -> None:
    old = Project(
        name="nvidia-cublas-cu12",
        version="12.9.1.4",
        files={"nvidia/cublas/lib/libcublas.so.12": cublas("12.9.1.4", major=12)},
        tag="py3-none-manylinux_2_27_x86_64",
    )
    user = Project(name="cu12-user", version="1", files={"cu12_user.py": ""}, requires=[old.name])
    index.publish(old, user)
    worker = Worker(place=tmp_path / "worker", platform=image, index=index)

    result = started(worker, "cu12-user")

    assert "nvidia_cublas_cu12-12.9.1.4" in distributions_in(result.layer("cu12-user"))
    assert stood_in(result, "cu12-user") == {}


@NEEDS_COMPILER
def test_what_fails_with_the_platforms_libraries_brings_its_own_and_the_report_says_why(
    worker: Worker,
) -> None:
    result = started(worker, "asks")

    assert result.status("asks") == "installed", result.reason("asks")
    assert f"nvidia_cublas-{HERE}" in distributions_in(result.layer("asks"))
    assert "brings nvidia-cublas, since with the platform's libraries: " in result.reason("asks")
    assert "PackageNotFoundError" in result.reason("asks")
    assert stood_in(result, "asks") == {}
    # What failed is remembered: another cold start does not try it again.
    shutil.rmtree(worker.store / "starts")
    again = worker.warm()
    assert again.layer("asks") == result.layer("asks")
    assert "preheat failed" in result.stderr
    assert "preheat failed" not in again.stderr


@NEEDS_COMPILER
def test_a_link_that_does_not_load_is_found_out_before_the_layer_is_published(
    tmp_path: Path, index: Index
) -> None:
    # What libcublas needs from beside it is found where torch is, and is no library of the wheel.
    torch = bundled()
    alone = {k: v for k, v in nvidia_cublas(HERE).files.items() if "libcublasLt" not in k}
    lean = replace(nvidia_cublas(HERE), name="nvidia-lean", files=alone)
    user = Project(name="lean-user", version="1", files={"lean_user.py": ""}, requires=[lean.name])
    index.publish(lean, user)
    platform = make_platform(tmp_path / "venv", projects=[torch])
    worker = Worker(place=tmp_path / "worker", platform=platform, index=index)

    result = started(worker, "lean-user")

    assert "nvidia_lean-13.1.1.3" in distributions_in(result.layer("lean-user"))
    assert "loading the platform's libraries failed: OSError: libcublasLt.so.13" in result.reason(
        "lean-user"
    )


@NEEDS_COMPILER
def test_what_the_manifest_does_not_protect_is_installed(worker: Worker) -> None:
    result = started(worker, "gemm", protected=["torch"])

    assert "nvidia_cublas-13.6.0.2" in distributions_in(result.layer("gemm"))


@NEEDS_COMPILER
def test_what_a_package_names_first_is_installed(worker: Worker) -> None:
    worker.write([package("cublas", requires=["nvidia-cublas"], imports=["nvidia.cu13"])])

    result = worker.warm()

    assert result.status("cublas") == "installed"
    assert stood_in(result, "cublas") == {}


@NEEDS_COMPILER
def test_a_start_after_the_library_went_away_is_cold_and_installs_the_wheel(
    tmp_path: Path, index: Index
) -> None:
    platform = make_platform(tmp_path / "venv", projects=[bundled()])
    worker = Worker(place=tmp_path / "worker", platform=platform, index=index)
    first = started(worker, "gemm")
    assert worker.warm().document["warm"]
    (platform.site / "torch" / "lib" / "libcublas.so.13").unlink()

    asked = ("status", *worker.options, "--python", str(platform.python))
    status = worker.run((sys.executable, "-m", "preheat", *asked)).stdout
    second = worker.warm()

    assert "torch/lib/libcublas.so.13 is gone" in " ".join(status.split())
    assert not second.document["warm"]
    assert second.layer("gemm") != first.layer("gemm")
    assert [n for n in distributions_in(second.layer("gemm")) if n.startswith("nvidia_cublas-13")]


@NEEDS_COMPILER
def test_a_packed_layer_has_its_links_again_where_it_is_unpacked(worker: Worker) -> None:
    local = worker.place / "local"
    first = started(worker, "gemm", layers="packed", local=str(local))
    (pack,) = (worker.store / "packs").iterdir()
    shutil.rmtree(local)

    second = worker.warm()

    assert read_index(pack).facts.links
    assert second.status("gemm") == "reused"
    assert links(second.layer("gemm")) == links(first.layer("gemm")) != {}
    assert worker.after(second, "import gemm; print(gemm.answer())") == "1"


@NEEDS_COMPILER
def test_a_layer_without_some_of_its_distributions_keeps_links_as_links(
    worker: Worker, tmp_path: Path
) -> None:
    layer = started(worker, "gemm").layer("gemm")

    thinned(str(layer), [h for h in held_by(str(layer)) if h.name == "other"], tmp_path / "thin")

    assert links(tmp_path / "thin") == links(layer) != {}


# -- libraries of the system -----------------------------------------------------------------


@NEEDS_COMPILER
def test_libraries_of_a_toolkit_stand_in_and_the_numbers_in_their_names_tell_the_version(
    tmp_path: Path, index: Index
) -> None:
    platform = make_platform(tmp_path / "venv", projects=[fake_torch("2.13.0+cu130")])
    worker = Worker(place=tmp_path / "worker", platform=platform, index=index)
    lib = worker.place / "system" / "usr" / "local" / "cuda" / "lib64"
    lib.mkdir(parents=True)
    contents = {"libcublas.so.13.1.1.3": cublas("13.9.9.9"), "libcublasLt.so.13.1.1.3": cublas_lt()}
    for name, content in contents.items():
        (lib / name).write_bytes(content)
        (lib / name.replace(".1.1.3", "")).symlink_to(name)

    result = started(worker, "modest")

    assert stood_in(result, "modest")["nvidia-cublas"]["version"] == HERE
    assert links(result.layer("modest")) == {
        f"nvidia/cu13/lib/{name.replace('.1.1.3', '')}": str(lib / name) for name in contents
    }
    assert worker.after(result, "import modest; print(modest.answer())") == "9"


# -- libraries that are distributions of the platform ----------------------------------------


@pytest.fixture
def with_wheels(tmp_path: Path, index: Index) -> Worker:
    """A worker on a platform whose torch came with NVIDIA's wheels, as from the index."""
    torch = fake_torch("2.13.0+cu130", requires=[f"nvidia-cublas=={HERE}"])
    platform = make_platform(tmp_path / "venv", projects=[torch, nvidia_cublas(HERE)])
    index.forget_requests()
    return Worker(place=tmp_path / "worker", platform=platform, index=index)


@NEEDS_COMPILER
def test_a_package_that_looks_beside_itself_finds_the_platforms_distribution(
    with_wheels: Worker,
) -> None:
    result = started(with_wheels, "gemm")

    lib = with_wheels.platform.site / "nvidia" / "cu13" / "lib"
    row = stood_in(result, "gemm")["nvidia-cublas"]
    assert (row["version"], row["on_platform"], row["place"]) == (HERE, True, str(lib))
    assert result.package("gemm")["bytes_spared"] == row["bytes"] > 600_000
    assert distributions_in(result.layer("gemm")) == {"gemm-1.0"}
    assert with_wheels.after(result, MAPPED).split()[:2] == ["1", str(lib / "libcublas.so.13")]


@NEEDS_COMPILER
def test_a_copy_of_the_platforms_library_in_any_wheel_gives_way_to_a_link_if_it_is_an_equal_one(
    with_wheels: Worker, index: Index
) -> None:
    library = cublas(HERE)
    other = bytes([*library[:-1], library[-1] ^ 1])
    same, else_ = "vendor.libs/libcublas-0a1b2c3d.so.13", "vendor.libs/libcublas.4e5f6071.so.13"
    files: dict[str, str | bytes] = {"vendor/__init__.py": "", same: library, else_: other}
    index.publish(Project(name="vendor", version="1", files=files))

    result = started(with_wheels, "vendor")

    layer = result.layer("vendor")
    lib = with_wheels.platform.site / "nvidia" / "cu13" / "lib"
    assert links(layer) == {same: str(lib / "libcublas.so.13")}
    assert (layer / else_).read_bytes() == other
    assert (lib / "libcublas.so.13").read_bytes() == library
    assert result.status("vendor") == "installed"


@NEEDS_COMPILER
def test_what_only_torch_needs_gets_no_links(with_wheels: Worker, index: Index) -> None:
    index.publish(
        Project(name="torch-user", version="1", files={"torch_user.py": ""}, requires=["torch"])
    )

    result = started(with_wheels, "torch-user")

    assert links(result.layer("torch-user")) == {}
    assert stood_in(result, "torch-user") == {}


@NEEDS_COMPILER
def test_an_exact_bound_on_an_earlier_release_is_served_by_the_platforms_later_one(
    with_wheels: Worker,
) -> None:
    result = started(with_wheels, "exact")

    assert result.status("exact") == "installed", result.reason("exact")
    assert distributions_in(result.layer("exact")) == {"exact-1.0"}
    assert with_wheels.after(result, "import exact; print(exact.answer())") == "1"
    assert not with_wheels.index.downloaded("nvidia-cublas")


@NEEDS_COMPILER
def test_a_bound_that_the_platforms_release_is_too_old_for_is_refused_beside_one_it_serves(
    with_wheels: Worker,
) -> None:
    result = started(with_wheels, "exact", "demanding", "elderly", "gemm")

    statuses = {name: result.status(name) for name in ("exact", "demanding", "elderly", "gemm")}
    assert statuses == {
        "exact": "installed",
        "demanding": "skipped",
        "elderly": "skipped",
        "gemm": "installed",
    }
    assert "nvidia-cublas" in result.reason("demanding")
    assert HERE in result.reason("demanding")


# -- decisions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("have", "asked", "served"),
    [
        ("9.20.0.48", ">=9.8", True),
        ("9.20.0.48", "~=9.0", True),
        ("9.20.0.48", "==9.19.0.56", True),
        # Patch releases do not count, either way.
        ("9.20.0.48", "==9.20.1.2", True),
        ("9.20.0.48", "==9.20.*", True),
        ("9.20.0.48", ">=9.21", False),
        ("9.20.0.48", "==9.21.0.1", False),
        ("9.20.0.48", "==8.9.7", False),
        ("9.20.0.48", ">=8", False),
        ("9.20.0.48", "<10,>=9.12.0.46", True),
        ("9.20.0.48", "<9.20", False),
        ("9.20.0.48", "!=9.20.0.48", False),
        ("0.8.1", ">=0.8", True),
        ("0.8.1", ">=0.7", False),
        ("not a version", ">=1", False),
        ("13.1.1.3", "", True),
    ],
)
def test_a_release_serves_what_was_built_for_the_same_or_an_earlier_minor_release(
    have: str, asked: str, served: bool
) -> None:
    assert suffices(have, SpecifierSet(asked)) is served


def wheel(files: Mapping[str, int], version: str = "13.1.1.3", asked: Sequence[str] = ()) -> Wheel:
    archive = Archive(filename="nvidia_cublas.whl", url="", sha256="", size=1)
    return Wheel(
        locked=Locked(name="nvidia-cublas", version=version, archive=archive),
        contents=Contents(files=tuple(files.items()), requires=()),
        requirements=tuple(asked),
    )


def directory(path: str, **libraries: str | None) -> LibraryDirectory:
    """Libraries by what comes before `.so`, underscores for hyphens and dots, with versions."""
    return LibraryDirectory(
        path=path,
        libraries=tuple(
            Library(name=name, path=f"{path}/{name}", version=version)
            for name, version in libraries.items()
        ),
    )


LIB = "nvidia/cu13/lib"
BLAS = {f"{LIB}/libcublas.so.13": 500, f"{LIB}/libcublasLt.so.13": 400}


def test_all_libraries_of_a_wheel_come_from_one_directory() -> None:
    split = [
        directory("/a", **{"libcublas.so.13": "13.1.1"}),
        directory("/b", **{"libcublasLt.so.13": "13.1.1"}),
    ]
    whole = directory("/c", **{"libcublas.so.13": "13.1.1", "libcublasLt.so.13": None})

    assert stand_in(wheel(BLAS), split) is None
    found = stand_in(wheel(BLAS), [*split, whole])
    assert found is not None
    assert found.place == "/c"
    assert {link.target for link in found.links} == {"/c/libcublas.so.13", "/c/libcublasLt.so.13"}


def test_a_library_whose_name_tells_its_minor_release_counts_by_its_major() -> None:
    files = {f"{LIB}/libnvrtc.so.13": 900, f"{LIB}/libnvrtc-builtins.so.13.5": 90}
    here = directory("/t", **{"libnvrtc.so.13": "13.0", "libnvrtc-builtins.so.13.0": None})

    found = stand_in(wheel(files), [here])

    assert found is not None
    assert {link.path for link in found.links} == {
        f"{LIB}/libnvrtc.so.13",
        f"{LIB}/libnvrtc-builtins.so.13.0",
    }


def test_a_library_that_the_loader_would_not_find_by_its_name_does_not_count() -> None:
    here = directory("/t", **{"libcublas.so.13.1.1.3": "13.1.1.3", "libcublasLt.so.13": "13.1.1.3"})

    assert stand_in(wheel(BLAS), [here]) is None


@pytest.mark.parametrize(
    "more",
    [
        {"nvidia/cu13/bin/ptxas": 10},
        {"nvidia/cu13/nvvm/libdevice/libdevice.10.bc": 10},
        {"nvidia/cublas/__init__.py": 10},
        # The runtime's wheel is headers above all: programs compile against them while they run.
        {"nvidia/cu13/include/cuda_fp16.h": 400},
    ],
)
def test_a_wheel_that_is_more_than_its_libraries_is_installed(more: Mapping[str, int]) -> None:
    assert stems(wheel({**BLAS, **more}).contents) == frozenset()


def test_headers_licences_static_libraries_and_empty_modules_are_not_missed() -> None:
    beside = {
        "nvidia/cu13/include/cublas.h": 20,
        "nvidia/cu13/lib/libcublas_static.a": 20,
        "nvidia/cublas/LICENSE.txt": 5,
        "nvidia/__init__.py": 0,
        "nvidia_cublas-13.1.1.3.dist-info/METADATA": 900,
    }

    assert stems(wheel({**BLAS, **beside}).contents) == {"libcublas", "libcublasLt"}


def test_a_copied_library_is_known_by_the_name_that_it_had() -> None:
    files = {
        "torchvision.libs/libcudart.faf08d9a.so.13": 7,
        "x.libs/libnvjpeg-0123abcd.so.13.1": 8,
        "y/lib/libcudnn.so.9": 9,
        "y/_C.cpython-311-x86_64-linux-gnu.so": 1,
        "y/libfoo.so.txt": 1,
    }

    assert list(copies(wheel(files).contents)) == [
        ("torchvision.libs/libcudart.faf08d9a.so.13", "libcudart.so.13", 7),
        ("x.libs/libnvjpeg-0123abcd.so.13.1", "libnvjpeg.so.13.1", 8),
        ("y/lib/libcudnn.so.9", "libcudnn.so.9", 9),
    ]


def test_what_was_estimated_is_installed() -> None:
    estimated = replace(wheel(BLAS).contents, exact=False)

    assert stems(estimated) == frozenset()


@pytest.mark.parametrize(
    ("asked", "served"),
    [((), True), (["nvidia-cublas~=13.0"], True), (["nvidia-cublas>=13.1"], False)],
)
def test_where_nothing_tells_the_minor_release_only_the_major_may_be_asked_for(
    asked: Sequence[str], served: bool
) -> None:
    here = directory("/t", **{"libcublas.so.13": None, "libcublasLt.so.13": None})

    assert (stand_in(wheel(BLAS, asked=asked), [here]) is not None) is served


def test_an_upper_bound_is_not_met_by_a_minor_release_that_nobody_knows() -> None:
    here = directory("/t", **{"libcublas.so.13": None, "libcublasLt.so.13": None})

    assert stand_in(wheel(BLAS, asked=["nvidia-cublas<14"]), [here]) is not None
    assert stand_in(wheel(BLAS, asked=["nvidia-cublas<13.5"]), [here]) is None


@pytest.mark.parametrize(
    ("version", "bound"),
    [("13.6.0.2", "nvidia-cublas<13.2"), ("13.1.9", ""), ("14.0", ""), ("13.0.1", "")],
)
def test_wheels_later_than_the_platforms_release_are_avoided(version: str, bound: str) -> None:
    here = directory("/t", **{"libcublas.so.13": "13.1.1"})

    each = wheel(BLAS, version=version)
    assert bound_to(each.locked, each.contents, [here]) == bound


def test_only_nvidias_distributions_that_are_protected_are_left_out() -> None:
    usual = ("torch", "triton", "nvidia-*", "cuda-*")
    assert is_candidate("nvidia-cudnn-cu13", usual)
    assert not is_candidate("torch", usual)
    assert not is_candidate("nvidia-cudnn-cu13", ("torch",))


def test_bounds_are_those_on_that_very_name() -> None:
    texts = ("nvidia-cublas>=13", "nvidia-cublas-cu12<13", "nvidia_cublas ; extra == 'x'", "!!")
    assert [str(each) for each in asked_of("nvidia-cublas", texts)] == [">=13"]


def test_the_facts_of_a_layer_from_before_there_were_links_are_read() -> None:
    old = {
        "digest": "d",
        "package": "p",
        "distributions": [["a", "1"]],
        "payload": 1,
        "disk": 1,
        "files": 1,
        "hooked": False,
        "scripts": [],
    }
    assert LayerFacts.of(old).links == ()
