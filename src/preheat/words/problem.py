"""What is wrong in a manifest or a setting."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong: where, what was found there, what is allowed, and a suggestion."""

    where: str
    found: str
    allowed: str
    suggestion: str = ""

    def __str__(self) -> str:
        line = f"{self.where}: found {self.found}; allowed: {self.allowed}"
        return f"{line}; {self.suggestion}" if self.suggestion else line


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return `did you mean "..."?` for the known word most like `word`, or an empty string."""
    close = difflib.get_close_matches(word, known, n=1) or difflib.get_close_matches(
        word.lower().replace("_", "-"), known, n=1
    )
    return f'did you mean "{close[0]}"?' if close else ""
