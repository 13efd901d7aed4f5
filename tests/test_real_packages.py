"""The whole job on real packages from the configured index, around real builds of torch.

Two platforms: the index's own torch, which is a CUDA build that imports without a GPU, and a CPU
build where this machine's pip has one. They are made once, warmed once, and asked many questions.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from packaging.utils import canonicalize_name, parse_wheel_filename
from uv import find_uv_bin

from bench.gpu import NAME, SAXPY, write_sdist
from bench.scales import Scales, belongs_to_the_platform, pins_of
from tests.support.platforms import tree_digest
from tests.support.starts import Answer, Ground, package

pytestmark = [
    pytest.mark.network,
    pytest.mark.big,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="numpy 2.4 needs Python 3.11"),
]

PROJECT = Path(__file__).parents[1]
CUDA = Path("/usr/local/cuda")
TORCH = "torch==2.13.0"
NUMPY = "numpy==2.4.6"
MINUTES = 1800.0

PACKAGES = (
    package("transformers", required=True),
    package("google-cloud-speech", "google.cloud.speech", required=True),
    package(
        "whisperx",
        "whisperx.alignment",
        exclude=["pyannote-audio", "ctranslate2", "faster-whisper"],
    ),
    package(
        "f5-tts",
        "f5_tts.api",
        exclude=["gradio", "bitsandbytes", "torchcodec", "transformers-stream-generator"],
    ),
)
CAPABILITIES = {"word-timing": ["whisperx", "google-cloud-speech"]}
PROMISED = ("transformers", "google.cloud.speech", "whisperx.alignment", "f5_tts.api")

# Each calls what is compiled in it.
TORCHVISION = package(
    "torchvision",
    check="import torch, torchvision\n"
    "boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])\n"
    "kept = torchvision.ops.nms(boxes, torch.tensor([1.0, 0.5]), 0.5)\n"
    "assert kept.tolist() == [0]",
)
TORCHAUDIO = package(
    "torchaudio",
    check="import torch, torchaudio\n"
    "short = torchaudio.functional.resample(torch.zeros(1, 48), 48, 16)\n"
    "assert short.shape == (1, 16)",
)
CTRANSLATE2 = package(
    "ctranslate2",
    check="import ctranslate2\nassert 'int8' in ctranslate2.get_supported_compute_types('cpu')",
)

INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_EXTRA_INDEX", "UV_FIND_LINKS", "UV_INDEX", "UV_KEYRING")

# Every way a process begins another or reaches the network, as the interpreter's audit tells it.
WATCHED_START = """
import sys
seen = []
TOLD = ("subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "socket.")
sys.addaudithook(lambda event, _: seen.append(event) if event.startswith(TOLD) else None)
import preheat
ready = preheat.warm(sys.argv[1], store=sys.argv[2])
watched = list(seen)
import json
import transformers, google.cloud.speech
print(json.dumps({
    "warm": ready.warm,
    "seen": watched,
    "timing": ready.choose("word-timing"),
    "from": [transformers.__file__, google.cloud.speech.__file__],
}))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A platform that was warmed for: its start, and its files' digests around that start."""

    ground: Ground
    home: Path
    answer: Answer
    before: str
    after: str

    def child(self, code: str, *arguments: str) -> str:
        """Run code as a child of an activated process would, and return what it printed."""
        return self.run(code, *arguments, PYTHONPATH=str(self.answer.document["bootstrap"]))

    def run(self, code: str, *arguments: str, **more: str) -> str:
        """Run code in the platform's interpreter; what it writes beside modules is not ours."""
        done = subprocess.run(
            (str(self.ground.python), "-B", "-c", code, *arguments),
            env={**self.ground.surroundings(), **more},
            cwd=self.ground.root,
            capture_output=True,
            text=True,
            timeout=MINUTES,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """The four packages, warmed from outside around the index's own torch."""
    home = tmp_path_factory.mktemp("cuda")
    ground = make_ground(home, TORCH)
    before = tree_digest(home / "platform")
    answer = ground.run("warm", "--json", timeout=MINUTES)
    after = tree_digest(home / "platform")
    yield Started(ground=ground, home=home, answer=answer, before=before, after=after)
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def cpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """The same, around a CPU build of torch in a platform that has preheat itself."""
    home = tmp_path_factory.mktemp("cpu")
    ground = make_ground(home, cpu_torch(home / "wheels"), str(PROJECT))
    # As pip does, or the program that imports preheat writes this; all else stays to be written.
    compiled = (str(ground.python), "-m", "compileall", "-q", str(preheat_in(home / "platform")))
    subprocess.run(compiled, check=True, timeout=MINUTES)
    # What the interpreter itself imports when it starts (setuptools' .pth) is nobody's doing.
    environment = ground.surroundings()
    subprocess.run((str(ground.python), "-c", ""), check=True, timeout=MINUTES, env=environment)
    before = tree_digest(home / "platform")
    answer = inside(ground, "warm", "--json")
    after = tree_digest(home / "platform")
    yield Started(ground=ground, home=home, answer=answer, before=before, after=after)
    shutil.rmtree(home)


# -- around the index's torch, a CUDA build --------------------------------------------------


def test_every_promised_import_is_ready_around_cuda_torch(cuda: Started) -> None:
    assert cuda.answer.code == 0, cuda.answer.stderr
    said = {name: (row["status"], row["reason"]) for name, row in cuda.answer.packages.items()}
    assert {status for status, _ in said.values()} == {"installed"}, said


def test_every_file_of_the_cuda_platform_is_identical_bytecode_included(cuda: Started) -> None:
    assert cuda.after == cuda.before


@pytest.mark.parametrize("promised", PROMISED)
def test_a_fresh_child_imports_what_was_promised(cuda: Started, promised: str) -> None:
    assert (
        cuda.child(
            "import importlib, sys; print(importlib.import_module(sys.argv[1]).__name__)", promised
        )
        == promised
    )


def test_torch_is_the_platforms_under_all_layers(cuda: Started) -> None:
    code = "import f5_tts.api, whisperx.alignment, torch; print(torch.__file__)"
    assert Path(cuda.child(code)).is_relative_to(cuda.home / "platform")


def test_no_layer_holds_torch_triton_or_nvidia_libraries(cuda: Started) -> None:
    assert len(cuda.ground.layers()) == len(PACKAGES)
    again = [name for name in distributions(cuda.ground) if belongs_to_the_platform(name)]
    assert again == []
    tops = {path.name for layer in cuda.ground.layers() for path in layer.iterdir()}
    assert not tops & {"torch", "triton", "nvidia"}


def test_predicted_bytes_are_within_2_percent_of_du_around_cuda_torch(cuda: Started) -> None:
    assert_well_predicted(cuda)


def test_the_payload_is_at_most_a_fifth_of_what_unconstrained_uv_installs(cuda: Started) -> None:
    scales = Scales(cuda.ground.python, cuda.home / "scales")
    every = scales.unconstrained(requirement for each in PACKAGES for requirement in names(each))
    ours = scales.weigh(pins_of(cuda.answer.document["packages"]))
    assert every.again
    assert ours.again == ()
    assert ours.bytes / every.bytes <= 0.21


@pytest.mark.skipif(not (CUDA / "bin" / "nvcc").is_file(), reason=f"needs a CUDA toolkit in {CUDA}")
def test_an_extension_is_built_against_cuda_torch_and_reused_where_there_is_no_compiler(
    cuda: Started, tmp_path: Path
) -> None:
    write_sdist(SAXPY, tmp_path)
    saxpy = package(
        NAME,
        "saxpy",
        build=True,
        **{
            "build-isolation": False,
            "build-requires": ["setuptools", "ninja"],
            "build-limits": {"memory": "1GB", "disk": "100MB"},
        },
    )
    ground = replace(cuda.ground, root=tmp_path / "worker")
    index = {"find-links": [str(tmp_path)]}
    stated = {"compute-capability": ["9.0"], "toolkit": str(CUDA)}
    ground.write(saxpy, index=index, cuda=stated)
    built = ground.run("build", "--json", timeout=MINUTES).document
    # Another layer of the same wheel, where nothing can be compiled.
    ground.write(saxpy, index=index, cuda={**stated, "toolkit": "/nonexistent"}, compile="none")
    bare = replace(ground, environment={**ground.environment, "PATH": "/nonexistent"})
    answer = bare.run("warm", "--json", timeout=MINUTES)

    (wheel,) = built["wheels"]
    assert wheel["status"] == "built", wheel
    made = wheel["provenance"]
    assert (made["target"]["torch"], made["target"]["cuda"]) == ("2.13", "13")
    assert (made["device"]["cubins"], made["nvcc"]) == ([90], "13.0")
    assert answer.status(NAME) == "installed", answer.reason(NAME)
    assert "build" not in answer.packages[NAME]["seconds"]


def test_torchvision_torchaudio_and_ctranslate2_go_with_cuda_torch(
    cuda: Started, tmp_path: Path
) -> None:
    ground = replace(cuda.ground, root=tmp_path / "worker")
    ground.write(TORCHVISION, TORCHAUDIO, CTRANSLATE2)
    answer = ground.run("warm", "--json", timeout=MINUTES)

    said = {name: (row["status"], row["reason"]) for name, row in answer.packages.items()}
    assert {status for status, _ in said.values()} == {"installed"}, said
    assert answer.packages["torchvision"]["version"].startswith("0.28.")
    assert answer.packages["torchaudio"]["version"].startswith("2.11.")
    assert "none is for 2.13 alone: its import decides" in answer.reason("torchaudio")
    again = [name for name in distributions(ground) if belongs_to_the_platform(name)]
    assert again == []


# -- around a CPU build ------------------------------------------------------------------------


def test_what_needs_torchaudio_fails_around_cpu_torch_and_the_rest_is_ready(cpu: Started) -> None:
    assert cpu.answer.code == 0, cpu.answer.stderr
    assert cpu.answer.document["ready"]
    said = {name: row["status"] for name, row in cpu.answer.packages.items()}
    assert said["transformers"] == said["google-cloud-speech"] == "installed"
    for name in ("whisperx", "f5-tts"):
        assert said[name] in ("failed", "skipped")
        assert "is a build without CUDA" in cpu.answer.reason(name)


def test_a_build_for_cuda_is_refused_before_its_download_and_what_only_an_import_tells_after_it(
    cpu: Started, tmp_path: Path
) -> None:
    ground = replace(cpu.ground, root=tmp_path / "worker")
    # torchaudio's names and metadata say nothing of CUDA: its import does.
    speech = package("google-cloud-speech", "google.cloud.speech")
    timing = {"timing": ["torchaudio", "google-cloud-speech"]}
    ground.write(TORCHVISION, TORCHAUDIO, CTRANSLATE2, speech, capabilities=timing)
    answer = inside(ground, "warm", "--json")

    assert answer.code == 0, answer.stderr
    assert answer.status("torchvision") == "skipped"
    assert answer.packages["torchvision"]["download"] == 0
    assert re.fullmatch(
        r"torchvision 0\.28\.\S+ is a build for CUDA 13 \(it holds libcudart\.\w+\.so\.13\), and "
        r"the platform's torch 2\.13\.0\+cpu is one without CUDA",
        answer.reason("torchvision"),
    )
    assert answer.status("torchaudio") == "failed"
    assert re.fullmatch(
        r"import torchaudio failed: torchaudio/lib/_torchaudio\.abi3\.so is a build for CUDA.*, "
        r"and the platform's torch 2\.13\.0\+cpu is a build without CUDA",
        answer.reason("torchaudio"),
    )
    assert answer.status("ctranslate2") == "installed", answer.reason("ctranslate2")
    assert answer.document["capabilities"] == {"timing": "google-cloud-speech"}
    assert not distributions(ground) & {"torchaudio", "torchvision"}
    assert ground.staged() == []


def test_what_failed_around_cpu_torch_is_not_published(cpu: Started) -> None:
    assert len(cpu.ground.layers()) == 2
    assert not distributions(cpu.ground) & {"whisperx", "f5-tts", "torchaudio", "torch"}
    assert cpu.ground.staged() == []


def test_google_serves_word_timing_where_whisperx_cannot(cpu: Started) -> None:
    assert cpu.answer.document["capabilities"] == {"word-timing": "google-cloud-speech"}


def test_every_file_of_the_cpu_platform_is_identical_bytecode_included(cpu: Started) -> None:
    assert cpu.after == cpu.before


def test_predicted_bytes_are_within_2_percent_of_du_around_cpu_torch(cpu: Started) -> None:
    assert_well_predicted(cpu)


def test_the_second_start_is_warm_and_starts_no_process_and_no_connection(cpu: Started) -> None:
    told = cpu.run(WATCHED_START, str(cpu.ground.manifest), str(cpu.ground.store))
    second = json.loads(told)
    assert second["warm"]
    assert second["seen"] == []
    assert second["timing"] == "google-cloud-speech"
    assert all(Path(file).is_relative_to(cpu.ground.store) for file in second["from"])


def test_the_command_line_finds_the_second_start_warm_too(cpu: Started) -> None:
    answer = inside(cpu.ground, "warm", "--json")
    assert answer.code == 0, answer.stderr
    assert answer.document["warm"]
    assert sum(row["bytes_actual"] for row in answer.packages.values()) == 0


# -- the parts ---------------------------------------------------------------------------------


def make_ground(home: Path, *provides: str) -> Ground:
    """Make a platform as images are made, and the manifest beside it."""
    python = home / "platform" / "bin" / "python"
    uv("venv", "--quiet", "--python", sys.executable, str(home / "platform"))
    uv("pip", "install", "--quiet", "--python", str(python), NUMPY, *provides)
    reach = {n: v for n, v in os.environ.items() if n.startswith(INDEX_VARIABLES)}
    netrc = Path.home() / ".netrc"
    if netrc.is_file():
        reach.setdefault("NETRC", str(netrc))
    ground = Ground(root=home / "worker", python=python, environment=reach)
    ground.write(*PACKAGES, capabilities=CAPABILITIES)
    return ground


def inside(ground: Ground, *arguments: str) -> Answer:
    """Run `preheat ARGUMENTS` in the platform itself."""
    command = [str(ground.python), "-m", "preheat", *arguments]
    command += ["--manifest", str(ground.manifest), "--store", str(ground.store)]
    done = subprocess.run(
        command,
        env=ground.surroundings(),
        capture_output=True,
        text=True,
        timeout=MINUTES,
        check=False,
    )
    return Answer(code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def cpu_torch(directory: Path) -> str:
    """The CPU build that this machine's pip is configured to find; skips where it finds none."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    ask = [*pip, "install", "--dry-run", "--ignore-installed", "--no-deps", "--report", "-", TORCH]
    answer = subprocess.run(ask, capture_output=True, text=True, timeout=MINUTES, check=False)
    if answer.returncode != 0:
        pytest.skip(f"this machine's pip has no {TORCH}: {answer.stderr.strip()[-200:]}")
    address = json.loads(answer.stdout)["install"][0]["download_info"]["url"]
    filename = unquote(urlsplit(address).path.rsplit("/", 1)[-1])
    _, version, _, _ = parse_wheel_filename(filename)
    if version.local != "cpu":
        pytest.skip(f"this machine's pip finds torch {version}, which is no CPU build")
    fetch = [*pip, "download", "--no-deps", "--dest", str(directory), TORCH]
    subprocess.run(fetch, check=True, stdout=subprocess.DEVNULL, timeout=MINUTES)
    return str(directory / filename)


def preheat_in(platform: Path) -> Path:
    """The package's directory in a platform that has it."""
    (found,) = platform.glob("lib/python*/site-packages/preheat")
    return found


def uv(*arguments: str) -> None:
    """Run uv with this machine's own configuration."""
    subprocess.run((find_uv_bin(), *arguments), check=True, timeout=MINUTES)


def names(table: dict[str, object]) -> list[str]:
    """What a package of the manifest requires."""
    requires = table["requires"]
    assert isinstance(requires, list)
    return requires


def distributions(ground: Ground) -> set[str]:
    """Canonical names of all that the published layers hold."""
    return {
        canonicalize_name(info.name.split("-")[0])
        for layer in ground.layers()
        for info in layer.glob("*.dist-info")
    }


def assert_well_predicted(started: Started) -> None:
    """What was told before the first byte is what the layers occupy, within 2 %."""
    published = [row for row in started.answer.packages.values() if row["status"] == "installed"]
    predicted = sum(row["bytes_predicted"] for row in published)
    occupied = sum(disk_usage(layer) for layer in started.ground.layers())
    assert predicted == pytest.approx(occupied, rel=0.02)


def disk_usage(directory: Path) -> int:
    """What `du` counts: blocks of every file and directory, hardlinks once."""
    blocks = {}
    for root, _, files in os.walk(directory):
        for path in (root, *(os.path.join(root, file) for file in files)):
            status = os.lstat(path)
            blocks[status.st_ino] = status.st_blocks
    return 512 * sum(blocks.values())
