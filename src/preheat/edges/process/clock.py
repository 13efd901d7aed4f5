"""Time in a startup: what each stage took, and what is left until the deadline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

from preheat.words.listener import Listener
from preheat.words.manifest import Package
from preheat.words.report import StageReport


class Clock:
    """The clock of one startup, from its making on.

    Args:
        listener: told when a stage begins and ends.
        deadline: seconds after which optional packages are no longer waited for.
    """

    def __init__(self, listener: Listener, deadline: float | None) -> None:
        self.listener = listener
        self.deadline = deadline
        self.started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._begin = time.perf_counter()
        self._stages: list[StageReport] = []

    @property
    def seconds(self) -> float:
        """Since the startup began."""
        return time.perf_counter() - self._begin

    @property
    def stages(self) -> tuple[StageReport, ...]:
        """What has been timed so far, in order."""
        return tuple(self._stages)

    def left(self, package: Package) -> float | None:
        """Seconds until the deadline; a required package is waited for, however long it takes."""
        if self.deadline is None or package.required:
            return None
        return self.deadline - self.seconds

    def why_late(self, package: Package) -> str | None:
        """The sentence that says the deadline has passed for that package, where it has."""
        left = self.left(package)
        if left is None or left > 0:
            return None
        return f"the deadline of {self.deadline:g} s has passed"

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage of the whole startup."""
        begin = self.seconds
        self.listener.progress(name, 0, 1)
        try:
            yield
        finally:
            self._stages.append(StageReport(name=name, seconds=round(self.seconds - begin, 3)))
            self.listener.progress(name, 1, 1)

    @contextmanager
    def part(self, name: str, package: str, seconds: dict[str, float]) -> Iterator[None]:
        """Times what is done for one package, and writes it down under that name."""
        begin = self.seconds
        label = f"{name} {package}"
        self.listener.progress(label, 0, 1)
        try:
            yield
        finally:
            seconds[name] = round(self.seconds - begin, 3)
            self.listener.progress(label, 1, 1)
