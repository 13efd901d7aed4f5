"""WebVTT (W3C): cue text with its character references."""

from __future__ import annotations

from collections.abc import Sequence

from f5_tts_worker.subtitles.layout import Cue
from f5_tts_worker.subtitles.printing import TIMESTAMP, WORD_JOINER

# Section 4.2.2: "&" and "<" must be escaped; with ">" no text can hold the arrow of a time line.
_REFERENCES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def write(cues: Sequence[Cue]) -> str:
    """Write subtitles; without any, the file is a header and valid."""
    blocks = (f"\n{_clock(cue.start)} --> {_clock(cue.end)}\n{_text(cue)}\n" for cue in cues)
    return "WEBVTT\n" + "".join(blocks)


def _text(cue: Cue) -> str:
    return "\n".join(
        TIMESTAMP.sub(rf"\g<0>{WORD_JOINER}", text).translate(_REFERENCES) for text in cue.texts
    )


def _clock(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"
