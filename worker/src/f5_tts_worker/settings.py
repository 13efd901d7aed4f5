"""What the environment says about this worker. Read before anything heavy is imported.

Only the standard library is used here: settings are read before preheat has put its layers on the
path, and a module that is imported by then keeps the platform's version.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VOLUMES: Final = ("/runpod-volume", "/workspace")
"""Where RunPod mounts a network volume: in serverless workers, and in pods."""

INLINE_LIMIT: Final = 7_000_000
"""Bytes that an answer carries at most where there is no bucket, before base64 adds a third.

RunPod takes 10 MB as the answer of ``/run`` and 20 MB of ``/runsync``.
"""


class SettingsError(ValueError):
    """A variable of the environment is wrong; the message names it and what is allowed."""


class Secret:
    """A value that is never printed, logged or compared by accident."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one call that needs it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketSettings:
    """An S3 bucket, at any provider."""

    name: str
    endpoint_url: str | None
    """None: Amazon's own."""
    region: str | None
    access_key: str | None
    """None, as the secret: boto3 looks where it always does (files, roles)."""
    secret_key: Secret | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSettings:
    """Which F5-TTS to load."""

    name: str
    """A model that F5-TTS knows, such as F5TTS_v1_Base, or the path of a model's yaml."""
    checkpoint: str
    """Path of a checkpoint; empty: fetched from the hub."""
    vocabulary: str
    """Path of the checkpoint's vocab.txt; empty: the one of F5-TTS."""
    vocoder: str | None
    """Directory with Vocos' config.yaml and pytorch_model.bin; None: fetched from the hub."""
    device: str | None
    """As torch names it; None: a GPU where there is one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentSettings:
    """Where the services that time words find what they need."""

    whisperx_models: Mapping[str, str | None]
    """For each language (ISO 639-1) a model of the hub or a directory; None: whisperx's own."""
    google_endpoint: str | None
    """host:port; None: Google's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything that this worker is told."""

    manifest: Path
    data: Path
    """Directory for models and for voices in use; on the volume where there is one."""
    bucket: BucketSettings | None
    model: ModelSettings
    alignment: AlignmentSettings
    concurrency: int
    """Jobs at a time. Inference is done one at a time all the same; the rest overlaps."""
    inline_limit: int
    """Bytes."""
    metrics_port: int | None
    metrics_file: Path | None

    @property
    def models(self) -> Path:
        """Where models are kept."""
        return self.data / "models"

    @property
    def voices(self) -> Path:
        """Where voices lie while they are used; others clean temporary directories."""
        return self.data / "voices"


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read every setting.

    Raises:
        SettingsError: a variable is wrong.
    """
    data = environment.get("WORKER_DATA") or str(_default_data(environment))
    return Settings(
        manifest=Path(environment.get("WORKER_MANIFEST") or "preheat.toml").absolute(),
        data=Path(data).absolute(),
        bucket=_read_bucket(environment),
        model=ModelSettings(
            name=environment.get("F5_TTS_MODEL") or "F5TTS_v1_Base",
            checkpoint=environment.get("F5_TTS_CHECKPOINT", ""),
            vocabulary=environment.get("F5_TTS_VOCABULARY", ""),
            vocoder=environment.get("F5_TTS_VOCODER") or None,
            device=environment.get("F5_TTS_DEVICE") or None,
        ),
        alignment=AlignmentSettings(
            whisperx_models=_read_models(environment.get("WHISPERX_MODELS") or "en"),
            google_endpoint=environment.get("GOOGLE_SPEECH_ENDPOINT") or None,
        ),
        concurrency=_read_count(environment, "WORKER_CONCURRENCY", 1, at_least=1),
        inline_limit=_read_count(environment, "WORKER_INLINE_LIMIT", INLINE_LIMIT, at_least=0),
        metrics_port=_read_count(environment, "METRICS_PORT", 0, at_least=0) or None,
        metrics_file=_read_path(environment, "METRICS_FILE"),
    )


def _default_data(environment: Mapping[str, str]) -> Path:
    for volume in VOLUMES:
        if os.path.ismount(volume):
            return Path(volume) / "f5-tts-worker"
    cache = environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "f5-tts-worker"


def _read_bucket(environment: Mapping[str, str]) -> BucketSettings | None:
    name = environment.get("S3_BUCKET")
    if not name:
        return None
    access = environment.get("AWS_ACCESS_KEY_ID") or None
    secret = environment.get("AWS_SECRET_ACCESS_KEY") or None
    if (access is None) != (secret is None):
        raise SettingsError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together: set both")
    endpoint = environment.get("S3_ENDPOINT_URL") or None
    if endpoint and not endpoint.startswith(("https://", "http://")):
        raise SettingsError("S3_ENDPOINT_URL must start with https:// or http://")
    return BucketSettings(
        name=name,
        endpoint_url=endpoint,
        region=environment.get("AWS_REGION") or None,
        access_key=access,
        secret_key=Secret(secret) if secret else None,
    )


def _read_models(text: str) -> dict[str, str | None]:
    """Languages, each alone or as LANGUAGE=MODEL, separated by spaces."""
    pairs = (part.partition("=") for part in text.split())
    return {language: model or None for language, _, model in pairs}


def _read_count(environment: Mapping[str, str], name: str, default: int, *, at_least: int) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = at_least - 1
    if value < at_least:
        raise SettingsError(f"{name} is {text!r}: it must be a whole number, {at_least} or more")
    return value


def _read_path(environment: Mapping[str, str], name: str) -> Path | None:
    text = environment.get(name)
    return Path(text).absolute() if text else None
