"""Filesystems of a chosen size, which nobody but the test sees."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_NEW_MOUNTS, _OWN_DIRECTORIES = 0x20000, 0x200  # CLONE_NEWNS and CLONE_FS, sched.h


def quietly(*command: str) -> None:
    """Run it; skip the test where it cannot be."""
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        pytest.skip(f"needs {error.filename}")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{command[0]} is refused here: {error.stderr.strip()}")


@contextlib.contextmanager
def mounts_of_our_own() -> Iterator[None]:
    """Mounts that no process sees but this thread's, and that end with them at the latest."""
    libc = ctypes.CDLL(None, use_errno=True)
    home, here = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY), Path.cwd()
    if libc.unshare(_NEW_MOUNTS):
        os.close(home)
        pytest.skip(f"no mount namespace can be had here: {os.strerror(ctypes.get_errno())}")
    try:
        quietly("mount", "--make-rprivate", "/")
        yield
    finally:
        # A thread that was begun meanwhile shares its root and working directory with this one.
        left = libc.unshare(_OWN_DIRECTORIES) or libc.setns(home, _NEW_MOUNTS)
        os.chdir(here)
        os.close(home)
        assert left == 0, os.strerror(ctypes.get_errno())


def mount_tmpfs(place: Path, size: str) -> Path:
    """Mount an empty filesystem in memory, of that many bytes as mount(8) writes them."""
    place.mkdir(parents=True, exist_ok=True)
    quietly("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place))
    return place


@contextlib.contextmanager
def turn_at_loop_devices() -> Iterator[None]:
    """One of this machine's tests at a time mounts a file: a free device is found, then taken."""
    file = Path(tempfile.gettempdir(), f"preheat-tests-loop-devices-{os.geteuid()}")
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
