"""Word timing by WhisperX's forced alignment of the known text; nothing is recognised.

Read in whisperx 3.7.2 and 3.8.6: `align` splits its text at blanks, and into sentences by NLTK's
Punkt; a character that the model does not know may be any sound. Each piece of text is handed over
as letters and blanks only, so it is one sentence, and words come back one for one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from f5_tts_worker.silences import bounds
from f5_tts_worker.tokens import spoken
from f5_tts_worker.word_alignment import Spot

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from f5_tts_worker.speech import Speech

NAME = "whisperx"

_SAMPLE_RATE = 16_000  # of the audio that wav2vec 2.0 was trained on
_WINDOW = 30.0  # s: the models were trained on little more, and their memory grows with its square
_WHOLE = 45.0  # s: up to this the rest is aligned at once
_TRUSTED = 0.6  # of a window: the text of its end is a guess, which spoils the times near it
_SPACELESS = ("ja", "zh")  # whisperx aligns these languages character by character
_PUNKT_FILES = ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt")
# The languages for which whisperx asks Punkt for more than English (whisperx.utils).
_PUNKT_LANGUAGES = (
    *("czech", "danish", "dutch", "english", "estonian", "finnish", "french", "german", "greek"),
    *("italian", "malayalam", "norwegian", "polish", "portuguese", "russian", "slovene"),
    *("spanish", "swedish", "turkish"),
)

Align = Callable[[Sequence[str], float, float], Sequence[Spot | None]]
"""Places words within seconds of the audio, from and to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Aligner:
    """A model of one language, as `whisperx.alignment.load_align_model` returns it."""

    model: Any
    metadata: dict[str, Any]

    @property
    def letters(self) -> frozenset[str]:
        """The characters that the model can tell apart."""
        return frozenset(self.metadata["dictionary"])


class WhisperxTiming:
    """Aligns text with its audio, in the languages that it has a model for."""

    def __init__(self, aligners: Mapping[str, Aligner], device: str) -> None:
        self._aligners = dict(aligners)
        self._device = device

    @property
    def name(self) -> str:
        """What jobs call it."""
        return NAME

    def place(self, speech: Speech, texts: Sequence[str]) -> Sequence[Spot | None]:
        """Say where each word is; None for those without letters.

        Raises:
            LookupError: there is no model for the language.
        """
        language = speech.language.partition("-")[0].lower()
        if language not in self._aligners:
            there = ", ".join(sorted(self._aligners)) or "none"
            raise LookupError(f"no alignment model for language {language} (there is: {there})")
        aligner = self._aligners[language]
        audio = _resampled(speech.samples, speech.sample_rate)
        starts_at, ends_at = bounds(audio, _SAMPLE_RATE)

        def align(part: Sequence[str], start: float, end: float) -> Sequence[Spot | None]:
            return _aligned(aligner, audio, part, (start, end), self._device)

        return stride(texts, (starts_at, ends_at), align)


def load(models: Mapping[str, str | None], cache: Path, device: str) -> WhisperxTiming:
    """Load the alignment models, once, and make sure that no request has to fetch anything.

    Args:
        models: for each language the name of a model or a local directory; None for the one that
            whisperx has for that language.
        cache: where models are kept, and looked for first.
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        ImportError: whisperx, or what it needs, cannot be imported.
        ValueError: whisperx knows no model for the language, or the named one cannot be had.
    """
    from whisperx.alignment import load_align_model

    install_punkt(cache / "nltk_data")
    aligners = {}
    for language, name in models.items():
        model, metadata = load_align_model(language, device, model_name=name, model_dir=str(cache))
        aligners[language] = Aligner(model=model.eval(), metadata=metadata)
    return WhisperxTiming(aligners, device)


def install_punkt(data: Path) -> None:
    """Put an untrained Punkt model below `data`, where NLTK finds it if it has no other.

    whisperx downloads NLTK's punkt_tab in the middle of a request where it is missing. What a model
    knows of abbreviations is not needed: the text that is aligned here has no full stops.
    """
    import nltk

    for language in _PUNKT_LANGUAGES:
        directory = data / "tokenizers" / "punkt_tab" / language
        directory.mkdir(parents=True, exist_ok=True)
        for file in _PUNKT_FILES:
            (directory / file).touch()
    if str(data) not in nltk.data.path:
        nltk.data.path.append(str(data))


