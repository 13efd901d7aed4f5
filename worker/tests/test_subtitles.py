"""Every subtitle file is read back by a library that did not write it, for whatever text."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import pairwise

import pysubs2
import pytest
import srt
import webvtt
from hypothesis import example, given, settings
from hypothesis import strategies as st

from f5_tts_worker.speech import Word
from f5_tts_worker.subtitles import FORMATS, write
from f5_tts_worker.subtitles.layout import LONGEST, SHORTEST, Cue, lay_out
from f5_tts_worker.subtitles.printing import LINE, is_right_to_left, printable, width
from f5_tts_worker.tokens import graphemes, tokens
from f5_tts_worker.word_alignment import Spot, fill

# A busy machine's clock says nothing about the code.
patient = settings(deadline=None, max_examples=60)

JOINER = "\u2060"
TICK = 0.01

FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
FLAGS = "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7"
HEBREW = (
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd, "
    "\u05de\u05d4 \u05e9\u05dc\u05d5\u05de\u05da?"
)
CHINESE = "\u4e2d\u6587\u6ca1\u6709\u7a7a\u683c\uff0c\u4f46\u662f\u6709\u6807\u70b9\u3002"

PROSE = (
    "Doctor Smith went to the market in the morning, and he bought apples, pears and a bottle of "
    'milk. "Was it cold?" she asked. Yes! It was the coldest day of the year, which nobody had '
    "expected, because the forecast had promised sunshine all week long."
)

# What means something to one format or another, and what is hard to cut.
HARD = [
    *("-->", "00:00:01.000 --> 00:00:02.000", "<i>", "</i>", "<b", "&amp;", "&", "<", ">", "&lrm;"),
    *("{", "}", "{\\an8}", "{\\k50}", "\\", "\\N", "\\n", "\\h", "{y:i}", "1", "2\n\n3", "NOTE"),
    *("WEBVTT", "STYLE", "[Events]", "Dialogue: 0", ";", ",", '"', "'", '=1+1"', "\u2060"),
    *(
        " ",
        "\n",
        "\n\n",
        "\t",
        "\r\n",
        "\u00a0",
        "\u2028",
        "\x0b",
        "\x85",
        "\x00",
        "\x1f",
        "\ufeff",
    ),
    *(
        FAMILY,
        FLAGS,
        "\U0001f44d\U0001f3fd",
        HEBREW,
        CHINESE,
        "e\u0301",
        "\u0e2a\u0e27\u0e31\u0e2a",
    ),
    *("word", "Word.", "x" * 100, "\u200f", "\u202e", "z" + "\u0335" * 50, "\ud800", "\uffff"),
]
TEXTS = st.lists(st.one_of(st.sampled_from(HARD), st.text(max_size=8)), max_size=40).map("".join)


@st.composite
def timed(draw: st.DrawFn) -> tuple[tuple[Word, ...], float, str]:
    """A text, its words with times as a service may give them, and the audio's length."""
    text = draw(TEXTS)
    clock, words = draw(st.floats(0, 2)), []
    for token in tokens(text):
        length = draw(st.sampled_from([0.0, 0.004, 0.1, 0.35, 1.0, 9.0]))
        trust = draw(st.none() | st.floats(0, 1))
        words.append(Word(text=token, start=clock, end=clock + length, confidence=trust))
        clock += length + draw(st.sampled_from([0.02, 0.0333, 0.5, 3.0]))
    return tuple(words), clock + draw(st.floats(0.01, 2)), text


def spoken_evenly(text: str, letters_per_second: float = 15.0) -> tuple[tuple[Word, ...], float]:
    """The words of a text, said at one pace with pauses after sentences."""
    clock, spots = 0.2, []
    for token in tokens(text):
        length = (len(token) + 1) / letters_per_second
        spots.append(Spot(start=clock, end=clock + length * 0.9, confidence=0.9))
        clock += length + (0.4 if token[-1] in ".?!" else 0.0)
    return fill(tokens(text), spots, clock + 1), clock + 1


def solid(texts: Iterable[str]) -> str:
    """Text without white space, and without what is put in to defuse markup."""
    return "".join("".join(texts).split()).replace(JOINER, "")


def shown(text: str) -> str:
    return solid(printable(token) for token in text.split())


# -- the layout -------------------------------------------------------------------------------


