"""Phrases that findings are made of: short lists, verbs and sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from preheat.decisions.health import remedies
from preheat.words.platform import Distribution


def label(one: Distribution) -> str:
    """Name and version."""
    return f"{one.name} {one.version or remedies.version_in(one.metadata)}".rstrip()


def base_name(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]


def listed(names: Iterable[str]) -> str:
    """The first three, and how many more."""
    some = list(names)
    more = f" and {len(some) - 3} more" if len(some) > 3 else ""
    return ", ".join(some[:3]) + more


def are(names: Sequence[str]) -> str:
    """The verb for them."""
    return "is" if len(names) == 1 else "are"


def were(names: Sequence[str]) -> str:
    """The verb for them, once each."""
    return "was" if len(set(names)) == 1 else "were"


def require(names: Sequence[str]) -> str:
    """The verb for them."""
    return "requires" if len(names) == 1 else "require"


def size_in_brackets(size: int) -> str:
    """Bytes in MB, in brackets; empty where it is too little to matter."""
    return f" ({size / 1e6:,.1f} MB)" if size >= 100_000 else ""
