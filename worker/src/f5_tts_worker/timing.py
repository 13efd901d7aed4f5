"""When each word of a known text is heard: by the first service that can say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from f5_tts_worker.speech import Speech, Timed, Timings
from f5_tts_worker.tokens import tokens
from f5_tts_worker.word_alignment import Spot, confidence, fill

_ENOUGH = 0.5  # of the words; below it a warning says that most times are worked out


class TimingService(Protocol):
    """Finds the words of a text in its audio."""

    @property
    def name(self) -> str:
        """What jobs call it."""

    def place(self, speech: Speech, texts: Sequence[str]) -> Sequence[Spot | None]:
        """Say where each word is, in order; None for those that were not found.

        Raises:
            Exception: of whatever kind, where the service cannot serve this speech.
        """


class WordTiming:
    """Times words by the services that are there, in order of preference."""

    def __init__(self, services: Sequence[TimingService]) -> None:
        self._services = tuple(services)

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the services, in order of preference."""
        return tuple(service.name for service in self._services)

    def time(self, speech: Speech, method: str | None = None) -> Timed:
        """Time every word of the speech: by `method` if it is there and works, else by the next.

        Never raises for what a service does: a text without times, and why, is an answer too.
        """
        texts = tokens(speech.text)
        if not texts:
            return Timed(timings=None, warnings=("the text has no words to time",))
        warnings = []
        if method is not None and method not in self.methods:
            warnings.append(f"word timing by {method} is not available here")
        # A stable sort: the asked one first, the others as they were.
        for service in sorted(self._services, key=lambda each: each.name != method):
            try:
                spots = service.place(speech, texts)
            except Exception as error:  # noqa: BLE001  # whatever breaks in it, the next may serve
                warnings.append(f"word timing by {service.name} failed: {_said(error)}")
                continue
            found = sum(spot is not None for spot in spots)
            if not found:
                warnings.append(f"word timing by {service.name} found none of the words")
                continue
            if found < _ENOUGH * len(texts):
                warnings.append(
                    f"{service.name} found {found} of {len(texts)} words; "
                    "the other times are worked out from those"
                )
            words = fill(texts, spots, speech.duration)
            timings = Timings(words=words, method=service.name, confidence=confidence(words))
            return Timed(timings=timings, warnings=tuple(warnings))
        warnings.append("no word timing: no service could serve, so there are no subtitles")
        return Timed(timings=None, warnings=tuple(warnings))


def _said(error: Exception) -> str:
    """What an error says in one line, for a job's answer."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
