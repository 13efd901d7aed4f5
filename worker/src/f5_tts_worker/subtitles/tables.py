"""The words themselves, for programs: csv (RFC 4180) and json (RFC 8259)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from f5_tts_worker.speech import Word
from f5_tts_worker.subtitles.layout import lay_out
from f5_tts_worker.subtitles.printing import printable

_DIGITS = 3  # milliseconds


def write_csv(words: Sequence[Word]) -> str:
    """Write one row for each word, below the names; a word without confidence has an empty cell."""
    written = io.StringIO()
    rows = csv.writer(written)
    rows.writerow(("word", "start", "end", "confidence"))
    for word in words:
        trust = "" if word.confidence is None else round(word.confidence, _DIGITS)
        rows.writerow((printable(word.text), _seconds(word.start), _seconds(word.end), trust))
    return written.getvalue()


def write_json(words: Sequence[Word], duration: float, text: str) -> str:
    """Write the text, its words, and how they are shown together."""
    cues = lay_out(words, duration, text)
    document = {
        "text": _encodable(text),
        "duration": _seconds(duration),
        "words": [
            {
                "word": _encodable(word.text),
                "start": _seconds(word.start),
                "end": _seconds(word.end),
                "confidence": None if word.confidence is None else round(word.confidence, _DIGITS),
            }
            for word in words
        ],
        "subtitles": [
            {"start": cue.start, "end": cue.end, "lines": list(cue.texts)} for cue in cues
        ],
    }
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _seconds(value: float) -> float:
    """To the millisecond, and never beyond what it was."""
    return int(value * 1000 + 1e-6) / 1000


def _encodable(text: str) -> str:
    """Without halves of surrogate pairs, which no UTF-8 file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
