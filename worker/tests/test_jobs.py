"""What a job may ask, and what it is told where it asks for something else."""

from __future__ import annotations

import re

import pytest

from f5_tts_worker.jobs import (
    DownloadInput,
    JobError,
    ListVoicesInput,
    TtsInput,
    UploadInput,
    read_input,
)


def refusal(given: object) -> str:
    """Why an input is refused."""
    with pytest.raises(JobError) as refused:
        read_input(given)
    return str(refused.value)


def test_a_text_is_enough_and_the_rest_has_defaults() -> None:
    wanted = read_input({"text": " Hello. "})
    assert isinstance(wanted, TtsInput)
    assert (wanted.text, wanted.speed, wanted.nfe_step) == ("Hello.", 1.0, 32)
    assert (wanted.audio_format, wanted.seed, wanted.wants_timings) == ("wav", None, False)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"endpoint": "tts", "text": "Hello."}, TtsInput),
        (
            {"endpoint": "upload", "voice_name": "ann", "voice_file_url": "https://x.test/a.wav"},
            UploadInput,
        ),
        ({"endpoint": "list_voices"}, ListVoicesInput),
        ({"endpoint": "download", "job_id": "job-1"}, DownloadInput),
    ],
)
def test_each_endpoint_has_its_input(given: dict[str, object], kind: type) -> None:
    assert type(read_input(given)) is kind


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("text", 7),
        ("text", ""),
        ("text", " \n"),
        ("text", "x" * 50_001),
        ("speed", 9.0),
        ("speed", 0.1),
        ("speed", "fast"),
        ("speed", float("nan")),
        ("speed", True),
        ("seed", -1),
        ("seed", 2**32),
        ("seed", 1.5),
        ("nfe_step", 0),
        ("nfe_step", 129),
        ("language", "English"),
        ("audio_format", "aiff"),
        ("timing_format", "docx"),
        ("timing_format", ["srt", "docx"]),
        ("timing_format", []),
        ("timing_method", "guess"),
        ("return_word_timings", "yes"),
        ("local_voice", ""),
        ("ref_text", "x" * 1001),
        ("stream", 1),
    ],
)
def test_a_wrong_value_is_refused_and_its_field_is_named(key: str, value: object) -> None:
    assert refusal({"text": "Hello.", key: value}).startswith(key)


def test_a_field_that_is_missing_is_named() -> None:
    assert refusal({}) == "text: required"
    assert refusal({"endpoint": "upload"}) == "voice_name: required; voice_file_url: required"


def test_a_misspelt_field_is_refused_with_those_that_there_are() -> None:
    message = refusal({"text": "Hello.", "sped": 1.2})
    assert message.startswith("sped: not known here")
    assert "speed" in message


def test_every_wrong_field_is_named_at_once() -> None:
    message = refusal({"text": "Hello.", "speed": 9.0, "nfe_step": 0})
    assert "speed: " in message
    assert "nfe_step: " in message


def test_an_endpoint_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    assert refusal({"endpoint": "sing"}) == (
        "endpoint: 'sing' is none of tts, upload, list_voices, download"
    )
    assert refusal({"endpoint": ["tts"]}).startswith("endpoint: ")


@pytest.mark.parametrize("given", [None, [], "text", 3])
def test_an_input_that_is_no_object_is_refused(given: object) -> None:
    assert refusal(given) == "input: must be an object"


@pytest.mark.parametrize("job", ["../other", "a/b", "", "a b", ".", "x" * 129])
def test_a_job_id_cannot_leave_its_directory(job: str) -> None:
    assert refusal({"endpoint": "download", "job_id": job}).startswith("job_id: ")


def test_an_error_does_not_repeat_a_long_value() -> None:
    assert len(refusal({"text": "x" * 60_000})) < 200


def test_several_timing_formats_are_taken_each_once() -> None:
    wanted = read_input({"text": "Hello.", "timing_format": ["srt", "ass", "srt"]})
    assert isinstance(wanted, TtsInput)
    assert wanted.timing_format == ["srt", "ass"]


def test_naming_a_timing_format_asks_for_timings() -> None:
    wanted = read_input({"text": "Hello.", "timing_format": "vtt"})
    assert isinstance(wanted, TtsInput)
    assert wanted.wants_timings


def test_a_number_that_is_whole_is_a_speed_too() -> None:
    wanted = read_input({"text": "Hello.", "speed": 2})
    assert isinstance(wanted, TtsInput)
    assert re.fullmatch(r"2(\.0)?", str(wanted.speed))
