"""What the environment says about a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from f5_tts_worker.settings import INLINE_LIMIT, Secret, SettingsError, read_settings

BUCKET = {
    "S3_BUCKET": "mine",
    "S3_ENDPOINT_URL": "https://s3.example.org",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "very-secret",
}


def test_nothing_needs_to_be_set() -> None:
    settings = read_settings({})
    assert settings.bucket is None
    assert settings.model.name == "F5TTS_v1_Base"
    assert (settings.concurrency, settings.inline_limit) == (1, INLINE_LIMIT)
    assert settings.alignment.whisperx_models == {"en": None}


def test_a_secret_is_never_printed() -> None:
    settings = read_settings(BUCKET)
    assert settings.bucket is not None
    assert settings.bucket.secret_key is not None
    assert settings.bucket.secret_key.reveal() == "very-secret"
    assert "very-secret" not in f"{settings!r} {settings}"
    assert str(Secret("very-secret")) == "Secret(***)"


@pytest.mark.parametrize(
    "wrong",
    [
        {"WORKER_CONCURRENCY": "many"},
        {"WORKER_CONCURRENCY": "0"},
        {"WORKER_INLINE_LIMIT": "-1"},
        {"METRICS_PORT": "http"},
        {"S3_BUCKET": "mine", "S3_ENDPOINT_URL": "s3.example.org"},
        {"S3_BUCKET": "mine", "AWS_SECRET_ACCESS_KEY": "secret"},
    ],
)
def test_a_variable_that_is_wrong_is_named(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=list(wrong)[-1]):
        read_settings(wrong)


def test_models_and_voices_lie_together_and_not_in_a_temporary_directory(tmp_path: Path) -> None:
    settings = read_settings({"WORKER_DATA": str(tmp_path)})
    assert settings.models == tmp_path / "models"
    assert settings.voices == tmp_path / "voices"


def test_each_language_may_have_its_own_alignment_model() -> None:
    settings = read_settings({"WHISPERX_MODELS": "en de=someone/wav2vec2-de"})
    assert settings.alignment.whisperx_models == {"en": None, "de": "someone/wav2vec2-de"}