@patient
@given(timed())
@example(((), 0.0, ""))
@example(((), 1.0, " \n "))
@example(((Word(text="a", start=0.22, end=0.22, confidence=None),), 0.9199999999999999, "a"))
def test_no_subtitle_breaks_a_limit_whatever_the_text(
    case: tuple[tuple[Word, ...], float, str],
) -> None:
    words, duration, text = case
    cues = lay_out(words, duration, text)
    for cue in cues:
        assert 0 <= cue.start < cue.end <= duration + 1e-8
        assert cue.end - cue.start <= LONGEST + 1e-9
        assert 1 <= len(cue.lines) <= 2
        assert all(0 < width(line) <= LINE or not solid([line]) for line in cue.texts)
    assert all(before.end <= after.start for before, after in pairwise(cues))
    assert solid(line for cue in cues for line in cue.texts) == shown(text)


@patient
@given(timed())
@example(((Word(text="x" * 400, start=0.0, end=0.0, confidence=None),), 1.02, "x" * 400))
def test_a_subtitle_is_there_when_its_first_word_is_heard(
    case: tuple[tuple[Word, ...], float, str],
) -> None:
    # A word that fills several and takes no time leaves those before it a tick each.
    earliest = 0.0
    for cue in lay_out(*case):
        assert cue.start <= max(cue.pieces[0].start, earliest) + TICK
        earliest = cue.start + TICK


def test_sentences_and_clauses_end_subtitles_and_lines() -> None:
    cues = lay_out(*spoken_evenly(PROSE), PROSE)
    assert [cue.texts for cue in cues] == [
        ("Doctor Smith went", "to the market in the morning,"),
        ("and he bought apples, pears and a bottle", 'of milk. "Was it cold?" she asked. Yes!'),
        ("It was the coldest day of the year,", "which nobody had expected,"),
        ("because the forecast had", "promised sunshine all week long."),
    ]


def test_prose_at_an_even_pace_is_shown_long_enough_to_read() -> None:
    for cue in lay_out(*spoken_evenly(PROSE), PROSE):
        assert cue.end - cue.start >= SHORTEST
        assert sum(map(width, cue.texts)) / (cue.end - cue.start) <= 20


def test_a_short_answer_stays_for_five_sixths_of_a_second() -> None:
    words = (
        Word(text="Yes.", start=1.0, end=1.2, confidence=None),
        Word(text="No.", start=5.0, end=5.2, confidence=None),
    )
    first, second = lay_out(words, 5.5, "Yes.\n\nNo.")
    assert first.end - first.start == pytest.approx(SHORTEST, abs=TICK)
    assert second.end == 5.5


def test_a_short_silence_between_subtitles_is_closed_to_two_frames() -> None:
    words = (
        Word(text="One.", start=0.0, end=1.0, confidence=None),
        Word(text="Two.", start=1.3, end=2.3, confidence=None),
    )
    first, second = lay_out(words, 3.0, "One.\n\nTwo.")
    assert second.start - first.end == pytest.approx(2 / 24, abs=TICK)


def test_an_empty_line_in_the_text_ends_a_subtitle() -> None:
    text = "One two\n\nthree four"
    cues = lay_out(*spoken_evenly(text), text)
    assert [cue.texts for cue in cues] == [("One two",), ("three four",)]


def test_a_line_does_not_end_with_an_article() -> None:
    text = "Nobody in this whole town had ever seen the extraordinary animal before"
    (cue,) = lay_out(*spoken_evenly(text), text)
    assert len(cue.texts) == 2
    assert not cue.texts[0].endswith((" the", " a"))


def test_chinese_has_sixteen_characters_to_a_line_and_no_blanks() -> None:
    text = CHINESE.replace("\u3002", "") * 6
    lines = [line for cue in lay_out(*spoken_evenly(text, 5), text) for line in cue.texts]
    assert max(len(line) for line in lines) <= 16
    assert "".join(lines) == text


def test_a_word_longer_than_a_line_is_cut_between_characters_and_shares_its_time() -> None:
    text = FAMILY * 60
    word = Word(text=text, start=0.0, end=6.0, confidence=1.0)
    cues = lay_out((word,), 6.0, text)
    pieces = [piece for cue in cues for piece in cue.pieces]
    assert all(set(graphemes(piece.text)) == {FAMILY} for piece in pieces)
    assert pieces[0].start == 0.0
    assert pieces[-1].end == 6.0
    assert all(before.end == after.start for before, after in pairwise(pieces))


