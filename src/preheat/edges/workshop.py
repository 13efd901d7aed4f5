"""What this machine has to build with: processors, memory, compilers."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from preheat.words.building import Workshop
from preheat.words.cuda import Cuda

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_COMPILERS = ("c++", "g++", "clang++")


def read_workshop(cuda: Cuda, environ: Mapping[str, str], free: int) -> Workshop:
    """What there is now.

    Args:
        cuda: with the toolkit that was found.
        environ: whose CXX and PATH count.
        free: bytes that a build may take on its disk.
    """
    stated = [environ["CXX"].split()[0]] if environ.get("CXX", "").strip() else []
    path = environ.get("PATH", os.defpath)
    compilers = (shutil.which(name, path=path) for name in (*stated, *_COMPILERS))
    return Workshop(
        processors=len(os.sched_getaffinity(0)),
        memory=_memory(),
        free=free,
        compiler=next(filter(None, compilers), ""),
        nvcc=cuda.nvcc.value if cuda.nvcc else "",
        toolkit=cuda.toolkit.value if cuda.toolkit else "",
    )


def _memory() -> int:
    """What the kernel says is available, or less where the container's limit is lower (cgroup v2).

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
