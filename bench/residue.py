"""Which files on a disk belong to a package, and which bytes belong to none."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_ENVIRONMENT: Mapping[str, str] = {key: str(each) for key, each in default_environment().items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Holding:
    """What packages hold, with everything that they require.

    Attributes:
        files: absolute paths.
        missing: of those, what is not there.
    """

    files: frozenset[str]
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """Bytes of blocks, and inodes; a file with several names counts once."""

    bytes: int = 0
    inodes: int = 0


@dataclass(kw_only=True, slots=True)
class Snapshot:
    """What lay on a disk: path to size and time of change."""

    entries: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path) -> Snapshot:
        """Look at everything below that directory."""
        return cls(entries={path: _sign(status) for path, status in _below(str(root))})

    def changed(self, root: Path) -> list[str]:
        """Files that are gone or are not as they were; what was added does not count."""
        now = Snapshot.of(root).entries
        return [
            path
            for path, was in self.entries.items()
            if path.startswith(f"{root}{os.sep}") and now.get(path) != was
        ]


def holding(sites: Sequence[Path], packages: Iterable[str]) -> Holding:
    """The files of those distributions and of all that they require, by their RECORD."""
    present: dict[str, Distribution] = {}
    for each in distributions(path=[str(site) for site in sites]):
        name = each.metadata["Name"]
        if name:
            present.setdefault(canonicalize_name(name), each)
    files: set[str] = set()
    for name in _closure(packages, present):
        each = present[name]
        files.update(os.path.normpath(str(each.locate_file(file))) for file in each.files or ())
    missing = tuple(sorted(file for file in files if not os.path.lexists(file)))
    return Holding(files=frozenset(files), missing=missing)


def weigh(root: Path, kept: Holding) -> Weight:
    """What those files occupy, with their bytecode and directories."""
    owned, _ = _sorted_out(root, kept, Snapshot())
    return _weight(owned.values())


def weigh_bare(root: Path, kept: Holding) -> Weight:
    """The same without bytecode, and without the directories that it lies in."""
    owned, _ = _sorted_out(root, kept, Snapshot())
    return _weight(status for path, status in owned.items() if "__pycache__" not in path)


def left_over(root: Path, kept: Holding, before: Snapshot) -> dict[str, os.stat_result]:
    """What lies below the directory now, lay not there before, and belongs to nothing kept.

    A name of a file that is kept under another name costs nothing, and is not among it.
    """
    owned, others = _sorted_out(root, kept, before)
    inodes = {status.st_ino for status in owned.values()}
    return {path: status for path, status in others.items() if status.st_ino not in inodes}


def weight_of(found: Mapping[str, os.stat_result]) -> Weight:
    """What those entries occupy together."""
    return _weight(found.values())


def _closure(packages: Iterable[str], present: Mapping[str, Distribution]) -> list[str]:
    """Those that are present, and what they require as far as it is; canonical names."""
    waiting = [(canonicalize_name(name), "") for name in packages]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen or name not in present:
            continue
        seen.add((name, extra))
        environment = {**_ENVIRONMENT, "extra": extra}
        for text in present[name].requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                needed = canonicalize_name(requirement.name)
                waiting += [(needed, each) for each in ("", *requirement.extras)]
    return sorted({name for name, _ in seen})


def _sorted_out(
    root: Path, kept: Holding, before: Snapshot
) -> tuple[dict[str, os.stat_result], dict[str, os.stat_result]]:
    """What is kept and what is not, of all that was not there before."""
    new = {path: status for path, status in _below(str(root)) if path not in before.entries}
    owned = {path: status for path, status in new.items() if _is_owned(path, kept.files)}
    for path in tuple(owned):
        parent = os.path.dirname(path)
        while parent in new and parent not in owned:
            owned[parent] = new[parent]
            parent = os.path.dirname(parent)
    return owned, {path: status for path, status in new.items() if path not in owned}


def _is_owned(path: str, files: frozenset[str]) -> bool:
    if path in files:
        return True
    parent, name = os.path.split(path)
    if os.path.basename(parent) != "__pycache__" or not name.endswith(".pyc"):
        return False
    source = name.removesuffix(".pyc").rpartition(".")[0] + ".py"
    return os.path.join(os.path.dirname(parent), source) in files


def _weight(found: Iterable[os.stat_result]) -> Weight:
    inodes = {status.st_ino: status.st_blocks * 512 for status in found}
    return Weight(bytes=sum(inodes.values()), inodes=len(inodes))


def _sign(status: os.stat_result) -> tuple[int, int]:
    """A directory changes when something is added to it: only that it is there counts."""
    if stat.S_ISDIR(status.st_mode):
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _below(root: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(root) as entries:
        for entry in entries:
            yield entry.path, entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path)