def test_subtitles_without_room_share_the_audio_in_order() -> None:
    text = "\n\n".join(["word"] * 50)
    words = tuple(Word(text="word", start=0.3, end=0.3, confidence=None) for _ in range(50))
    cues = lay_out(words, 1.0, text)
    assert len(cues) == 50
    assert all(before.end <= after.start for before, after in pairwise(cues))
    assert all(cue.start < cue.end <= 1.0 for cue in cues)


@pytest.mark.parametrize("text", ["one three", "one two three", "two one", "one"])
def test_words_that_are_not_those_of_the_text_are_refused(text: str) -> None:
    words = tuple(
        Word(text=word, start=number, end=number + 1, confidence=None)
        for number, word in enumerate(("one", "two"))
    )
    with pytest.raises(ValueError, match="text"):
        lay_out(words, 2.0, text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (FAMILY, 1),
        (FLAGS, 2),
        ("e\u0301a", 2),
        ("\u1112\u1161\u11ab", 1),
        ("\U0001f44d\U0001f3fd", 1),
    ],
)
def test_what_a_reader_takes_for_one_character_stays_together(text: str, count: int) -> None:
    assert len(list(graphemes(text))) == count


# -- every format, read back -------------------------------------------------------------------


def times(cues: Sequence[Cue]) -> list[tuple[int, int]]:
    return [(round(cue.start * 1000), round(cue.end * 1000)) for cue in cues]


@patient
@given(timed())
def test_srt_is_read_back_by_two_libraries(case: tuple[tuple[Word, ...], float, str]) -> None:
    cues, written = lay_out(*case), write("srt", *case)
    by_srt = list(srt.parse(written))
    assert [each.index for each in by_srt] == list(range(1, len(cues) + 1))
    assert [(milliseconds(each.start), milliseconds(each.end)) for each in by_srt] == times(cues)
    assert [solid([each.content]) for each in by_srt] == [solid(cue.texts) for cue in cues]
    by_pysubs2 = pysubs2.SSAFile.from_string(written, format_="srt")
    assert [(each.start, each.end) for each in by_pysubs2] == times(cues)
    # It takes a last line of digits alone for the number of the next cue; players do not.
    if not any(each.content.rpartition("\n")[2].isdigit() for each in by_srt):
        # Not `plaintext`: it drops whatever stands between braces, which players show.
        assert solid(each.text.replace("\\N", "\n") for each in by_pysubs2) == plain(cues)


@patient
@given(timed())
def test_vtt_is_read_back_by_two_libraries(case: tuple[tuple[Word, ...], float, str]) -> None:
    cues, written = lay_out(*case), write("vtt", *case)
    by_webvtt = webvtt.from_string(written).captions
    assert [(clock(each.start), clock(each.end)) for each in by_webvtt] == times(cues)
    assert [solid([html.unescape(each.raw_text)]) for each in by_webvtt] == [
        solid(cue.texts) for cue in cues
    ]
    by_pysubs2 = pysubs2.SSAFile.from_string(written, format_="vtt")
    assert [(each.start, each.end) for each in by_pysubs2] == times(cues)
    assert written.count("-->") == len(cues)


@patient
@given(timed())
def test_ass_is_read_back_and_its_karaoke_fills_each_line(
    case: tuple[tuple[Word, ...], float, str],
) -> None:
    cues, written = lay_out(*case), write("ass", *case)
    document = pysubs2.SSAFile.from_string(written.removeprefix("\ufeff"), format_="ass")
    assert [(each.start, each.end) for each in document] == times(cues)
    for cue, event in zip(cues, document, strict=True):
        lengths, text = rendered(event.text)
        assert sum(lengths) * 10 == event.end - event.start
        assert len(lengths) == len(cue.pieces)
        assert all(length >= 0 for length in lengths)
        assert text == "\n".join(cue.texts).replace(JOINER, "")


