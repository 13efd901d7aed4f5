"""Which of conda's extracted packages no environment was made of."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from preheat.edges.disk.files import names_in


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
        used.update(name.removesuffix(".json") for name in names_in(environment / "conda-meta"))
    return tuple(
        name
        for name in names_in(Path(cache))
        if name not in used and (Path(cache) / name / "info" / "index.json").is_file()
    )


def _environments(root: Path, home: Path) -> Iterable[Path]:
    yield root
    yield from (root / "envs" / name for name in names_in(root / "envs"))
    try:
        listed = (home / ".conda" / "environments.txt").read_text(encoding="utf-8")
    except OSError:
        return
    yield from map(Path, listed.split("\n"))
