"""RECORD files against the files that are there, by as many processes as save time.

An image's files are tens of thousands, and one listing for each of their directories is what it
costs to know them all. Threads would take turns at the interpreter's lock for every name that a
listing yields, so helpers are processes. Nobody's share is fixed: a helper that starts late, or
whose processor is busy, does less.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

from preheat.edges.platform import records
from preheat.edges.platform.records import Missing
from preheat.edges.process.limits import available_processors

# Of RECORD files, about 80 a row: below that, a process costs more time than it saves.
_BYTES_WORTH_A_PROCESS = 300_000
_MOST_PROCESSES = 8
_MOST_SHARES = 256

Shares = list[list[str]]


@contextlib.contextmanager
def compared(location: str, names: Sequence[str]) -> Iterator[Callable[[], Missing]]:
    """Compares the RECORD of each metadata directory with the files; yields how to get the answer.

    Until the answer is asked for, the caller has time for other work.

    Args:
        location: the site directory.
        names: the ``.dist-info`` directories in it.
    """
    sizes = {name: _size(os.path.join(location, name, "RECORD")) for name in names}
    largest_first = sorted(sizes, key=lambda each: -sizes[each])
    shares = [largest_first[start::_MOST_SHARES] for start in range(_MOST_SHARES)]
    with contextlib.ExitStack() as open_until_answered:
        queue = open_until_answered.enter_context(_queue(len(shares)))
        helpers = [
            open_until_answered.enter_context(_helper(location, shares, queue))
            for _ in range(_helpers_for(sum(sizes.values())))
        ]

        def answer() -> Missing:
            found = records.compare(location, records.taken(shares, queue))
            for helper in helpers:
                found.update(_received(helper))
            # What a helper took that died before it answered.
            return found | records.compare(location, [n for n in names if n not in found])

        yield answer


def _helpers_for(size: int) -> int:
    """How many processes beside our own save time, for so many bytes of RECORD files."""
    processes = min(_MOST_PROCESSES, available_processors(), size // _BYTES_WORTH_A_PROCESS)
    return max(0, processes - 1)


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size
    except OSError:
        return 0


@contextlib.contextmanager
def _queue(count: int) -> Iterator[int]:
    """A pipe with a byte for each share; the process that reads it compares that share."""
    reading, writing = os.pipe()
    try:
        with open(writing, "wb") as pipe:
            pipe.write(bytes(range(count)))
        yield reading
    finally:
        os.close(reading)


@contextlib.contextmanager
def _helper(location: str, shares: Shares, queue: int) -> Iterator[subprocess.Popen[bytes] | None]:
    """A process that takes shares as we do; None where none can be started."""
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", records.__file__, str(queue)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[queue],
        )
    except OSError:
        yield None
        return
    with process:
        try:
            assert process.stdin is not None  # noqa: S101  # it is a pipe
            with contextlib.suppress(OSError), process.stdin as pipe:
                pipe.write(marshal.dumps((location, shares)))
            yield process
        except BaseException:
            process.kill()
            raise


def _received(process: subprocess.Popen[bytes] | None) -> Missing:
    """What a helper found; nothing if it died before it answered."""
    if process is None or process.stdout is None:
        return {}
    try:
        answer: Missing = marshal.loads(process.stdout.read())  # noqa: S302  # our own process
    except (OSError, EOFError, ValueError, TypeError):
        return {}
    return answer
