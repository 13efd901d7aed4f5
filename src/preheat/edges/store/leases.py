"""The leases of a store: who lives, and what they hold."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from preheat import lease
from preheat.edges.disk.atomic import drop_abandoned, filesystem_time, temporary_name, unwritable
from preheat.edges.disk.volumes import read_volumes
from preheat.lease import Lease

EVERYTHING = "*"
"""Held by a start that does not know yet which layers it will use."""

START_LEASE_SECONDS = 60.0
"""Without a sign of life for that long, a start on another machine counts as dead, and one on this
machine as hung."""

# A lease has no lines while it is being written, which takes less than a second.
_UNWRITTEN_LEASE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Holder:
    """What a lease's file says."""

    machine: str
    process: str
    lasts: float
    names: tuple[str, ...]
    renewed: float


class Leases:
    """The directory of a store's leases."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._machine = lease.identity()[0]

    @contextlib.contextmanager
    def held(self, names: Iterable[str], lasts: float = START_LEASE_SECONDS) -> Iterator[Lease]:
        """A lease of our own for the length of a start, renewed as long as it goes on.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            own = lease.take(str(self._directory), names, lasts)
        except OSError as error:
            raise unwritable(self._directory.parent, error) from error
        own.keep_renewing()
        try:
            yield own
        finally:
            own.release()

    def lives(self, name: str) -> bool:
        """Whether the holder of that lease lives, as far as can be told from here."""
        holder = self._read(name)
        return holder is not None and self._lives(name, holder)

    def is_renewing(self, name: str) -> bool:
        """Whether that holder lives and renews its lease, which one that hangs does not."""
        holder = self._read(name)
        if holder is None or not self._lives(name, holder):
            return False
        return filesystem_time(self._directory) - holder.renewed <= holder.lasts

    def names(self, *, besides: str = "") -> frozenset[str]:
        """What living holders hold, except by the lease of that name."""
        found: set[str] = set()
        for name in self._all():
            holder = self._read(name) if name != besides else None
            if holder is not None and self._lives(name, holder):
                found.update(holder.names)
        return frozenset(found)

    def prune(self) -> None:
        """Removes the leases of the dead."""
        for name in self._all():
            if not self.lives(name):
                self.forget(name)
        drop_abandoned(self._directory)

    def forget(self, name: str) -> None:
        """Removes that lease."""
        with contextlib.suppress(OSError):
            (self._directory / name).unlink()

    def _all(self) -> list[str]:
        try:
            names = os.listdir(self._directory)
            return sorted(name for name in names if lease.is_ours(name))
        except OSError:
            return []

    def _read(self, name: str) -> _Holder | None:
        file = self._directory / name
        try:
            lines = file.read_text(encoding="utf-8").split("\n")
            renewed = file.stat().st_mtime
            machine, process, lasts, *names = lines
            return _Holder(
                machine=machine,
                process=process,
                lasts=float(lasts),
                names=tuple(names),
                renewed=renewed,
            )
        except OSError:
            return None
        except ValueError:
            number, process = lease.holder_in(name)
            ours = number == lease.machine_number(self._machine)
            return _Holder(
                machine=self._machine if ours else "",
                process=process,
                lasts=_UNWRITTEN_LEASE_SECONDS,
                names=(EVERYTHING,),
                renewed=renewed,
            )

    def _lives(self, name: str, holder: _Holder) -> bool:
        if holder.machine and holder.machine == self._machine:
            return lease.process(holder.process.partition(":")[0]) == holder.process
        boot, own = holder.machine.partition("/")[0], self._machine.partition("/")[0]
        if boot and boot == own and self._locks_tell():
            # Another container of this kernel: its processes cannot be seen, its lock can.
            return self._is_locked(name)
        return filesystem_time(self._directory) - holder.renewed <= holder.lasts

    def _is_locked(self, name: str) -> bool:
        try:
            descriptor = os.open(self._directory / name, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    def _locks_tell(self) -> bool:
        """Whether locks work here, tried out, on a filesystem that no other machine shares."""
        if not read_volumes({"store": self._directory})[0].quota_known:
            return False
        return locks_work(self._directory)


def locks_work(directory: Path) -> bool:
    """Whether one lock keeps another out, tried with a file that is gone afterwards."""
    file = temporary_name(directory / "locks")
    descriptors: list[int] = []
    try:
        descriptors = [os.open(file, os.O_CREAT | os.O_RDWR, 0o600) for _ in range(2)]
        fcntl.flock(descriptors[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(descriptors[1], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    else:
        return False
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            file.unlink()
