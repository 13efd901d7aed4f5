"""RECORD files against the files that are there (PEP 376, PEP 627).

An image's files are tens of thousands, and one listing for each of their directories is what it
costs to know them all. Threads would take turns at the interpreter's lock for every name that a
listing yields, so helpers are processes: this file stands alone and runs as one, too.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

# Metadata directory to the rows whose file is missing; None where there is no RECORD.
Missing = dict[str, "list[str] | None"]

# Below that, a process costs more than it takes over: bytes of RECORD files, about 80 a row.
_WORTH_A_PROCESS = 300_000
_MOST_PROCESSES = 8
# Up to that many names, a stat for each costs less than a listing.
_FEW = 3


@contextlib.contextmanager
def compared(location: str, names: Sequence[str]) -> Iterator[Callable[[], Missing]]:
    """Compares the RECORD of each metadata directory with the files; yields how to get the answer.

    Until the answer is asked for, the caller has time for other work.

    Args:
        location: the site directory.
        names: the ``.dist-info`` directories in it.
    """
    own, *shares = _shares(location, names)
    with contextlib.ExitStack() as helpers:
        answers = [helpers.enter_context(_helper(location, share)) for share in shares]

        def answer() -> Missing:
            found = _compare(location, own)
            for share, process in zip(shares, answers, strict=True):
                found.update(_received(process) or _compare(location, share))
            return found

        yield answer


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


def _compare(location: str, names: Sequence[str]) -> Missing:
    found: Missing = {}
    base = os.fsencode(location) + b"/"
    for name in names:
        rows = lines(os.path.join(location, name, "RECORD"))
        found[name] = None if rows is None else list(_absent(base, rows))
    return found


def _absent(base: bytes, rows: Sequence[bytes]) -> Iterator[str]:
    """Rows whose file is not there, told by one listing for each directory.

    Scripts outside the site directory do not decide whether an import works, and bytecode does
    not either.
    """
    wanted: dict[bytes, list[bytes]] = {}
    last: bytes | None = None
    names: list[bytes] = []
    for row in rows:
        path = path_of(row) if b'"' in row else row.partition(b",")[0]
        parent, _, name = path.rpartition(b"/")
        # Rows of one directory mostly follow each other.
        if parent != last:
            last, names = parent, wanted.setdefault(parent, [])
        names.append(name)
    for parent, expected in wanted.items():
        if parent.startswith(b".."):
            continue
        for name in sorted(set(expected).difference(_there(base + parent, expected))):
            if name and not name.endswith(b".pyc"):
                yield os.fsdecode(parent + b"/" + name if parent else name)


def _there(directory: bytes, expected: Sequence[bytes]) -> Iterable[bytes]:
    """Names in a directory, at least those of the expected ones that are there."""
    if len(expected) <= _FEW:
        return [name for name in expected if os.path.lexists(directory + b"/" + name)]
    try:
        return os.listdir(directory)
    except OSError:
        return ()


def _shares(location: str, names: Sequence[str]) -> list[list[str]]:
    """The names in as many parts as pay for a process; the first, our own, may be all."""
    sizes = {name: _size(os.path.join(location, name, "RECORD")) for name in names}
    total = sum(sizes.values())
    parts = max(1, min(_MOST_PROCESSES, len(os.sched_getaffinity(0)), total // _WORTH_A_PROCESS))
    # Whoever asks has the metadata to read besides.
    weights = [total // 10, *([0] * (parts - 1))]
    shares: list[list[str]] = [[] for _ in range(parts)]
    for name in sorted(sizes, key=lambda each: -sizes[each]):
        lightest = weights.index(min(weights))
        shares[lightest].append(name)
        weights[lightest] += sizes[name]
    return shares


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size
    except OSError:
        return 0


@contextlib.contextmanager
def _helper(location: str, share: Sequence[str]) -> Iterator[subprocess.Popen[bytes] | None]:
    """A process that checks a share; None where none can be had."""
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        yield None
        return
    with process:
        try:
            assert process.stdin is not None  # noqa: S101  # it is a pipe
            with contextlib.suppress(OSError), process.stdin as pipe:
                pipe.write(marshal.dumps((location, list(share))))
            yield process
        except BaseException:
            process.kill()
            raise


def _received(process: subprocess.Popen[bytes] | None) -> Missing | None:
    """What a helper found; None where it found nothing out."""
    if process is None or process.stdout is None:
        return None
    try:
        answer: Missing = marshal.loads(process.stdout.read())  # noqa: S302  # our own process
    except (OSError, EOFError, ValueError, TypeError):
        return None
    return answer


if __name__ == "__main__":
    sys.stdout.buffer.write(marshal.dumps(_compare(*marshal.loads(sys.stdin.buffer.read()))))  # noqa: S302
