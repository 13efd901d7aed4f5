"""What is compiled against torch: chosen to go with the platform's, and refused where it cannot."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from preheat.decisions.coupling import blamed, explained, misfit, partners, remarks, useless
from preheat.decisions.explain import sentence
from preheat.words.coupling import COMPANIONS
from preheat.words.cuda import Cuda, Fact
from preheat.words.lock import Archive, Contents, Locked
from preheat.words.manifest import Package
from preheat.words.platform import Platform, Torch
from preheat.words.proof import Proof
from tests.support.detected import distribution, platform
from tests.support.index import Index
from tests.support.platforms import fake_torch, make_platform
from tests.support.starts import package
from tests.support.wheels import Project
from tests.support.workers import Worker, distributions_in


def around(torch: str, cuda: str | None, requires: Sequence[str] = (), cudnn: str = "") -> Platform:
    """A platform of that torch, whose CUDA is known from its files."""
    return platform(
        distribution("torch", torch, requires),
        torch=Torch(version=torch, cuda=cuda),
        cuda=Cuda(
            runtime=Fact(value=cuda, source="torch/version.py") if cuda else None,
            cudnn=Fact(value=cudnn, source="a wheel") if cudnn else None,
        ),
    )


CPU = around("2.13.0+cpu", None)
CU13 = around("2.13.0+cu130", "13.0", cudnn="9.20.0.48")
CU12 = around("2.8.0+cu126", "12.6")
NO_TORCH = platform()


def wheel(name: str, version: str) -> Locked:
    stem = f"{name.replace('-', '_')}-{version}"
    archive = Archive(
        filename=f"{stem}-cp311-cp311-linux_x86_64.whl",
        url=f"https://index.invalid/{stem}.whl",
        sha256="0" * 64,
        size=1,
    )
    return Locked(name=name, version=version, archive=archive)


def holding(*files: str, requires: Sequence[str] = ()) -> Contents:
    return Contents(files=tuple((file, 1) for file in files), requires=tuple(requires))


# -- what goes with which torch ----------------------------------------------------------------

# As upstream's tables and PyPI's metadata had it in November 2026.
GOES = [
    ("2.4.1+cu121", "torchaudio", "2.4.1", "2.5.0"),
    ("2.8.0", "torchaudio", "2.8.0", "2.11.0"),
    ("2.10.0", "torchaudio", "2.10.0", "2.11.0"),
    ("2.11.0", "torchaudio", "2.11.0", "2.10.0"),
    ("2.15.0", "torchaudio", "2.11.0", "2.10.0"),
    ("2.4.0", "torchvision", "0.19.0", "0.2.2.post3"),
    ("2.13.0+cpu", "torchvision", "0.28.0", "0.29.2"),
    ("2.15.0", "torchvision", "0.29.2", "0.28.0"),
    ("2.16.0", "torchvision", "0.30.0", "0.2.2.post3"),
    ("2.4.0", "torchcodec", "0.0.3", "0.1.0"),
    ("2.8.0", "torchcodec", "0.7.0", "0.8.0"),
    ("2.9.1", "torchcodec", "0.9.1", "0.10.0"),
    ("2.11.0", "torchcodec", "0.11.1", "0.10.0"),
    ("2.12.0", "torchcodec", "0.17.0", "0.11.1"),
    ("2.8.0+cpu", "triton", "3.4.0", "3.9.0"),
    ("2.13.0+cpu", "triton", "3.7.1", "3.9.0"),
    ("2.4.1", "xformers", "0.0.28.post1", "0.0.28.post2"),
    ("2.8.0", "xformers", "0.0.32.post2", "0.0.35"),
    ("2.13.0", "xformers", "0.0.35", "0.0.34"),
]


@pytest.mark.parametrize(("torch", "name", "taken", "left"), GOES)
def test_a_companion_goes_with_the_torch_that_upstream_names(
    torch: str, name: str, taken: str, left: str
) -> None:
    goes = SpecifierSet(partners(around(torch, None))[name])
    assert goes.contains(taken)
    assert not goes.contains(left)


def test_every_companion_names_the_source_of_its_table_and_leaves_no_torch_out() -> None:
    for companion in COMPANIONS.values():
        assert companion.source
        minors = sorted(minor for _, minor in companion.pairs)
        assert minors == list(range(minors[0], minors[-1] + 1))


def test_what_torch_itself_requires_goes_before_the_table() -> None:
    stated = around("2.13.0", "13.0", ['triton==3.7.1; platform_system == "Linux"'])
    assert partners(stated)["triton"] == "==3.7.1"


def test_what_is_protected_overridden_or_without_torch_is_not_coupled() -> None:
    assert "torchaudio" not in partners(CPU, ["torchaudio"])
    assert partners(NO_TORCH) == {}


def test_a_companion_without_a_release_of_this_torchs_own_is_said_to_be_one() -> None:
    audio, vision = wheel("torchaudio", "2.11.0"), wheel("torchvision", "0.28.0")
    assert remarks([audio, vision], CU13, {}) == {
        "torchaudio": "torchaudio 2.11.0 is for torch 2.11 and later, as none is for 2.13 alone: "
        "its import decides"
    }


def test_a_companion_that_is_not_the_newest_says_why() -> None:
    codec = wheel("torchcodec", "0.7.0")
    assert remarks([codec], CU12, {"torchcodec": "0.8.0 is unfit"}) == {
        "torchcodec": "torchcodec 0.7.0, since 0.8.0 is unfit"
    }


WALLS = [
    (
        "you require torchaudio>=2.9 and torchaudio==2.8.*, we can conclude",
        "torchaudio",
        "torchaudio>=2.9 is asked for; GOES",
    ),
    (
        "because whisperx==3.8.6 depends on torchaudio>=2.9 and you require whisperx, we can",
        "whisperx",
        "whisperx==3.8.6 needs torchaudio>=2.9; GOES",
    ),
    ("you require torchaudio<0, which does not allow any", "torchaudio", "GOES"),
    ("you require torchaudio<0, which does not allow any", "x", "x needs torchaudio, and GOES"),
]


@pytest.mark.parametrize(("wall", "package", "said"), WALLS)
def test_a_requirement_that_does_not_go_with_torch_is_said_in_a_sentence(
    wall: str, package: str, said: str
) -> None:
    goes = "with the platform's torch 2.8.0 goes torchaudio==2.8.*"
    found = sentence(wall, package, {"torch": "2.8.0"}, {"torchaudio": goes})
    assert found == said.replace("GOES", goes)


# -- what is refused, and what is not ----------------------------------------------------------

VISION_13 = holding("torchvision/_C.so", "torchvision.libs/libcudart.faf08d9a.so.13")
PINNED = ["torch==2.8.0", "nvidia-cublas-cu12==12.8.4.1", "nvidia-cuda-runtime-cu12"]
EXTENSION = holding("ext/_C.abi3.so", requires=PINNED)

REFUSED = [
    (
        wheel("torchvision", "0.28.0"),
        VISION_13,
        CPU,
        "torchvision 0.28.0 is a build for CUDA 13 (it holds libcudart.faf08d9a.so.13), and the "
        "platform's torch 2.13.0+cpu is one without CUDA",
    ),
    (
        wheel("torchvision", "0.28.0"),
        VISION_13,
        around("2.13.0+cu126", "12.6"),
        "torchvision 0.28.0 is a build for CUDA 13 (it holds libcudart.faf08d9a.so.13), and the "
        "platform's torch 2.13.0+cu126 brings CUDA 12.6",
    ),
    (
        wheel("torchcodec", "0.17.0"),
        holding("torchcodec/x.so", "torchcodec.libs/libnvjpeg-1a359ba7.so.13.0.1.86"),
        CPU,
        "torchcodec 0.17.0 is a build for CUDA 13 (it holds libnvjpeg-1a359ba7.so.13.0.1.86), and "
        "the platform's torch 2.13.0+cpu is one without CUDA",
    ),
    (
        wheel("torchaudio", "2.8.0+cu118"),
        holding("torchaudio/lib/x.so"),
        CU12,
        "torchaudio 2.8.0+cu118 is a build for CUDA 11 (its version says cu118), and the "
        "platform's torch 2.8.0+cu126 brings CUDA 12.6",
    ),
    (
        wheel("ext", "1.0"),
        EXTENSION,
        around("2.8.0+cpu", None),
        "ext 1.0 is a build for CUDA 12 (it requires nvidia-cuda-runtime-cu12), and the "
        "platform's torch 2.8.0+cpu is one without CUDA",
    ),
    (
        wheel("flash-attn", "2.8.3+cu12torch2.8cxx11abitrue"),
        holding("flash_attn_2_cuda.so"),
        around("2.9.0+cu126", "12.6"),
        "flash-attn 2.8.3+cu12torch2.8cxx11abitrue is for torch 2.8, and 2.9 is here",
    ),
    (
        wheel("xformers", "0.0.35"),
        holding("xformers/_C.so"),
        CPU,
        "xformers 0.0.35 is for CUDA alone, and the platform's torch 2.13.0+cpu is one without "
        "CUDA",
    ),
]


@pytest.mark.parametrize(("locked", "contents", "here", "said"), REFUSED)
def test_an_extension_of_torch_for_another_cuda_is_refused_in_one_sentence(
    locked: Locked, contents: Contents, here: Platform, said: str
) -> None:
    assert misfit(locked, contents, here) == said


# Each was seen to import beside a torch that is for none of its CUDAs, or is told by no name.
ACCEPTED = [
    (wheel("torchvision", "0.28.0"), VISION_13, CU13),
    (wheel("torchvision", "0.28.0"), VISION_13, NO_TORCH),
    (wheel("torchvision", "0.28.0+cpu"), holding("torchvision/_C.so"), CU13),
    (wheel("torchaudio", "2.11.0"), holding("torchaudio/lib/_torchaudio.abi3.so"), CPU),
    (wheel("xformers", "0.0.35"), holding("xformers/_C.so"), CU13),
    (
        wheel("ctranslate2", "4.8.5"),
        holding("ctranslate2/_ext.so", "ctranslate2.libs/libcudart-01234567.so.12"),
        CPU,
    ),
    (
        wheel("bitsandbytes", "0.50.2"),
        holding(*(f"bitsandbytes/libbitsandbytes_cuda{n}.so" for n in (118, 126, 130))),
        CU13,
    ),
    (
        wheel("xgboost", "3.0.0"),
        holding("xgboost/lib/libxgboost.so", requires=["nvidia-nccl-cu12; sys_platform=='linux'"]),
        CPU,
    ),
    (wheel("lmdeploy", "1.0"), holding("l/x.so", requires=["torch>=2", *PINNED[1:]]), CU13),
    (wheel("pure", "1.0"), holding("pure/__init__.py", requires=PINNED), CPU),
    (wheel("both", "1.0"), holding("b/libcudart.so.12", "b/libcudart.so.13"), CU13),
    (
        wheel("torchvision", "0.28.0"),
        holding("t.libs/libcudart.so.12", "t.libs/libcudart.so.13"),
        CU13,
    ),
    (
        wheel("ext", "1.0"),
        holding("e.so", requires=["torch==2.13.0", "nvidia-cublas-cu12; extra == 'cuda'"]),
        CPU,
    ),
]


@pytest.mark.parametrize(("locked", "contents", "here"), ACCEPTED)
def test_what_may_work_beside_another_cuda_is_not_refused(
    locked: Locked, contents: Contents, here: Platform
) -> None:
    assert misfit(locked, contents, here) is None


def test_an_older_companion_is_asked_for_only_where_there_may_be_one_that_helps() -> None:
    audio, codec = wheel("torchaudio", "2.11.0"), wheel("torchcodec", "0.17.0")
    package = named("uses")
    assert blamed([audio, codec], package, "import torchcodec failed", CU13) == codec
    # 2.11 is the first that goes with this torch; torchaudio is not what failed; one torch each.
    assert blamed([audio], package, "import torchaudio failed", CU13) is None
    assert blamed([codec], package, "import other failed", CU13) is None
    assert blamed([wheel("torchcodec", "0.7.0")], named("torchcodec"), "", CU12) is None


def named(name: str) -> Package:
    return Package(name=name, requires=(name,), imports=("x",))


def test_a_package_that_is_named_for_cuda_is_refused_where_there_is_none() -> None:
    assert useless(named("cupy-cuda12x"), CPU) == (
        "cupy-cuda12x is for CUDA 12, as its name says; the platform's torch 2.13.0+cpu is a "
        "build without CUDA, and no GPU is visible"
    )
    assert useless(named("faiss-gpu-cu12"), CPU)


def test_a_package_that_is_named_for_cuda_is_taken_where_it_may_find_one() -> None:
    a_gpu = replace(CPU, cuda=Cuda(compute_capability=(Fact(value="9.0", source="stated"),)))
    for here in (CU13, a_gpu, NO_TORCH):
        assert useless(named("cupy-cuda12x"), here) is None
    for library in ("nvidia-nccl-cu12", "cuda-bindings", "cupy", "accuracy", "x-cup"):
        assert useless(named(library), CPU) is None


# What torchaudio 2.11.0 says beside torch 2.13.0+cpu, shortened in the middle.
TORCHAUDIO = """\
    ctypes.CDLL(path)
