"""What this machine has to build with: processors, memory, compilers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from preheat.edges.process.limits import available_memory, available_processors
from preheat.words.building import Workshop
from preheat.words.cuda import Cuda

_COMPILERS = ("c++", "g++", "clang++")


def read_workshop(cuda: Cuda, environ: Mapping[str, str], free: int) -> Workshop:
    """What builds can use now.

    Args:
        cuda: with the toolkit that was found.
        environ: whose CXX and PATH count.
        free: bytes that a build may take on its disk.
    """
    stated = [environ["CXX"].split()[0]] if environ.get("CXX", "").strip() else []
    path = environ.get("PATH", os.defpath)
    compilers = (shutil.which(name, path=path) for name in (*stated, *_COMPILERS))
    return Workshop(
        processors=available_processors(),
        memory=available_memory(),
        free=free,
        compiler=next(filter(None, compilers), ""),
        nvcc=cuda.nvcc.value if cuda.nvcc else "",
        toolkit=cuda.toolkit.value if cuda.toolkit else "",
    )
