"""What a job may ask: one schema for each endpoint, and errors that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

TEXT_LIMIT: Final = 50_000
"""Characters."""

AudioFormat = Literal["wav", "flac", "mp3", "ogg"]
TimingFormat = Literal["srt", "vtt", "csv", "json", "ass"]
TimingMethod = Literal["whisperx", "google"]


class JobError(ValueError):
    """A job's input is wrong, or cannot be served; the message is for whoever sent it."""


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("there is nothing in it to say")
    return text.strip()


def _each_once(values: list[TimingFormat]) -> list[TimingFormat]:
    return list(dict.fromkeys(values))


Spoken = Annotated[str, AfterValidator(_said)]
JobId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=128)]


class _Input(BaseModel):
    """Keys that are not known are refused, so that a misspelt one does not go unnoticed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TtsInput(_Input):
    """Say a text."""

    endpoint: Literal["tts"] = "tts"
    text: Spoken = Field(max_length=TEXT_LIMIT)
    speed: float = Field(default=1.0, ge=0.3, le=3.0)
    local_voice: str | None = Field(default=None, min_length=1, max_length=2048)
    ref_text: Spoken | None = Field(default=None, max_length=1000)
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    nfe_step: int = Field(default=32, ge=1, le=128)
    language: str = Field(default="en", pattern=r"^[a-z]{2}(-[A-Za-z0-9]{2,8})*$")
    audio_format: AudioFormat = "wav"
    return_word_timings: bool = False
    timing_format: Annotated[
        list[TimingFormat], BeforeValidator(_as_list), AfterValidator(_each_once)
    ] = Field(default=["json"], min_length=1)
    timing_method: TimingMethod | None = None
    stream: bool = False

    @property
    def wants_timings(self) -> bool:
        """Asked for by its switch, or by naming a format."""
        return self.return_word_timings or "timing_format" in self.model_fields_set


class UploadInput(_Input):
    """Keep a voice."""

    endpoint: Literal["upload"] = "upload"
    voice_name: str = Field(min_length=1, max_length=100)
    voice_file_url: str = Field(min_length=1, max_length=2048)
    ref_text: Spoken | None = Field(default=None, max_length=1000)


class ListVoicesInput(_Input):
    """Name the voices that are kept."""

    endpoint: Literal["list_voices"] = "list_voices"


class DownloadInput(_Input):
    """Hand out again what an earlier job made."""

    endpoint: Literal["download"] = "download"
    job_id: JobId
    type: Literal["audio", "timing"] = "audio"
    format: AudioFormat | TimingFormat | None = None
    base64: bool = False


Input = TtsInput | UploadInput | ListVoicesInput | DownloadInput

_SCHEMAS: Final[Mapping[str, type[Input]]] = {
    "tts": TtsInput,
    "upload": UploadInput,
    "list_voices": ListVoicesInput,
    "download": DownloadInput,
}


def read_input(given: object) -> Input:
    """Check a job's input against its endpoint's schema.

    Raises:
        JobError: it does not fit; the message names every field that is wrong, and why.
    """
    if not isinstance(given, dict):
        raise JobError("input: must be an object")
    endpoint = given.get("endpoint", "tts")
    schema = _SCHEMAS.get(endpoint) if isinstance(endpoint, str) else None
    if schema is None:
        raise JobError(f"endpoint: {_short(endpoint)} is none of {', '.join(_SCHEMAS)}")
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        rows = error.errors(include_url=False, include_context=False)
        raise JobError("; ".join(_explain(row, schema) for row in rows)) from None


def _explain(row: Mapping[str, Any], schema: type[Input]) -> str:
    place = ".".join(str(part) for part in row["loc"])
    if row["type"] == "extra_forbidden":
        return f"{place}: not known here; there are {', '.join(schema.model_fields)}"
    if row["type"] == "missing":
        return f"{place}: required"
    message = row["msg"].removeprefix("Value error, ")
    return f"{place}: {message[:1].lower()}{message[1:]}, not {_short(row['input'])}"


def _short(value: object) -> str:
    """A value for an error message: enough to recognise it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
