"""The image: a root filesystem of the Dockerfile's own lines, and the worker in it, cut off.

With the network on it is built, bakes its part, and fills a volume. With nothing but a loopback
interface the worker is then started in it and serves.
"""

from __future__ import annotations

import base64
import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pysubs2
import pytest

from tests.support.hosts import start_host
from worker.tests.support.real import PROJECT, TINY_MODEL, WORKER
from worker.tests.support.rootfs import (
    DockerfileError,
    RootFilesystem,
    make_platform,
    no_rootfs,
    read_dockerfile,
)
from worker.tests.support.running import RunningWorker, running
from worker.tests.support.runpod_service import RunPodService

TEXT = "The network is gone, and the worker speaks. Every word of it is timed."
PATIENCE = 300.0
CUT_OFF = "import socket; socket.create_connection(('192.0.2.1', 443), 5)"
VOLUME = "/runpod-volume"
MODELS = f"{VOLUME}/tiny"
TOLD = {
    "PREHEAT_STORE": f"{VOLUME}/preheat",
    "WORKER_DATA": f"{VOLUME}/f5-tts-worker",
    "F5_TTS_DEVICE": "cpu",
    "HF_HUB_OFFLINE": "1",
}


def tiny(models: str) -> dict[str, str]:
    """Where the tiny models are."""
    return {
        "F5_TTS_MODEL": f"{models}/model.yaml",
        "F5_TTS_CHECKPOINT": f"{models}/model.safetensors",
        "F5_TTS_VOCODER": f"{models}/vocos",
        "WHISPERX_MODELS": f"en={models}/wav2vec2",
    }


# -- the lines -------------------------------------------------------------------------------


def test_every_line_of_the_workers_dockerfile_is_one_that_is_carried_out() -> None:
    read = list(read_dockerfile((WORKER / "Dockerfile").read_text(encoding="utf-8")))
    names = [instruction.name for instruction in read]
    assert names[:2] == ["ARG", "FROM"]
    assert {"COPY", "RUN", "ENV", "CMD"} <= set(names)


def test_lines_are_carried_out_as_docker_does(tmp_path: Path) -> None:
    context, root = tmp_path / "context", tmp_path / "root"
    (context / "src" / "deep").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "src/deep/c.txt"):
        (context / name).write_text(name)
    file = tmp_path / "Dockerfile"
    file.write_text(
        "# a comment\nARG PLATFORM\nFROM ${PLATFORM}\n"
        "ARG WHERE=/here\nARG KIND=small\nENV PLACE=$WHERE\n"
        "COPY a.txt \\\n     b.txt ${WHERE}/\nCOPY src /app/src\nCOPY a.txt /app/renamed\n"
        'WORKDIR /app\nWORKDIR work\nCMD ["python", "-u", "x.py"]\n'
    )
    made = RootFilesystem(root=root, context=context, arguments={"PLATFORM": "x", "KIND": "large"})
    made.build(file)
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert files == {"here/a.txt", "here/b.txt", "app/src/deep/c.txt", "app/renamed"}
    assert made.declared == {"WHERE": "/here", "KIND": "large"}
    assert made.environment["PLACE"] == "/here"
    assert (made.workdir, made.command) == ("/app/work", ("python", "-u", "x.py"))
    assert (root / "app" / "work").is_dir()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("FROM ${PLATFORM}", "no platform was named"),
        ("ADD https://example.org/x /x", "not carried out here"),
        ("COPY --chown=1:1 a b", "options are not carried out"),
        ("ENV NAME value", "NAME=VALUE"),
    ],
)
def test_a_line_that_cannot_be_carried_out_is_refused(tmp_path: Path, line: str, why: str) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(f"{line}\n")
    made = RootFilesystem(root=tmp_path, context=tmp_path, arguments={})
    with pytest.raises(DockerfileError, match=why):
        made.build(file)


