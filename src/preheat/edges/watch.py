"""Follows how a volume fills while something is written to it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

_EVERY = 0.5


@contextlib.contextmanager
def watch(place: str, filled: Callable[[int], None]) -> Iterator[None]:
    """Calls ``filled`` twice a second with the bytes that the volume lost since the beginning."""
    before = _free(place)
    done = threading.Event()

    def follow() -> None:
        while not done.wait(_EVERY):
            filled(max(0, before - _free(place)))

    thread = threading.Thread(target=follow, name="preheat-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _free(place: str) -> int:
    stats = os.statvfs(place)
    return stats.f_bavail * stats.f_frsize
