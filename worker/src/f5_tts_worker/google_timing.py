"""Word timing by Google Cloud Speech-to-Text: its words, found again in the known text.

Limits and fields as in the reference of Speech-to-Text v1: at most 60 s or 10 MB for a synchronous
call, word times from the start of the audio sent, a confidence of 0.0 where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from f5_tts_worker.silences import cuts
from f5_tts_worker.word_alignment import Heard, Spot, match

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from f5_tts_worker.speech import Speech

NAME = "google"

_LONGEST = 55.0  # s, of the 60 that one call takes
_HIGHEST_RATE = 48_000  # Hz; at 55 s and two bytes a sample 5.3 MB, of the 10 that one call takes
_FULL_SCALE = 32_767

# Speech-to-Text wants a region (BCP 47). Where a text says none: the one with most speakers.
_REGIONS = {
    "ar": "ar-EG",
    "de": "de-DE",
    "en": "en-US",
    "es": "es-ES",
    "fi": "fi-FI",
    "fr": "fr-FR",
    "hi": "hi-IN",
    "it": "it-IT",
    "ja": "ja-JP",
    "ko": "ko-KR",
    "nl": "nl-NL",
    "pl": "pl-PL",
    "pt": "pt-BR",
    "ru": "ru-RU",
    "tr": "tr-TR",
    "uk": "uk-UA",
    "vi": "vi-VN",
    "zh": "cmn-Hans-CN",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class GoogleSettings:
    """How to reach Speech-to-Text."""

    api_endpoint: str | None = None
    """Host and port of the service; None for Google's own."""
    credentials: Any = None
    """A `google.auth` credentials object; None for the application's default."""
    timeout: float = 60.0
    """Seconds for one call with its retries; audio longer than 55 s takes several calls."""


class GoogleTiming:
    """Recognises the audio, and finds the text's words among those that were heard."""

    def __init__(self, settings: GoogleSettings) -> None:
        """Make the client; nothing is sent before the first speech.

        Raises:
            ImportError: google-cloud-speech cannot be imported.
            google.auth.exceptions.DefaultCredentialsError: there are no credentials.
        """
        from google.cloud import speech

        options = {"api_endpoint": settings.api_endpoint} if settings.api_endpoint else None
        self._client = speech.SpeechClient(credentials=settings.credentials, client_options=options)
        self._timeout = settings.timeout

    @property
    def name(self) -> str:
        """What jobs call it."""
        return NAME

    def place(self, speech: Speech, texts: Sequence[str]) -> Sequence[Spot | None]:
        """Say where each word is; None for those that were not recognised.

        Raises:
            google.api_core.exceptions.GoogleAPICallError: the service refused or did not answer.
            ValueError: the sample rate is more than the service takes.
        """
        if speech.sample_rate > _HIGHEST_RATE:
            raise ValueError(f"{speech.sample_rate} Hz is more than the {_HIGHEST_RATE} it takes")
        edges = cuts(speech.samples, speech.sample_rate, _LONGEST)
        heard: list[Heard] = []
        for start, end in pairwise(edges):
            first, last = (round(edge * speech.sample_rate) for edge in (start, end))
            answer = self._recognize(speech, speech.samples[first:last])
            heard.extend(_words(answer, first / speech.sample_rate))
        return match(texts, heard)

    def _recognize(self, speech: Speech, samples: NDArray[np.float32]) -> Any:
        from google.api_core import exceptions, retry
        from google.cloud import speech as api

        config = api.RecognitionConfig(
            encoding=api.RecognitionConfig.AudioEncoding.LINEAR16,
            sample_rate_hertz=speech.sample_rate,
            language_code=language_code(speech.language),
            enable_word_time_offsets=True,
            enable_word_confidence=True,
        )
        audio = api.RecognitionAudio(content=pcm(samples))
        # The client's own retries go on for minutes, whatever `timeout` says.
        again = retry.Retry(
            predicate=retry.if_exception_type(exceptions.ServiceUnavailable),
            timeout=self._timeout,
        )
        return self._client.recognize(
            config=config, audio=audio, retry=again, timeout=self._timeout
        )


def language_code(language: str) -> str:
    """The BCP 47 code that Speech-to-Text knows a language by."""
    return _REGIONS.get(language.lower(), language)


def pcm(samples: NDArray[np.float32]) -> bytes:
    """Encode samples as signed 16 bit, little endian (LINEAR16); what is over full scale clips."""
    scaled = np.clip(samples, -1.0, 1.0) * np.float32(_FULL_SCALE)
    encoded: bytes = scaled.round().astype("<i2").tobytes()
    return encoded


def _words(answer: Any, offset: float) -> Iterator[Heard]:
    """The words of the likeliest reading of each stretch of the audio."""
    for result in answer.results:
        if not result.alternatives:
            continue
        for word in result.alternatives[0].words:
            yield Heard(
                text=word.word,
                start=offset + word.start_time.total_seconds(),
                end=offset + word.end_time.total_seconds(),
                confidence=word.confidence or None,
            )
