"""What the worker does without: every optional package there or not, and each broken in every way.

F5-TTS and transformers are the real ones throughout, on a tiny model. What is taken away is really
not to be had: an index asked first has the name, and nothing of it for this interpreter.
"""

from __future__ import annotations

import base64
import io
import itertools
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.support.index import Index
from tests.support.wheels import Project, install_tree, lose_files
from worker.tests.support.real import (
    RealGround,
    make_ground,
    remove,
    service_account,
    write_manifest,
)
from worker.tests.support.runpod_service import RunPodService

pytestmark = [pytest.mark.big, pytest.mark.network]

TEXT = "The first sentence is said here, and it is not short. The second one is said after it."
MINUTES = 600.0

OPTIONAL = ("google-cloud-speech", "flash-attn", "whisperx")
IMPORTS = {
    "google-cloud-speech": "google/cloud/speech.py",
    "flash-attn": "flash_attn/__init__.py",
    "whisperx": "whisperx/alignment.py",
}
METHODS = {"whisperx": "whisperx", "google-cloud-speech": "google"}
NEWEST = "999.0"  # what is broken is the newest, so it is what gets installed

# The real one is compiled for hours and needs a GPU; this has what F5-TTS imports of it.
FLASH_ATTN = Project(
    name="flash-attn",
    version="2.8.3",
    files={
        "flash_attn/__init__.py": "def flash_attn_func(): ...\ndef flash_attn_varlen_func(): ...\n",
        "flash_attn/bert_padding.py": "def pad_input(): ...\ndef unpad_input(): ...\n",
    },
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """A start, what it said of attention, and the answer to a job that asked for word timings."""

    start: dict[str, Any]
    attention: dict[str, Any]
    answer: dict[str, Any]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealGround]:
    """The platform, with the layers of the whole manifest in its store."""
    made = make_ground(tmp_path_factory.mktemp("degradation"))
    yield made
    remove(made)


@contextmanager
def first_index(place: Path, *projects: Project) -> Iterator[Index]:
    """An index that is asked before the configured one."""
    with Index(place / "index") as index:
        for project in projects:
            index.publish(project)
        yield index


def not_to_be_had(name: str) -> Project:
    """A project that has nothing for this interpreter."""
    return Project(name=name, version="1.0", files={}, tag="cp27-cp27m-win32")


def served(ground: RealGround, place: Path, index: Index) -> Told:
    """Start the worker and have it say a text."""
    manifest = write_manifest(place, {"index": {"extra": [index.url]}})
    account = {
        "GOOGLE_APPLICATION_CREDENTIALS": str(service_account(place)),
        "GOOGLE_SPEECH_ENDPOINT": "127.0.0.1:9",
    }
    with RunPodService() as runpod, ground.running(place, manifest, runpod, **account) as worker:
        start = worker.wait_for("started", MINUTES)
        # Nobody answers for Google here, and its client is patient.
        timed = start["word_timing"] != ["google"]
        given = {"text": TEXT, "nfe_step": 4, "return_word_timings": timed}
        (attention,) = worker.events("attention")
        return Told(start=start, attention=attention, answer=runpod.run(given, MINUTES))


def assert_it_spoke(told: Told) -> None:
    """The voice is there, whatever else is not."""
    audio = base64.b64decode(told.answer["audio_base64"])
    samples, rate = soundfile.read(io.BytesIO(audio))
    assert len(samples) / rate == pytest.approx(told.answer["duration"], abs=0.01)
    assert told.answer["status"] == "completed"


COMBINATIONS = [
    tuple(name for name, there in zip(OPTIONAL, each, strict=True) if there)
    for each in itertools.product((True, False), repeat=3)
]
IN_CI = (COMBINATIONS[0], COMBINATIONS[-1])


def rest(cases: Iterable[Any], in_ci: Collection[Any]) -> list[Any]:
    """All of the cases; those that CI leaves out are marked as long."""
    return [
        pytest.param(case, marks=() if case in in_ci else (pytest.mark.long,)) for case in cases
    ]


