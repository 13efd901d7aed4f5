"""Words get times from whoever can say, and stay as the author wrote them.

The audio of these tests is a toy language that machines here can hear: each word is a tone.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from f5_tts_worker.silences import bounds, cuts
from f5_tts_worker.speech import Speech
from f5_tts_worker.timing import WordTiming
from f5_tts_worker.tokens import tokens
from f5_tts_worker.whisperx_timing import stride
from f5_tts_worker.word_alignment import Heard, Spot, fill, match
from worker.tests.support.real import service_account
from worker.tests.support.running import tone_worker
from worker.tests.support.runpod_service import RunPodService
from worker.tests.support.speech_service import SpeechService, evenly, heard_word, speech_service

RATE = 16_000
patient = settings(deadline=None, max_examples=100)

WORDS = st.lists(
    st.sampled_from(["the", "The,", "dog.", "24", "\u2014", "caf\u00e9", "a"]), max_size=30
)
TIMES = st.floats(-5, 100)
SPOTS = st.none() | st.builds(Spot, start=TIMES, end=TIMES, confidence=st.none() | st.floats(0, 1))


# -- words of a text ---------------------------------------------------------------------------


@patient
@given(st.text())
def test_the_words_are_the_text_without_white_space(text: str) -> None:
    assert "".join(tokens(text)) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"Yes," she said\u2026', ('"Yes,"', "she", "said\u2026")),
        (
            "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
            ("\u4f60", "\u597d\uff0c", "\u4e16", "\u754c\u3002"),
        ),
        ("\u300c\u4f60\u300dGPT4\u597d", ("\u300c\u4f60\u300d", "GPT4", "\u597d")),
        ("\ud55c\uad6d \uc0ac\ub78c", ("\ud55c\uad6d", "\uc0ac\ub78c")),
        (" \n ", ()),
    ],
)
def test_scripts_without_blanks_have_a_word_for_each_character(
    text: str, words: tuple[str, ...]
) -> None:
    assert tokens(text) == words


# -- times for all -----------------------------------------------------------------------------


@patient
@given(st.data(), st.floats(0, 60))
def test_every_word_has_a_time_in_order_within_the_audio(
    data: st.DataObject, duration: float
) -> None:
    texts = data.draw(WORDS)
    spots = data.draw(st.lists(SPOTS, min_size=len(texts), max_size=len(texts)))
    words = fill(texts, spots, duration)
    assert [word.text for word in words] == texts
    assert all(0 <= word.start <= word.end <= duration for word in words)
    assert all(before.end <= after.start + 1e-9 for before, after in pairwise(words))
    for word, spot in zip(words, spots, strict=True):
        assert word.confidence == (spot.confidence if spot else None)


def test_a_word_without_letters_after_the_last_share_begins_within_the_audio() -> None:
    """Three shares of 0.05 s add up to a little more than 0.05 s."""
    words = fill(["24", "24", "24", "—"], [None] * 4, 0.05)
    assert (words[-1].start, words[-1].end) == (0.05, 0.05)


def test_what_was_not_found_shares_the_time_between_its_neighbours_by_letters() -> None:
    spots = [Spot(start=0, end=1, confidence=1.0), None, None, Spot(start=4, end=5, confidence=1.0)]
    words = fill(["one", "a", "bc", "two"], spots, 6.0)
    assert [(word.start, word.end) for word in words] == [(0, 1), (1, 2), (2, 4), (4, 5)]


def heard(*texts: str) -> list[Heard]:
    return [
        Heard(text=text, start=float(at), end=at + 0.8, confidence=0.9)
        for at, text in enumerate(texts)
    ]


def test_words_are_found_whatever_their_case_and_punctuation() -> None:
    spots = match(["The", '"dog"', "\u2014", "barks!"], heard("the", "Dog", "barks"))
    assert [spot and spot.start for spot in spots] == [0.0, 1.0, None, 2.0]


def test_a_number_that_was_heard_as_words_has_their_time_and_no_confidence() -> None:
    _, number, _ = match(["in", "2024", "we"], heard("in", "twenty", "twenty-four", "we"))
    assert number == Spot(start=1.0, end=2.8, confidence=None)


def test_words_that_were_heard_joined_share_their_letters() -> None:
    first, second = match(["e", "mail"], heard("email"))
    assert first is not None
    assert second is not None
    assert first.start == 0.0
    assert first.end == pytest.approx(second.start)
    assert second.end == pytest.approx(0.8)


def test_chinese_is_found_character_by_character_in_words_of_several() -> None:
    spots = match(tokens("\u4f60\u597d\u4e16\u754c"), heard("\u4f60\u597d", "\u4e16\u754c"))
    assert [spot and round(spot.start, 1) for spot in spots] == [0.0, 0.4, 1.0, 1.4]


@patient
@given(WORDS, st.lists(st.sampled_from(["the", "dog", "twenty four", "cafe", "x"]), max_size=30))
def test_whatever_was_heard_is_placed_in_order(texts: list[str], others: list[str]) -> None:
    spots = match(texts, heard(*others))
    starts = [spot.start for spot in spots if spot]
    assert len(spots) == len(texts)
    assert starts == sorted(starts)


def test_ten_thousand_words_are_matched_although_every_tenth_was_misheard() -> None:
    texts = [f"word{number % 700}" for number in range(10_000)]
    others = ["noise" if number % 10 == 3 else text for number, text in enumerate(texts)]
    spots = match(texts, heard(*others))
    assert sum(spot is not None and spot.start == at for at, spot in enumerate(spots)) > 9_900


# -- where to cut ------------------------------------------------------------------------------


def toned(count: int, gap: float = 0.25, offset: int = 0) -> np.ndarray:
    """Audio of words: tone `offset` to `offset + count` of the toy language, each 0.4 s."""
    parts = []
    for number in range(offset, offset + count):
        hertz = 400 + 40 * (number % 100)
        parts.append(0.5 * np.sin(2 * np.pi * hertz * np.arange(int(0.4 * RATE)) / RATE))
        parts.append(np.zeros(int(gap * RATE)))
    return np.concatenate(parts).astype(np.float32)


def test_long_audio_is_cut_in_silences_into_pieces_that_are_short_enough() -> None:
    samples = toned(300)
    edges = cuts(samples, RATE, 55.0)
    assert edges[0] == 0.0
    assert edges[-1] == len(samples) / RATE
    assert all(0 < end - start <= 55.0 for start, end in pairwise(edges))
    for edge in edges[1:-1]:
        around = samples[round((edge - 0.02) * RATE) : round((edge + 0.02) * RATE)]
        assert float(np.abs(around).max()) == 0.0


def test_silence_around_speech_is_left_out() -> None:
    samples = np.concatenate([np.zeros(RATE), toned(2, gap=0.0), np.zeros(RATE)])
    start, end = bounds(samples.astype(np.float32), RATE)
    assert start == pytest.approx(1.0, abs=0.03)
    assert end == pytest.approx(1.8, abs=0.03)


def test_long_text_is_aligned_window_by_window_although_windows_end_amid_words() -> None:
    texts = [f"word{number}" * (1 + number % 3) for number in range(400)]
    lengths = [0.3 + 0.1 * (number % 3) for number in range(400)]
    starts = list(np.cumsum([0.0, *lengths])[:-1])
    true = {
        text: (start, start + length * 0.9)
        for text, start, length in zip(texts, starts, lengths, strict=True)
    }
    seen: list[float] = []

    def align(part: Sequence[str], start: float, end: float) -> Sequence[Spot | None]:
        """Right as far as the window goes; what is beyond is pressed into its last second."""
        seen.append(end - start)
        return [
            Spot(start=min(true[text][0], end - 0.2), end=min(true[text][1], end), confidence=1.0)
            for text in part
        ]

    spots = stride(texts, (0.0, sum(lengths)), align)
    assert max(seen) <= 45.0
    assert [spot and spot.start for spot in spots] == [true[text][0] for text in texts]


# -- who serves --------------------------------------------------------------------------------


@dataclass
class Service:
    """Places every word one second long, or fails, or finds nothing."""

    name: str
    error: Exception | None = None
    blind: bool = False

    def place(self, speech: Speech, texts: Sequence[str]) -> Sequence[Spot | None]:
        if self.error is not None:
            raise self.error
        if self.blind:
            return [None] * len(texts)
        return [Spot(start=at, end=at + 1, confidence=0.5) for at in range(len(texts))]


SPEECH = Speech(
    samples=np.zeros(4 * RATE, dtype=np.float32), sample_rate=RATE, text="One, two.", language="en"
)


def test_the_first_service_that_works_serves_and_the_others_are_warnings() -> None:
    broken = Service("whisperx", error=RuntimeError("out of memory\nand a trace"))
    timed = WordTiming([broken, Service("google")]).time(SPEECH)
    assert timed.timings is not None
    assert timed.timings.method == "google"
    assert timed.timings.confidence == 0.5
    assert [word.text for word in timed.timings.words] == ["One,", "two."]
    assert timed.warnings == ("word timing by whisperx failed: RuntimeError: out of memory",)


def test_the_asked_method_serves_first_and_the_preferred_one_where_it_cannot() -> None:
    both = [Service("whisperx"), Service("google")]
    asked = WordTiming(both).time(SPEECH, "google")
    assert asked.timings is not None
    assert (asked.timings.method, asked.warnings) == ("google", ())
    missing = WordTiming(both[:1]).time(SPEECH, "google")
    assert missing.timings is not None
    assert missing.timings.method == "whisperx"
    assert missing.warnings == ("word timing by google is not available here",)


@pytest.mark.parametrize(
    "services", [[], [Service("whisperx", blind=True)], [Service("google", error=ValueError())]]
)
def test_no_service_is_a_warning_and_never_an_error(services: list[Service]) -> None:
    timed = WordTiming(services).time(SPEECH)
    assert timed.timings is None
    assert "no word timing" in timed.warnings[-1]


# -- Google's client, over TLS to a server made of its own types ---------------------------------

CLIENT = """
import json, sys
import numpy as np
from google.auth.credentials import AnonymousCredentials
from f5_tts_worker.google_timing import GoogleSettings, GoogleTiming
from f5_tts_worker.speech import Speech
from f5_tts_worker.timing import WordTiming
nobody = AnonymousCredentials()
service = GoogleTiming(
    GoogleSettings(api_endpoint=sys.argv[1], credentials=nobody, timeout=float(sys.argv[4]))
)
speech = Speech(samples=np.load(sys.argv[2]), sample_rate=16000, text=sys.argv[3], language="en")
timed = WordTiming([service]).time(speech)
words = timed.timings.words if timed.timings else ()
rows = [[word.text, word.start, word.end, word.confidence] for word in words]
print(json.dumps({"warnings": timed.warnings, "words": rows}))
"""


def hear_tones(request: Any, context: grpc.ServicerContext) -> list[Any]:
    """Hears the toy language."""
    samples = np.frombuffer(request.audio.content, dtype="<i2") / 32767
    if len(samples) > 60 * RATE:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Sync input too long.")
    words = []
    frames = np.abs(samples[: len(samples) // 160 * 160].reshape(-1, 160)).max(axis=1) > 0.1
    edges = np.flatnonzero(np.diff(np.concatenate([[0], frames.astype(int), [0]])))
    for first, last in edges.reshape(-1, 2):
        tone = samples[first * 160 : last * 160]
        peak = np.abs(np.fft.rfft(tone * np.hanning(len(tone)), RATE)).argmax()
        words.append(heard_word(f"w{round((peak - 400) / 40)}", first / 100, last / 100, 0.75))
    return words


@pytest.fixture
def recognizer(tmp_path: Path) -> Iterator[SpeechService]:
    with speech_service(tmp_path, hear_tones) as served:
        yield served


def ask_google(
    recognizer: SpeechService, place: Path, samples: np.ndarray, text: str, timeout: float = 20.0
) -> Any:
    """Time a text by the real client, in a process of its own: gRPC reads its roots only once."""
    np.save(place / "speech.npy", samples)
    done = subprocess.run(
        (
            sys.executable,
            "-c",
            CLIENT,
            recognizer.address,
            str(place / "speech.npy"),
            text,
            str(timeout),
        ),
        env={**os.environ, **recognizer.trusted},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_googles_client_times_the_words_of_the_text_and_not_those_it_heard(
    recognizer: SpeechService, tmp_path: Path
) -> None:
    told = ask_google(recognizer, tmp_path, toned(4), "W0, w1 \u2014 forty-two w3!")
    assert told["warnings"] == []
    assert [row[0] for row in told["words"]] == ["W0,", "w1", "\u2014", "forty-two", "w3!"]
    for row, at in zip([row for row in told["words"] if row[0] != "\u2014"], range(4), strict=True):
        assert row[1] == pytest.approx(at * 0.65, abs=0.02)
        assert row[2] == pytest.approx(at * 0.65 + 0.4, abs=0.02)
    assert [row[3] for row in told["words"]] == [0.75, 0.75, None, None, 0.75]
    (request,) = recognizer.requests
    assert request.config.language_code == "en-US"
    assert request.config.enable_word_time_offsets


def test_audio_over_a_minute_is_sent_to_google_in_pieces_and_times_stay_true(
    recognizer: SpeechService, tmp_path: Path
) -> None:
    text = " ".join(f"w{number % 100}" for number in range(300))
    told = ask_google(recognizer, tmp_path, toned(300), text)
    assert told["warnings"] == []
    assert len(recognizer.requests) >= 4
    assert max(len(each.audio.content) for each in recognizer.requests) <= 60 * RATE * 2
    errors = [abs(row[1] - at * 0.65) for at, row in enumerate(told["words"])]
    assert max(errors) <= 0.03


def test_a_google_that_cannot_be_reached_is_a_warning_within_its_timeout(
    tmp_path: Path, recognizer: SpeechService
) -> None:
    recognizer.address = "localhost:1"
    told = ask_google(recognizer, tmp_path, toned(1), "w0", timeout=2.0)
    assert told["words"] == []
    assert "word timing by google failed" in told["warnings"][0]


TIMED_BY_GOOGLE = """
[[package]]
name = "google-cloud-speech"
requires = ["google-cloud-speech"]
imports = ["google.cloud.speech"]
"""


def test_a_job_of_the_whole_worker_is_timed_by_google(tmp_path: Path) -> None:
    text = "Every word, the worker says, is timed by Google."
    heard = [each.strip(",.").lower() for each in text.split()]
    place = tmp_path / "worker"
    place.mkdir()
    manifest = place / "with-google.toml"
    manifest.write_text(TIMED_BY_GOOGLE, encoding="utf-8")
    with speech_service(tmp_path, evenly(heard)) as google, RunPodService() as runpod:
        told = {
            "WORKER_MANIFEST": str(manifest),
            "GOOGLE_SPEECH_ENDPOINT": google.address,
            "GOOGLE_APPLICATION_CREDENTIALS": str(service_account(place)),
            "TEST_TIMING": "real",
            **google.trusted,
        }
        with tone_worker(runpod, place, **told) as worker:
            assert worker.wait_for("started")["word_timing"] == ["google"]
            output = runpod.run({"text": text, "timing_format": ["json", "srt"], "nfe_step": 4})
    assert (output["timing_method"], output["timing_confidence"]) == ("google", 0.75)
    assert output["word_count"] == len(heard)
    assert output["warnings"] == []
    (request,) = google.requests
    assert request.config.sample_rate_hertz == output["sample_rate"]
    assert len(request.audio.content) / 2 / output["sample_rate"] == output["duration"]
    words = json.loads(base64.b64decode(output["timing_base64"]["json"]))["words"]
    assert [each["word"] for each in words] == text.split()
    share = output["duration"] / len(words)
    for number, each in enumerate(words):
        assert each["start"] == pytest.approx(number * share, abs=0.011)
        assert each["end"] == pytest.approx((number + 0.9) * share, abs=0.011)
