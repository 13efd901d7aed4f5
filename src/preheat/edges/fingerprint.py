"""Whether a directory is as it was: every file's size, times and inode, without reading any."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

Fingerprint = dict[str, tuple[int, int, int, int]]


def fingerprint(places: Iterable[str]) -> Fingerprint:
    """Every path below the places with its size, mtime, ctime and inode.

    ctime cannot be set back by a program, so a write shows even where it was hidden.
    """
    found: Fingerprint = {}
    for place in places:
        for entry in _below(place):
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            directory = entry.is_dir(follow_symlinks=False)
            size = 0 if directory else status.st_size
            found[entry.path] = (size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return found


def changes(before: Fingerprint, after: Fingerprint) -> tuple[str, ...]:
    """Paths that were added, removed or written, sorted."""
    either = before.keys() | after.keys()
    return tuple(sorted(path for path in either if before.get(path) != after.get(path)))


def _below(place: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    yield from _below(entry.path)
    except OSError:
        return
