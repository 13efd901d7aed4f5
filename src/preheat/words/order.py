"""What one startup is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from preheat.words.manifest import Manifest
from preheat.words.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """A manifest and its settings, for one interpreter.

    Attributes:
        manifest_file: where the manifest came from; the pointer is named by it.
        executable: the platform's interpreter.
        retry: failures that are remembered count no more, and versions are resolved anew.
        lock: a lock that must be used, or None.
        only: packages whose layers are made, and that compose first; the others are resolved with
            them. None for all.
    """

    manifest: Manifest
    settings: Settings
    manifest_file: Path
    executable: str
    retry: bool = False
    lock: Path | None = None
    only: frozenset[str] | None = None

    def without_deadline(self) -> Order:
        """An equal request, whose packages are all waited for without a deadline."""
        return replace(self, settings=replace(self.settings, deadline=None))