# -- the worker in it ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RootFilesystem]:
    """The image with its part baked in, and beside it a volume that a first start has filled."""
    if reason := no_rootfs():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("image")
    begin = time.monotonic()
    make_platform(root, ("torch==2.13.0", "numpy==2.4.6"))
    told = [f"platform {time.monotonic() - begin:.0f} s"]
    made = RootFilesystem(
        root=root, context=PROJECT, arguments={"PLATFORM": "debian", "IMAGE_BUDGET": "850MB"}
    )
    made.build(WORKER / "Dockerfile")
    told.append(f"lines of the Dockerfile {time.monotonic() - begin:.0f} s")
    (root / VOLUME[1:]).mkdir()
    shutil.copy(TINY_MODEL, root / "app" / "tiny_model.py")
    made.run("python", "tiny_model.py", "preheat.toml", MODELS, **TOLD)
    told.append(f"volume {time.monotonic() - begin:.0f} s")
    sys.stdout.write(f"\nimage: {'; '.join(told)}\n")
    yield made
    shutil.rmtree(root)


@contextlib.contextmanager
def cut_off(
    image: RootFilesystem, place: Path, runpod: RunPodService, **more: str
) -> Iterator[RunningWorker]:
    """The container's own command on a host that has a loopback interface and nothing else."""
    with contextlib.ExitStack() as stack:
        host = start_host(stack, "container", place / "host.log")
        image.mount(host)
        port = urlsplit(runpod.environment["RUNPOD_WEBHOOK_GET_JOB"]).port
        assert port is not None
        host.relay(stack, port)
        refused = host.run(*image.entered("python", "-c", CUT_OFF), environment=image.environment)
        assert "Network is unreachable" in refused.stderr
        environment = {**image.environment, **TOLD, **tiny(MODELS), **runpod.environment, **more}
        command = host.command(*image.entered(*image.command))
        with running(command, place, environment) as worker:
            yield worker


@pytest.mark.root
@pytest.mark.network
@pytest.mark.big
@pytest.mark.long
def test_with_its_volume_and_no_network_the_worker_is_warm_and_speaks_with_every_word_timed(
    image: RootFilesystem, tmp_path: Path
) -> None:
    with RunPodService() as runpod, cut_off(image, tmp_path, runpod) as worker:
        started = worker.wait_for("started", PATIENCE)
        assert started["warm"] is True
        given = {"text": TEXT, "nfe_step": 4, "timing_format": ["srt", "ass"]}
        output = runpod.run(given, PATIENCE)
    assert set(started["unavailable"]) == {"flash-attn", "google-cloud-speech"}
    assert "credentials" in started["unavailable"]["google-cloud-speech"]
    assert output["status"] == "completed"
    assert output["timing_method"] == "whisperx"
    assert len(base64.b64decode(output["audio_base64"])) > 10_000
    for kind in ("srt", "ass"):
        written = base64.b64decode(output["timing_base64"][kind]).decode()
        lines = pysubs2.SSAFile.from_string(written, kind)
        assert " ".join(" ".join(line.plaintext.split()) for line in lines) == TEXT
    sys.stdout.write(f"\nwith its volume: {started['seconds']} s, {started['stages']}\n")


@pytest.mark.root
@pytest.mark.network
@pytest.mark.big
@pytest.mark.long
def test_without_volume_and_network_the_worker_speaks_from_what_was_baked_into_its_image(
    image: RootFilesystem, tmp_path: Path
) -> None:
    volume = image.root / VOLUME[1:]
    shutil.copytree(volume / "tiny", image.root / "models")
    aside = volume.rename(volume.with_name("taken-away"))
    elsewhere = {"PREHEAT_STORE": "/tmp/preheat", "WORKER_DATA": "/tmp/data"}  # noqa: S108
    more = {**elsewhere, **tiny("/models"), "PREHEAT_OFFLINE": "1"}
    try:
        with RunPodService() as runpod, cut_off(image, tmp_path, runpod, **more) as worker:
            started = worker.wait_for("started", PATIENCE)
            output = runpod.run({"text": TEXT, "nfe_step": 4, "timing_format": "srt"}, PATIENCE)
    finally:
        aside.rename(volume)
    assert started["packages"]["f5-tts"] == started["packages"]["transformers"] == "reused"
    assert "neither the store nor the image" in output["unavailable"]["whisperx"]
    assert output["status"] == "completed"
    assert "timing_base64" not in output
    assert any("no word timing" in warning for warning in output["warnings"])
    sys.stdout.write(f"\nwithout: {started['seconds']} s, {started['stages']}\n")
