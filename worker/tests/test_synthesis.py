"""F5-TTS behind its class; and the whole worker with it, on a tiny model of random parameters."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from f5_tts_worker.synthesis import (
    Cancelled,
    Samples,
    VoiceUnfitError,
    Watch,
    join,
    read_audio,
    trim_reference,
)
from worker.tests.support.real import (
    RealGround,
    make_ground,
    remove,
    service_account,
    write_manifest,
)
from worker.tests.support.running import RunningWorker, surroundings
from worker.tests.support.runpod_service import RunPodService
from worker.tests.support.speech_service import evenly, speech_service

RATE = 24_000
TEXT = "The first sentence is said here, and it is not short. The second one is said after it."
MINUTES = 300.0


def tone(seconds: float, level: float = 0.5) -> Samples:
    """A tone."""
    times = np.arange(int(seconds * RATE)) / RATE
    return np.asarray(level * np.sin(2 * np.pi * 200 * times), dtype=np.float32)


def silence(seconds: float) -> Samples:
    """Nothing."""
    return np.zeros(int(seconds * RATE), dtype=np.float32)


# -- references --------------------------------------------------------------------------------


def test_silence_around_a_voice_is_taken_off() -> None:
    voice = trim_reference(np.concatenate([silence(2), tone(3), silence(2)]), RATE, "Hello.")
    assert voice.seconds == pytest.approx(3.05, abs=0.05)


def test_a_voice_that_is_too_long_is_cut_at_a_pause() -> None:
    samples = np.concatenate([tone(9.5), silence(0.3), tone(10)])
    voice = trim_reference(samples, RATE, "Hello.")
    assert voice.seconds == pytest.approx(9.6, abs=0.15)


@pytest.mark.parametrize("samples", [silence(0), silence(5), tone(0.4)])
def test_a_voice_that_says_nothing_is_refused(samples: Samples) -> None:
    with pytest.raises(VoiceUnfitError):
        trim_reference(samples, RATE, "Hello.")


@pytest.mark.parametrize(
    ("text", "ended"),
    [("Hello", "Hello. "), ("Hello. ", "Hello. "), ("Hello?", "Hello? "), ("你好。", "你好。")],
)
def test_what_a_voice_says_ends_before_the_next_text_begins(text: str, ended: str) -> None:
    assert trim_reference(tone(2), RATE, text).text == ended


def test_a_voice_of_two_channels_becomes_one(tmp_path: Path) -> None:
    file = tmp_path / "voice.flac"
    soundfile.write(file, np.stack([tone(1), silence(1)], axis=1), RATE)
    samples, rate = read_audio(file)
    assert (samples.ndim, rate) == (1, RATE)
    assert float(np.abs(samples).max()) == pytest.approx(0.25, abs=0.01)


def test_a_file_that_is_no_audio_is_refused_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "voice.wav"
    file.write_bytes(b"<html>")
    with pytest.raises(VoiceUnfitError, match=r"voice\.wav"):
        read_audio(file)


# -- pieces ------------------------------------------------------------------------------------


def test_pieces_are_faded_into_each_other() -> None:
    whole = join([tone(1), tone(1), tone(1)], RATE)
    assert len(whole) / RATE == pytest.approx(3 - 2 * 0.15, abs=0.001)
    assert float(np.abs(whole).max()) <= 1.0


def test_a_piece_shorter_than_the_fade_is_joined_too() -> None:
    assert len(join([tone(1), tone(0.05), tone(1)], RATE)) == int(1.85 * RATE)


def test_a_watch_stops_whoever_reaches_the_next_step() -> None:
    told: list[float] = []
    watch = Watch(told.append)
    watch.reach(0.5)
    watch.cancel()
    with pytest.raises(Cancelled):
        watch.reach(0.6)
    assert told == [0.5]


# -- the real thing ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A worker at work, and RunPod's side."""

    ground: RealGround
    runpod: RunPodService
    worker: RunningWorker


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The worker's own manifest, every package from the index."""
    home = tmp_path_factory.mktemp("real")
    ground = make_ground(home)
    place = home / "worker"
    manifest = write_manifest(home, {})
    with (
        RunPodService() as runpod,
        ground.running(place, manifest, runpod, WORKER_CONCURRENCY="3") as worker,
    ):
        worker.wait_for("started", MINUTES)
        yield Scene(ground=ground, runpod=runpod, worker=worker)
    remove(ground)


def audio(scene: Scene, **given: object) -> bytes:
    """What is said, decoded to what the answer holds."""
    output = scene.runpod.run({"text": TEXT, "nfe_step": 4, "seed": 1, **given}, MINUTES)
    return base64.b64decode(output["audio_base64"])


big = pytest.mark.big
network = pytest.mark.network


@big
@network
def test_the_second_start_is_warm_and_everything_but_flash_attn_is_there(real: Scene) -> None:
    told = real.worker.wait_for("started")
    assert told["warm"]
    assert set(told["unavailable"]) == {"flash-attn", "google-cloud-speech"}
    assert told["packages"]["google-cloud-speech"] in ("installed", "reused")
    assert "credentials" in told["unavailable"]["google-cloud-speech"]
    assert told["word_timing"] == ["whisperx"]
    assert told["stages"]["packages"] < 1.0


