"""How much memory there is for other processes."""

from __future__ import annotations

import contextlib
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes that the kernel says are available, or what the container's limit leaves (cgroup v2).

    The cache that counts against a container's limit is given up when memory is short.
    """
    available = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in _MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        rows = (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        cached = dict(row.split(" ", 1) for row in rows).get("inactive_file", "0")
        available = min(available, max(0, limit - used + int(cached)))
    return available
