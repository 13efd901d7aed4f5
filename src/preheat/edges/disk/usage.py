"""Follows how a volume fills while something is written to it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from preheat.edges.disk.volumes import free_bytes

# statvfs takes microseconds, and a fast disk writes 20 MB in that time.
_LOOK_EVERY_SECONDS = 0.01
_TELL_EVERY_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Gauge:
    """What is watched for on one volume.

    Attributes:
        place: a directory on it.
        told: called twice a second with the bytes that it lost since the beginning, and with
            those that are free.
        least: free bytes below which somebody else is eating what was planned with.
        short: called once, when less than that is free.
    """

    place: str
    told: Callable[[int, int], None]
    least: int
    short: Callable[[int], None]


@contextlib.contextmanager
def watch(gauge: Gauge) -> Iterator[None]:
    """Watches the volume in a thread."""
    before = free_bytes(gauge.place)
    done = threading.Event()

    def follow() -> None:
        called = False
        told = time.monotonic()
        while not done.wait(_LOOK_EVERY_SECONDS):
            free = free_bytes(gauge.place)
            if free < gauge.least and not called:
                called = True
                gauge.short(free)
            if time.monotonic() - told >= _TELL_EVERY_SECONDS:
                told = time.monotonic()
                gauge.told(max(0, before - free), free)

    thread = threading.Thread(target=follow, name="preheat-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