@big
@network
def test_f5_tts_speaks_and_whisperx_times_every_word(real: Scene) -> None:
    formats = ["srt", "vtt", "csv", "json", "ass"]
    given = {"text": TEXT, "nfe_step": 4, "timing_format": formats}
    output = real.runpod.run(given, MINUTES)
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(output["audio_base64"])))
    assert len(samples) / rate == pytest.approx(output["duration"], abs=0.01)
    assert float(np.abs(samples).max()) > 0.001
    assert output["timing_method"] == "whisperx"
    assert output["word_count"] == len(TEXT.split())
    assert set(output["timing_base64"]) == set(formats)
    assert "flash-attn" in output["unavailable"]
    assert output["attention"] == "torch"


@big
@network
def test_the_same_seed_says_the_same_and_another_something_else(real: Scene) -> None:
    assert audio(real) == audio(real)
    assert audio(real) != audio(real, seed=2)


@big
@network
def test_more_speed_takes_less_time(real: Scene) -> None:
    assert len(audio(real, speed=2.0)) < 0.7 * len(audio(real))


@big
@network
def test_inference_is_cancelled_in_mid_piece_and_leaves_no_trace(real: Scene) -> None:
    before = audio(real)
    job = real.runpod.submit({"text": TEXT * 30, "nfe_step": 128})
    real.runpod.wait_for_progress(job)
    begin = time.monotonic()
    real.runpod.cancel(job)
    after = audio(real)
    assert time.monotonic() - begin < 20
    assert after == before
    assert not real.runpod.is_done(job)


@big
@network
def test_three_at_once_say_what_each_says_alone(real: Scene) -> None:
    alone = [audio(real, seed=seed) for seed in (1, 2, 3)]
    given = [{"text": TEXT, "nfe_step": 4, "seed": seed} for seed in (1, 2, 3)]
    jobs = [real.runpod.submit(each) for each in given]
    outputs = [real.runpod.output(job, MINUTES) for job in jobs]
    assert [base64.b64decode(output["audio_base64"]) for output in outputs] == alone


@big
@network
def test_sentences_are_handed_over_as_f5_tts_finishes_them(real: Scene) -> None:
    job = real.runpod.submit({"text": TEXT, "nfe_step": 4, "stream": True})
    real.runpod.output(job, MINUTES)
    assert len(real.runpod.parts(job)) == 2


ALIGN = """
import json, socket, sys
from pathlib import Path
import numpy as np
import preheat

preheat.warm(sys.argv[1])

def refuse(*_):
    raise OSError("the network is not to be asked")

socket.socket.connect = socket.getaddrinfo = refuse

from f5_tts_worker.speech import Speech
from f5_tts_worker.timing import WordTiming
from f5_tts_worker.whisperx_timing import load

rate = 24000
times = np.arange(8 * rate) / rate
samples = np.random.default_rng(0).normal(0, 0.1, len(times)).astype(np.float32)
service = load({"en": sys.argv[2]}, Path(sys.argv[3]), "cpu")
speech = Speech(samples=samples, sample_rate=rate, text=sys.argv[4], language="en")
timed = WordTiming([service]).time(speech)
assert timed.timings is not None, timed.warnings
rows = [[word.text, word.start, word.end, word.confidence] for word in timed.timings.words]
print(json.dumps({"method": timed.timings.method, "words": rows, "warnings": timed.warnings}))
"""


@big
@network
def test_whisperx_aligns_by_the_workers_own_loading_and_fetches_nothing(
    real: Scene, tmp_path: Path
) -> None:
    text = "\u201cIt\u2019s 24 degrees,\u201d she said \u2014 warm\u2026 {enough} to wait."
    manifest = write_manifest(real.ground.home, {})
    aligner = real.ground.models / "wav2vec2"
    done = subprocess.run(
        (real.ground.python, "-c", ALIGN, manifest, aligner, tmp_path / "cache", text),
        env=surroundings(tmp_path, real.ground.environment(manifest)),
        capture_output=True,
        text=True,
        timeout=MINUTES,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["method"], told["warnings"]) == ("whisperx", [])
    assert [word for word, *_ in told["words"]] == text.split()
    assert all(0 <= start <= end <= 8 for _, start, end, _ in told["words"])
    assert all(
        before[2] <= after[1] + 1e-9
        for before, after in zip(told["words"], told["words"][1:], strict=False)
    )
    sure = {word: confidence for word, _, _, confidence in told["words"]}
    assert sure["she"] is not None
    assert 0 < sure["she"] <= 1
    # No letter of these is one that the model could have heard.
    assert sure["24"] is None
    assert sure["\u2014"] is None


@big
@network
def test_the_real_worker_has_its_speech_timed_by_google(real: Scene, tmp_path: Path) -> None:
    manifest = write_manifest(real.ground.home, {})
    with speech_service(tmp_path, evenly(TEXT.split())) as google, RunPodService() as runpod:
        told = {
            "GOOGLE_APPLICATION_CREDENTIALS": str(service_account(tmp_path)),
            "GOOGLE_SPEECH_ENDPOINT": google.address,
            **google.trusted,
        }
        with real.ground.running(tmp_path / "worker", manifest, runpod, **told) as worker:
            worker.wait_for("started", MINUTES)
            given = {"text": TEXT, "nfe_step": 4, "timing_method": "google"}
            output = runpod.run({**given, "timing_format": "json"}, MINUTES)
    assert (output["timing_method"], output["timing_confidence"]) == ("google", 0.75)
    assert output["word_count"] == len(TEXT.split())
    assert output["warnings"] == []
    assert len(google.requests) == 1
