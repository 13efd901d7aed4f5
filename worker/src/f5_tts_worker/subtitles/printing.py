"""What of a text can be shown, and how wide it is. Pure functions of strings."""

from __future__ import annotations

import re
import unicodedata

from f5_tts_worker.tokens import graphemes

LINE = 42.0
"""The widest line, in characters of an alphabet (Netflix, English)."""

WIDE = LINE / 16
"""How much of a line a full-width character takes: 16 make one (Netflix, Chinese and Korean)."""

WORD_JOINER = "\u2060"
"""Invisible and without width; no line breaks at it. It keeps text from being taken for markup."""

TIMESTAMP = re.compile(r"\d:(?=\d\d[:.,]\d)")
"""What lenient readers of srt and vtt take for a time, even without an arrow, up to its colon."""

# Nothing that shows: control characters, halves of surrogate pairs, byte order marks and what
# is no character (Unicode 23.7). Bidirectional marks and joiners stay: languages need them.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff\ufdd0-\ufdef\ufffe\uffff\u2028\u2029]"
)


def printable(text: str) -> str:
    """Leave out what no subtitle can hold; a text of nothing else becomes empty."""
    return _UNPRINTABLE.sub("", text)


def width(text: str) -> float:
    """How wide a text is, in characters of an alphabet; combining marks have no width."""
    if text.isascii():
        return float(len(text))
    return sum(_width(grapheme) for grapheme in graphemes(text))


def is_right_to_left(text: str) -> bool:
    """Whether the first letter that has a direction runs from right to left (UAX 9, P2)."""
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return False


def _width(grapheme: str) -> float:
    wide = unicodedata.east_asian_width(grapheme[0]) in ("F", "W")
    return WIDE if wide else 1.0
