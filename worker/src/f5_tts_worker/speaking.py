"""One job of text to speech, from its input to its answer. Runs in a thread of its own."""

from __future__ import annotations

import base64
import io
import secrets
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import soundfile

from f5_tts_worker.jobs import JobError, TtsInput
from f5_tts_worker.speech import Speech
from f5_tts_worker.storage import Bucket, Inline, MissingError
from f5_tts_worker.subtitles import write
from f5_tts_worker.synthesis import (
    Reference,
    Samples,
    Synthesizer,
    Utterance,
    Watch,
    join,
    read_audio,
    trim_reference,
)
from f5_tts_worker.voices import Network, fetch_voice, voice_key

if TYPE_CHECKING:
    from f5_tts_worker.timing import WordTiming

_AUDIO_ENDINGS: Final = (".wav", ".flac", ".mp3", ".ogg")
_PACKAGES: Final = {"whisperx": "whisperx", "google": "google-cloud-speech"}
"""Of each method of timing words, as jobs call it."""


class _Results:
    """Where one job's files go: into the bucket, or into its answer where there is none."""

    def __init__(self, job_id: str, bucket: Bucket | None, inline: Inline) -> None:
        self._outputs = f"outputs/{job_id}"
        self._bucket = bucket
        self._inline = inline

    def put_audio(self, audio: bytes, ending: str) -> dict[str, object]:
        """Put the audio there, and return what the answer says of it."""
        if self._bucket is None:
            return {"audio_base64": self._inline.encode(audio), "audio_format": ending}
        url = self._bucket.put(f"{self._outputs}/audio.{ending}", audio)
        return {"audio_url": url, "audio_format": ending}

    def put_timings(self, files: Mapping[str, bytes]) -> dict[str, object]:
        """Put the files there, each by its ending, and return what the answer says of them."""
        if self._bucket is None:
            return {
                "timing_base64": {
                    ending: self._inline.encode(content) for ending, content in files.items()
                }
            }
        return {
            "timing_files": {
                ending: self._bucket.put(f"{self._outputs}/timing.{ending}", content)
                for ending, content in files.items()
            }
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Speaker:
    """Everything that a job of text to speech is served with."""

    synthesizer: Synthesizer
    timing: WordTiming
    bucket: Bucket | None
    inline_limit: int
    voices: Path
    """Directory where a voice lies while it is used."""
    unavailable: Mapping[str, str]
    attention: str | None
    """The package that computes it."""
    network: Network
    """How voices' URLs are reached."""

    def serve(
        self,
        job_id: str,
        wanted: TtsInput,
        watch: Watch,
        hand_over: Callable[[Mapping[str, object]], None],
    ) -> dict[str, object]:
        """Say the text, time its words where that is wanted, and put everything where it belongs.

        Args:
            job_id: names what is stored.
            wanted: the job's input.
            watch: is told how far it is, and stops it.
            hand_over: takes each piece as it is finished, where the job asked for that.

        Raises:
            JobError: what was asked for cannot be done.
            StorageError: the bucket refuses, or the answer is too long without one.
            Cancelled: `watch` said so.
        """
        warnings: list[str] = []
        seed = secrets.randbelow(2**32) if wanted.seed is None else wanted.seed
        utterance = Utterance(
            text=wanted.text,
            reference=self._reference(wanted, warnings),
            speed=wanted.speed,
            seed=seed,
            nfe_step=wanted.nfe_step,
        )
        samples = self._say(utterance, watch, hand_over if wanted.stream else None)
        rate = self.synthesizer.sample_rate
        answer: dict[str, object] = {
            "status": "completed",
            "job_id": job_id,
            "text": wanted.text,
            "duration": round(len(samples) / rate, 3),
            "sample_rate": rate,
            "seed": seed,
        }
        results = _Results(job_id, self.bucket, Inline(self.inline_limit))
        audio = encode(samples, rate, wanted.audio_format)
        answer |= results.put_audio(audio, wanted.audio_format)
        if wanted.wants_timings:
            watch.reach(1.0)
            timed, more_warnings = self._timings(wanted, samples, results)
            answer |= timed
            warnings += more_warnings
        answer["warnings"] = warnings
        answer["attention"] = self.attention
        answer["unavailable"] = dict(self.unavailable)
        return answer

    def _say(
        self,
        utterance: Utterance,
        watch: Watch,
        hand_over: Callable[[Mapping[str, object]], None] | None,
    ) -> Samples:
        rate = self.synthesizer.sample_rate
        parts: list[Samples] = []
        for part in self.synthesizer.speak(utterance, watch):
            parts.append(part)
            if hand_over is not None:
                content = base64.b64encode(encode(part, rate, "wav")).decode()
                seconds = round(len(part) / rate, 3)
                hand_over({"part": len(parts), "duration": seconds, "audio_base64": content})
        return join(parts, rate)

    def _timings(
        self, wanted: TtsInput, samples: Samples, results: _Results
    ) -> tuple[dict[str, object], list[str]]:
        """Times and subtitles; and warnings, above all where these cannot be had."""
        speech = Speech(
            samples=samples,
            sample_rate=self.synthesizer.sample_rate,
            text=wanted.text,
            language=wanted.language,
        )
        timed = self.timing.time(speech, wanted.timing_method)
        warnings = [*timed.warnings, *self._missing()]
        if timed.timings is None:
            return {"timing_files": {}, "timing_method": None}, warnings
        formats, words = wanted.timing_format, timed.timings.words
        files: dict[str, bytes] = {
            ending: write(ending, words, speech.duration, wanted.text).encode()
            for ending in formats
        }
        answer = {
            **results.put_timings(files),
            "timing_format": formats[0] if len(formats) == 1 else list(formats),
            "timing_method": timed.timings.method,
            "timing_confidence": timed.timings.confidence,
            "word_count": len(words),
        }
        return answer, warnings

    def _missing(self) -> list[str]:
        """Whoever could have timed words and cannot here."""
        return [
            f"word timing by {method} is missing: {self.unavailable[package]}"
            for method, package in _PACKAGES.items()
            if package in self.unavailable
        ]

    # -- whose voice

    def _reference(self, wanted: TtsInput, warnings: list[str]) -> Reference:
        if wanted.local_voice is None:
            if wanted.ref_text is not None:
                warnings.append(
                    "ref_text belongs to a local_voice; none was named, so it is unused"
                )
            return self.synthesizer.default_reference()
        with tempfile.TemporaryDirectory(dir=self.voices) as place:
            if "://" in wanted.local_voice:
                file, text = self._fetched(wanted.local_voice, Path(place)), None
            else:
                file, text = self._kept_voice(wanted.local_voice, Path(place))
            samples, rate = read_audio(file)
        text = wanted.ref_text or text
        if text is None:
            trimmed = trim_reference(samples, rate, "")
            text = self._transcribed(trimmed)
            warnings.append("ref_text was not stated; what the voice says was recognised")
        return trim_reference(samples, rate, text)

    def _fetched(self, url: str, place: Path) -> Path:
        return fetch_voice(url, place, network=self.network)

    def _kept_voice(self, name: str, place: Path) -> tuple[Path, str | None]:
        """A voice of the bucket, and what it says where that was uploaded with it."""
        if self.bucket is None:
            raise JobError(
                "local_voice: voices are kept in a bucket, and S3_BUCKET is not set; "
                "send an https URL instead"
            )
        key = voice_key(name)
        stems = {key, *(f"{key}{ending}" for ending in _AUDIO_ENDINGS)}
        found = next((each.key for each in self.bucket.list(key) if each.key in stems), None)
        if found is None:
            raise JobError(f"local_voice: there is no voice {name!r}; list_voices names them")
        file = place / Path(found).name
        file.write_bytes(self.bucket.get(found))
        try:
            return file, self.bucket.get(text_key(found)).decode()
        except MissingError:
            return file, None

    def _transcribed(self, reference: Reference) -> str:
        try:
            text = self.synthesizer.transcribe(reference.samples, reference.sample_rate)
        except Exception as error:
            raise JobError(
                "ref_text: say what the voice says; recognising it failed: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not text.strip():
            raise JobError("ref_text: say what the voice says; nothing was recognised in it")
        return text


def text_key(audio_key: str) -> str:
    """Where what a voice says is kept, beside the voice."""
    return f"{audio_key.rsplit('.', 1)[0]}.txt"


def encode(samples: Samples, sample_rate: int, ending: str) -> bytes:
    """Encode samples as wav (16 bit), flac, mp3 or ogg (Vorbis)."""
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format=ending.upper())
    return file.getvalue()
