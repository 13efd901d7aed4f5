"""Tables and figures for people, on standard output."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import IO, cast

from rich.console import Console
from rich.table import Table

_ENDLESS_COLUMNS = 4000


def console() -> Console:
    """Standard output; in a log a row is a line, whatever its length, so that grep finds it."""
    plain = Console(highlight=False)
    if plain.is_terminal:
        return plain
    return Console(
        highlight=False, width=_ENDLESS_COLUMNS, file=cast("IO[str]", _Stripped(sys.stdout))
    )


class _Stripped:
    """Writes without the blanks that pad a table's last column."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes text, line ends and all."""
        return self._stream.write("\n".join(line.rstrip() for line in text.split("\n")))

    def flush(self) -> None:
        """Flushes the stream."""
        self._stream.flush()


def table(*columns: str, right: Collection[str] = ()) -> Table:
    """An empty table with these columns; those named in `right` are aligned there."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def megabytes(size: int) -> str:
    """Bytes as a figure in MB."""
    return f"{size / 1e6:,.1f}"


def mb_or_dash(size: int, *, exact: bool = True) -> str:
    """Bytes as a figure in MB with ``~`` before an estimate; ``-`` for none."""
    if not size:
        return "-" if exact else "~"
    return megabytes(size) if exact else f"~{megabytes(size)}"


def gigabytes(size: int) -> str:
    """Bytes as a figure in GB."""
    return f"{size / 1e9:,.1f}"


def printable(text: str, *, keep: str = "") -> str:
    """Any text, such as the name of a file, with escapes for what a terminal would act on.

    Args:
        text: what is to be shown.
        keep: characters that stay as they are.
    """
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )
