"""What filesystems have free, and what they can do."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace

from preheat.words.cleaning import Shortage
from preheat.words.platform import Volume

# Their link(2) answers EPERM, EOPNOTSUPP or ENOSYS, whoever asks.
_LINKLESS = frozenset({"vfat", "msdos", "exfat", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone"})
_NETWORK_FILESYSTEMS = ("fuse", "nfs", "cifs", "smb", "ceph", "lustre", "9p", "gluster", "virtiofs")


def read_volumes(places: Mapping[str, str | os.PathLike[str]]) -> tuple[Volume, ...]:
    """One Volume for each role, measured at the nearest directory that exists already.

    A filesystem that several roles share is measured at one moment, while others write to it.
    Nothing is written. Whether there are hardlinks from ``cache`` is told from mounts and types:
    link(2) crosses no mount, not even between two of one filesystem.
    """
    mounts = _mounts()
    existing = {role: nearest_directory(path) for role, path in places.items()}
    points = {role: _point(path, mounts) for role, path in existing.items()}
    cache = points.get("cache")
    moments: dict[tuple[int, int], os.statvfs_result] = {}
    volumes = []
    for role, path in existing.items():
        stats = os.statvfs(path)
        # Where a quota holds for a directory of it, the size differs, and so it counts as another.
        stats = moments.setdefault((os.stat(path).st_dev, stats.f_blocks), stats)
        volume = _volume(role, path, mounts.get(points[role], "unknown"), stats)
        links = cache in (None, points[role]) and mounts.get(points[role]) not in _LINKLESS
        volumes.append(replace(volume, links=links))
    return tuple(volumes)


def free_bytes(path: str | os.PathLike[str]) -> int:
    """What an ordinary user may still write on the filesystem that a path is, or will be, on."""
    stats = os.statvfs(nearest_directory(path))
    return stats.f_bavail * stats.f_frsize


def is_over(shortage: Shortage) -> bool:
    """Whether that much is free by now."""
    stats = os.statvfs(nearest_directory(shortage.path))
    wanted = shortage.inodes
    few = wanted is not None and stats.f_files > 0 and stats.f_favail < wanted
    return stats.f_bavail * stats.f_frsize >= shortage.bytes and not few


def device_of(path: str | os.PathLike[str]) -> int:
    """The device that a path is, or will be, on."""
    return os.stat(nearest_directory(path)).st_dev


def nearest_directory(path: str | os.PathLike[str]) -> str:
    """The path itself, or the nearest directory above it that exists already."""
    existing = os.path.abspath(path)
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    return existing


def mount_point(path: str | os.PathLike[str]) -> str:
    """Where the filesystem of a path, which exists, is mounted."""
    return _point(os.fspath(path), _mounts())


def _point(path: str, mounts: Mapping[str, str]) -> str:
    real = os.path.realpath(path)
    while real not in mounts and real != "/":
        real = os.path.dirname(real)
    return real


def _volume(role: str, existing: str, kind: str, stats: os.statvfs_result) -> Volume:
    return Volume(
        role=role,
        path=existing,
        device=os.stat(existing).st_dev,
        kind=kind,
        block=stats.f_frsize or 4096,
        # Only the ext family spends a block on every directory.
        directory=4096 if kind.startswith(("ext", "overlay")) else 0,
        free=stats.f_bavail * stats.f_frsize,
        inodes=stats.f_favail if stats.f_files else None,
        quota_known=not kind.startswith(_NETWORK_FILESYSTEMS),
    )


def _mounts() -> dict[str, str]:
    """Mount point to filesystem type, from proc(5) mountinfo; later mounts cover earlier ones."""
    mounts: dict[str, str] = {}
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                point = re.sub(
                    r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), before.split()[4]
                )
                mounts[point] = after.split()[0]
    except OSError:
        pass
    return mounts
