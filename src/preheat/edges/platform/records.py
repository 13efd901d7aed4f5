"""RECORD files against the files that are there (PEP 376, PEP 627).

This file stands alone, and runs as a process of its own too (`records_pool`). It imports only what
an interpreter has loaded already, since the caller waits for a helper's start.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Metadata directory to the rows whose file is missing; None where there is no RECORD.
Missing = dict[str, "list[str] | None"]

# Up to that many names, a look for each costs less than a listing.
_FEW_NAMES = 4


def lines(file: str) -> list[bytes] | None:
    """Rows of a RECORD; None where there is none."""
    try:
        with open(file, "rb") as handle:
            return handle.read().splitlines()
    except OSError:
        return None


def path_of(row: bytes) -> bytes:
    """The path that a row names."""
    if b'"' not in row:
        return row.partition(b",")[0]
    import csv

    return os.fsencode(next(csv.reader([os.fsdecode(row)]))[0])


def compare(location: str, names: Iterable[str]) -> Missing:
    """The rows of each metadata directory's RECORD whose file is not there.

    Scripts outside the site directory do not decide whether an import works, and bytecode does
    not either.
    """
    found: Missing = {}
    try:
        site = os.open(location, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return dict.fromkeys(names)
    try:
        for name in names:
            rows = lines(os.path.join(location, name, "RECORD"))
            found[name] = None if rows is None else _absent(os.fsencode(location), site, rows)
    finally:
        os.close(site)
    return found


def taken(shares: list[list[str]], queue: int) -> Iterator[str]:
    """Names of the shares whose numbers this process takes from the queue, until it is empty.

    Args:
        shares: names, up to 256 lists.
        queue: descriptor of a pipe that holds each number as a byte; several processes read it.
    """
    while number := os.read(queue, 1):
        yield from shares[number[0]]


def _absent(location: bytes, site: int, rows: list[bytes]) -> list[str]:
    absent: list[str] = []
    for parent, names in _by_directory(rows).items():
        if parent.startswith((b"..", b"/")) or parent.endswith(b"__pycache__"):
            continue
        prefix = parent + b"/" if parent else b""
        if len(names) <= _FEW_NAMES:
            gone = {
                name
                for name in names
                if not os.access(prefix + name, os.F_OK, dir_fd=site, follow_symlinks=False)
            }
        else:
            gone = set(names).difference(_listed(location + b"/" + parent))
        # Most directories are whole.
        if gone:
            absent += [
                os.fsdecode(prefix + name)
                for name in sorted(gone)
                if name and not name.endswith(b".pyc")
            ]
    return absent


def _by_directory(rows: list[bytes]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    last: bytes | None = None
    names: list[bytes] = []
    for row in rows:
        path = path_of(row) if b'"' in row else row.partition(b",")[0]
        parent, _, name = path.rpartition(b"/")
        # Rows of one directory mostly follow each other.
        if parent != last:
            last, names = parent, found.setdefault(parent, [])
        names.append(name)
    return found


def _listed(directory: bytes) -> list[bytes]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


if __name__ == "__main__":
    place, parts = marshal.loads(sys.stdin.buffer.read())  # noqa: S302  # our own process
    sys.stdout.buffer.write(marshal.dumps(compare(place, taken(parts, int(sys.argv[1])))))