@pytest.mark.parametrize(
    "there", rest(COMBINATIONS, IN_CI), ids=["+".join(names) or "none" for names in COMBINATIONS]
)
def test_it_speaks_with_any_of_the_optional_packages_and_says_which_are_missing(
    ground: RealGround, tmp_path: Path, there: Sequence[str]
) -> None:
    absent = [name for name in OPTIONAL if name not in there]
    projects = [not_to_be_had(name) for name in absent]
    if "flash-attn" in there:
        projects.append(FLASH_ATTN)
    with first_index(tmp_path, *projects) as index:
        told = served(ground, tmp_path, index)
    assert_it_spoke(told)
    assert sorted(told.answer["unavailable"]) == sorted(absent)
    methods = [METHODS[name] for name in ("whisperx", "google-cloud-speech") if name in there]
    assert told.start["word_timing"] == methods
    assert told.start["attention"] == told.answer["attention"] == "torch"
    # It is there, and only a GPU can use it.
    assert told.attention["wanted"] == ("flash-attn" if "flash-attn" in there else "torch")
    why_not = "flash-attn needs a GPU, and the model is on cpu" if "flash-attn" in there else None
    assert told.attention["why_not"] == why_not
    if "whisperx" in there:
        assert told.answer["timing_method"] == "whisperx"
        assert told.answer["timing_base64"]["json"]
    if not methods:
        assert told.answer["timing_method"] is None
        assert told.answer["timing_files"] == {}
        assert any("no word timing" in warning for warning in told.answer["warnings"])
        assert any("whisperx is missing" in warning for warning in told.answer["warnings"])


def raising(name: str, place: Path) -> Project:
    """It is there, and its import raises."""
    del place
    files = {IMPORTS[name]: "raise RuntimeError('made for another CUDA')\n"}
    return Project(name=name, version=NEWEST, files=files)


def abi_broken(name: str, place: Path) -> Project:
    """Its extension wants a symbol that nothing on this platform has."""
    source = place / "broken.c"
    source.write_text(
        "extern int of_another_torch(void);\nint ask(void) { return of_another_torch(); }\n"
    )
    library = place / "broken.so"
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make a broken extension with")
    command = (compiler, "-shared", "-fPIC", "-o", library, source)
    subprocess.run(command, check=True, timeout=60)
    directory = IMPORTS[name].rpartition("/")[0]
    load = "import ctypes, os\n" + (
        "ctypes.CDLL(os.path.join(os.path.dirname(__file__), 'broken.so'), os.RTLD_NOW)\n"
    )
    files: dict[str, str | bytes] = {
        IMPORTS[name]: load,
        f"{directory}/broken.so": library.read_bytes(),
    }
    return Project(name=name, version=NEWEST, files=files)


@pytest.mark.parametrize("name", rest(OPTIONAL, ["flash-attn"]))
@pytest.mark.parametrize(
    ("broken", "said"), [(raising, "made for another CUDA"), (abi_broken, "of_another_torch")]
)
def test_it_speaks_beside_a_package_that_is_broken_and_says_how(
    ground: RealGround, tmp_path: Path, name: str, broken: Any, said: str
) -> None:
    others = [FLASH_ATTN] if name != "flash-attn" else []
    with first_index(tmp_path, broken(name, tmp_path), *others) as index:
        told = served(ground, tmp_path, index)
    assert_it_spoke(told)
    assert list(told.answer["unavailable"]) == [name]
    assert said in told.answer["unavailable"][name]


@pytest.mark.parametrize("name", rest(OPTIONAL, ["flash-attn"]))
def test_it_speaks_beside_a_package_that_is_half_installed(
    ground: RealGround, tmp_path: Path, name: str
) -> None:
    half = Project(name=name, version=NEWEST, files={IMPORTS[name]: "", "left_over.py": ""})
    scripts = ground.python.parent
    install_tree(half, ground.site, scripts)
    info = ground.site / half.dist_info
    lose_files(info, IMPORTS[name])
    others = [FLASH_ATTN] if name != "flash-attn" else []
    try:
        with first_index(tmp_path, not_to_be_had(name), *others) as index:
            told = served(ground, tmp_path, index)
    finally:
        shutil.rmtree(info)
        (ground.site / "left_over.py").unlink()
    assert_it_spoke(told)
    assert list(told.answer["unavailable"]) == [name]


def test_without_transformers_the_start_fails_and_every_job_is_told(
    ground: RealGround, tmp_path: Path
) -> None:
    with first_index(tmp_path, not_to_be_had("transformers")) as index:
        manifest = write_manifest(tmp_path, {"index": {"extra": [index.url]}})
        with RunPodService() as runpod, ground.running(tmp_path, manifest, runpod) as worker:
            worker.wait_for("start-failed", MINUTES)
            for given in ({"text": TEXT}, {"endpoint": "list_voices"}):
                error = runpod.error(runpod.submit(given))
                assert error.startswith("this worker's start failed at packages: ")
                assert "transformers" in error
