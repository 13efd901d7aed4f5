"""Collects layers that nobody uses, while others start.

A start writes its lease and then looks at what is marked for removal; a collector writes that mark
and then looks at the leases. So one of the two always sees the other, and a layer that is in use is
never removed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from preheat import pointer
from preheat.edges.disk.atomic import filesystem_time, write_atomically
from preheat.edges.disk.deletion import erase
from preheat.edges.disk.volumes import read_volumes
from preheat.edges.store.leases import EVERYTHING, Leases
from preheat.edges.store.shelf import Shelf
from preheat.edges.store.staging import Staging
from preheat.edges.store.store import Store
from preheat.words.errors import StoreError
from preheat.words.store import Directory

# Between a layer's publication and the lease of whoever uses it lie seconds.
_YOUNG_LAYER_SECONDS = 600.0
# Network filesystems cache names and leases for a second or so.
_NAMES_CACHED_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Stale:
    """A layer that nobody alive holds, in one of its forms.

    Attributes:
        shelf: where it is.
        used: unix time of its last use.
        current: a pointer of the store names it: a start with that manifest would use it.
    """

    shelf: Shelf
    digest: str
    used: float
    current: bool

    @property
    def place(self) -> Path:
        """Its directory or its file."""
        return self.shelf.place(self.digest)


def stale(store: Store, spared: Collection[str], *, besides: str = "") -> tuple[Stale, ...]:
    """The layers that may go, those without a pointer first, then by their last use.

    Args:
        store: where they are.
        spared: digests that stay.
        besides: our own lease's name.
    """
    held = store.leases.names(besides=besides)
    if EVERYTHING in held:
        return ()
    pointed = dict(_last_used(store))
    found = []
    for shelf in store.shelves:
        now = (
            filesystem_time(shelf.directory)
            if shelf.packed
            else filesystem_time(Directory.LEASES.under(store.root))
        )
        for digest in shelf.digests() - held - frozenset(spared):
            with contextlib.suppress(OSError):
                made = shelf.witness(digest).stat().st_mtime
                used = max(made, pointed.get(digest, 0.0))
                if now - made > _YOUNG_LAYER_SECONDS:
                    current = digest in pointed
                    found.append(Stale(shelf=shelf, digest=digest, used=used, current=current))
    return tuple(sorted(found, key=lambda each: (each.current, each.used, each.digest)))


def available(store: Store) -> frozenset[str]:
    """Digests of the layers, packed or not, that nobody is about to remove; ask with a lease."""
    maybe = (store.ready, store.packs if store.packed else None, store.image)
    shelves = [shelf for shelf in maybe if shelf is not None]
    found = (
        shelf.digests() - frozenset(pointer.pending_removal(str(shelf.base))) for shelf in shelves
    )
    return frozenset().union(*found)


def collect(shelf: Shelf, staging: Staging, digests: Collection[str]) -> Generator[str, None, None]:
    """Removes those layers of a shelf, one for each step; yields the digest of each.

    A layer that a start has come to hold meanwhile stays.

    Raises:
        StoreError: the store cannot be written.
    """
    mark = shelf.base / pointer.PENDING_REMOVAL
    text = "\n".join([staging.lease.name, *digests])
    if _is_marked(staging.leases, mark):
        # Another collector is at work.
        return
    write_atomically(mark, text.encode())
    try:
        if not read_volumes({"store": staging.root})[0].quota_known:
            # The leases are on that volume, those on layers of the local disk too.
            time.sleep(_NAMES_CACHED_SECONDS)
        if mark.read_text(encoding="utf-8") != text:
            return
        for digest in digests:
            held = staging.leases.names(besides=staging.lease.name)
            if digest in held or EVERYTHING in held:
                continue
            if _remove(shelf, digest, staging):
                yield digest
    except OSError as error:
        raise StoreError(f"the mark {mark} cannot be read: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            if mark.read_text(encoding="utf-8") == text:
                mark.unlink()


def drop_void_mark(store: Store) -> None:
    """Removes the mark of a collector that was killed."""
    for base in dict.fromkeys((store.root, store.local)):
        mark = base / pointer.PENDING_REMOVAL
        if mark.exists() and not _is_marked(store.leases, mark):
            with contextlib.suppress(OSError):
                mark.unlink()


def _remove(shelf: Shelf, digest: str, staging: Staging) -> bool:
    """Removes a layer so that it is gone at once for every reader; False if the disk refuses."""
    place = shelf.place(digest)
    try:
        if shelf.packed:
            place.unlink()
            return True
        # In staging of its own filesystem: what a kill leaves there goes with the dead.
        aside = Directory.STAGING.under(shelf.base) / staging.lease.name
        aside.mkdir(parents=True, exist_ok=True)
        place.rename(aside / f"stale-{digest}")
    except OSError:
        return False
    erase(aside / f"stale-{digest}")
    if aside != staging.place:
        erase(aside)
    return True


def _is_marked(leases: Leases, mark: Path) -> bool:
    try:
        holder = mark.read_text(encoding="utf-8").split("\n", 1)[0]
    except OSError:
        return False
    return leases.lives(holder)


def _last_used(store: Store) -> Iterator[tuple[str, float]]:
    """Layers that pointers name, with the last use that the pointer's own time tells."""
    try:
        files = [entry for entry in os.scandir(store.starts) if not entry.name.endswith(".json")]
    except OSError:
        return
    latest: dict[str, float] = {}
    for file in files:
        facts = pointer.read_pointer(file.path)
        if facts is None:
            continue
        with contextlib.suppress(OSError):
            used = file.stat().st_mtime
            for layer in facts["layers"]:
                digest = os.path.basename(layer)
                latest[digest] = max(used, latest.get(digest, 0.0))
    yield from latest.items()
