"""Atomic, durable writes: a reader sees the whole file or nothing, and it outlasts a power loss."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from preheat import lease
from preheat.words.errors import StoreError

_RENAME_NOREPLACE = 1
_AT_FDCWD = -100
# A writer of a small file, on another machine, that takes longer must be dead.
_ABANDONED_AFTER_SECONDS = 3600.0
_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-((\d+)(?:-\d+)?)\.[0-9a-f]{8}")


def write_atomically(file: Path, data: bytes) -> None:
    """Replaces a small file whole.

    Raises:
        StoreError: the disk refuses.
    """
    staged = temporary_name(file)
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


def write_if_possible(file: Path, text: str) -> None:
    """Replaces a small file that may be lost: nothing waits for the disk, and none may refuse."""
    staged = temporary_name(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(text, encoding="utf-8")
        staged.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            staged.unlink()


def temporary_name(file: Path) -> Path:
    """A hidden name beside a file, which says who is about to write it."""
    machine, process = lease.identity()
    who = f"{lease.machine_number(machine)}-{process.replace(':', '-')}"
    return file.with_name(f".{file.name}.{who}.{uuid.uuid4().hex[:8]}")


def drop_abandoned(directory: Path) -> None:
    """Removes the temporary files that writers left which live no more."""
    machine = lease.machine_number(lease.identity()[0])
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for found in filter(None, map(_TEMPORARY.fullmatch, names)):
        host, process, number = found.groups()
        file = directory / found.group()
        with contextlib.suppress(OSError):
            if host == machine:
                dead = lease.process(number) != process.replace("-", ":")
            else:
                dead = filesystem_time(directory) - file.lstat().st_mtime > _ABANDONED_AFTER_SECONDS
            if dead:
                file.unlink()


def refusal(place: Path) -> int:
    """The errno with which the filesystem refuses one more block; 0 where it takes it.

    Written through: some filesystems answer a full quota to the closing of a file only.
    """
    trial = temporary_name(place / "trial")
    try:
        with trial.open("wb") as handle:
            handle.write(bytes(4096))
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        return error.errno or errno.EIO
    finally:
        with contextlib.suppress(OSError):
            trial.unlink()
    return 0


def filesystem_time(directory: Path) -> float:
    """Unix time by the clock that stamps files there: a network volume's is the server's."""
    try:
        os.utime(directory)
        return directory.stat().st_mtime
    except OSError:
        return time.time()


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
    """The StoreError for an OSError of the store's disk, with what to do about it."""
    hints = {
        errno.ENOSPC: "free some space, raise the volume's size, or name another --store",
        errno.EDQUOT: "the quota is used up: raise it, or name another --store",
        errno.EROFS: "name a --store on a writable volume",
        errno.EACCES: "name a --store that this user may write to",
        errno.EIO: "the disk answers with errors: see dmesg, or name another --store",
    }
    reason = os.strerror(error.errno) if error.errno else str(error)
    hint = hints.get(error.errno or 0, "name another --store")
    return StoreError(f"the store {place} cannot be written: {reason}", hint=hint)


@contextlib.contextmanager
def answering(store: Path) -> Iterator[None]:
    """Turns every OSError of what is done in it into a StoreError: a disk may refuse any call.

    Raises:
        StoreError: for every OSError.
    """
    try:
        yield
    except OSError as error:
        raise failed(store, error) from error


def failed(store: Path, error: OSError) -> StoreError:
    """The StoreError for an OSError during a start, of the store's disk or of another one."""
    where = Path(os.fsdecode(error.filename or store))
    if store in (where, *where.parents):
        return unwritable(store, error)
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StoreError(
        f"{where} cannot be used: {reason}",
        hint="free some space there, or name another place (TMPDIR, for temporary files)",
    )


def _rename_noreplace(source: Path, target: Path) -> int:
    try:
        call = _libc().renameat2
    except AttributeError:
        return errno.ENOSYS
    failed = call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE)
    return ctypes.get_errno() if failed else 0


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
