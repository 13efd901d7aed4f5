"""What was said, and when each word of it: the values that timing and subtitles share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """One word of the text as its author wrote it, with when it is heard."""

    text: str
    """As it stands in the text, with its punctuation."""
    start: float
    """Seconds from the start of the audio."""
    end: float
    """Seconds from the start of the audio; never before `start`."""
    confidence: float | None
    """0 to 1, of whoever heard it; None where the time was worked out from its neighbours'."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """Every word of a text in its order, no two at one time."""

    words: tuple[Word, ...]
    method: str
    """The service that timed them: "whisperx" or "google"."""
    confidence: float | None
    """The mean over the words that have one; None where none has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speech:
    """Audio of one voice that says a text which is known."""

    samples: NDArray[np.float32]
    """One channel, -1 to 1."""
    sample_rate: int
    """Samples a second."""
    text: str
    language: str
    """ISO 639-1, such as "en"; a region may follow (BCP 47), such as "en-GB"."""

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """What came of an attempt at timing: nothing but warnings, if no service could."""

    timings: Timings | None
    warnings: tuple[str, ...]
