"""What a real import in a fresh interpreter showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Libraries = Mapping[str, tuple[str, ...]]
"""Shared libraries that a process has mapped: name as far as ``.so``, to the files of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """The outcome for one package.

    Attributes:
        ok: every promised import and the check passed.
        reason: otherwise, what failed and how, in a sentence.
        seconds: what its imports and check took.
        trace: the traceback, for ``--verbose``.
        late: it failed because its time was over.
        unwritten: why bytecode that was to be kept could not be written; empty where it was.
        libraries: shared libraries that were mapped once the package had passed.
    """

    package: str
    ok: bool
    reason: str = ""
    seconds: float = 0.0
    trace: str = ""
    late: bool = False
    unwritten: str = ""
    libraries: Libraries = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """What an import looked for in its interpreter, whether it was there or not.

    Attributes:
        modules: top-level names that it looked for.
        found: those that were there, and all others that were loaded on the way.
        distributions: names whose metadata it asked for, canonical.
        groups: of entry points, over all distributions; `EVERYTHING` where it asked for more.
        libraries: shared libraries that were mapped on the way.
    """

    modules: frozenset[str]
    found: frozenset[str]
    distributions: frozenset[str]
    groups: frozenset[str]
    libraries: Libraries


EVERYTHING = "*"
"""Stands for every group of entry points: the metadata of all distributions was asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Brought:
    """What layers put on the path.

    Attributes:
        modules: top-level names.
        distributions: canonical names.
        groups: of entry points.
        has_pth: whether a ``.pth`` file runs before anything is imported.
    """

    modules: frozenset[str]
    distributions: frozenset[str]
    groups: frozenset[str]
    has_pth: bool
