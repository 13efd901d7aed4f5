"""Claims: of many starts that want the same thing made, one makes it and the others wait.

A claim saves work and nothing else: a layer appears whole or not at all, whoever makes it. So a
claim is a file that exists, and no lock: creating it is exclusive on network volumes too, and it
counts as long as the lease that it names does.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from preheat.edges.disk.atomic import filesystem_time
from preheat.edges.store.leases import START_LEASE_SECONDS, Leases
from preheat.lease import Lease

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Claims:
    """The claims of a store, as one start makes them.

    Attributes:
        directory: where they are.
        leases: of the same store.
        own: this start's lease.
    """

    directory: Path
    leases: Leases
    own: Lease

    @contextlib.contextmanager
    def claimed(self, key: str, wait: Callable[[float], bool]) -> Iterator[bool]:
        """Waits until nobody else is making that, and claims it.

        Args:
            key: a file name.
            wait: called at every look with the seconds waited; False gives up waiting.

        Yields:
            Whether it is ours; what waited for may have been made meanwhile.
        """
        file = self.directory / key
        begin = time.monotonic()
        pause = _FIRST_PAUSE_SECONDS
        while not self._take(file):
            if not wait(time.monotonic() - begin):
                yield False
                return
            # Jitter, so that a fleet does not ask a volume in step.
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
            pause = min(_LONGEST_PAUSE_SECONDS, pause * 1.5)
        try:
            yield True
        finally:
            if self._holder(file) == self.own.name:
                with contextlib.suppress(OSError):
                    file.unlink()

    def prune(self) -> None:
        """Removes the claims of the dead."""
        with contextlib.suppress(OSError):
            for file in self.directory.iterdir():
                if self._is_void(file):
                    with contextlib.suppress(OSError):
                        file.unlink()

    def _take(self, file: Path) -> bool:
        if self._create(file):
            return True
        if self._holder(file) == self.own.name:
            # Ours from before: the volume would not let go of it.
            return True
        if not self._is_void(file):
            return False
        aside = file.with_name(f".{self.own.name}")
        try:
            # A rename has one winner.
            file.rename(aside)
            aside.unlink()
        except OSError:
            return False
        return self._create(file)

    def _create(self, file: Path) -> bool:
        try:
            descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        except OSError:
            # Where a volume takes no claim, the work is done without one.
            return True
        try:
            with contextlib.suppress(OSError):
                os.write(descriptor, self.own.name.encode())
        finally:
            os.close(descriptor)
        return True

    def _is_void(self, file: Path) -> bool:
        holder = self._holder(file)
        if holder is None:
            return False
        if holder:
            return not self.leases.is_renewing(holder)
        try:
            # Its maker died between creating and writing it.
            return filesystem_time(self.directory) - file.stat().st_mtime > START_LEASE_SECONDS
        except OSError:
            return False

    def _holder(self, file: Path) -> str | None:
        try:
            return file.read_text(encoding="utf-8")
        except OSError:
            return None
