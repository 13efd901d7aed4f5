"""Writing so that a reader sees the whole or nothing, and so that it outlasts a power loss."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import uuid
from pathlib import Path

from preheat.words.errors import StoreError

_RENAME_NOREPLACE = 1
_AT_FDCWD = -100


def write_atomically(file: Path, data: bytes) -> None:
    """Replaces a small file whole.

    Raises:
        StoreError: the disk refuses.
    """
    staged = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        staged.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            staged.unlink()
        raise unwritable(file.parent, error) from error


def sync_filesystem(place: Path) -> None:
    """syncfs(2): one call for thousands of files.

    Raises:
        OSError: what was written did not reach the disk.
    """
    descriptor = os.open(place, os.O_RDONLY)
    try:
        if _libc().syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(place))
    finally:
        os.close(descriptor)


def sync_directory(place: Path) -> None:
    """Makes a rename in that directory outlive a power loss."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_new(source: Path, target: Path) -> bool:
    """Renames to a name that must be new; False where it exists already.

    renameat2(2) with RENAME_NOREPLACE, since rename(2) silently replaces an empty directory.
    Where the filesystem has no such call, a look and then rename: whoever publishes between the
    two is not replaced either, since a published layer is never empty.

    Raises:
        OSError: any other failure.
    """
    code = _rename_noreplace(source, target)
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        if os.path.lexists(target):
            return False
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        return True
    if code == errno.EEXIST:
        return False
    if code:
        raise OSError(code, os.strerror(code), str(source), None, str(target))
    return True


def unwritable(place: Path, error: OSError) -> StoreError:
    """The error for a store that cannot be written, with what to do about it."""
    hints = {
        errno.ENOSPC: "free some space, raise the volume's size, or name another --store",
        errno.EDQUOT: "the quota is used up: raise it, or name another --store",
        errno.EROFS: "name a --store on a writable volume",
        errno.EACCES: "name a --store that this user may write to",
    }
    reason = os.strerror(error.errno) if error.errno else str(error)
    hint = hints.get(error.errno or 0, "name another --store")
    return StoreError(f"the store {place} cannot be written: {reason}", hint=hint)


def _rename_noreplace(source: Path, target: Path) -> int:
    try:
        call = _libc().renameat2
    except AttributeError:
        return errno.ENOSYS
    failed = call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE)
    return ctypes.get_errno() if failed else 0


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
