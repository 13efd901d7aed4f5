"""The words of a text, as its author separated them.

Pure functions of strings. A word is what stands between white space, with its punctuation. Scripts
that are written without spaces have no such words; each of their characters is one, and takes the
punctuation that follows it along, as WhisperX and most karaoke do.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# Han, Kana, Bopomofo, Thai, Lao, Myanmar, Khmer: written without spaces between words.
_UNSPACED = (
    "\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff"
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303b\u3040-\u30ff\u3100-\u312f"
    "\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_OPENING = {"Ps", "Pi"}  # opening brackets and quotes: they belong to what follows
_JOINER = "\u200d"


def tokens(text: str) -> tuple[str, ...]:
    """Split a text into its words; what is between them is white space or nothing."""
    return tuple(word for run in text.split() for word in _words_of(run))


def graphemes(text: str) -> Iterator[str]:
    """Split a text into what a reader takes for single characters.

    Combining marks, emoji modifiers and sequences, flags and Hangul letters stay together. This
    follows the extended grapheme clusters of Unicode's UAX 29 in what speech has, without tables.
    """
    start = 0
    for here in range(1, len(text)):
        if not _continues(text, start, here):
            yield text[start:here]
            start = here
    if text:
        yield text[start:]


def spoken(token: str) -> str:
    """What of a word can be heard: its letters and digits, without case, accents kept."""
    folded = unicodedata.normalize("NFKC", token).casefold()
    return "".join(character for character in folded if unicodedata.category(character)[0] in "LNM")


def is_unspaced(text: str) -> bool:
    """Whether a text holds a character of a script that is written without spaces."""
    return _IS_UNSPACED.search(text) is not None


def _words_of(run: str) -> Iterator[str]:
    if not is_unspaced(run):
        yield run
        return
    word: list[str] = []
    heard = unspaced = False  # of the word so far
    for grapheme in graphemes(run):
        alone = is_unspaced(grapheme)
        if heard and (_opens(grapheme) or (_heard(grapheme) and (alone or unspaced))):
            yield "".join(word)
            word, heard, unspaced = [], False, False
        word.append(grapheme)
        heard = heard or _heard(grapheme)
        unspaced = unspaced or alone
    yield "".join(word)


def _heard(grapheme: str) -> bool:
    return unicodedata.category(grapheme[0])[0] in "LN"


def _opens(text: str) -> bool:
    return unicodedata.category(text[-1]) in _OPENING


def _continues(text: str, start: int, here: int) -> bool:
    before, after = text[here - 1], text[here]
    if unicodedata.category(after)[0] == "M" or after in (_JOINER, "\u200c"):
        return True
    if before == _JOINER or "\U0001f3fb" <= after <= "\U0001f3ff" or _is_tag(after):
        return True
    if _is_regional(before) and _is_regional(after):
        return _regionals_before(text, start, here) % 2 == 1
    return _is_vowel_or_final(after) and _is_hangul(before)


def _is_tag(character: str) -> bool:
    return "\U000e0020" <= character <= "\U000e007f"


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _regionals_before(text: str, start: int, here: int) -> int:
    return sum(_is_regional(character) for character in text[start:here])


def _is_vowel_or_final(character: str) -> bool:
    return "\u1160" <= character <= "\u11ff"


def _is_hangul(character: str) -> bool:
    return "\u1100" <= character <= "\u11ff" or "\uac00" <= character <= "\ud7a3"
