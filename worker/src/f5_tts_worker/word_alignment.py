"""From what a service heard to a time for every word of the text. Pure functions.

The text is known, so the words are its own; a service only says where some of them are. What it
could not place lies between what it could.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from f5_tts_worker.speech import Word
from f5_tts_worker.tokens import spoken, tokens

_HALF = 0.5
_TABLE = 1_000_000  # cells of one table of moves; longer texts are halved first
_SKIP = 2  # cost of a word that only one side has
_SWAP = 3  # of two words that differ: less than skipping both, so that order tells who is whose


@dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """Where one word of the text was found."""

    start: float
    """Seconds."""
    end: float
    """Seconds."""
    confidence: float | None
    """None where the place is known and the word was not recognised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """One word as a recogniser spells it."""

    text: str
    start: float
    """Seconds."""
    end: float
    """Seconds."""
    confidence: float | None


def match(texts: Sequence[str], heard: Sequence[Heard]) -> tuple[Spot | None, ...]:
    """Find the words of the text among those that a recogniser heard.

    A recogniser spells and separates as it likes ("24" for "twenty-four"). Words that are the same
    are matched first, by the alignment that keeps most of them in order (Hirschberg, CACM 1975).
    Between two of these the letters are matched the same way. Words of which nothing was recognised
    share the time of what was heard in their place.
    """
    said = [spoken(text) for text in texts]
    pieces = [piece for word in heard for piece in _separated(word)]
    spots: list[Spot | None] = [None] * len(texts)
    same = _pairs(said, [spoken(piece.text) for piece in pieces])
    for ours, theirs in same:
        spots[ours] = _spot(pieces[theirs : theirs + 1], 1.0)
    for (ours, theirs), (our_end, their_end) in pairwise(
        [(-1, -1), *same, (len(said), len(pieces))]
    ):
        between = _by_letters(said[ours + 1 : our_end], pieces[theirs + 1 : their_end])
        spots[ours + 1 : our_end] = between
    return tuple(spots)


def fill(texts: Sequence[str], spots: Sequence[Spot | None], duration: float) -> tuple[Word, ...]:
    """Give every word a time: in order, none before another's end, all within [0, duration].

    What has no spot shares the time that its neighbours leave, by the number of letters; before the
    first and after the last spot no more time than the others take for as many letters.
    """
    weights = [len(spoken(text)) for text in texts]
    placed = _in_order(spots, duration)
    times: list[tuple[float, float]] = [(0.0, 0.0)] * len(texts)
    pace = _pace(placed, weights)
    known = [number for number, spot in enumerate(placed) if spot is not None]
    for before, after in pairwise([-1, *known, len(texts)]):
        here, there = _place(placed, before), _place(placed, after)
        low = 0.0 if here is None else here.end
        high = duration if there is None else there.start
        room = sum(weights[before + 1 : after]) * pace
        if there is None:
            high = min(high, low + room)
        if here is None:
            low = max(low, high - room)
        times[before + 1 : after] = _shared(weights[before + 1 : after], low, high)
        if there is not None:
            times[after] = there.start, there.end
    return tuple(
        Word(
            text=text,
            start=start,
            end=end,
            confidence=None if spot is None else spot.confidence,
        )
        for text, spot, (start, end) in zip(texts, placed, times, strict=True)
    )


def confidence(words: Sequence[Word]) -> float | None:
    """Return the mean over the words that have one, or None."""
    known = [word.confidence for word in words if word.confidence is not None]
    return sum(known) / len(known) if known else None


def _separated(word: Heard) -> Iterator[Heard]:
    """A recogniser's word in the words that `tokens` would make of it, each its share of time."""
    parts = tokens(word.text)
    shares = _shared([max(1, len(part)) for part in parts], word.start, word.end)
    for part, (start, end) in zip(parts, shares, strict=True):
        yield Heard(text=part, start=start, end=end, confidence=word.confidence)


def _by_letters(said: Sequence[str], heard: Sequence[Heard]) -> list[Spot | None]:
    """Spots for words none of which was heard as it is written."""
    if not said or not heard:
        return [None] * len(said)
    owners = [number for number, text in enumerate(said) for _ in text]
    letters = [
        Heard(text=letter, start=start, end=end, confidence=word.confidence)
        for word in heard
        for letter, (start, end) in _letters(word)
    ]
    found: dict[int, list[Heard]] = {}
    for ours, theirs in _pairs("".join(said), [letter.text for letter in letters]):
        found.setdefault(owners[ours], []).append(letters[theirs])
    shares = {number: len(hits) / len(said[number]) for number, hits in found.items()}
    recognised = {number for number, share in shares.items() if share >= _HALF}
    if not recognised:
        times = _shared([len(text) for text in said], heard[0].start, heard[-1].end)
        return [
            Spot(start=start, end=end, confidence=None) if text else None
            for text, (start, end) in zip(said, times, strict=True)
        ]
    return [
        _spot(found[number], shares[number]) if number in recognised else None
        for number in range(len(said))
    ]


