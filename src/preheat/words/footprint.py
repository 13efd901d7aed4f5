"""What files occupy on a disk."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """What a layer occupies on the volume that it lies on.

    Attributes:
        payload: bytes of the files themselves, without bytecode.
        disk: bytes of blocks, directories and bytecode included.
        inodes: files and directories.
        files, directories: how many of them the archives bring, without those of bytecode.
        exact: False where a part of it is an estimate.
    """

    payload: int = 0
    disk: int = 0
    inodes: int = 0
    files: int = 0
    directories: int = 0
    exact: bool = True