def stride(texts: Sequence[str], bounds: tuple[float, float], align: Align) -> list[Spot | None]:
    """Place the words of long audio window by window.

    Which words a window holds is estimated from their letters. The estimate is off by a word or
    two, which a forced alignment pays for at the window's end; so only its first part is kept, and
    the next window starts with the first word that was not, where that word was found to start.
    """
    start, end = bounds
    spots: list[Spot | None] = []
    while len(spots) < len(texts):
        rest = texts[len(spots) :]
        if end - start <= _WHOLE:
            return spots + list(align(rest, start, end))
        share = _first(rest, _WINDOW / (end - start))
        found = align(rest[:share], start, start + _WINDOW)
        kept = _kept(found, start + _TRUSTED * _WINDOW)
        if kept:
            spots.extend(found[:kept])
            start = _end_of(found[:kept], start)
        else:
            skipped = _first(rest, _TRUSTED * _WINDOW / (end - start))
            spots.extend([None] * skipped)
            start += _TRUSTED * _WINDOW
    return spots


def _first(texts: Sequence[str], share: float) -> int:
    """How many words make that share of the letters; at least one."""
    weights = [len(spoken(text)) + 1 for text in texts]
    wanted, count = share * sum(weights), 0
    while count < len(weights) and wanted > 0:
        wanted -= weights[count]
        count += 1
    return max(1, count)


def _kept(spots: Sequence[Spot | None], until: float) -> int:
    """How many words to keep: up to the longest pause of the second half of what is trusted."""
    trusted = [number for number, spot in enumerate(spots) if spot and spot.end <= until]
    if not trusted:
        return 0

    def pause(position: int) -> float:
        here, there = spots[trusted[position]], spots[trusted[position + 1]]
        return there.start - here.end if here and there else 0.0

    candidates = range(len(trusted) // 2, len(trusted) - 1)
    best = max(candidates, key=pause, default=len(trusted) - 1)
    return trusted[best] + 1


def _end_of(spots: Sequence[Spot | None], otherwise: float) -> float:
    return max((spot.end for spot in spots if spot is not None), default=otherwise)


def _aligned(
    aligner: Aligner,
    audio: NDArray[np.float32],
    texts: Sequence[str],
    window: tuple[float, float],
    device: str,
) -> list[Spot | None]:
    from whisperx.alignment import align

    start, end = window
    written = [_written(text, aligner.letters) for text in texts]
    units = _units(written, aligner.metadata["language"])
    between = "" if aligner.metadata["language"] in _SPACELESS else " "
    spots: list[Spot | None] = [None] * len(texts)
    if not units:
        return spots
    segment = {"text": between.join(unit for _, unit in units), "start": start, "end": end}
    words = align([segment], aligner.model, aligner.metadata, audio, device)["word_segments"]
    if [word["word"] for word in words] != [unit for _, unit in units]:
        return spots  # whisperx gave the piece up, and said so in its log
    placed = zip((number for number, _ in units), words, strict=True)
    for number, group in groupby(placed, key=lambda each: each[0]):
        known = bool(aligner.letters.intersection(written[number]))
        spots[number] = _spot([word for _, word in group], known)
    return spots


def _written(text: str, letters: frozenset[str]) -> str:
    """A word as the model is given it: no punctuation, but for the apostrophe that many know."""
    plain = text.replace("\u2019", "'")
    return "".join(
        character
        for each in plain
        for character in (each if each == "'" in letters else spoken(each))
    )


def _units(written: Sequence[str], language: str) -> list[tuple[int, str]]:
    """What whisperx will take for words, each with the number of the word that it is of."""
    if language in _SPACELESS:
        return [(number, character) for number, text in enumerate(written) for character in text]
    return [(number, text) for number, text in enumerate(written) if text]


def _spot(words: Sequence[Mapping[str, Any]], known: bool) -> Spot | None:
    """Where whisperx found a word; what is wildcards only has a place, and no confidence."""
    starts = [float(word["start"]) for word in words if "start" in word]
    ends = [float(word["end"]) for word in words if "end" in word]
    if not starts or not ends:
        return None
    scores = [float(word["score"]) for word in words if "score" in word]
    score = sum(scores) / len(scores) if known and scores else None
    return Spot(start=min(starts), end=max(ends), confidence=score)


def _resampled(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    import soxr

    resampled: NDArray[np.float32] = soxr.resample(samples, sample_rate, _SAMPLE_RATE)
    return resampled
