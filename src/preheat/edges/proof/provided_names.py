"""What layers put on the path: the names of modules, distributions and entry points."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable

from packaging.utils import canonicalize_name

from preheat.words.proof import Brought

_GROUP = re.compile(r"^\[(.+)\]\s*$", re.MULTILINE)
_METADATA = (".dist-info", ".egg-info")
_MODULES = (".py", ".so")


def brought(layers: Iterable[str], *, has_pth: bool) -> Brought:
    """Reads the layers' directories, and the entry points of their distributions.

    Raises:
        OSError: a layer cannot be read.
    """
    modules: set[str] = set()
    distributions: set[str] = set()
    groups: set[str] = set()
    for layer in layers:
        for entry in os.scandir(layer):
            stem, suffix = os.path.splitext(entry.name)
            if suffix in _METADATA:
                distributions.add(canonicalize_name(stem.split("-")[0]))
                with contextlib.suppress(FileNotFoundError):
                    groups.update(_groups(entry.path))
            elif suffix in _MODULES or entry.is_dir():
                modules.add(entry.name.partition(".")[0])
    return Brought(
        modules=frozenset(modules),
        distributions=frozenset(distributions),
        groups=frozenset(groups),
        has_pth=has_pth,
    )


def _groups(metadata: str) -> list[str]:
    with open(os.path.join(metadata, "entry_points.txt"), encoding="utf-8") as file:
        return _GROUP.findall(file.read())
