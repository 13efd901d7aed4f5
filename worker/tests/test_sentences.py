"""How a long text is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from f5_tts_worker.sentences import SHORTEST, cut, piece_limit

LIMIT = 60


def bare(text: str) -> str:
    """A text without white space."""
    return "".join(text.split())


@given(st.text(max_size=400), st.integers(min_value=8, max_value=200))
def test_no_character_is_lost_and_no_piece_is_too_long(text: str, limit: int) -> None:
    pieces = cut(text, limit)
    assert bare("".join(pieces)) == bare(text)
    assert all(0 < len(piece.encode()) <= limit for piece in pieces)


def test_a_text_is_cut_at_the_ends_of_its_sentences() -> None:
    text = "The first one is here. Is the second one here? It certainly is!"
    assert cut(text, LIMIT) == (
        "The first one is here.",
        "Is the second one here?",
        "It certainly is!",
    )


def test_quotes_stay_with_their_sentence() -> None:
    assert cut('"It is said." And it is done now.', LIMIT) == (
        '"It is said."',
        "And it is done now.",
    )


def test_sentences_without_spaces_between_them_are_told_apart() -> None:
    assert cut("今天天气很好很好。我们去公园散步吧。", LIMIT) == (
        "今天天气很好很好。",
        "我们去公园散步吧。",
    )


def test_a_sentence_that_is_too_long_is_cut_between_its_clauses() -> None:
    text = "When it rains for a very long time, the river rises, and the people leave their homes."
    assert cut(text, LIMIT) == (
        "When it rains for a very long time, the river rises,",
        "and the people leave their homes.",
    )


def test_a_text_without_any_end_is_cut_between_words() -> None:
    pieces = cut("word " * 100, LIMIT)
    assert len(pieces) > 5
    assert all(set(piece.split()) == {"word"} for piece in pieces)


def test_a_word_without_any_end_is_cut_too() -> None:
    assert [len(piece) for piece in cut("x" * 130, LIMIT)] == [60, 60, 10]


def test_what_f5_tts_would_drawl_is_said_with_its_neighbour() -> None:
    pieces = cut("No. Yes. I think so, and I said it before. Oh. Well.", LIMIT)
    assert all(len(piece.encode()) >= SHORTEST for piece in pieces)


def test_fifty_thousand_characters_are_cut_quickly() -> None:
    assert len(cut("All work and no play makes a dull day. " * 1282, 200)) > 1000


@pytest.mark.parametrize(
    ("text", "seconds", "speed"), [("Hello.", 12.0, 1.0), ("x" * 1000, 1.0, 3.0), ("x", 30.0, 1.0)]
)
def test_a_limit_never_tears_words_nor_asks_too_much(
    text: str, seconds: float, speed: float
) -> None:
    assert 60 <= piece_limit(text, seconds, speed) <= 400
