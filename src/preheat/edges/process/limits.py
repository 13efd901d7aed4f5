"""What other processes may take here, as the container's limits have it: processors, memory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_processors() -> int:
    """Those that may be used, or as many as the container's quota comes to (cgroup v2 and v1)."""
    processors = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = _numbers("cpu.max") or (
            *_numbers("cpu/cpu.cfs_quota_us"),
            *_numbers("cpu/cpu.cfs_period_us"),
        )
        if quota > 0:
            processors = min(processors, max(1, quota // period))
    return processors


def available_memory() -> int:
    """Bytes that the kernel says are available, or what the container's limit leaves.

    The cache that counts against a container's limit is given up when memory is short.
    """
    available = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in _MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    for limit, used, table, row in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        with contextlib.suppress(OSError, ValueError):
            (most,), (now,) = _numbers(limit), _numbers(used)
            rows = (_CGROUP / table).read_text(encoding="ascii").splitlines()
            cached = dict(each.split(" ", 1) for each in rows).get(row, "0")
            available = min(available, max(0, most - now + int(cached)))
    return available


def _numbers(name: str) -> tuple[int, ...]:
    """The numbers in a file of the container's control group; none where it states no limit."""
    try:
        words = (_CGROUP / name).read_text(encoding="ascii").split()
    except FileNotFoundError:
        return ()
    return () if words[0] == "max" else tuple(map(int, words))
