"""NVIDIA's libraries are on a platform once: real packages around the index's CUDA torch.

Two platforms: the index's torch as it comes, with NVIDIA's wheels beside it; and the same torch
with their libraries in ``torch/lib`` and no trace of the wheels, as images from elsewhere have it.
Neither needs a GPU: JAX's plugin tells the versions of the libraries that it has loaded.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.slim import duplicated, protected_files
from tests.support.platforms import tree_digest
from tests.support.starts import Ground, package
from tests.test_real_packages import MINUTES, TORCH, Started, make_ground

pytestmark = [
    pytest.mark.network,
    pytest.mark.big,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="numpy 2.4 needs Python 3.11"),
]

COUPLED = (package("torchaudio"), package("torchvision"), package("ctranslate2"))
# Its extensions look for the libraries at $ORIGIN/../nvidia, which is in the layer.
JAX = package(
    "jax-cuda13-plugin",
    requires=["jax-cuda13-plugin[with-cuda]"],
    check="""
    from jax_cuda13_plugin import _versions
    assert _versions.cudnn_get_version() // 10000 == 9
    assert _versions.cublas_get_version() // 10000 == 13
    assert _versions.cusolver_get_version() // 1000 == 12
    """,
)
ONNX = package("onnxruntime-gpu", "onnxruntime", requires=["onnxruntime-gpu[cuda,cudnn]"])
CUPY = package("cupy-cuda13x", "cupy", requires=["cupy-cuda13x[ctk]"])

# What ONNX Runtime offers for it: it looks beside itself first.
LOADED = """
import onnxruntime, re
onnxruntime.preload_dlls()
maps = open("/proc/self/maps").read()
print(*sorted(set(re.findall(r"/.*/lib(?:cublas|cudnn|cufft|curand)\\.so.*", maps))))
"""


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """Warmed around the index's torch, whose libraries are in NVIDIA's wheels."""
    home = tmp_path_factory.mktemp("beside")
    ground = make_ground(home, TORCH)
    ground.write(*COUPLED, ONNX, JAX)
    yield warmed(ground, home)
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """Warmed around the same torch, which has the libraries in a directory of its own."""
    home = tmp_path_factory.mktemp("bundled")
    ground = make_ground(home, TORCH)
    bundle(site_of(home))
    ground.write(ONNX, CUPY)
    yield warmed(ground, home)
    shutil.rmtree(home)


# -- NVIDIA's wheels beside torch --------------------------------------------------------------


def test_every_package_is_ready_and_the_platform_is_as_it_was(beside: Started) -> None:
    assert_all_ready(beside)


def test_no_byte_of_the_platforms_protected_files_is_in_a_layer_once_more(
    beside: Started,
) -> None:
    protected = tuple(protected_files(beside.ground.python))
    layers = [Path(row["layer"]) for row in beside.answer.packages.values()]

    assert sum(file.stat().st_size for file in protected if "/nvidia/" in str(file)) > 3e9
    assert duplicated(protected, layers[: len(COUPLED)]) == {}
    # JAX brings a compiler, whose headers triton has as well; but no library.
    again = duplicated(protected, layers[len(COUPLED) :])
    assert [path for path in again if "/include/" not in path] == []


def test_what_looks_for_the_wheels_beside_itself_finds_the_platforms(beside: Started) -> None:
    site = site_of(beside.home)
    mapped = beside.child(LOADED).split()
    assert {Path(file).name.partition(".")[0] for file in mapped} == {
        *("libcublas", "libcudnn", "libcufft", "libcurand"),
    }
    assert [file for file in mapped if not Path(file).is_relative_to(site / "nvidia")] == []


# -- the libraries in torch/lib ----------------------------------------------------------------


def test_every_package_is_ready_around_a_torch_that_has_the_libraries_itself(
    bundled: Started,
) -> None:
    assert_all_ready(bundled)


def test_what_torch_has_is_neither_fetched_nor_held_again(bundled: Started) -> None:
    rows = bundled.answer.packages
    spared = {row["name"] for name in rows for row in rows[name]["stand_ins"]}
    assert {"nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-cufft", "nvidia-curand"} <= spared
    assert sum(row["bytes_spared"] for row in rows.values()) > 1.9e9
    assert sum(row["download"] for row in rows.values()) < 0.5e9
    libraries = (site_of(bundled.home) / "torch" / "lib").glob("lib*.so*")
    assert duplicated(libraries, bundled.ground.layers()) == {}


def test_what_looks_for_the_wheels_beside_itself_finds_torchs(bundled: Started) -> None:
    lib = site_of(bundled.home) / "torch" / "lib"
    assert {str(Path(file).parent) for file in bundled.child(LOADED).split()} == {str(lib)}


# -- the parts ---------------------------------------------------------------------------------


def warmed(ground: Ground, home: Path) -> Started:
    """A start, with the platform's files before and after it."""
    before = tree_digest(home / "platform")
    answer = ground.run("warm", "--json", timeout=MINUTES)
    after = tree_digest(home / "platform")
    return Started(ground=ground, home=home, answer=answer, before=before, after=after)


def assert_all_ready(started: Started) -> None:
    assert started.answer.code == 0, started.answer.stderr
    said = {name: (row["status"], row["reason"]) for name, row in started.answer.packages.items()}
    assert {status for status, _ in said.values()} == {"installed"}, said
    assert started.after == started.before


def site_of(home: Path) -> Path:
    """The platform's site directory."""
    (site,) = (home / "platform" / "lib").glob("python*/site-packages")
    return site


def bundle(site: Path) -> None:
    """Move NVIDIA's libraries to torch, and remove what else is left of their wheels."""
    for library in site.glob("nvidia/*/lib/*.so*"):
        library.rename(site / "torch" / "lib" / library.name)
    for left in (site / "nvidia", *site.glob("nvidia_*.dist-info"), *site.glob("cuda_toolkit*")):
        shutil.rmtree(left)
    (metadata,) = site.glob("torch-*.dist-info/METADATA")
    lines = metadata.read_text(encoding="utf-8").splitlines(keepends=True)
    # Never in place: the file shares its inode with the engine's cache.
    metadata.unlink()
    gone = ("Requires-Dist: nvidia-", "Requires-Dist: cuda-toolkit")
    kept = "".join(line for line in lines if not line.startswith(gone))
    metadata.write_text(kept, encoding="utf-8")
