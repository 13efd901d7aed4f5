"""Cuts a long text into pieces that are said one after the other. Values in, values out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_SENTENCE_ENDS: Final = re.compile(
    r"(?<=[.!?…])\s+|(?<=[.!?…][\"'”’)\]])\s+|(?<=[。！？])|(?<=[۔।॥؟])\s+|\n\s*\n"
)
_CLAUSE_ENDS: Final = re.compile(r"(?<=[,;:–—])\s+|(?<=[，、；：])")

SHORTEST: Final = 10
"""Bytes. F5-TTS says anything shorter at a speed of 0.3, whatever was asked for."""


def cut(text: str, limit: int) -> tuple[str, ...]:
    """Cut at the ends of sentences, then of clauses, then between words, then anywhere.

    Args:
        text: what is to be said.
        limit: bytes of UTF-8 that a piece holds at most, for that is what F5-TTS goes by.

    Returns:
        Pieces that together hold every character of the text but white space where it was cut.
    """
    pieces: list[str] = []
    for sentence in _below(text.strip(), limit):
        joined = f"{pieces[-1]} {sentence}" if pieces else sentence
        if pieces and min(_size(pieces[-1]), _size(sentence)) < SHORTEST and _size(joined) <= limit:
            pieces[-1] = joined
        else:
            pieces.append(sentence)
    return tuple(pieces)


def piece_limit(reference_text: str, reference_seconds: float, speed: float) -> int:
    """How many bytes go into one piece, so that it and the reference stay below 22 seconds.

    The length at which F5-TTS was trained, and its own rule (``infer_process`` of f5-tts 1.1.22);
    but never so little that words are torn.
    """
    rate = len(reference_text.encode()) / reference_seconds
    return max(60, min(400, int(rate * (22 - reference_seconds) * speed)))


def _below(text: str, limit: int) -> Iterator[str]:
    """Whole sentences where they fit; parts of them where they do not."""
    for sentence in _parts(_SENTENCE_ENDS, text):
        if _size(sentence) <= limit:
            yield sentence
            continue
        yield from _packed(_fine(sentence, limit), limit)


def _fine(sentence: str, limit: int) -> Iterator[tuple[str, str]]:
    """Clauses, else words, else characters, each with what stood before it."""
    for clause in _parts(_CLAUSE_ENDS, sentence):
        if _size(clause) <= limit:
            yield " ", clause
            continue
        for word in clause.split():
            if _size(word) <= limit:
                yield " ", word
            else:
                yield from ((" " if i == 0 else "", letter) for i, letter in enumerate(word))


def _packed(parts: Iterator[tuple[str, str]], limit: int) -> Iterator[str]:
    """As many parts together as fit."""
    held = ""
    for gap, part in parts:
        longer = f"{held}{gap}{part}" if held else part
        if _size(longer) <= limit:
            held = longer
        else:
            yield held
            held = part
    if held:
        yield held


def _parts(ends: re.Pattern[str], text: str) -> Iterator[str]:
    return (part.strip() for part in ends.split(text) if part and part.strip())


def _size(text: str) -> int:
    return len(text.encode())
