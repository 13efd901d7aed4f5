"""Which distributions hold parts of one regular package, and must lie in one layer (PEP 420).

A directory with an ``__init__`` is *regular*: Python takes it from one place on the path and
looks nowhere else. So everything below a regular directory must lie in one layer, and no layer may
hold a part of one that the platform owns, nor hide one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Stray top-level directories that many wheels ship by accident; nothing imports them.
_STRAY = frozenset(
    {"test", "tests", "testing", "doc", "docs", "example", "examples", "benchmarks", "scripts"}
    | {"bin", "share", "etc", "include", "headers", "data", "tools", "assets"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Territory:
    """The directories that a distribution's files lie in.

    Attributes:
        regular: the topmost regular packages, as ``google/cloud/speech``.
        directories: every directory with a file of it, and their parents.
    """

    regular: frozenset[str]
    directories: frozenset[str]

    def shared_with(self, other: Territory) -> str | None:
        """A regular package of either one that holds files of both, if there is one."""
        mine = self.regular & other.directories
        theirs = other.regular & self.directories
        return min(mine | theirs, default=None)


def territory(files: Iterable[str]) -> Territory:
    """Where a distribution lives, from the paths of its files below site-packages."""
    with_init: set[str] = set()
    directories: set[str] = set()
    for path in files:
        parent, _, base = path.rpartition("/")
        if parent in directories and not base.startswith("__init__."):
            continue
        top = path.partition("/")[0]
        if not parent or top in _STRAY or top.startswith(".."):
            continue
        if top.endswith((".dist-info", ".egg-info", ".libs", ".data")) or top == "__pycache__":
            continue
        if base.startswith("__init__.") and base.endswith((".py", ".pyc", ".so")):
            with_init.add(parent)
        while parent and parent not in directories:
            directories.add(parent)
            parent = parent.rpartition("/")[0]
    regular = {place for place in with_init if not _inside_any(place, with_init)}
    return Territory(regular=frozenset(regular), directories=frozenset(directories))


def groups(territories: Mapping[str, Territory]) -> dict[str, tuple[str, ...]]:
    """For each name, the names that must share its layer, itself included, in given order."""
    leader = {name: name for name in territories}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    holders: dict[str, list[str]] = {}
    for name, place in territories.items():
        for directory in place.directories:
            holders.setdefault(directory, []).append(name)
    for name, place in territories.items():
        for directory in place.regular:
            for other in holders[directory]:
                leader[find(other)] = find(name)
    members: dict[str, list[str]] = {}
    for name in territories:
        members.setdefault(find(name), []).append(name)
    return {name: tuple(members[find(name)]) for name in territories}


def _inside_any(place: str, others: set[str]) -> bool:
    parent = place.rpartition("/")[0]
    while parent:
        if parent in others:
            return True
        parent = parent.rpartition("/")[0]
    return False
