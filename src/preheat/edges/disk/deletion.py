"""Removes what a Place names, and nothing else, whatever has been planted there.

Every step goes by the descriptor of a directory that is already open, never by a path: a name
that becomes a symlink between the look and the deletion leads nowhere. No mount is crossed, not
even a bind mount; nothing that a process has open or mapped, nothing of another user and nothing
young is removed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from preheat.edges.disk.files import bytes_of_blocks, names_in
from preheat.words.cleaning import Place

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# No cache is deeper; what is deeper stays, so that neither stack nor descriptors run out.
_MOST_LEVELS = 100


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is left alone in every place.

    Attributes:
        user: the only owner whose files may go; None where that does not matter.
        now: unix time that ages are told from.
        in_use: device and inode of everything that a process holds.
        precious: absolute directories; nothing that is or holds one of them goes.
        closed: absolute directories; nothing in them goes either.
        within: absolute directory; nothing outside it goes. None where that does not matter.
    """

    user: int | None
    now: float
    in_use: frozenset[tuple[int, int]] = frozenset()
    precious: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()
    within: str | None = None


@dataclass(kw_only=True)
class Found:
    """What lies below an entry that may go.

    Attributes:
        links: device and inode to how many names were counted, the link count and the bytes.
        kept: something in it must stay.
    """

    links: dict[tuple[int, int], tuple[int, int, int]] = field(default_factory=dict)
    kept: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of blocks that removing every counted name gives back."""
        return sum(size for counted, links, size in self.links.values() if counted >= links)

    def count(self, status: os.stat_result) -> None:
        """Counts one name of a file."""
        file = (status.st_dev, status.st_ino)
        counted, _, _ = self.links.get(file, (0, 0, 0))
        self.links[file] = (counted + 1, status.st_nlink, bytes_of_blocks(status))


def estimate(place: Place, rules: Rules) -> tuple[int, tuple[str, ...]]:
    """Bytes that removing the place would free, and the entries that would go."""
    total = Found()
    names = []
    with _opened(place, rules) as root:
        if root is None:
            return 0, ()
        for name in _entries(root, place, rules):
            found = _Walk(place, rules, root).look(root, name)
            if found.links and not (place.whole and found.kept):
                names.append(os.path.join(place.root, name))
                for file, (counted, links, size) in found.links.items():
                    before, _, _ = total.links.get(file, (0, 0, 0))
                    total.links[file] = (before + counted, links, size)
    return total.bytes, tuple(names)


def remove(place: Place, rules: Rules) -> None:
    """Removes what the place names; what must stay stays, with the directories above it."""
    with _opened(place, rules) as root:
        if root is None:
            return
        for name in _entries(root, place, rules):
            walk = _Walk(place, rules, root)
            if place.whole and walk.look(root, name).kept:
                continue
            walk.remove(root, name)


def erase(place: Path) -> None:
    """Removes a tree of our own, whatever is in it; mounts in it stay, and links are not followed.

    What the disk refuses to remove is left.
    """
    rules = Rules(user=None, now=float("inf"))
    everything = Place(root=str(place.parent), patterns=(place.name,), age=0.0)
    with contextlib.suppress(OSError):
        root = os.open(place.parent, _DIRECTORY)
        try:
            _Walk(everything, rules, root).remove(root, place.name)
        finally:
            os.close(root)


def in_use() -> frozenset[tuple[int, int]]:
    """Device and inode of every file that a process of ours has open or mapped (proc(5))."""
    found: set[tuple[int, int]] = set()
    mapped: set[bytes] = set()
    for process in filter(str.isdigit, os.listdir("/proc")):
        base = f"/proc/{process}"
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"{base}/fd"):
                with contextlib.suppress(OSError):
                    status = os.stat(f"{base}/fd/{descriptor}")
                    found.add((status.st_dev, status.st_ino))
        with contextlib.suppress(OSError):
            for link in ("cwd", "exe"):
                status = os.stat(f"{base}/{link}")
                found.add((status.st_dev, status.st_ino))
        with contextlib.suppress(OSError), open(f"{base}/maps", "rb") as maps:
            for line in maps:
                fields = line.split(None, 5)
                if len(fields) == 6 and fields[4] != b"0":
                    major, minor = (int(part, 16) for part in fields[3].split(b":"))
                    found.add((os.makedev(major, minor), int(fields[4])))
                    mapped.add(fields[5].rstrip(b"\n").replace(b"\\012", b"\n"))
    # Where a filesystem is layered, the maps may tell the device and inode of a layer below.
    for path in mapped:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            found.add((status.st_dev, status.st_ino))
    return frozenset(found)


class _Walk:
    """One entry of a place, and everything below it, by descriptors."""

    def __init__(self, place: Place, rules: Rules, root: int) -> None:
        self._place = place
        self._rules = rules
        self._device = os.fstat(root).st_dev
        self._mount = _mount(root)
        self._depth = 0

    def look(self, parent: int, name: str) -> Found:
        """What removing that entry would remove."""
        found = Found()
        self._visit(parent, name, found, found.count)
        return found

    def remove(self, parent: int, name: str) -> None:
        """Removes that entry, as far as it may go."""
        self._visit(parent, name, Found(), None)

    def _visit(
        self,
        parent: int,
        name: str,
        found: Found,
        see: Callable[[os.stat_result], None] | None,
    ) -> bool:
        """Tells `see` of an entry, or removes it if that is None; True if it goes, or would go."""
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError:
            return False
        if stat.S_ISDIR(status.st_mode):
            return self._visit_directory(parent, name, found, see)
        if not self._may_go(name, status):
            found.kept = True
            return False
        if see is not None:
            see(status)
            return True
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=parent)
            return True
        return False

    def _visit_directory(
        self,
        parent: int,
        name: str,
        found: Found,
        see: Callable[[os.stat_result], None] | None,
    ) -> bool:
        inner = self._enter(parent, name)
        if inner is None:
            found.kept = True
            return False
        self._depth += 1
        try:
            # Somebody has just made it, or is about to fill it.
            young = self._is_young(os.fstat(inner))
            left = [n for n in names_in(inner) if not self._visit(inner, n, found, see)]
        finally:
            self._depth -= 1
            os.close(inner)
        found.kept = found.kept or young
        stays = bool(left) or young or bool(self._place.within)
        if see is None and not stays:
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=parent)
        return not stays

    def _enter(self, parent: int, name: str) -> int | None:
        """A descriptor of the directory, if it still is one, may be entered and is not too deep."""
        if self._depth >= _MOST_LEVELS:
            return None
        try:
            inner = os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError:
            return None
        if self._may_enter(inner):
            return inner
        os.close(inner)
        return None

    def _may_enter(self, inner: int) -> bool:
        status = os.fstat(inner)
        if self._is_foreign(status) or self._is_held(status):
            return False
        try:
            return status.st_dev == self._device and _mount(inner) == self._mount
        except OSError:
            # Without a free descriptor, or without /proc, nobody can tell.
            return False

    def _may_go(self, name: str, status: os.stat_result) -> bool:
        if self._place.within and not fnmatchcase(name, self._place.within):
            return False
        return not (self._is_foreign(status) or self._is_young(status) or self._is_held(status))

    def _is_foreign(self, status: os.stat_result) -> bool:
        return self._rules.user not in (None, status.st_uid)

    def _is_young(self, status: os.stat_result) -> bool:
        return self._rules.now - max(status.st_mtime, status.st_ctime) < self._place.age

    def _is_held(self, status: os.stat_result) -> bool:
        return (status.st_dev, status.st_ino) in self._rules.in_use


@contextlib.contextmanager
def _opened(place: Place, rules: Rules) -> Iterator[int | None]:
    """The place's root as a descriptor; None where it is absent, a link, or not to be cleaned."""
    descriptor = None
    root = os.path.normpath(place.root)
    if not _is_refused(place, rules):
        with contextlib.suppress(OSError):
            descriptor = os.open(root, _DIRECTORY)
    try:
        # A directory above it may have become a link since.
        yield None if descriptor is None or _path_of(descriptor) != root else descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _is_refused(place: Place, rules: Rules) -> bool:
    """A root that is relative, reached by a link, outside, closed, or too precious to empty."""
    root = os.path.normpath(place.root)
    if not os.path.isabs(root) or os.path.realpath(place.root) != root or root == "/":
        return True
    if rules.within is not None and not _holds(rules.within, root):
        return True
    if any(_holds(closed, root) for closed in rules.closed):
        return True
    everything = "*" in place.patterns
    return everything and any(_holds(root, other) for other in rules.precious | rules.closed)


def _holds(directory: str, path: str) -> bool:
    """Whether the path is that directory, or lies in it."""
    return os.path.join(path, "").startswith(os.path.join(directory, ""))


def _entries(root: int, place: Place, rules: Rules) -> list[str]:
    """Names in the root that fit a pattern, and neither are nor hold anything precious."""
    spared = rules.precious | rules.closed
    base = os.path.normpath(place.root)
    return [
        name
        for name in names_in(root)
        if any(fnmatchcase(name, pattern) for pattern in place.patterns)
        and not any(_holds(os.path.join(base, name), other) for other in spared)
    ]


def _path_of(descriptor: int) -> str:
    """Where an open directory really is."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def _mount(descriptor: int) -> bytes:
    """The mount that a descriptor lies on: a bind mount has its device's number, and its own."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as info:
        for line in info:
            if line.startswith(b"mnt_id:"):
                return line
    return b""
