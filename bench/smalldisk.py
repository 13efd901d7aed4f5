"""Filesystems of a chosen size, and how full they came to be.

They are mounted where only this process and its children see them, so that nothing stays mounted,
whatever ends the measurement.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_WIDEST = 2_000_000_000
_PAGE = 4096
# Ten samples in the time that a fast disk takes for its last 50 MB.
_PERIOD = 0.002


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """What a filesystem can still take: bytes and inodes."""

    bytes: int
    inodes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A filesystem to measure on.

    Attributes:
        name: the type, as mount(8) has it: ``tmpfs`` or ``ext4``.
        inodes: how many it is made with; None for as many as it likes.
    """

    name: str
    inodes: int | None = None

    def __str__(self) -> str:
        return self.name if self.inodes is None else f"{self.name}, few inodes"


class Disk:
    """A mounted filesystem of that kind; `cut` says how much of it is left."""

    def __init__(self, kind: Kind, root: Path) -> None:
        self.kind = kind
        self.root = root

    def space(self) -> Space:
        """What is free to an ordinary user now."""
        stats = os.statvfs(self.root)
        return Space(bytes=stats.f_bavail * stats.f_frsize, inodes=stats.f_favail)

    def settled(self) -> Space:
        """What is free once everything that was written is on the disk."""
        _run("sync", "-f", str(self.root))
        return self.space()

    def cut(self, free: int) -> None:
        """Leave that many bytes free, exactly to a block."""
        self.settled()
        if self.kind.name == "tmpfs":
            stats = os.statvfs(self.root)
            used = (stats.f_blocks - stats.f_bfree) * stats.f_frsize
            whole = (used + free) // _PAGE * _PAGE
            _run("mount", "-o", f"remount,size={whole}", str(self.root))
            return
        # A file that only takes room: the filesystem keeps its own proportions.
        with (self.root / "ballast").open("wb") as ballast:
            size = self.space().bytes - free
            os.posix_fallocate(ballast.fileno(), 0, max(_PAGE, size))
            while (short := free - self.settled().bytes) > 0:
                size -= short
                ballast.truncate(size)


@contextlib.contextmanager
def mounted(kind: Kind, place: Path) -> Iterator[Disk]:
    """Mount a new filesystem below that directory, and take it away in the end."""
    root, image = place / "disk", place / "image"
    root.mkdir(parents=True, exist_ok=True)
    if kind.name == "tmpfs":
        inodes = f",nr_inodes={kind.inodes}" if kind.inodes else ""
        options = ["-t", "tmpfs", "-o", f"size={_WIDEST}{inodes},mode=755", "none"]
    else:
        with image.open("wb") as file:
            file.truncate(_WIDEST)
        # No blocks for root alone: it is root who installs.
        make = ("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1")
        count = ("-N", str(kind.inodes)) if kind.inodes else ()
        _run(*make, *count, str(image))
        options = ["-o", "loop,noatime", str(image)]
    _run("mount", *options, str(root))
    try:
        yield Disk(kind, root)
    finally:
        _unmount(root)
        image.unlink(missing_ok=True)


@contextlib.contextmanager
def in_memory(place: Path) -> Iterator[Path]:
    """A directory in memory, for what must not wait for the machine's disk."""
    place.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "none", str(place))
    try:
        yield place
    finally:
        _unmount(place)


def keep_mounts_private() -> None:
    """Mounts made from now on are seen by this process and its children, and end with them.

    Raises:
        OSError: this process may not do so.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    _run("mount", "--make-rprivate", "/")


@dataclass(kw_only=True, slots=True)
class Lowest:
    """The least that was free at any moment that was looked at."""

    bytes: int
    inodes: int

    def meet(self, space: Space) -> None:
        """Take one look into account."""
        self.bytes = min(self.bytes, space.bytes)
        self.inodes = min(self.inodes, space.inodes)


@contextlib.contextmanager
def watched(disk: Disk) -> Iterator[Lowest]:
    """Look all the time how much is free."""
    begin = disk.space()
    lowest = Lowest(bytes=begin.bytes, inodes=begin.inodes)
    over = threading.Event()

    def look() -> None:
        while not over.wait(_PERIOD):
            lowest.meet(disk.space())

    thread = threading.Thread(target=look, name="statvfs")
    thread.start()
    try:
        yield lowest
    finally:
        over.set()
        thread.join()
        lowest.meet(disk.settled())


def _unmount(root: Path) -> None:
    """What somebody still holds open is let go of; the namespace ends it in the end."""
    for _ in range(20):
        try:
            _run("umount", str(root))
        except subprocess.CalledProcessError:
            time.sleep(0.1)
        else:
            return
    _run("umount", "--lazy", str(root))


def _run(name: str, *arguments: str) -> None:
    """Run a program of the system, wherever it lies; /usr/sbin is not on everyone's path."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    program = shutil.which(name, path=path)
    if program is None:
        raise FileNotFoundError(f"{name} is not installed")
    subprocess.run((program, *arguments), check=True, capture_output=True)