def _letters(word: Heard) -> Iterator[tuple[str, tuple[float, float]]]:
    letters = spoken(word.text)
    return zip(letters, _shared([1] * len(letters), word.start, word.end), strict=True)


def _spot(hits: Sequence[Heard], share: float) -> Spot:
    """The place of what was heard; trusted as much as it was, and as much of it as was heard."""
    known = [hit.confidence for hit in hits if hit.confidence is not None]
    mean = sum(known) / len(known) * share if len(known) == len(hits) else None
    return Spot(start=hits[0].start, end=hits[-1].end, confidence=mean)


def _in_order(spots: Sequence[Spot | None], duration: float) -> list[Spot | None]:
    """The spots within the audio, none before the one before it, none beyond the next."""
    ordered: list[Spot | None] = list(spots)
    latest = 0.0
    for number, spot in enumerate(spots):
        if spot is not None:
            start = min(max(spot.start, latest), duration)
            end = min(max(spot.end, start), duration)
            ordered[number] = Spot(start=start, end=end, confidence=spot.confidence)
            latest = start
    following = duration
    for number in reversed(range(len(ordered))):
        spot = ordered[number]
        if spot is not None:
            end = min(spot.end, following)
            ordered[number] = Spot(start=spot.start, end=end, confidence=spot.confidence)
            following = spot.start
    return ordered


def _place(placed: Sequence[Spot | None], number: int) -> Spot | None:
    return placed[number] if 0 <= number < len(placed) else None


def _pace(placed: Sequence[Spot | None], weights: Sequence[int]) -> float:
    """Seconds that a letter takes, over the words that were placed; endless where none was."""
    pairs = zip(placed, weights, strict=True)
    known = [(spot.end - spot.start, weight) for spot, weight in pairs if spot is not None]
    letters = sum(weight for _, weight in known)
    seconds = sum(length for length, _ in known)
    return seconds / letters if letters and seconds else float("inf")


def _shared(weights: Sequence[int], low: float, high: float) -> list[tuple[float, float]]:
    """Share the time between `low` and `high` by weight."""
    total = sum(weights)
    top = max(low, high)
    shares = (low + (top - low) * done / total if total else low for done in accumulate(weights))
    # A sum of shares may lie a rounding error above the top.
    return list(pairwise([low, *(min(share, top) for share in shares)]))


def _pairs(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """The equal elements of the alignment that costs least, as indexes into both, in order."""
    numbers: dict[str, int] = {}
    left = np.array([numbers.setdefault(each, len(numbers)) for each in ours], dtype=np.int64)
    right = np.array([numbers.setdefault(each, len(numbers)) for each in theirs], dtype=np.int64)
    # Nothing is no word: what cannot be heard, such as a dash, is like nothing.
    left[left == numbers.get("", -2)] = -1
    return list(_aligned(left, right, 0, 0))


def _aligned(
    ours: np.ndarray, theirs: np.ndarray, our_offset: int, their_offset: int
) -> Iterator[tuple[int, int]]:
    """Hirschberg's halving: as exact as one table, in memory that grows with one side only."""
    if not len(ours) or not len(theirs):
        return
    if len(ours) == 1 or len(ours) * len(theirs) <= _TABLE:
        for one, other in _traced(ours, theirs):
            yield our_offset + one, their_offset + other
        return
    half = len(ours) // 2
    forward = _costs(ours[:half], theirs)
    backward = _costs(ours[half:][::-1], theirs[::-1])[::-1]
    cut = int(np.argmin(forward + backward))
    yield from _aligned(ours[:half], theirs[:cut], our_offset, their_offset)
    yield from _aligned(ours[half:], theirs[cut:], our_offset + half, their_offset + cut)


def _costs(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """The least cost of aligning all of `ours` with each beginning of `theirs`."""
    row = np.arange(len(theirs) + 1, dtype=np.int64) * _SKIP
    for each in ours:
        row = _next_row(row, each, theirs)
    return row


def _next_row(row: np.ndarray, each: int, theirs: np.ndarray) -> np.ndarray:
    steps = np.arange(len(row), dtype=np.int64) * _SKIP
    following = row + _SKIP
    following[1:] = np.minimum(following[1:], row[:-1] + np.where(theirs == each, 0, _SWAP))
    # Elements that only `theirs` has cost the same each, so one running minimum serves the row.
    return np.minimum.accumulate(following - steps) + steps


def _traced(ours: np.ndarray, theirs: np.ndarray) -> list[tuple[int, int]]:
    rows = [np.arange(len(theirs) + 1, dtype=np.int64) * _SKIP]
    for each in ours:
        rows.append(_next_row(rows[-1], each, theirs))
    found = []
    one, other = len(ours), len(theirs)
    while one and other:
        here, same = rows[one][other], ours[one - 1] == theirs[other - 1]
        if here == rows[one - 1][other - 1] + (0 if same else _SWAP):
            one, other = one - 1, other - 1
            if same:
                found.append((one, other))
        elif here == rows[one - 1][other] + _SKIP:
            one -= 1
        else:
            other -= 1
    return found[::-1]
