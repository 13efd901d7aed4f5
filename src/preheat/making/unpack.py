"""A startup that lacks nothing but its layers on this machine's disk: they are unpacked.

What was resolved and proved is on the volume and still holds, so that no index is asked and
nothing is proved again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from preheat import pointer
from preheat.edges.cleaning.cleaner import Cleaner
from preheat.edges.disk.atomic import answering
from preheat.edges.disk.deletion import erase
from preheat.edges.disk.volumes import is_over, read_volumes
from preheat.edges.platform.probe import ask_interpreter
from preheat.edges.store import child_bootstrap
from preheat.edges.store.open import open_store
from preheat.edges.store.staging import Staging
from preheat.edges.store.store import Store
from preheat.words.cleaning import Shortage
from preheat.words.errors import PreheatError, StoreError
from preheat.words.listener import Listener
from preheat.words.platform import Interpreter
from preheat.words.quantities import in_mb
from preheat.words.settings import Settings


def unpack_layers(
    facts: Mapping[str, Any], settings: Settings, executable: str, listener: Listener
) -> bool:
    """Unpacks what a pointer names and this machine lacks, after cleaning where room is short.

    Args:
        facts: the pointer's, valid but for its layers.
        settings: of this startup.
        executable: the platform's interpreter.
        listener: told what happens.

    Returns:
        Whether all of it is there. Where not, the listener knows why, nothing half-made is left,
        and it is for a cold startup to say which package is lost by it.
    """
    store = open_store(settings)
    digests = [os.path.basename(layer) for layer in facts["layers"]]
    try:
        if str(store.local) != facts["local"]:
            raise StoreError(f"layers were unpacked in {facts['local']}, and are in {store.local}")
        with answering(store.root):
            store.prepare_local()
            interpreter = ask_interpreter(executable)
            work = _Unpacking(
                store=store, settings=settings, interpreter=interpreter, listener=listener
            )
            work.run(digests)
    except PreheatError as error:
        listener.event("not-unpacked", reason=error.message)
        return False
    return not pointer.first_gone(facts)


@dataclass(frozen=True, kw_only=True)
class _Unpacking:
    """One startup's unpacking."""

    store: Store
    settings: Settings
    interpreter: Interpreter
    listener: Listener

    def run(self, digests: Sequence[str]) -> None:
        """Unpacks those layers that are not ready, then makes what children start with.

        Raises:
            StoreError: a pack is gone or damaged, or there is no room.
            OSError: the disk refuses.
        """
        for dead in self.store.unreferenced_staging():
            # Leases of the dead are for a cold startup to remove: on a volume that takes longer.
            erase(dead)
        with self.store.begin() as staging:
            # From here on no collector takes them: what is marked to go may be gone already.
            staging.lease.hold(digests)
            bases = (self.store.root, self.store.local)
            going = {digest for base in bases for digest in pointer.pending_removal(str(base))}
            if not going.isdisjoint(digests):
                raise StoreError("a layer of it is being taken away")
            lacking = [digest for digest in digests if digest not in self.store.layers()]
            self._make_room(lacking, staging)
            for number, digest in enumerate(lacking):
                self.listener.progress("unpack", number, len(lacking))
                self.store.unpack(digest, staging)
            if lacking:
                self.listener.progress("unpack", len(lacking), len(lacking))
        # It is found under the name that the pointer has: that is made of what is in it.
        child_bootstrap.of_layers(self.store, self.interpreter, digests)
        self.listener.event("unpacked", layers=len(lacking))

    def _make_room(self, lacking: Sequence[str], staging: Staging) -> None:
        """Nothing is unpacked that cannot be finished beside the reserve.

        Raises:
            StoreError: there is no room, also after cleaning; or a pack is damaged.
        """
        packs = [self.store.index(digest) for digest in lacking]
        bytes_needed = sum(pack.facts.disk for pack in packs)
        shortage = Shortage(
            path=self.store.local,
            bytes=bytes_needed + self.settings.space.keep_free,
            inodes=sum(pack.entries for pack in packs),
        )
        if not packs or is_over(shortage):
            return
        cleaner = Cleaner(
            store=self.store,
            extra=self.settings.space.clean,
            sites=self.interpreter.sites,
            spared=frozenset(lacking),
            staging=staging,
        )
        for name, size in cleaner.until_over(shortage).tiers:
            self.listener.event("cleaned", tier=name, mb=round(size / 1e6, 1))
        if not is_over(shortage):
            free = read_volumes({"local": self.store.local})[0].free
            raise StoreError(
                f"layers of {in_mb(bytes_needed)} do not fit in {self.store.local}: "
                f"{in_mb(free)} are free, of which "
                f"{in_mb(self.settings.space.keep_free)} stay free by space.keep-free"
            )
