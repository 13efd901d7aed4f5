"""Leases: small files that say which process, on which machine, is starting or uses layers.

This file stands alone, since the warm start takes a lease too. Whether a holder lives is told by
the process table if that is ours; by its lock on the file if the kernel is ours and the filesystem
local; else by the file's time, which a holder on a shared volume renews.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SHARED = "PREHEAT_INTERNAL_LEASE"
"""Where an activated process notes a lease on a shared volume, for its children to renew."""

USE_LEASE_SECONDS = 900.0
"""Without a sign of life for that long, a process on another machine that uses layers counts as
gone."""

# A lease is renewed that many times before it would run out.
_RENEWALS_PER_LEASE = 4


def identity() -> tuple[str, str]:
    """This machine as the process table sees it, and this process in it.

    proc(5): the boot's random id with the PID namespace; the PID with its start time, since PIDs
    come again. Empty where the kernel does not tell.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            boot = file.read().strip().decode()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return "", str(os.getpid())
    return f"{boot}/{namespace}", process("self")


def process(pid: str) -> str:
    """A process by PID and start time; empty where there is none, or only its zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses may hold anything.
            number, _, rest = file.read().partition(b" ")
    except OSError:
        return ""
    fields = rest.rpartition(b")")[2].split()
    return "" if fields[0] in (b"Z", b"X") else f"{number.decode()}:{fields[19].decode()}"


def take(directory: str, names: Iterable[str], lasts: float) -> Lease:
    """Writes a lease and locks it.

    Args:
        directory: where the leases of a store are; it is made if it is absent.
        names: what is held.
        lasts: seconds after which it runs out unless it is renewed.

    Raises:
        OSError: it cannot be written.
    """
    file = os.path.join(directory, _new_name())
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
    try:
        descriptor = os.open(file, flags, 0o644)
    except FileNotFoundError:
        os.makedirs(directory, exist_ok=True)
        descriptor = os.open(file, flags, 0o644)
    try:
        _lock(descriptor)
        os.write(descriptor, _text(names, lasts))
    except BaseException:
        os.close(descriptor)
        os.unlink(file)
        raise
    return Lease(file, descriptor, lasts)


def _new_name() -> str:
    """A name that tells the holder too, since a power loss may leave the file empty."""
    machine, process = identity()
    return f"{os.urandom(6).hex()}-{machine_number(machine)}-{process.replace(':', '-')}"


def is_ours(name: str) -> bool:
    """Whether a name has the form of a lease's; nothing else in a store is ours to remove."""
    parts = name.split("-")
    shape = [len(part) for part in parts[:2]]
    known = set("0123456789abcdef-")
    return len(parts) > 2 and shape == [12, 8] and known.issuperset(name)


def machine_number(machine: str) -> str:
    """A checksum of a machine's identity, in eight characters."""
    import binascii

    return f"{binascii.crc32(machine.encode()):08x}"


def holder_in(name: str) -> tuple[str, str]:
    """The machine's number and the process in a lease's name; empty if it has none."""
    parts = name.split("-")
    return (parts[1], ":".join(parts[2:])) if len(parts) > 2 else ("", "")


def _text(names: Iterable[str], lasts: float) -> bytes:
    return "\n".join([*identity(), repr(float(lasts)), *names]).encode()


def _lock(descriptor: int) -> None:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # No locks there: the process table and the file's time say enough.
        return


class Lease:
    """A lease that this process holds until it is released, or the process ends.

    Attributes:
        file: its path.
        name: of the file.
    """

    __slots__ = ("_descriptor", "_lasts", "_names", "_released", "file", "name")

    def __init__(self, file: str, descriptor: int, lasts: float) -> None:
        self.file = file
        self._names: set[str] = set()
        self.name = os.path.basename(file)
        self._descriptor = descriptor
        self._lasts = lasts
        self._released = False

    @classmethod
    def none(cls) -> Lease:
        """A lease on nothing, for a store that cannot be written."""
        made = cls("", -1, 0.0)
        made._released = True
        return made

    def outlive_exec(self) -> None:
        """Keeps the lock over an exec: the program that follows holds the lease."""
        if not self._released:
            os.set_inheritable(self._descriptor, True)

    def hold(self, names: Iterable[str]) -> None:
        """Holds those names from now on, and no others.

        Raises:
            OSError: it cannot be written.
        """
        self._names = set(names)
        text = _text(sorted(self._names), self._lasts)
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))

    def add(self, name: str) -> None:
        """Holds that name too.

        Raises:
            OSError: it cannot be written.
        """
        if name not in self._names:
            self.hold({*self._names, name})

    def keep_renewing(self) -> None:
        """Renews it in a thread, for holders that other machines cannot see."""
        keep_renewing(self.file, self._lasts, lambda: self._released)

    def release(self) -> None:
        """Gives it back."""
        if self._released:
            return
        self._released = True
        os.close(self._descriptor)
        try:
            os.unlink(self.file)
        except OSError:
            return


def keep_renewing(file: str, lasts: float, over: Callable[[], bool] = lambda: False) -> None:
    """Renews a lease's file in a thread, until it is over or the file is gone."""
    import _thread

    def renew() -> None:
        while not over():
            try:
                os.utime(file)
            except FileNotFoundError:
                return
            except OSError:
                # A disk may recover before the lease runs out.
                pass
            time.sleep(lasts / _RENEWALS_PER_LEASE)

    _thread.start_new_thread(renew, ())
    # A fork has no threads.
    os.register_at_fork(after_in_child=lambda: _thread.start_new_thread(renew, ()))
