"""What uv's report of a failure means: the index, the disk, the machine, or the package."""

from __future__ import annotations

import re

from preheat.words.display import redact
from preheat.words.errors import ArchiveChanged, DiskFull, InstallError, Transient

# In the middle of a body too: it is not the archive that is wrong.
_UNREACHABLE = re.compile(
    r"error sending request|Failed to fetch|Request failed after|Could not connect|"
    r"connection (?:refused|reset|closed)|timed? ?out|dns error|Temporary failure in name|"
    r"server error|HTTP status (?:server error|5\d\d)|network is disabled|Network connectivity|"
    r"error reading a body from connection|end of file before message length|"
    r"401 Unauthorized",
    re.IGNORECASE,
)
_SILENT = re.compile(
    r"timed? ?out|Could not connect|tcp connect error|dns error|network is disabled", re.IGNORECASE
)
# The server has answered, and would say the same again; or a build said it, of its own network.
_FINAL = re.compile(
    r"HTTP status client error \((?!408|429)|401 Unauthorized|network is disabled|"
    r"Hash mismatch|\[stderr\]|\[stdout\]",
    re.IGNORECASE,
)
# EIO, EAGAIN, ENOMEM, ENFILE, EMFILE, EROFS: the machine's, not the package's.
_OF_MACHINE = re.compile(
    r"Input/output error|Read-only file system|Too many open files|os error (?:5|11|12|23|24|30)\b"
)
_FULL = re.compile(r"No space left on device|Disk quota exceeded|os error (?:28|122)\b")


def is_unreachable(report: str) -> bool:
    """Whether the index did not answer, or refused to: nothing is known about what was asked."""
    return bool(_UNREACHABLE.search(report))


def is_silent(report: str) -> bool:
    """Whether it did not even refuse."""
    return bool(_SILENT.search(report))


def is_full(report: str) -> bool:
    """Whether a disk, or a quota on it, was full."""
    return bool(_FULL.search(report))


def is_network_fault(report: str) -> bool:
    """Whether it was the network and nothing else, so that trying again may help."""
    other = is_full(report) or _OF_MACHINE.search(report) or _FINAL.search(report)
    return is_unreachable(report) and not other


def error(report: str, exit_status: int) -> InstallError:
    """What a failed installation is to be raised as, by uv's report of it."""
    kind = InstallError
    if is_full(report):
        kind = DiskFull
    elif is_unreachable(report) or _OF_MACHINE.search(report):
        kind = Transient
    elif "Hash mismatch" in report or "Size mismatch" in report:
        kind = ArchiveChanged
    return kind(sentence(report, exit_status), output=redact(report))


def sentence(report: str, exit_status: int) -> str:
    """One sentence out of uv's report of a failed installation."""
    text = redact(report).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wanted = [
        line.split(": ", 1)[-1] if line.startswith(("error:", "cause:")) else line
        for line in lines
        if line.startswith(("error:", "cause:"))
    ]
    if not wanted:
        return lines[-1] if lines else f"uv ended with exit {exit_status}"
    said = [
        line for line in text.partition("[stderr]")[2].partition("hint:")[0].splitlines() if line
    ]
    return ": ".join(dict.fromkeys([*wanted, *(line.strip() for line in said[-1:])]))
