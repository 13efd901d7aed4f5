r"""Advanced SubStation Alpha (ass) with karaoke: each word lights up when it is heard.

`\kN` before a word says for how many hundredths of a second it is the current one. These sum up to
the line's length exactly: edges are rounded, not lengths.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

import ass
from ass.data import Color

from f5_tts_worker.subtitles.layout import Cue
from f5_tts_worker.subtitles.printing import WORD_JOINER, is_right_to_left

_WIDTH, _HEIGHT = 1920, 1080
_SIZE = 64  # of 1080 lines: 42 letters of Arial stay well inside the width
_TICK = 100  # karaoke's steps in a second
_FIRST_LETTER_DECIDES = -1  # libass: the direction of each line follows from its text
_ANSI = 0
_BYTE_ORDER_MARK = "\ufeff"  # without it VSFilter takes the file for the system's code page

# A joiner after a backslash leaves it a backslash. "{" opens override tags: libass shows "\{" as a
# brace; VSFilter shows the backslash, then takes the "{}" for empty tags. No renderer hides text. A
# "}" without opening is shown by both.
_ESCAPES = str.maketrans({"\\": f"\\{WORD_JOINER}", "{": "\\{{}"})


def write(cues: Sequence[Cue]) -> str:
    """Write subtitles with karaoke tags."""
    document = ass.Document()
    document.info.update(
        {
            "ScriptType": "v4.00+",
            "PlayResX": _WIDTH,
            "PlayResY": _HEIGHT,
            "WrapStyle": 0,
            "ScaledBorderAndShadow": "yes",
        }
    )
    right_to_left = is_right_to_left(" ".join(text for cue in cues for text in cue.texts))
    document.styles.append(
        ass.Style(
            fontsize=_SIZE,
            secondary_color=Color(0xA0, 0xA0, 0xA0),  # of words that are still to come
            margin_l=_WIDTH // 20,
            margin_r=_WIDTH // 20,
            margin_v=_HEIGHT // 20,
            outline=3,
            shadow=1,
            encoding=_FIRST_LETTER_DECIDES if right_to_left else _ANSI,
        )
    )
    document.events.extend(_event(cue) for cue in cues)
    written = io.StringIO()
    document.dump_file(written)
    return _BYTE_ORDER_MARK + written.getvalue()


def _event(cue: Cue) -> ass.Dialogue:
    return ass.Dialogue(
        start=timedelta(milliseconds=round(cue.start * 1000)),
        end=timedelta(milliseconds=round(cue.end * 1000)),
        text=_text(cue),
    )


def _text(cue: Cue) -> str:
    lengths = iter(_lengths(cue))
    lines = []
    for line in cue.lines:
        text = ""
        for number, piece in enumerate(line):
            blank = " " if number and piece.space else ""
            # The blank goes before the tag: it belongs to the word that was said.
            text += f"{blank}{{\\k{next(lengths)}}}{piece.text.translate(_ESCAPES)}"
        lines.append(text)
    return "\\N".join(lines)


def _lengths(cue: Cue) -> list[int]:
    """Hundredths of a second from each word to the next, the first from when the line appears."""
    first, last = round(cue.start * _TICK), round(cue.end * _TICK)
    edges = [first]
    for piece in cue.pieces[1:]:
        edges.append(min(max(round(piece.start * _TICK), edges[-1]), last))
    return [end - start for start, end in pairwise([*edges, last])]
