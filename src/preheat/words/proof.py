"""What a real import in a fresh interpreter showed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """The outcome for one package.

    Attributes:
        ok: every promised import and the check passed.
        reason: otherwise, what failed and how, in a sentence.
        seconds: what its imports and check took.
        trace: the traceback, for ``--verbose``.
        unwritten: why bytecode that was to be kept could not be written; empty where it was.
    """

    package: str
    ok: bool
    reason: str = ""
    seconds: float = 0.0
    trace: str = ""
    unwritten: str = ""
