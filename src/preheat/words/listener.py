"""Whoever is told how a startup goes."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """Is told what happens during a startup, and may show it."""

    def event(self, name: str, /, **facts: object) -> None:
        """Something happened, once: a package was installed, an index did not answer."""

    def progress(self, stage: str, done: float, total: float, *, free: int | None = None) -> None:
        """A stage stands at ``done`` of ``total``, in bytes or in packages; ``free`` bytes left."""
