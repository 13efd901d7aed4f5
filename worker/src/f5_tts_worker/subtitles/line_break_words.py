"""Words that say where a line may break: English, German, French, Spanish and Italian.

These are the languages that F5-TTS has models for and that separate words.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


BREAK_BEFORE = _words(
    """
    and or but nor so yet because although though if when while where who which that than in
    on at by for from with without into onto over under of to as about after before between
    und oder aber denn weil dass wenn als ob mit von zu auf für bei nach
    et ou mais car donc que qui dans avec pour par sur sans de
    y o pero porque que en con por para sin sobre de
    e ma perché che con per su tra di
    """
)
"""Conjunctions and prepositions: a line may break before them."""

NOT_AFTER = _words(
    """
    a an the my your his her its our their this these those
    der die das den dem des ein eine einen einem einer mein dein sein
    le la les un une des du mon ma mes ton ta tes
    el los las una unos unas mi tu su
    il lo gli i
    """
)
"""Articles and possessives: no line breaks after them."""

ABBREVIATIONS = _words(
    """
    mr. mrs. ms. dr. prof. st. vs. no. e.g. i.e. etc.
    z.b. d.h. usw. nr.
    m. mme.
    sr. sra.
    """
)
"""They end with a full stop, and no sentence ends there."""
