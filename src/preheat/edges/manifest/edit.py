"""Writes into a manifest that a person keeps: comments and order stay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tomlkit
from tomlkit.items import AoT

from preheat.edges.disk.atomic import write_atomically
from preheat.edges.manifest.file import PROJECT
from preheat.words.errors import ManifestError


def add_excludes(file: Path, excludes: Mapping[str, tuple[str, ...]]) -> None:
    """Adds names to the ``exclude`` of packages.

    Args:
        file: ``preheat.toml``, or a ``pyproject.toml`` with ``[tool.preheat]``.
        excludes: package to the names that are added.

    Raises:
        ManifestError: the file cannot be read, or no longer has such a package.
        StoreError: it cannot be written.
    """
    try:
        document = tomlkit.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ManifestError(f"{file} cannot be read: {error}") from error
    table = document["tool"]["preheat"] if file.name == PROJECT else document
    packages = table.get("package")
    left = dict(excludes)
    for package in packages if isinstance(packages, AoT) else ():
        added = left.pop(str(package.get("name")), None)
        if added is not None:
            names = sorted({*map(str, package.get("exclude", ())), *added})
            array = tomlkit.array()
            array.extend(names)
            package["exclude"] = array.multiline(len(names) > 1)
    if left:
        raise ManifestError(
            f"{file} has no [[package]] named {', '.join(left)} that could be edited",
            hint="add the exclude lines by hand",
        )
    write_atomically(file, tomlkit.dumps(document).encode())
