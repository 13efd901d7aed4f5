"""Opens the store that settings name, in the form that its volume asks for."""

from __future__ import annotations

import os
import statistics
import time
import uuid
from pathlib import Path

from preheat.decisions.identity import digest
from preheat.decisions.packing import Site, hydrating_is_faster
from preheat.edges.disk.volumes import read_volumes
from preheat.edges.store.store import Store
from preheat.words.errors import ManifestError
from preheat.words.settings import Settings
from preheat.words.store import Directory

_LOOKS_PER_VOLUME = 5


def open_store(settings: Settings) -> Store:
    """The store, with a place on this machine's own disk where its layers are packed.

    Once a store has packed layers it goes on so: what a volume is like is measured once.

    Raises:
        ManifestError: packed layers are asked for, and this machine has no place to unpack them.
    """
    return Store(settings.store, _local(settings), settings.image)


def _local(settings: Settings) -> Path | None:
    """Where layers are unpacked; None where they are directories of the store."""
    if settings.layers == "directory":
        return None
    if settings.local is None:
        if settings.layers == "auto":
            return None
        raise ManifestError(
            "there is no place to unpack layers: this user has no home directory",
            hint="name a directory on the local disk: PREHEAT_LOCAL",
        )
    # Stores that share a disk share nothing else: leases tell of one store only.
    local = settings.local / digest(str(settings.store))[:16]
    if settings.layers == "packed" or _wants_packs(settings.store, local):
        return local
    return None


def _wants_packs(store: Path, local: Path) -> bool:
    if Directory.PACKS.under(store).is_dir():
        return True
    first, second = read_volumes({"store": store, "local": local})
    return hydrating_is_faster(
        Site(volume=first, look=_lookup_seconds(first.path)),
        Site(volume=second, look=_lookup_seconds(second.path)),
    )


def _lookup_seconds(place: str) -> float:
    """Seconds that looking up a file takes there: the median of a few.

    The names are new each time, so that no cache knows them, and nothing is written.
    """
    seconds = []
    for _ in range(_LOOKS_PER_VOLUME):
        name = os.path.join(place, f".{uuid.uuid4().hex}")
        begin = time.perf_counter()
        os.path.lexists(name)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)
