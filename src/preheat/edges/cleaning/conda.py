"""Which of conda's extracted packages no environment was made of."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def unused_packages(cache: str, home: str) -> tuple[str, ...]:
    """Names of the extracted packages in a package cache that no environment names.

    An environment lists what it was made of in ``conda-meta``, one file for each package. What is
    listed stays, since its files may be links into the cache.

    Args:
        cache: a ``pkgs`` directory.
        home: whose environments outside the installation are counted too.
    """
    if not (Path(cache).parent / "conda-meta").is_dir():
        # A cache of its own: whose environments use it, nobody can tell.
        return ()
    used: set[str] = set()
    for environment in _environments(Path(cache).parent, Path(home)):
        used.update(name.removesuffix(".json") for name in _names(environment / "conda-meta"))
    return tuple(
        name
        for name in _names(Path(cache))
        if name not in used and (Path(cache) / name / "info" / "index.json").is_file()
    )


def _environments(root: Path, home: Path) -> Iterable[Path]:
    yield root
    yield from (root / "envs" / name for name in _names(root / "envs"))
    try:
        listed = (home / ".conda" / "environments.txt").read_text(encoding="utf-8")
    except OSError:
        return
    yield from map(Path, listed.split("\n"))


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []
