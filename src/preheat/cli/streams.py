"""The standard streams of a command that may have been started without them.

A worker's log may be full, its reader gone, or closed from the start. Telling what goes on is a
side channel: its failure is not the work's.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Forgiving(io.FileIO):
    """A stream whose refusals nobody hears of."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def make_usable() -> None:
    """Has every standard stream lead somewhere, and standard error forgive what it cannot take.

    A closed descriptor would else be the next file's that is opened, and what is meant for a log
    would land there. The command of `preheat run` finds it closed, as it was.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is taken: this one, since those below are open by now.
            os.open(os.devnull, os.O_RDWR)
            stream = open(descriptor, mode, closefd=False, encoding="utf-8")  # noqa: SIM115  # stays
            setattr(sys, name, stream)
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Forgiving(2, "w", closefd=False)),
        encoding=sys.stderr.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )
