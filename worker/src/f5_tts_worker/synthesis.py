"""F5-TTS behind a small class: a voice and a text in, samples out, a piece at a time.

Everything that F5-TTS would do by the way is done here on purpose instead. Its ``infer`` reads the
reference with torchaudio, which since 2.9 needs torchcodec; keeps it under a temporary directory,
where a cleaner deletes it; and cuts a text only at punctuation.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from f5_tts_worker.attention_backend import Attention, choose_attention
from f5_tts_worker.sentences import cut, piece_limit

if TYPE_CHECKING:
    from f5_tts_worker.settings import ModelSettings

Samples = NDArray[np.float32]

LONGEST_REFERENCE: Final = 12.0
"""Seconds of a voice that are used: what F5-TTS itself cuts to."""
SHORTEST_REFERENCE: Final = 1.0
"""Seconds. Less says too little about a voice."""
CROSS_FADE: Final = 0.15
"""Seconds by which one piece runs into the next, as in F5-TTS."""
TRANSCRIBER_RATE: Final = 16_000

_DEFAULT_VOICE: Final = "infer/examples/basic/basic_ref_en.wav"
_DEFAULT_VOICE_TEXT: Final = "Some call me nature, others call me mother nature."


class Cancelled(Exception):  # noqa: N818  # not an error: somebody asked for it
    """The job was cancelled while it was being said."""


class VoiceUnfitError(ValueError):
    """A voice cannot be used as a reference."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A voice to speak with: how it sounds, and what it says there."""

    samples: Samples
    """One channel, -1 to 1."""
    sample_rate: int
    text: str

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """What is to be said, and how."""

    text: str
    reference: Reference
    speed: float
    seed: int
    nfe_step: int
    """Steps of the solver for each piece: more is slower and cleaner."""


class Watch:
    """What a thread that speaks is told, and tells: stop, and how far it is."""

    def __init__(self, on_progress: Callable[[float], None] | None = None) -> None:
        self._stop = threading.Event()
        self._on_progress = on_progress

    def cancel(self) -> None:
        """Ask the thread to stop at its next step."""
        self._stop.set()

    def reach(self, fraction: float) -> None:
        """Tell how much is done, 0 to 1.

        Raises:
            Cancelled: it is to stop.
        """
        if self._stop.is_set():
            raise Cancelled
        if self._on_progress is not None:
            self._on_progress(fraction)


class Synthesizer(Protocol):
    """Whoever speaks. F5-TTS does; a test of the loop alone has something lighter."""

    @property
    def sample_rate(self) -> int:
        """Samples a second of what comes out."""

    @property
    def device(self) -> str:
        """Where it runs, as torch names it."""

    def attend(self, wanted: str | None) -> Attention:
        """Attend by the package that is wanted, where that can be; says who does."""

    def default_reference(self) -> Reference:
        """The voice of a job that names none."""

    def transcribe(self, samples: Samples, sample_rate: int) -> str:
        """What is said in a reference whose text nobody stated."""

    def speak(self, utterance: Utterance, watch: Watch) -> Iterator[Samples]:
        """Say it, a piece at a time, each as soon as it is done.

        Raises:
            Cancelled: `watch` said so.
        """


class F5Synthesizer:
    """F5-TTS 1.1.22. One piece is inferred at a time, whatever number of threads ask."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._network = model.ema_model.transformer
        self._one_at_a_time = threading.Lock()
        self._step: Callable[[], None] | None = None
        self._network.register_forward_pre_hook(self._before_step)

    @classmethod
    def load(cls, settings: ModelSettings, cache: Path) -> F5Synthesizer:
        """Load the model, from the hub where it is not on this machine; nothing else is fetched.

        Whoever calls has pointed the model caches to where they stay: see ``starting``.
        """
        # Before F5-TTS, whatever the order that imports are sorted into: it hides what is broken.
        import_module("f5_tts_worker.flash_attn_guard")
        from f5_tts.api import F5TTS

        model = F5TTS(
            model=_name_in_configs(settings.name),
            ckpt_file=settings.checkpoint,
            vocab_file=settings.vocabulary,
            vocoder_local_path=settings.vocoder,
            device=settings.device,
            hf_cache_dir=str(cache),
        )
        return cls(model)

    @property
    def sample_rate(self) -> int:
        """Samples a second."""
        return int(self._model.target_sample_rate)

    @property
    def device(self) -> str:
        """Where it runs, as torch names it."""
        return str(self._model.device)

    def attend(self, wanted: str | None) -> Attention:
        """Attend by flash-attn where it is wanted and works on this device; says who does."""
        return choose_attention(self._network, wanted)

    def default_reference(self) -> Reference:
        """The English voice that F5-TTS brings with its examples."""
        place = str(files("f5_tts").joinpath(_DEFAULT_VOICE))
        samples, rate = read_audio(Path(place))
        return trim_reference(samples, rate, _DEFAULT_VOICE_TEXT)

    def transcribe(self, samples: Samples, sample_rate: int) -> str:
        """What is said, by the model that F5-TTS fetches for it: whisper-large-v3-turbo."""
        from f5_tts.infer import utils_infer

        # As librosa does it, without the 27 s that librosa compiles when it is first used.
        audio = soxr.resample(samples, sample_rate, TRANSCRIBER_RATE)
        with self._one_at_a_time:
            said = utils_infer.transcribe({"raw": audio, "sampling_rate": TRANSCRIBER_RATE})
        return str(said)

    def speak(self, utterance: Utterance, watch: Watch) -> Iterator[Samples]:
        """Say it, a piece at a time."""
        reference = utterance.reference
        limit = piece_limit(reference.text, reference.seconds, utterance.speed)
        pieces = cut(utterance.text, limit)
        each = utterance.nfe_step
        for number, text in enumerate(pieces):
            watch.reach(number / len(pieces))
            steps = _Steps(watch, done=number * each, of_all=len(pieces) * each)
            yield self._infer(utterance, _Piece(text, number, steps))
        watch.reach(1.0)

    def _infer(self, utterance: Utterance, piece: _Piece) -> Samples:
        """One piece. The seed is the piece's own, so other jobs in between change nothing."""
        import torch
        from f5_tts.infer import utils_infer

        reference = utterance.reference
        audio = torch.from_numpy(reference.samples).unsqueeze(0)
        with self._one_at_a_time:
            self._step = piece.step
            torch.manual_seed((utterance.seed + piece.number) % 2**32)
            try:
                parts = utils_infer.infer_batch_process(
                    (audio, reference.sample_rate),
                    reference.text,
                    [piece.text],
                    self._model.ema_model,
                    self._model.vocoder,
                    mel_spec_type=self._model.mel_spec_type,
                    progress=None,
                    nfe_step=utterance.nfe_step,
                    speed=utterance.speed,
                    device=self._model.device,
                    streaming=True,
                    chunk_size=_WHOLE,
                )
                wave = np.concatenate([np.atleast_1d(part) for part, _ in parts])
            finally:
                self._step = None
                # What it keeps of a text within a piece would be taken for the next one's.
                self._network.clear_cache()
        return np.asarray(np.clip(wave, -1.0, 1.0), dtype=np.float32)

    def _before_step(self, *_: object) -> None:
        """Called by torch before each pass through the network: a place to stop in mid-piece."""
        if self._step is not None:
            self._step()


