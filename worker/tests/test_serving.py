"""The SDK's own worker loop, against RunPod's side of it on the loopback interface.

All of the worker runs but F5-TTS: a tone speaks in its place (`tone_worker.py`).
"""

from __future__ import annotations

import base64
import io
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import soundfile

from worker.tests.support.running import RunningWorker, tone_worker
from worker.tests.support.runpod_service import KEY, RunPodService
from worker.tests.support.s3 import BUCKET, client, s3, settings
from worker.tests.support.voices_server import HOST, VOICE, voices_server

TEXT = "The first sentence is said. The second sentence is said after it. That is all there is."
FORMATS = ("srt", "vtt", "csv", "json", "ass")
LONG = {"text": TEXT * 20, "nfe_step": 128}  # 20 seconds of work at the least


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A worker at work, RunPod's side, and the bucket where there is one."""

    runpod: RunPodService
    worker: RunningWorker
    s3: str = ""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A worker with a bucket, which serves three jobs at a time."""
    place = tmp_path_factory.mktemp("stored")
    with (
        s3() as address,
        voices_server(place / "voices-server") as voices,
        RunPodService() as runpod,
        tone_worker(
            runpod,
            place,
            WORKER_CONCURRENCY="3",
            METRICS_FILE=str(place / "metrics.prom"),
            **settings(address),
            **voices,
        ) as worker,
    ):
        yield Scene(runpod=runpod, worker=worker, s3=address)


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A worker without a bucket, whose answers hold at most a megabyte."""
    place = tmp_path_factory.mktemp("inline")
    with (
        voices_server(place / "voices-server") as voices,
        RunPodService() as runpod,
        tone_worker(runpod, place, WORKER_INLINE_LIMIT="1000000", **voices) as worker,
    ):
        yield Scene(runpod=runpod, worker=worker)


def seconds_of(audio: bytes) -> float:
    """How long decoded audio is."""
    samples, rate = soundfile.read(io.BytesIO(audio))
    return len(samples) / float(rate)


def fetched(url: str) -> bytes:
    """What a presigned URL reads."""
    answer = requests.get(url, timeout=10)
    answer.raise_for_status()
    return answer.content


# -- tts ---------------------------------------------------------------------------------------


def test_a_text_comes_back_as_audio_behind_a_presigned_url(stored: Scene) -> None:
    output = stored.runpod.run({"text": TEXT, "nfe_step": 2})
    assert output["status"] == "completed"
    assert output["text"] == TEXT
    assert output["duration"] == pytest.approx(seconds_of(fetched(output["audio_url"])), abs=0.01)


def test_without_a_bucket_the_answer_holds_the_audio_and_the_timings(inline: Scene) -> None:
    output = inline.runpod.run({"text": TEXT, "nfe_step": 2, "timing_format": ["srt", "ass"]})
    seconds = seconds_of(base64.b64decode(output["audio_base64"]))
    assert seconds == pytest.approx(output["duration"], abs=0.001)
    assert b"-->" in base64.b64decode(output["timing_base64"]["srt"])
    assert b"{\\k" in base64.b64decode(output["timing_base64"]["ass"])
    assert "audio_url" not in output


def test_an_answer_over_its_limit_says_what_to_do(inline: Scene) -> None:
    error = inline.runpod.error(inline.runpod.submit({"text": TEXT * 6, "nfe_step": 1}))
    assert "S3_BUCKET" in error


@pytest.mark.parametrize("form", FORMATS)
def test_each_timing_format_is_served(stored: Scene, form: str) -> None:
    output = stored.runpod.run({"text": TEXT, "nfe_step": 2, "timing_format": form})
    assert output["timing_format"] == form
    assert output["timing_method"] == "whisperx"
    assert output["word_count"] == len(TEXT.split())
    content = fetched(output["timing_files"][form]).decode()
    assert all(word.strip(".") in content for word in TEXT.split())


def test_several_timing_formats_come_from_one_job(stored: Scene) -> None:
    output = stored.runpod.run({"text": TEXT, "nfe_step": 2, "timing_format": list(FORMATS)})
    assert set(output["timing_files"]) == set(FORMATS)
    assert output["timing_format"] == list(FORMATS)


def test_the_same_seed_gives_the_same_audio_and_is_told(inline: Scene) -> None:
    first, second = (inline.runpod.run({"text": TEXT, "nfe_step": 1, "seed": 7}) for _ in range(2))
    other = inline.runpod.run({"text": TEXT, "nfe_step": 1, "seed": 8})
    assert first["seed"] == 7
    assert first["audio_base64"] == second["audio_base64"] != other["audio_base64"]


@pytest.mark.parametrize(
    ("form", "start"), [("wav", b"RIFF"), ("flac", b"fLaC"), ("mp3", b"\xff"), ("ogg", b"OggS")]
)
def test_each_audio_format_is_served(inline: Scene, form: str, start: bytes) -> None:
    output = inline.runpod.run({"text": TEXT, "nfe_step": 1, "audio_format": form})
    audio = base64.b64decode(output["audio_base64"])
    assert audio.startswith(start)
    assert seconds_of(audio) == pytest.approx(output["duration"], abs=0.1)


