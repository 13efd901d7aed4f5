"""A staged layer: checked against what its wheels hold, compiled, measured."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from preheat.decisions.entry_points import scripts_in
from preheat.edges.disk.files import bytes_of_blocks
from preheat.edges.platform import inventory
from preheat.edges.process import group
from preheat.edges.process.environment import without_layers
from preheat.edges.process.limits import available_processors
from preheat.edges.store.wheelhouse import sha256_of
from preheat.words.errors import DiskFull, InstallError
from preheat.words.lock import Contents, Locked
from preheat.words.platform import Interpreter, RecordState
from preheat.words.stand_in import Link


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What lies in a directory.

    Attributes:
        payload: bytes of files, without bytecode.
        disk: bytes of blocks, directories and bytecode included, hardlinked files once.
        files: how many, without bytecode.
    """

    payload: int
    disk: int
    files: int


def check(place: Path, expected: Iterable[tuple[Locked, Contents]]) -> None:
    """Compares what was installed with what the wheels hold, and each RECORD with its files.

    RECORD alone proves nothing: the engine drops rows whose files are missing.

    Raises:
        InstallError: a distribution or a file is missing or has another size.
    """
    present = {d.name: d for d in inventory.read([str(place)])}
    for each, contents in expected:
        found = present.get(each.name)
        if found is None or found.state is not RecordState.WHOLE:
            state = found.state.value if found else "is not there"
            raise InstallError(f"{each.name} {each.version} was not installed whole: {state}")
        for path in inventory.truncated(found):
            raise InstallError(f"{each.name} {each.version} was not installed whole: {path}")
        if not contents.exact:
            continue
        for path, size in contents.files:
            if _rewritten(path):
                continue
            try:
                actual = (place / path).stat().st_size
            except OSError:
                actual = -1
            if actual != size:
                raise InstallError(
                    f"{each.name} {each.version} was not installed whole: {path} "
                    + ("is missing" if actual < 0 else f"has {actual} bytes, not {size}")
                )


def link(place: Path, links: Iterable[Link]) -> None:
    """Makes links to the platform's libraries, where wheels would have put their own.

    A copy of a library that a wheel has put there gives way to one, if it is an equal one.

    Raises:
        OSError: the disk refuses.
    """
    for each in links:
        where = place / each.path
        if each.sha256:
            if not where.is_file() or sha256_of(where) != each.sha256:
                continue
            where.unlink()
        where.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            # Two wheels may bring one file.
            where.symlink_to(each.target)


def take_scripts(place: Path) -> tuple[tuple[str, str], ...]:
    """Removes the launchers that the engine made for its own interpreter; returns what they call.

    Launchers are made again for the interpreter that runs them.
    """
    found: dict[str, str] = {}
    for info in sorted(place.glob("*.dist-info")):
        scripts = dict(_entry_points(info / "entry_points.txt"))
        found.update(scripts)
        made = {f"bin/{name}" for name in scripts}
        for name in made:
            (place / name).unlink(missing_ok=True)
        record = info / "RECORD"
        rows = record.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [row for row in rows if row.split(",", 1)[0] not in made]
        if kept != rows:
            # Never in place: the file may share its inode with the engine's cache.
            staged = info / "RECORD.new"
            staged.write_text("".join(kept), encoding="utf-8")
            staged.replace(record)
    with contextlib.suppress(OSError):
        # Empty now, unless a wheel brought scripts of its own.
        (place / "bin").rmdir()
    return tuple(sorted(found.items()))


def compile_bytecode(place: Path, final: Path, interpreter: Interpreter) -> None:
    """Compiles every module, in as many processes as there are processors.

    Each has its share from the beginning: compileall's own workers wait for orders, and for ever
    where this process is killed. Unchecked hashes (PEP 552): valid wherever the files are copied,
    and no stat at import. A file that does not compile is left to the import that wants it.

    Raises:
        DiskFull: there is no room for it.
    """
    command = [interpreter.executable, "-B", "-m", "compileall", "-q", "-i", "-"]
    command += ["--invalidation-mode", "unchecked-hash", "-s", str(place), "-p", str(final)]
    environment = {**without_layers(os.environ), "PYTHONIOENCODING": "utf-8:surrogateescape"}
    shares = _shares(place, available_processors())
    said = b"".join(
        done.stdout for done in group.run_each(command, environment, filter(None, shares))
    )
    refused = re.search(rb"\[Errno (?:28|122)\] [\w ]+", said)
    if refused:
        raise DiskFull(f"bytecode was not written whole: {refused.group().decode()}")


def _shares(place: Path, count: int) -> list[bytes]:
    """The sources below as lists of paths that take about as long, a line for each."""
    sources = [entry for entry, _ in _walk(str(place)) if entry.name.endswith(".py")]
    sources.sort(key=lambda entry: entry.stat(follow_symlinks=False).st_size, reverse=True)
    return [
        b"".join(os.fsencode(entry.path) + b"\n" for entry in sources[number::count])
        for number in range(count)
    ]


def is_hollow(place: Path) -> bool:
    """Whether the metadata of a wheel in a cache is empty, which no wheel's is.

    On a network filesystem a full quota may answer the closing of a file, and not the writing;
    the engine does not look at that answer.
    """
    return any(
        file.stat().st_size == 0
        for name in ("WHEEL", "METADATA")
        for file in place.glob(f"archive-v*/*/*.dist-info/{name}")
    )


def measure(place: Path) -> Measured:
    """Counts what lies there, as du does."""
    payload = disk = files = 0
    seen: set[int] = set()
    for entry, bytecode in _walk(str(place)):
        status = entry.stat(follow_symlinks=False)
        if status.st_ino in seen:
            continue
        seen.add(status.st_ino)
        disk += bytes_of_blocks(status)
        if entry.is_file(follow_symlinks=False) and not bytecode:
            payload += status.st_size
            files += 1
    return Measured(payload=payload, disk=disk, files=files)


def has_pth(place: Path) -> bool:
    """Whether ``.pth`` files lie there."""
    return any(name.endswith(".pth") for name in os.listdir(place))


def _walk(place: str) -> Iterator[tuple[os.DirEntry[str], bool]]:
    with os.scandir(place) as entries:
        for entry in entries:
            yield entry, entry.name.endswith(".pyc")
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)


def _rewritten(path: str) -> bool:
    """Whether installers write that file themselves."""
    parent, _, base = path.rpartition("/")
    if parent.startswith(("bin", "include")):
        return True
    return parent.endswith(".dist-info") and base in ("RECORD", "INSTALLER", "REQUESTED")


def _entry_points(file: Path) -> Iterator[tuple[str, str]]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return
    yield from scripts_in(text)
