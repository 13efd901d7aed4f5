"""Small questions to files and directories, where an answer of nothing is no error."""

from __future__ import annotations

import os

_BLOCK_BYTES = 512
"""The unit of st_blocks, whatever the filesystem's own blocks are (stat(2))."""


def names_in(directory: str | os.PathLike[str] | int) -> list[str]:
    """The names in a directory, sorted; none where it cannot be read."""
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def bytes_of_blocks(status: os.stat_result) -> int:
    """What a file takes on its disk, as du counts it."""
    return status.st_blocks * _BLOCK_BYTES
