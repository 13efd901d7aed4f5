"""SubRip (srt). The format has no escapes and no standard; see the comments for what is avoided."""

from __future__ import annotations

import re
from collections.abc import Sequence

from f5_tts_worker.subtitles.layout import Cue
from f5_tts_worker.subtitles.printing import TIMESTAMP, WORD_JOINER

# What players take for markup: a tag (<i>), overrides of ass ({\an8}, \N) and of MicroDVD ({y:i}),
# and what looks like a line of times.
_MARKUP = re.compile(rf"<(?=[A-Za-z/])|\{{(?=\\|[A-Za-z]:)|\\(?=[Nnh])|--(?=>)|{TIMESTAMP.pattern}")


def write(cues: Sequence[Cue]) -> str:
    """Write subtitles, numbered from 1."""
    blocks = (
        f"{number}\n{_clock(cue.start)} --> {_clock(cue.end)}\n{_text(cue)}\n"
        for number, cue in enumerate(cues, 1)
    )
    return "\n".join(blocks)


def _text(cue: Cue) -> str:
    return "\n".join(_MARKUP.sub(rf"\g<0>{WORD_JOINER}", text) for text in cue.texts)


def _clock(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02},{rest % 1000:03}"
