"""The history of a store: one line of JSON for each start.

Warm starts add theirs themselves (``pointer.note``).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from preheat.edges.disk.atomic import write_atomically

_LINES_KEPT = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """The starts that a store remembers."""

    file: Path

    def append(self, line: Mapping[str, object]) -> None:
        """Adds one start, in one write; only the last thousand are kept.

        Raises:
            OSError, StoreError: the disk refuses.
        """
        text = json.dumps(line, separators=(",", ":")) + "\n"
        with self.file.open("a+b") as handle:
            if handle.tell():
                handle.seek(-1, os.SEEK_END)
                # What a killed start left of its line must not take this one with it.
                text = text if handle.read() == b"\n" else "\n" + text
            handle.write(text.encode())
        lines = self._text().splitlines(keepends=True)
        if len(lines) > 2 * _LINES_KEPT:
            write_atomically(self.file, "".join(lines[-_LINES_KEPT:]).encode())

    def starts(self) -> tuple[dict[str, object], ...]:
        """The starts, oldest first; a torn line is left out."""
        found = []
        with contextlib.suppress(OSError):
            for line in self._text().splitlines():
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return tuple(line for line in found if isinstance(line, dict))

    def _text(self) -> str:
        return self.file.read_text(encoding="utf-8", errors="replace")
