"""Which words are shown together, on which lines, and for how long. Pure functions.

The rules are those of Netflix's Timed Text Style Guide (general requirements, and English): two
lines of 42 characters; 5/6 s to 7 s; 17 characters a second; an end up to 12 frames after the
sound; breaks after punctuation, then before conjunctions and prepositions, never after an article;
the first line the shorter one. Full-width characters count as in its Chinese guide, 16 to a line.
Not every rule can always be kept, since what is said and how fast is given. The limits on lines,
the longest time and the order of subtitles always are; of the rest, a least-cost path over all
words keeps as much as it can (as Knuth and Plass break paragraphs).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from f5_tts_worker.speech import Word
from f5_tts_worker.subtitles.line_break_words import ABBREVIATIONS, BREAK_BEFORE, NOT_AFTER
from f5_tts_worker.subtitles.printing import LINE, printable, width
from f5_tts_worker.tokens import graphemes

SHORTEST = 5 / 6
"""Seconds that a subtitle is shown at least, where the next one leaves room."""

LONGEST = 7.0
"""Seconds that a subtitle is shown at most."""

READING_SPEED = 17.0
"""Characters a second that adults read."""

_LINGER_SECONDS = 0.5  # that a subtitle may outlast its sound: 12 frames of 24
_GAP_SECONDS = 2 / 24  # between two subtitles that do not touch: 2 frames
_TICKS_PER_SECOND = 100  # the finest steps that every format can write
_PAUSE_SECONDS = 0.6  # of silence, after which a sentence seems to have ended
_ROUNDING_TICKS = 1e-6

_SENTENCE = ".!?\u2026\u3002\uff01\uff1f\u061f\u06d4\u0964"
_CLAUSE = ",;:\u2013\u2014\u060c\u061b\uff0c\uff1b\uff1a\u3001"
_CLOSING = "\"'\u2019\u201d\u00bb)]}\u300d\u300f\uff09"

# Costs of ending a subtitle there; smaller is better.
_END_SENTENCE, _END_CLAUSE, _END_PHRASE, _END_ANYWHERE, _END_ARTICLE = 0.0, 1.0, 2.5, 4.0, 8.0
_COST_OF_ONE_MORE = 2.0
_COST_OF_A_NEW_SENTENCE = 1.5  # inside a subtitle that then ends amid it
_COST_OF_LINES = 0.3
_COST_OF_HASTE = 6.0  # for a subtitle shown half as long as it takes to read
_COST_OF_SHORTNESS = 6.0  # for one that is shown for no time at all


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A word, or a part of one that no line could hold."""

    text: str
    space: str
    """What stands before it in the text: a blank, nothing, or line breaks."""
    start: float
    end: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Cue:
    """A subtitle: one or two lines that are shown for a while."""

    start: float
    """Seconds, in hundredths."""
    end: float
    """Seconds, in hundredths."""
    lines: tuple[tuple[Piece, ...], ...]

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """All that is shown, in order."""
        return tuple(piece for line in self.lines for piece in line)

    @property
    def texts(self) -> tuple[str, ...]:
        """The lines as they are read."""
        return tuple(joined(line) for line in self.lines)


def lay_out(words: Sequence[Word], duration: float, text: str) -> tuple[Cue, ...]:
    """Lay timed words out as subtitles: in order, none over another, none beyond the audio.

    Raises:
        ValueError: the words are not those of the text, in its order.
    """
    paragraph = _Paragraph(tuple(_pieces(words, text)))
    spans = list(pairwise(paragraph.breaks()))
    parts = [paragraph.pieces[start:end] for start, end in spans]
    times = _times(parts, duration)
    return tuple(
        Cue(start=start, end=end, lines=paragraph.lines(*span))
        for span, (start, end) in zip(spans, times, strict=True)
    )


def joined(pieces: Sequence[Piece]) -> str:
    """The pieces of one line as they are read."""
    return "".join(
        (" " if number and piece.space else "") + piece.text for number, piece in enumerate(pieces)
    )


def _pieces(words: Sequence[Word], text: str) -> Iterator[Piece]:
    """What is shown of each word, with what the text has before it."""
    position = 0
    space = ""
    for word in words:
        here = text.find(word.text, position)
        between = text[position:here]
        if here < 0 or between.strip():
            raise ValueError(f"the text does not go on with {word.text!r} after {position} letters")
        space += between
        position = here + len(word.text)
        shown = printable(word.text)
        if shown:
            yield from _parts(shown, space, word)
            space = ""
    if text[position:].strip():
        raise ValueError(f"the text goes on after the last word: {text[position:][:20]!r}")


def _parts(shown: str, space: str, word: Word) -> Iterator[Piece]:
    """A word in parts that fit on a line each, which share its time by their width."""
    texts = [shown] if width(shown) <= LINE else list(_chopped(shown))
    whole = sum(map(width, texts)) or 1.0
    done = accumulate((width(text) / whole for text in texts), initial=0.0)
    length = word.end - word.start
    for number, (text, (start, end)) in enumerate(zip(texts, pairwise(done), strict=True)):
        yield Piece(
            text=text,
            space="" if number else space,
            start=word.start + length * start,
            end=word.start + length * min(1.0, end),
        )


def _chopped(text: str) -> Iterator[str]:
    part, wide = "", 0.0
    for grapheme in graphemes(text):
        more = width(grapheme)
        if wide + more > LINE and part:
            yield part
            part, wide = "", 0.0
        part += grapheme
        wide += more
    yield part


class _Paragraph:
    """All pieces, and what it costs to end a line or a subtitle after one of them."""

    def __init__(self, pieces: tuple[Piece, ...]) -> None:
        self.pieces = pieces
        spaced = [width(piece.text) + (1.0 if piece.space else 0.0) for piece in pieces]
        self._edges = list(accumulate(spaced, initial=0.0))
        self._ends = [self._cost_of_end(number) for number in range(len(pieces))]
        sentences = (end == _END_SENTENCE for end in self._ends)
        self._sentences = list(accumulate(sentences, initial=0))

    def breaks(self) -> list[int]:
        """Where subtitles begin, and the end of the last: the least-cost path over all pieces."""
        total = len(self.pieces)
        best = [0.0] + [float("inf")] * total
        origin = [0] * (total + 1)
        for start in range(total):
            for end in range(start + 1, self._reach[start] + 1):
                if end > start + 1 and not self._holds(start, end - 1):
                    break
                cost = best[start] + self._cost(start, end)
                if cost < best[end]:
                    best[end], origin[end] = cost, start
        found = [total]
        while found[-1]:
            found.append(origin[found[-1]])
        return found[::-1]

    def lines(self, start: int, end: int) -> tuple[tuple[Piece, ...], ...]:
        """One line where it is wide enough, else two, broken where it reads best."""
        if end <= self._line_end[start]:
            return (self.pieces[start:end],)
        last = self._line_end[start]
        first = next(each for each in range(start + 1, end) if self._line_end[each] >= end)
        cut = min(range(first, last + 1), key=lambda each: self._cost_of_lines(start, each, end))
        return self.pieces[start:cut], self.pieces[cut:end]

    @cached_property
    def _line_end(self) -> list[int]:
        """For each piece, the first that does not fit on a line which begins with it."""
        ends: list[int] = []
        end = 0
        for start in range(len(self.pieces)):
            end = max(end, start + 1)
            while end < len(self.pieces) and self._width(start, end + 1) <= LINE:
                end += 1
            ends.append(end)
        return ends

    @cached_property
    def _reach(self) -> list[int]:
        """For each piece, the first that does not fit in a subtitle which begins with it."""
        ends = self._line_end
        return [ends[end] if end < len(ends) else end for end in ends]

    def _width(self, start: int, end: int) -> float:
        leading = 1.0 if self.pieces[start].space else 0.0
        return self._edges[end] - self._edges[start] - leading

    def _cost_of_end(self, number: int) -> float:
        """How badly the text breaks after a piece."""
        piece = self.pieces[number]
        following = self.pieces[number + 1] if number + 1 < len(self.pieces) else None
        if following is None or "\n" in following.space:
            return _END_SENTENCE
        bare = piece.text.rstrip(_CLOSING)
        if _ends_sentence(bare) and not following.text[0].islower():
            return _END_SENTENCE
        if bare.endswith(tuple(_CLAUSE)) or following.start - piece.end >= _PAUSE_SECONDS:
            return _END_CLAUSE
        if piece.text.casefold() in NOT_AFTER:
            return _END_ARTICLE
        if following.text.casefold() in BREAK_BEFORE:
            return _END_PHRASE
        return _END_ANYWHERE if following.space else _END_ANYWHERE + 0.5

    def _holds(self, start: int, number: int) -> bool:
        """Whether what begins at `start` and goes on may hold that piece too."""
        piece = self.pieces[number]
        new_paragraph = piece.space.count("\n") > 1
        return not new_paragraph and piece.end - self.pieces[start].start <= LONGEST

    def _cost(self, start: int, end: int) -> float:
        """What a subtitle of these pieces costs."""
        spoken = self.pieces[end - 1].end - self.pieces[start].start
        room = self._room(end) - self.pieces[start].start
        shown = max(0.0, min(room, max(spoken + _LINGER_SECONDS, SHORTEST), LONGEST))
        wide = self._width(start, end)
        needed = wide / READING_SPEED
        cost = _COST_OF_ONE_MORE + self._ends[end - 1]
        if self._ends[end - 1] != _END_SENTENCE:
            inside = self._sentences[end - 1] - self._sentences[start]
            cost += _COST_OF_A_NEW_SENTENCE * inside
        if shown < needed:
            cost += _COST_OF_HASTE * (1 - shown / needed)
        if shown < SHORTEST:
            cost += _COST_OF_SHORTNESS * (1 - shown / SHORTEST)
        return cost + (_COST_OF_LINES if wide > LINE else 0.0)

    def _room(self, end: int) -> float:
        """When the next subtitle begins, if this one ends before that piece."""
        return self.pieces[end].start if end < len(self.pieces) else float("inf")

    def _cost_of_lines(self, start: int, cut: int, end: int) -> float:
        """How badly two lines read: broken there, and uneven or heavy above."""
        above, below = self._width(start, cut), self._width(cut, end)
        uneven = (above - below) / LINE
        return self._ends[cut - 1] + 4 * abs(uneven) + (0.5 if uneven > 0 else 0.0)


def _ends_sentence(bare: str) -> bool:
    """Whether a word, without closing quotes and brackets, ends a sentence."""
    if bare.casefold() in ABBREVIATIONS or (len(bare) == 2 and bare[0].isupper()):
        return False
    return bare.endswith(tuple(_SENTENCE))


def _times(parts: Sequence[Sequence[Piece]], duration: float) -> list[tuple[float, float]]:
    """When each subtitle is shown: while it is heard, and as long after as reading takes."""
    limit = _ticks(duration)
    starts = [min(_ticks(part[0].start), limit) for part in parts]
    ends = []
    for part, following in zip(parts, [*starts, limit][1:], strict=True):
        ends.append(_end(part, following))
    return _apart(starts, ends, limit)


def _end(part: Sequence[Piece], following: int) -> int:
    """The tick at which a subtitle goes, before the next one comes."""
    start, heard = part[0].start, part[-1].end
    read = start + width(joined(part)) / READING_SPEED
    wanted = max(heard, min(read, heard + _LINGER_SECONDS), start + SHORTEST)
    wanted = min(wanted, start + LONGEST)
    if 0 < _seconds(following) - wanted < _LINGER_SECONDS:
        # A flicker: closed, as far as may be.
        closed = min(start + LONGEST, heard + _LINGER_SECONDS)
        wanted = max(wanted, min(_seconds(following) - _GAP_SECONDS, closed))
    return min(_ticks(wanted), following)


def _apart(starts: list[int], ends: list[int], limit: int) -> list[tuple[float, float]]:
    """Give each subtitle a tick of its own at least, where the audio has that many."""
    least = 1 if limit >= len(starts) else 0
    latest = 0
    for number, start in enumerate(starts):
        starts[number] = max(start, latest)
        ends[number] = max(ends[number], starts[number] + least)
        latest = ends[number]
    following = limit
    for number in reversed(range(len(starts))):
        ends[number] = min(ends[number], following)
        starts[number] = min(starts[number], ends[number] - least)
        following = starts[number]
    times = zip(starts, ends, strict=True)
    return [(_seconds(max(0, start)), _seconds(max(0, end))) for start, end in times]


def _ticks(seconds: float) -> int:
    return int(seconds * _TICKS_PER_SECOND + _ROUNDING_TICKS)


def _seconds(ticks: int) -> float:
    return ticks / _TICKS_PER_SECOND
