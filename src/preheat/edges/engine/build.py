"""One wheel, built by uv against the platform; what it took is measured on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from preheat.edges.engine.installation import Installation
from preheat.edges.engine.uv import Cancellation, Limits
from preheat.edges.process import group
from preheat.words.engine import Request
from preheat.words.errors import InstallError
from preheat.words.lock import Locked

_LOOK_EVERY_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A wheel, and what building it took: seconds, and the most bytes resident at once."""

    wheel: Path
    seconds: float
    memory: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One wheel to build.

    Attributes:
        source: the source distribution.
        request: what it was resolved for.
        variables: what the build is told.
        seconds: after which it is ended.
        told: called twice a second with the seconds that have passed.
    """

    source: Locked
    request: Request
    variables: Mapping[str, str]
    seconds: float
    told: Callable[[float], None]


def build(installation: Installation, limits: Limits, told: Callable[[float], None]) -> Built:
    """Installs one source distribution, which builds its wheel, and finds that in uv's cache.

    Args:
        installation: of that distribution alone.
        limits: when it is ended.
        told: called twice a second with the seconds that have passed.

    Raises:
        InstallError: it cannot be fetched or built, or has taken too long.
    """
    (source,) = installation.distributions
    watched = _Watch(cancellation=installation.cancellation, told=told)
    with watched.following():
        installation.run(limits)
    stem = f"{source.name.replace('-', '_')}-"
    wheels = installation.uv.cache.glob("sdists-v*/**/*.whl")
    mine = [wheel for wheel in wheels if wheel.is_file() and wheel.name.lower().startswith(stem)]
    if not mine:
        raise InstallError(f"the build of {source.name} {source.version} left no wheel")
    newest = max(mine, key=lambda wheel: wheel.stat().st_mtime)
    return Built(wheel=newest, seconds=watched.seconds, memory=watched.memory)


@dataclass(kw_only=True, slots=True)
class _Watch:
    """Time and memory of a build, looked at twice a second.

    Attributes:
        memory: the most bytes that were resident at once.
    """

    cancellation: Cancellation
    told: Callable[[float], None]
    memory: int = 0
    begin: float = field(default_factory=time.monotonic)
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.begin

    @contextmanager
    def following(self) -> Iterator[None]:
        """Looks, in a thread, as long as the context lasts."""
        thread = threading.Thread(target=self._look, name="preheat-build", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.done.set()
            thread.join()

    def _look(self) -> None:
        while not self.done.wait(_LOOK_EVERY_SECONDS):
            self.told(self.seconds)
            process = self.cancellation.process
            if process is not None:
                self.memory = max(self.memory, group.resident(process.pid))
