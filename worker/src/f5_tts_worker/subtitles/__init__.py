"""Subtitles from one list of words: srt, vtt, ass with karaoke, and the words as csv and json."""

from __future__ import annotations

from collections.abc import Sequence

from f5_tts_worker.speech import Word
from f5_tts_worker.subtitles import subrip, substation, tables, webvtt
from f5_tts_worker.subtitles.layout import lay_out

FORMATS = ("srt", "vtt", "csv", "json", "ass")

_OF_CUES = {"srt": subrip.write, "vtt": webvtt.write, "ass": substation.write}


def write(form: str, words: Sequence[Word], duration: float, text: str) -> str:
    """Write the timed words of a text in one format, to be encoded as UTF-8.

    Args:
        form: one of `FORMATS`.
        words: of the text, in order, within [0, duration].
        duration: of the audio, in seconds; no subtitle is shown beyond it.
        text: what the words are of; it says what stands between them.

    Raises:
        ValueError: the format is none of ours, or the words are not those of the text.
    """
    if form in _OF_CUES:
        return _OF_CUES[form](lay_out(words, duration, text))
    if form == "csv":
        return tables.write_csv(words)
    if form == "json":
        return tables.write_json(words, duration, text)
    raise ValueError(f"no subtitle format {form!r}; there is {', '.join(FORMATS)}")