def rendered(text: str) -> tuple[list[int], str]:
    """What libass makes of an event's text: karaoke lengths, and what is to be seen."""
    lengths: list[int] = []
    seen = ""
    while text:
        escaped = re.match(r"\\([{}Nnh])", text)
        tags = re.match(r"\{([^}]*)\}", text)
        if escaped:
            seen += {"N": "\n", "n": " ", "h": "\u00a0"}.get(escaped[1], escaped[1])
            text = text[2:]
        elif tags:
            lengths.extend(int(each) for each in re.findall(r"\\k(\d+)", tags[1]))
            text = text[tags.end() :]
        else:
            seen, text = seen + text[0], text[1:]
    return lengths, seen.replace(JOINER, "")


@patient
@given(timed())
def test_csv_has_every_word_as_it_is_written(case: tuple[tuple[Word, ...], float, str]) -> None:
    words, duration, text = case
    header, *rows = csv.reader(io.StringIO(write("csv", words, duration, text), newline=""))
    assert header == ["word", "start", "end", "confidence"]
    assert [row[0] for row in rows] == [printable(word.text) for word in words]
    for row, word in zip(rows, words, strict=True):
        assert float(row[1]) == pytest.approx(word.start, abs=0.001)
        assert float(row[2]) == pytest.approx(word.end, abs=0.001)
        assert (row[3] == "") == (word.confidence is None)
        assert float(row[2]) <= duration


@patient
@given(timed())
def test_json_has_every_word_and_the_same_subtitles(
    case: tuple[tuple[Word, ...], float, str],
) -> None:
    words, duration, text = case
    document = json.loads(write("json", words, duration, text))
    encodable = [word.text.replace("\ud800", "?") for word in words]
    assert [each["word"] for each in document["words"]] == encodable
    assert document["duration"] == pytest.approx(duration, abs=0.001)
    cues = lay_out(words, duration, text)
    assert [tuple(each["lines"]) for each in document["subtitles"]] == [cue.texts for cue in cues]


@patient
@given(timed(), st.sampled_from(FORMATS))
def test_every_file_can_be_encoded(case: tuple[tuple[Word, ...], float, str], form: str) -> None:
    written = write(form, *case)
    assert written.encode("utf-8").decode("utf-8") == written


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "text",
    [
        *("word " * 10_000, CHINESE * 3_900, HEBREW * 2_500, "x" * 50_000, FAMILY * 10_000),
        *("{\\an8}\n\n" * 6_300, "<i>&" * 12_500),
    ],
    ids=lambda text: ascii(text[:8]),
)
def test_fifty_thousand_characters_are_written_and_read_back(form: str, text: str) -> None:
    words, duration = spoken_evenly(text)
    written = write(form, words, duration, text)
    if form in ("srt", "vtt", "ass"):
        read = pysubs2.SSAFile.from_string(written.removeprefix("\ufeff"), format_=form)
        assert len(read) == len(lay_out(words, duration, text))
        assert read[-1].end <= duration * 1000
    elif form == "json":
        assert len(json.loads(written)["words"]) == len(words)
    else:
        csv.field_size_limit(100_000)
        assert sum(1 for _ in csv.reader(io.StringIO(written, newline=""))) == len(words) + 1


@pytest.mark.parametrize("form", FORMATS)
def test_a_text_without_words_gives_a_valid_empty_file(form: str) -> None:
    written = write(form, (), 1.0, "  ")
    if form in ("srt", "ass"):
        assert len(pysubs2.SSAFile.from_string(written.removeprefix("\ufeff"), format_=form)) == 0
    if form == "vtt":
        assert written == "WEBVTT\n"


def test_an_unknown_format_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'sub'.*srt, vtt, csv, json, ass"):
        write("sub", (), 1.0, "")


@pytest.mark.parametrize(
    ("text", "encoding"), [(HEBREW, -1), ("... \u0645\u0631\u062d\u0628\u0627 hi", -1), (PROSE, 0)]
)
def test_ass_lets_each_line_of_a_right_to_left_text_find_its_direction(
    text: str, encoding: int
) -> None:
    written = write("ass", *spoken_evenly(text), text)
    document = pysubs2.SSAFile.from_string(written.removeprefix("\ufeff"), format_="ass")
    assert document.styles["Default"].encoding == encoding
    assert is_right_to_left(text) == (encoding == -1)


def clock(text: str) -> int:
    hours, minutes, seconds = text.split(":")
    return round((int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * 1000)


def milliseconds(delta: timedelta) -> int:
    return round(delta.total_seconds() * 1000)


def plain(cues: Sequence[Cue]) -> str:
    return solid(text for cue in cues for text in cue.texts)
