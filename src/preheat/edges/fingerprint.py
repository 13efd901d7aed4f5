"""Whether a directory is as it was, told by what a write leaves behind; no file is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trace:
    """What a write to a file leaves behind.

    Attributes:
        ctime: counts only where the file has one name: a hardlink that comes or goes elsewhere,
            in the cache of an installer say, changes it too.
    """

    size: int
    mtime: int
    inode: int
    mode: int
    ctime: int
    links: int

    def differs(self, other: Trace) -> bool:
        """Whether somebody wrote between the two."""
        mine = (self.size, self.mtime, self.inode, self.mode)
        theirs = (other.size, other.mtime, other.inode, other.mode)
        alone = self.links == other.links == 1
        return mine != theirs or (alone and self.ctime != other.ctime)


Fingerprint = dict[str, Trace]


def fingerprint(places: Iterable[str]) -> Fingerprint:
    """What every path below the places shows without being read."""
    found: Fingerprint = {}
    for place in places:
        for entry in _below(place):
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            directory = entry.is_dir(follow_symlinks=False)
            found[entry.path] = Trace(
                size=0 if directory else status.st_size,
                mtime=status.st_mtime_ns,
                inode=status.st_ino,
                mode=status.st_mode,
                ctime=status.st_ctime_ns,
                links=status.st_nlink,
            )
    return found


def changes(before: Fingerprint, after: Fingerprint) -> tuple[str, ...]:
    """Paths that were added, removed or written, sorted."""
    gone = before.keys() ^ after.keys()
    written = [p for p in before.keys() & after.keys() if before[p].differs(after[p])]
    return tuple(sorted([*gone, *written]))


def _below(place: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    yield from _below(entry.path)
    except OSError:
        return
