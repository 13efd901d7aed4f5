"""One wheel, built by uv against the platform; what it took is measured on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from preheat.edges import process_group
from preheat.edges.installation import Installation
from preheat.edges.uv import Leash, Limits
from preheat.words.errors import InstallError

_EVERY = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A wheel, and what building it took: seconds, and the most bytes resident at once."""

    wheel: Path
    seconds: float
    memory: int


def build(installation: Installation, limits: Limits) -> Built:
    """Installs one source distribution, which builds its wheel, and finds that in uv's cache.

    Raises:
        InstallError: it cannot be fetched or built, or has taken too long.
    """
    (source,) = installation.distributions
    begin = time.monotonic()
    with _watched(installation.leash) as most:
        installation.run(limits)
    stem = f"{source.name.replace('-', '_')}-"
    wheels = installation.uv.cache.glob("sdists-v*/**/*.whl")
    mine = [wheel for wheel in wheels if wheel.is_file() and wheel.name.lower().startswith(stem)]
    if not mine:
        raise InstallError(f"the build of {source.name} {source.version} left no wheel")
    newest = max(mine, key=lambda wheel: wheel.stat().st_mtime)
    return Built(wheel=newest, seconds=time.monotonic() - begin, memory=most.bytes)


@dataclass(kw_only=True, slots=True)
class _Most:
    bytes: int = 0
    done: threading.Event = field(default_factory=threading.Event)


@contextmanager
def _watched(leash: Leash) -> Iterator[_Most]:
    """Looks at the memory of what runs, twice a second."""
    most = _Most()

    def look() -> None:
        while not most.done.wait(_EVERY):
            process = leash.process
            if process is not None:
                most.bytes = max(most.bytes, process_group.resident(process.pid))

    thread = threading.Thread(target=look, name="preheat-memory", daemon=True)
    thread.start()
    try:
        yield most
    finally:
        most.done.set()
        thread.join()
