"""Whether a directory is as it was, told by what a write leaves behind; no file is read."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

from preheat.words.errors import PlatformChangedError

# Size, mtime, inode, mode, ctime and links of a file. Tuples, since an image has tens of thousands.
Trace = tuple[int, int, int, int, int, int]
Fingerprint = dict[str, Trace]


def fingerprint(places: Iterable[str]) -> Fingerprint:
    """What every path below the places shows without being read."""
    found: Fingerprint = {}
    left = list(places)
    while left:
        with contextlib.suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                try:
                    trace = _trace(entry.stat(follow_symlinks=False))
                except OSError:
                    # It has just gone.
                    continue
                found[entry.path] = trace
                if stat.S_ISDIR(trace[3]):
                    left.append(entry.path)
    return found


def _trace(status: os.stat_result) -> Trace:
    directory = stat.S_ISDIR(status.st_mode)
    return (
        0 if directory else status.st_size,
        status.st_mtime_ns,
        status.st_ino,
        status.st_mode,
        status.st_ctime_ns,
        status.st_nlink,
    )


def changes(before: Fingerprint, after: Fingerprint) -> tuple[str, ...]:
    """Paths that were added, removed or written, sorted."""
    if before == after:
        return ()
    gone = before.keys() ^ after.keys()
    written = [p for p in before.keys() & after.keys() if _written(before[p], after[p])]
    return tuple(sorted([*gone, *written]))


def _written(before: Trace, after: Trace) -> bool:
    """Whether somebody wrote between the two.

    The ctime counts only where a file has one name: a hardlink that comes or goes elsewhere, in
    the cache of an installer say, changes it too.
    """
    *mine, ctime, links = before
    *theirs, later, links_later = after
    return mine != theirs or (links == links_later == 1 and ctime != later)


def refuse_changes(before: Fingerprint, places: Iterable[str]) -> None:
    """Nothing is published beside a platform that is not as it was found.

    Raises:
        PlatformChangedError: with the first files that changed.
    """
    found = changes(before, fingerprint(places))
    if found:
        raise PlatformChangedError(
            f"{len(found)} files of the platform changed during the start, {found[0]} first; "
            "nothing more is published",
            hint="stop whatever else writes to the platform, then start again",
            paths=found[:5],
        )