OSError: libcudart.so.13: cannot open shared object file: No such file or directory

The above exception was the direct cause of the following exception:

  File "/s/torchaudio/_extension/utils.py", line 56, in _load_lib
    raise OSError(f"Could not load this library: {path}") from e
OSError: Could not load this library: /s/torchaudio/lib/_torchaudio.abi3.so
"""
SAID = [
    (
        "import torchaudio failed: OSError: Could not load this library: /s/t/_torchaudio.abi3.so",
        TORCHAUDIO,
        CPU,
        "import torchaudio failed: /s/torchaudio/lib/_torchaudio.abi3.so is a build for CUDA 13 "
        "(libcudart.so.13), and the platform's torch 2.13.0+cpu is a build without CUDA",
    ),
    (
        "import x failed: ImportError: libtorch_cuda.so: cannot open shared object file: No such",
        "",
        CPU,
        "import x failed: a library that it loads is a build for CUDA (libtorch_cuda.so), and the "
        "platform's torch 2.13.0+cpu is a build without CUDA",
    ),
    (
        "check failed: RuntimeError: Library libcublas.so.12 is not found",
        "ImportError: libcublas.so.12: cannot open shared object file: No such file",
        CU13,
        "check failed: a library that it loads is a build for CUDA 12 (libcublas.so.12), and the "
        "platform's torch 2.13.0+cu130 brings CUDA 13.0",
    ),
    (
        "check ended the interpreter (SIGABRT)",
        "Could not load library libcudnn_ops_infer.so.8. Error: libcudnn_ops_infer.so.8: cannot "
        "open shared object file: No such file or directory",
        CU13,
        "check ended the interpreter (SIGABRT): a library that it loads is for cuDNN 8 "
        "(libcudnn_ops_infer.so.8), and the platform has cuDNN 9.20.0.48",
    ),
    (
        "import ext failed: ImportError: /s/ext.so: undefined symbol: _ZN3c105ErrorC1Ev",
        "",
        CU13,
        "import ext failed: a library that it loads was compiled against another torch than the "
        "platform's 2.13.0+cu130 (no _ZN3c105ErrorC1Ev)",
    ),
]


@pytest.mark.parametrize(("reason", "trace", "here", "said"), SAID)
def test_a_failed_proof_that_names_cuda_or_torch_says_what_it_is_for(
    reason: str, trace: str, here: Platform, said: str
) -> None:
    proof = Proof(package="x", ok=False, reason=reason, trace=trace)
    assert explained(proof, here) == replace(proof, reason=said)


@pytest.mark.parametrize(
    "reason",
    [
        "import x failed: OSError: libcurl.so.4: cannot open shared object file",
        "import x failed: OSError: libavutil.so.59: cannot open shared object file",
        "import x failed: OSError: libcudart.so.13: cannot open shared object file",
        "import x failed: ImportError: undefined symbol: PyFloat_Type",
        "import x failed: ValueError: no",
    ],
)
def test_other_failures_are_left_in_their_own_words(reason: str) -> None:
    proof = Proof(package="x", ok=False, reason=reason)
    assert explained(proof, CU13) is proof


# -- on tiny wheels ----------------------------------------------------------------------------


def release(name: str, version: str, *requires: str, code: str = "", library: str = "") -> Project:
    """A companion in small; `library` is the name of one that its wheel brings along."""
    files: dict[str, str | bytes] = {
        f"{name}/__init__.py": code or f"VERSION = {version!r}\n",
        f"{name}/_C.so": b"\x7fELF stand-in\n",
    }
    if library:
        files[f"{name}.libs/{library}"] = b"\x7fELF stand-in\n"
    return Project(name=name, version=version, files=files, requires=requires)


CUDART_13 = "libcudart.faf08d9a.so.13"
COMPANIES = (
    release("torchaudio", "2.8.0", "torch==2.8.0"),
    release("torchaudio", "2.11.0"),
    release("torchvision", "0.2.2", "torch"),
    release("torchvision", "0.23.0", "torch==2.8.0", library="libcudart.e8e8b82a.so.12"),
    release("torchvision", "0.28.0", "torch==2.13.0", library=CUDART_13),
    release("torchcodec", "0.7.0"),
    release("torchcodec", "0.15.0"),
    release("torchcodec", "0.17.0", library="libnvjpeg-1a359ba7.so.13.0.1.86"),
)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    return Index(shelf)


def worker(place: Path, index: Index, torch: str, *packages: str, **tables: object) -> Worker:
    made = Worker(
        place=place,
        platform=make_platform(place / "platform", projects=[fake_torch(torch)]),
        index=index,
    )
    made.write([package(name) for name in packages], **tables)
    return made


def test_the_set_that_goes_with_torch_is_taken_though_newer_ones_say_nothing(
    tmp_path: Path, index: Index
) -> None:
    index.publish(*COMPANIES)
    with index:
        here = worker(tmp_path, index, "2.8.0+cu128", "torchaudio", "torchvision", "torchcodec")
        made = here.warm()

    assert made.bad == {}
    found = {name for layer in here.store.glob("layers/*") for name in distributions_in(layer)}
    assert found == {"torchaudio-2.8.0", "torchvision-0.23.0", "torchcodec-0.7.0"}


def test_builds_for_cuda_are_refused_on_cpu_torch_before_any_download(
    tmp_path: Path, index: Index
) -> None:
    index.publish(*COMPANIES, release("timm", "1.0", "torchvision"))
    with index:
        made = worker(tmp_path, index, "2.13.0+cpu", "torchvision", "timm", "torchcodec").warm()
        whole = [r for r in index.requests if r.method == "GET" and r.path.endswith(".whl")]

    why = (
        f"torchvision 0.28.0 is a build for CUDA 13 (it holds {CUDART_13}), and the platform's "
        "torch 2.13.0+cpu is one without CUDA"
    )
    assert made.reason("torchvision") == why
    assert made.reason("timm") == f"it needs torchvision: {why}"
    assert made.status("timm") == made.status("torchvision") == "skipped"
    # The newest torchcodec that is not for CUDA serves, and the report says why.
    assert made.package("torchcodec")["version"] == "0.15.0"
    assert "since torchcodec 0.17.0 is a build for CUDA 13" in made.reason("torchcodec")
    assert not [r.path for r in whole if r.range is None and "torchvision" in r.path]


@pytest.mark.parametrize(
    ("torch", "taken"),
    [
        ("2.13.0+cu126", "0.28.0+cu126"),
        ("2.13.0+cu130", "0.28.0+cu130"),
        ("2.13.0+cpu", "0.28.0+cpu"),
    ],
)
def test_of_one_release_for_many_cudas_the_platforms_own_is_taken(
    tmp_path: Path, index: Index, torch: str, taken: str
) -> None:
    for label in ("cpu", "cu118", "cu126", "cu130"):
        index.publish(release("torchvision", f"0.28.0+{label}", "torch==2.13.0"))
    with index:
        made = worker(tmp_path, index, torch, "torchvision").warm()

    assert made.bad == {}
    assert made.package("torchvision")["version"] == taken


def test_a_release_without_a_label_is_found_beside_those_for_other_cudas(
    tmp_path: Path, index: Index
) -> None:
    for label in ("", "+cu118", "+cu126"):
        index.publish(release("torchvision", f"0.28.0{label}", "torch==2.13.0"))
    with index:
        here = worker(tmp_path, index, "2.13.0+cu130", "torchvision")
        made = here.warm()

    assert made.bad == {}
    assert distributions_in(made.layer("torchvision")) == {"torchvision-0.28.0"}


def test_what_cuda_the_manifest_states_decides(tmp_path: Path, index: Index) -> None:
    index.publish(*COMPANIES)
    with index:
        stated = {"runtime": "13.0"}
        made = worker(tmp_path, index, "2.13.0+cpu", "torchvision", cuda=stated).warm()

    assert made.bad == {}


def test_an_override_decides_which_companion_is_taken(tmp_path: Path, index: Index) -> None:
    index.publish(*COMPANIES)
    with index:
        here = worker(tmp_path, index, "2.8.0+cu128")
        here.write([package("torchaudio", override=["torchaudio==2.11.0"])])
        made = here.warm()

    assert made.package("torchaudio")["version"] == "2.11.0", made.bad


def test_a_companion_that_fails_at_its_import_is_not_published_and_another_serves(
    tmp_path: Path, index: Index
) -> None:
    code = 'raise OSError("libtorch_cuda.so: cannot open shared object file: No such file")\n'
    index.publish(release("torchaudio", "2.11.0", code=code), release("speech", "1.0"))
    with index:
        here = worker(tmp_path, index, "2.13.0+cpu")
        here.write(
            [package("torchaudio"), package("speech")],
            capabilities={"timing": ["torchaudio", "speech"]},
        )
        made = here.warm()

    assert made.status("torchaudio") == "failed"
    assert made.reason("torchaudio") == (
        "import torchaudio failed: a library that it loads is a build for CUDA "
        "(libtorch_cuda.so), and the platform's torch 2.13.0+cpu is a build without CUDA"
    )
    assert here.published() == {made.layer("speech").name}
    assert made.document["capabilities"] == {"timing": "speech"}


BROKEN = "raise ImportError('torchcodec was compiled for another torch')\n"


def test_the_newest_companion_whose_import_works_is_taken_and_remembered(
    tmp_path: Path, index: Index
) -> None:
    index.publish(
        release("torchcodec", "0.12.0"),
        release("torchcodec", "0.13.0"),
        release("torchcodec", "0.14.0", code=BROKEN),
        release("torchcodec", "0.15.0", code=BROKEN),
        release("uses", "1.0", "torchcodec", code="import torchcodec\n"),
        release("other", "1.0"),
    )
    with index:
        here = worker(tmp_path, index, "2.14.0+cu130", "uses", "other")
        made = here.warm()
        index.publish(release("torchcodec", "0.16.0", code=BROKEN))
        again = here.warm("--cold")
        # Asked anew, with what failed remembered.
        here.write([package("other"), package("uses")])
        anew = here.warm()

    for start in (made, again, anew):
        assert start.bad == {}
        assert distributions_in(start.layer("uses")) == {"uses-1.0", "torchcodec-0.13.0"}
    assert "torchcodec 0.13.0, since with 0.14.0 import uses failed" in made.reason("uses")
    assert again.status("uses") == "reused"


def test_an_older_companion_brings_all_that_is_needed_where_no_wheel_can_be_looked_into(
    tmp_path: Path, index: Index
) -> None:
    index.ranges = False
    index.publish(
        release("torchcodec", "0.13.0", "deep"),
        release("torchcodec", "0.14.0", "deep", code=BROKEN),
        release("uses", "1.0", "torchcodec", "extra", code="import torchcodec\n"),
        release("deep", "1.0"),
        release("extra", "1.0"),
    )
    with index:
        made = worker(tmp_path, index, "2.14.0+cu130", "uses").warm()

    assert made.bad == {}
    names = {"uses-1.0", "torchcodec-0.13.0", "deep-1.0", "extra-1.0"}
    assert distributions_in(made.layer("uses")) == names


def test_a_lock_that_is_given_is_left_for_no_older_companion(tmp_path: Path, index: Index) -> None:
    with index:
        index.publish(release("torchcodec", "0.13.0"))
        index.publish(release("torchcodec", "0.14.0", code=BROKEN))
        here = worker(tmp_path, index, "2.14.0+cu130", "torchcodec")
        command = (sys.executable, "-m", "preheat", "lock", *here.options)
        here.run((*command, "--python", str(here.platform.python)))
        made = here.warm("--locked")

    assert made.status("torchcodec") == "failed"
    assert made.package("torchcodec")["version"] == "0.14.0"


def test_where_no_older_companion_works_the_newest_ones_failure_is_told(
    tmp_path: Path, index: Index
) -> None:
    broken = (release("torchcodec", f"0.{n}.0", code=BROKEN) for n in (11, 12, 13))
    index.publish(*broken, release("other", "1.0"))
    with index:
        here = worker(tmp_path, index, "2.14.0+cu130", "torchcodec", "other")
        made = here.warm()

    assert made.bad == {
        "torchcodec": "import torchcodec failed: ImportError: torchcodec was compiled for another "
        "torch"
    }
    assert made.package("torchcodec")["version"] == "0.13.0"
    assert here.published() == {made.layer("other").name}


def test_a_package_that_is_named_for_cuda_costs_no_request_on_a_platform_without(
    tmp_path: Path, index: Index
) -> None:
    with index:
        made = worker(tmp_path, index, "2.13.0+cpu", "cupy-cuda12x").warm()
        assert not index.requests

    assert made.status("cupy-cuda12x") == "skipped"
    assert made.reason("cupy-cuda12x").startswith("cupy-cuda12x is for CUDA 12, as its name says")


def test_the_plan_says_where_only_an_import_will_tell(tmp_path: Path, index: Index) -> None:
    index.publish(*COMPANIES)
    with index:
        here = worker(tmp_path, index, "2.13.0+cu130", "torchaudio")
        plan = here.run(
            (
                *(sys.executable, "-m", "preheat", "plan", *here.options),
                *("--json", "--python", str(here.platform.python)),
            )
        )

    assert "as none is for 2.13 alone: its import decides" in plan.stdout