def test_a_voice_may_come_from_an_https_url(inline: Scene) -> None:
    given = {"text": TEXT, "nfe_step": 1, "local_voice": VOICE, "ref_text": "A tone that rises."}
    assert inline.runpod.run(given)["status"] == "completed"


# -- bad jobs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "text: required"),
        ({"text": "Hello.", "speed": 9.0}, "speed: "),
        ({"text": "Hello.", "timing_format": "docx"}, "timing_format"),
        ({"text": "Hello.", "voice": "ann"}, "voice: not known here"),
        ({"endpoint": "sing"}, "endpoint: "),
        ("Hello.", "input: must be an object"),
        ({"text": "Hello.", "local_voice": "../../etc/passwd"}, "voice"),
        ({"text": "Hello.", "local_voice": "nobody"}, "there is no voice 'nobody'"),
        ({"text": "Hello.", "local_voice": f"http://{HOST}/voice.wav"}, "https://"),
        ({"text": "Hello.", "local_voice": f"https://{HOST}/page.html"}, "decoded as audio"),
        ({"text": "Hello.", "local_voice": VOICE}, "ref_text: say what the voice says"),
        ({"endpoint": "download", "job_id": "../x"}, "job_id: "),
        ({"endpoint": "download", "job_id": "job-999"}, "job_id: job-999 left no audio"),
        (
            {"endpoint": "upload", "voice_name": "../x", "voice_file_url": VOICE},
            "voice's name",
        ),
        (
            {"endpoint": "upload", "voice_name": "x", "voice_file_url": "file:///etc/passwd"},
            "https://",
        ),
    ],
)
def test_a_bad_job_is_answered_with_what_is_wrong(stored: Scene, given: object, said: str) -> None:
    error = stored.runpod.error(stored.runpod.submit(given))
    assert said in error
    assert "Traceback" not in error


def test_an_error_in_the_middle_is_answered_and_the_worker_goes_on(stored: Scene) -> None:
    result = stored.runpod.result(stored.runpod.submit({"text": "Let it explode."}))
    assert result["error"] == "RuntimeError: it exploded"
    assert not result.get("stopPod")
    assert stored.runpod.run({"text": TEXT, "nfe_step": 1})["status"] == "completed"


def test_a_device_that_died_asks_for_another_worker(inline: Scene) -> None:
    result = inline.runpod.result(inline.runpod.submit({"text": "The device dies."}))
    assert "CUDA error" in result["error"]
    assert result["stopPod"] is True


# -- voices and files --------------------------------------------------------------------------


def test_a_voice_is_uploaded_listed_and_spoken_with(stored: Scene) -> None:
    run = stored.runpod.run
    uploaded = run(
        {
            "endpoint": "upload",
            "voice_name": "ann",
            "voice_file_url": VOICE,
            "ref_text": "A tone that rises.",
        }
    )
    assert uploaded["status"] == "uploaded"
    assert uploaded["duration"] == pytest.approx(3.0)
    listed = run({"endpoint": "list_voices"})
    (row,) = [row for row in listed["voices"] if row["name"] == "ann"]
    assert row["size"] == uploaded["size"]
    assert row["modified"]
    output = run({"text": TEXT, "nfe_step": 1, "local_voice": "ann"})
    assert output["warnings"] == []


def test_what_a_job_made_is_downloaded_again(stored: Scene) -> None:
    run = stored.runpod.run
    made = run({"text": TEXT, "nfe_step": 1, "timing_format": ["srt", "vtt"]})
    again = run({"endpoint": "download", "job_id": made["job_id"]})
    assert fetched(again["url"]) == fetched(made["audio_url"])
    held = run(
        {
            "endpoint": "download",
            "job_id": made["job_id"],
            "type": "timing",
            "format": "vtt",
            "base64": True,
        }
    )
    assert base64.b64decode(held["base64"]).startswith(b"WEBVTT")


@pytest.mark.parametrize(
    "given",
    [
        {"endpoint": "list_voices"},
        {"endpoint": "download", "job_id": "job-1"},
        {"endpoint": "upload", "voice_name": "ann", "voice_file_url": VOICE},
        {"text": "Hello.", "local_voice": "ann"},
    ],
)
def test_what_needs_a_bucket_says_so_without_one(inline: Scene, given: dict[str, Any]) -> None:
    assert "S3_BUCKET" in inline.runpod.error(inline.runpod.submit(given))


def test_nothing_is_stored_outside_voices_and_outputs(stored: Scene) -> None:
    stored.runpod.run({"text": TEXT, "nfe_step": 1, "timing_format": "srt"})
    rows = client(stored.s3).list_objects_v2(Bucket=BUCKET)["Contents"]
    assert {row["Key"].split("/")[0] for row in rows} <= {"voices", "outputs"}


# -- while it speaks ---------------------------------------------------------------------------