def read_audio(file: Path) -> tuple[Samples, int]:
    """Decode a file into one channel.

    Returns:
        Samples, -1 to 1, and how many there are in a second.

    Raises:
        VoiceUnfitError: it cannot be decoded.
    """
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise VoiceUnfitError(f"{file.name} cannot be decoded as audio: {error}") from error
    return np.asarray(samples.mean(axis=1), dtype=np.float32), int(rate)


def trim_reference(samples: Samples, sample_rate: int, text: str) -> Reference:
    """Take silence off both ends, and what is over the longest reference off the end.

    It is cut at the quietest moment of the last third, so that no word is cut in half.

    Raises:
        VoiceUnfitError: too little is left to speak with.
    """
    if not len(samples):
        raise VoiceUnfitError("the voice holds no audio")
    frame = max(1, sample_rate // 50)
    heard = np.flatnonzero(_peaks(samples, frame) > _SILENCE)
    if heard.size:
        samples = samples[heard[0] * frame : (heard[-1] + 1) * frame]
    longest = int(LONGEST_REFERENCE * sample_rate)
    if len(samples) > longest:
        peaks = _peaks(samples[:longest], frame)
        last_third = len(peaks) * 2 // 3
        samples = samples[: (last_third + int(np.argmin(peaks[last_third:])) + 1) * frame]
    seconds = len(samples) / sample_rate if heard.size else 0.0
    if seconds < SHORTEST_REFERENCE:
        raise VoiceUnfitError(
            f"the voice is {seconds:.1f} s long without silence; at least "
            f"{SHORTEST_REFERENCE:.0f} s are needed"
        )
    pause = np.zeros(sample_rate // 20, dtype=np.float32)
    return Reference(
        samples=np.concatenate([samples, pause]), sample_rate=sample_rate, text=_ended(text)
    )


def join(parts: list[Samples], sample_rate: int) -> Samples:
    """One piece after the other, each faded into the next."""
    whole = parts[0]
    for part in parts[1:]:
        overlap = min(int(CROSS_FADE * sample_rate), len(whole), len(part))
        fade = np.linspace(0.0, 1.0, overlap, dtype=np.float32)
        both = whole[len(whole) - overlap :] * (1 - fade) + part[:overlap] * fade
        whole = np.concatenate([whole[: len(whole) - overlap], both, part[overlap:]])
    return whole


_WHOLE: Final = 1 << 40
"""Samples: no piece is cut once more."""
_SILENCE: Final = 10 ** (-42 / 20)
"""Amplitude below which the ends of a reference are silent: F5-TTS's -42 dB."""


class _Steps:
    """Counts the solver's steps, those of the pieces before included, as a share of all."""

    def __init__(self, watch: Watch, done: int, of_all: int) -> None:
        self._watch = watch
        self._done = done
        self._all = of_all

    def __call__(self) -> None:
        self._watch.reach(self._done / self._all)
        self._done += 1


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece of the text, which one it is, and whom to tell of each step."""

    text: str
    number: int
    step: Callable[[], None]


def _peaks(samples: Samples, frame: int) -> NDArray[np.float32]:
    """The loudest sample of each frame; what is left over at the end belongs to the last."""
    starts = np.arange(0, max(1, len(samples) - frame + 1), frame)
    return np.asarray(np.maximum.reduceat(np.abs(samples), starts))


def _ended(text: str) -> str:
    """With a full stop and a space at the end: F5-TTS puts the next text right behind it."""
    text = text.strip()
    if text.endswith("。"):
        return text
    return f"{text} " if text.endswith((".", "!", "?")) else f"{text}. "


def _name_in_configs(name: str) -> str:
    """How F5-TTS finds a model's yaml: by its name below its own configs, without the ending."""
    if not name.endswith((".yaml", ".yml")):
        return name
    configs = str(files("f5_tts").joinpath("configs"))
    return os.path.relpath(os.path.abspath(name).removesuffix(".yaml"), configs)
