"""Tests a store's filesystem: makes one file, locks it twice, links it once, and removes it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
import uuid
from pathlib import Path

from preheat.edges.disk.volumes import mount_point
from preheat.words.examination import Locking, Trial

NAME = ".preheat-doctor-"
"""How the file's name begins; it is gone when the trial is over."""

_EXIT_LOCK_REFUSED = 3
# In a process of its own: some filesystems keep their locks by process.
_TRY = f"""
import errno, fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(1)
    except OSError:
        sys.exit({_EXIT_LOCK_REFUSED})
"""
_TIMEOUT_SECONDS = 30.0


def try_store(root: Path) -> Trial:
    """What the store's filesystem really does, or that of its nearest existing parent."""
    place = root
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    mount = mount_point(place)
    if not place.is_dir():
        return Trial(place=str(place), mount=mount, error=errno.ENOTDIR)
    file = place / f"{NAME}{uuid.uuid4().hex}"
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except OSError as error:
        return Trial(place=str(place), mount=mount, error=error.errno or errno.EIO)
    try:
        # Some filesystems take the name and refuse the bytes.
        try:
            os.write(descriptor, b"preheat doctor\n")
            os.fsync(descriptor)
        except OSError as error:
            return Trial(place=str(place), mount=mount, error=error.errno or errno.EIO)
        return Trial(
            place=str(place),
            mount=mount,
            locking=_locking(descriptor, file),
            links=_links(file),
        )
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            file.unlink()


def _locking(descriptor: int, file: Path) -> Locking:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return Locking.REFUSED
    second = os.open(file, os.O_RDWR)
    try:
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Locking.EXCLUDES if _other_process(file) == 1 else Locking.ONE_PROCESS
    except OSError:
        return Locking.REFUSED
    else:
        return Locking.NOT_AT_ALL
    finally:
        os.close(second)


def _other_process(file: Path) -> int:
    return subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", _TRY, str(file)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    ).returncode


def _links(file: Path) -> bool:
    link = file.with_name(f"{file.name}.link")
    try:
        os.link(file, link)
    except OSError:
        return False
    with contextlib.suppress(OSError):
        link.unlink()
    return True