def test_progress_and_heartbeats_go_on_while_it_speaks(stored: Scene) -> None:
    job = stored.runpod.submit({"text": TEXT, "nfe_step": 128})
    assert stored.runpod.wait_for_progress(job)["stage"] == "speaking"
    stored.runpod.wait_for_ping(lambda ping: job in ping.get("job_id", ""))
    assert not stored.runpod.is_done(job)
    stored.runpod.output(job)
    percents = [message["percent"] for message in stored.runpod.progress(job)]
    assert percents == sorted(percents)
    assert len(percents) >= 2


def test_a_cancelled_job_stops_in_the_middle_and_the_next_is_served(stored: Scene) -> None:
    job = stored.runpod.submit(LONG)
    stored.runpod.wait_for_progress(job)
    stored.runpod.cancel(job)
    stopped = cancelled(stored.worker, job)
    assert stopped["seconds"] < 15
    assert not stored.runpod.is_done(job)
    assert stored.runpod.run({"text": TEXT, "nfe_step": 1})["status"] == "completed"


def test_three_jobs_are_served_at_once(stored: Scene) -> None:
    jobs = [stored.runpod.submit({"text": TEXT, "nfe_step": 100}) for _ in range(3)]
    for job in jobs:
        stored.runpod.wait_until_taken(job)
    assert not any(stored.runpod.is_done(job) for job in jobs)
    assert {stored.runpod.output(job)["job_id"] for job in jobs} == set(jobs)


def test_finished_sentences_are_handed_over_before_the_answer(inline: Scene) -> None:
    job = inline.runpod.submit({"text": TEXT, "nfe_step": 30, "stream": True})
    output = inline.runpod.output(job)
    parts = [row["output"] for row in inline.runpod.parts(job)]
    assert [part["part"] for part in parts] == [1, 2, 3]
    assert sum(part["duration"] for part in parts) == pytest.approx(
        output["duration"] + 2 * 0.15, abs=0.01
    )
    assert all(seconds_of(base64.b64decode(part["audio_base64"])) > 0 for part in parts)


def test_nothing_is_handed_over_that_was_not_asked_for(inline: Scene) -> None:
    job = inline.runpod.submit({"text": TEXT, "nfe_step": 1})
    inline.runpod.output(job)
    assert inline.runpod.parts(job) == []


def test_sigterm_in_the_middle_of_a_job_lets_it_end_and_then_the_worker(tmp_path: Path) -> None:
    with RunPodService() as runpod, tone_worker(runpod, tmp_path) as worker:
        job = runpod.submit({"text": TEXT, "nfe_step": 128})
        runpod.wait_for_progress(job)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.ended(timeout=30) == 0
        assert runpod.output(job, timeout=1)["status"] == "completed"
        assert worker.events("job")[0]["outcome"] == "served"


# -- what is told ------------------------------------------------------------------------------


def test_each_job_is_a_line_with_its_outcome_time_and_disk(stored: Scene) -> None:
    job = stored.runpod.submit({"text": "Hello.", "speed": 9.0})
    stored.runpod.error(job)
    (line,) = [each for each in stored.worker.events("job") if each["job"] == job]
    assert line["outcome"] == "refused"
    assert line["reason"].startswith("speed: ")
    assert line["seconds"] >= 0
    assert line["free_bytes"]["data"] > 0


def test_metrics_count_jobs_and_audio_for_scrapers(stored: Scene, tmp_path: Path) -> None:
    stored.runpod.run({"text": TEXT, "nfe_step": 1})
    written = (stored.worker.log.parent / "metrics.prom").read_text()
    assert 'f5_tts_worker_jobs_total{endpoint="tts",outcome="served"}' in written
    assert 'f5_tts_worker_start_stage_seconds{stage="packages"}' in written
    assert 'f5_tts_worker_free_bytes{of="data"}' in written
    assert "f5_tts_worker_ready 1.0" in written


def test_metrics_are_scraped_from_a_port(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with RunPodService() as runpod, tone_worker(runpod, tmp_path, METRICS_PORT=str(port)):
        runpod.run({"text": TEXT, "nfe_step": 1})
        told = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    assert 'f5_tts_worker_jobs_total{endpoint="tts",outcome="served"} 1.0' in told
    assert "f5_tts_worker_audio_seconds_total 4" in told


def test_no_secret_reaches_the_log_or_an_answer(stored: Scene) -> None:
    output = stored.runpod.run({"text": TEXT, "nfe_step": 1})
    assert "X-Amz-Signature" in output["audio_url"]
    for secret in ("very-secret", KEY, "X-Amz-Signature"):
        assert secret not in stored.worker.text()


def cancelled(worker: RunningWorker, job: str, timeout: float = 20.0) -> dict[str, Any]:
    """The log's line of a job that was cancelled."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        for line in worker.events("job"):
            if line["job"] == job:
                assert line["outcome"] == "cancelled"
                return line
        time.sleep(0.05)
    raise AssertionError(f"{job} was not cancelled:\n{worker.text()}")
