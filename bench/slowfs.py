"""A filesystem that is slow on purpose: a directory behind FUSE, with a delay for each operation.

It runs in a process of its own: ``python -m bench.slowfs DIRECTORY MOUNTPOINT SECONDS``. The kernel
keeps names and attributes for a second, as it does for network filesystems; reads are of 128 KiB,
several at once.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mfusepy as fuse

from bench import ground


def slowed(kind: type) -> type:
    """The same class, each operation of which waits first, as long as its ``delay`` says."""

    def waiting(work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def wait(self: Any, *arguments: Any) -> Any:
            time.sleep(self.delay)
            return work(self, *arguments)

        return wait

    for name, work in list(vars(kind).items()):
        if callable(work) and not name.startswith("_"):
            setattr(kind, name, waiting(work))
    return kind


@slowed
class Slow(fuse.Operations):  # type: ignore[misc]  # it is typed, its base is not
    """The operations of a directory, each after the delay."""

    use_ns = True

    def __init__(self, directory: str, delay: float) -> None:
        self._directory = directory
        self.delay = delay

    def _at(self, path: str) -> str:
        return self._directory + path

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.lstat(self._at(path))
        found = {
            key: getattr(status, key)
            for key in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks")
        }
        times = {key: getattr(status, f"{key}_ns") for key in ("st_atime", "st_mtime", "st_ctime")}
        return {**found, **times}

    def readdir(self, path: str, fh: int) -> Iterator[str]:
        yield from (".", "..", *os.listdir(self._at(path)))

    def readlink(self, path: str) -> str:
        return os.readlink(self._at(path))

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._at(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._at(path))
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._at(path))
        return 0

    def symlink(self, target: str, source: str) -> int:
        os.symlink(source, self._at(target))
        return 0

    def link(self, target: str, source: str) -> int:
        os.link(self._at(source), self._at(target))
        return 0

    def rename(self, old: str, new: str) -> int:
        os.rename(self._at(old), self._at(new))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._at(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.lchown(self._at(path), uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        os.utime(self._at(path), ns=times or (time.time_ns(), time.time_ns()))
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._at(path), length)
        return 0

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags)

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self._at(path), os.O_CREAT | os.O_RDWR, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def flush(self, path: str, fh: int) -> int:
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        os.fsync(fh)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._at(path))
        return {key: getattr(found, key) for key in dir(found) if key.startswith("f_")}


def no_fuse() -> str | None:
    """Why there can be no such filesystem here."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        return "needs root and /dev/fuse"
    return None


@contextlib.contextmanager
def mounted(directory: Path, point: Path, delay: float) -> Iterator[None]:
    """That directory at that point, from a fresh mount: nothing of it is in the kernel's caches.

    Raises:
        SystemExit: it cannot be mounted.
    """
    point.mkdir(parents=True, exist_ok=True)
    command = (sys.executable, "-m", "bench.slowfs", str(directory), str(point), str(delay))
    server = subprocess.Popen(command, cwd=ground.PROJECT)
    try:
        until = time.monotonic() + 20
        while not os.path.ismount(point):
            if server.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{point} cannot be mounted")
            time.sleep(0.02)
        yield
    finally:
        subprocess.run(("/bin/umount", "--lazy", str(point)), check=False)
        # Whatever copied this mount namespace meanwhile would keep the server alive.
        server.kill()
        server.wait()


if __name__ == "__main__":
    slow = Slow(sys.argv[1], float(sys.argv[3]))
    fuse.FUSE(slow, sys.argv[2], foreground=True, allow_other=True, max_threads=16)
