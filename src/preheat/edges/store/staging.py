"""A start's own place on the filesystem of the layers: what it makes, and the engine's cache."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from preheat.edges.disk.atomic import unwritable
from preheat.edges.disk.deletion import erase
from preheat.edges.store.claims import Claims
from preheat.edges.store.leases import Leases
from preheat.lease import Lease
from preheat.words.store import Directory


@dataclass(frozen=True, kw_only=True)
class Staging:
    """What belongs to one start, and to nobody else.

    Attributes:
        root: the store's.
        local: where its layers are made: the same, unless they are packed.
        lease: while it is renewed, nobody takes the place for a dead one's.
    """

    root: Path
    local: Path
    lease: Lease
    leases: Leases

    @property
    def place(self) -> Path:
        """A directory on the filesystem of the layers."""
        return Directory.STAGING.under(self.local) / self.lease.name

    @property
    def cache(self) -> Path:
        """The engine's cache; archives in it are hardlinked into layers."""
        return self.place / "cache"

    @property
    def claims(self) -> Claims:
        """What this start is making, so that others wait for it."""
        return Claims(
            directory=Directory.CLAIMS.under(self.root), leases=self.leases, own=self.lease
        )

    @contextlib.contextmanager
    def directory(self, name: str) -> Iterator[Path]:
        """A new directory in it; gone at the end.

        Raises:
            StoreError: it cannot be made.
        """
        made = self.place / name
        try:
            made.mkdir()
        except OSError as error:
            raise unwritable(self.local, error) from error
        try:
            yield made
        finally:
            erase(made)

    def give_back_archives(self) -> None:
        """Removes what the engine unpacked: a layer holds its files now, or nobody needs them."""
        for bucket in (*self.cache.glob("archive-v*"), *self.cache.glob("wheels-v*")):
            erase(bucket)

    def adopt_cache(self, dead: Path) -> bool:
        """Takes over what a start that was killed had fetched; False where there is nothing.

        Of many that try, a rename has one winner.
        """
        theirs = dead / "cache"
        try:
            if self.cache.exists() or theirs.is_symlink() or not any(theirs.iterdir()):
                return False
            theirs.rename(self.cache)
        except OSError:
            return False
        return True
