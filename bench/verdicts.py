"""How a start on a small disk is judged, and the tables that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench import ground


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One start, as it was seen from outside. Bytes, unless the name says inodes or entries.

    Attributes:
        kind: of the disk.
        ready: every required package imports.
        refusal: the sentence that said beforehand that a required package does not fit.
        importable: packages that a fresh interpreter imports.
        broken: files of those packages that are missing all the same.
        no_space: what was said speaks of Errno 28.
        ran_out: the disk was seen full.
        junk: what belongs to no importable package, caches and temporary files included.
        junk_examples: a few of its paths.
        records: what preheat notes for its next start.
        peak: the most that was taken at any moment.
        lowest: the least that was free at any moment.
        end: what was free in the end.
        platform_changed: files of the environment that were there before and changed.
        fitting: packages that fit beside the reserve, by importance, as the oracle says.
        missed: those among them that do not import.
        to_spare, to_spare_inodes: what would be left above the reserve with all that fits.
        output: the end of what was said.
    """

    kind: str
    contender: str
    free: int
    free_inodes: int
    status: int
    ready: bool
    refusal: str
    importable: tuple[str, ...]
    broken: int
    no_space: bool
    ran_out: bool
    junk: int
    junk_entries: int
    junk_examples: tuple[str, ...]
    records: int
    peak: int
    peak_inodes: int
    lowest: int
    lowest_inodes: int
    end: int
    reserve: int
    platform_changed: int
    fitting: tuple[str, ...]
    missed: tuple[str, ...]
    to_spare: int
    to_spare_inodes: int
    seconds: float
    output: str

    @property
    def outcome(self) -> str:
        """``ready``, ``refused`` clearly and in time, ``lied`` about being ready, or ``failed``."""
        if self.ready:
            return "ready" if self.status == 0 else "failed, though usable"
        if self.status == 0:
            return "lied"
        return "refused" if self.refusal and not self.no_space else "failed"

    @property
    def faults(self) -> tuple[str, ...]:
        """What was not as it should be."""
        found = {
            f"ended as {self.outcome}": self.outcome not in ("ready", "refused"),
            "Errno 28": self.no_space,
            "the disk was full": self.ran_out,
            f"{_mb(self.junk)} MB in {self.junk_entries} entries left behind": self.junk_entries,
            f"{self.broken} files missing": self.broken,
            f"{self.platform_changed} files of the platform changed": self.platform_changed,
            f"only {_mb(self.lowest)} MB of the reserve left": self.lowest < self.reserve,
            f"without {', '.join(self.missed)}, with {_mb(self.to_spare)} MB and "
            f"{self.to_spare_inodes} inodes to spare": self.missed,
        }
        return tuple(text for text, holds in found.items() if holds)

    def told(self) -> str:
        """The row as a line of progress."""
        said = "; ".join(self.faults) or "as it should be"
        where = f"{self.kind}, {_mb(self.free)} MB, {self.free_inodes} inodes"
        return f"{where}: {self.contender} {self.outcome} in {self.seconds:.0f} s: {said}"


def show_rows(rows: Sequence[Row]) -> None:
    """A table for each kind of disk."""
    columns = ("free MB", "inodes", "contender", "start", "imports", "Errno 28")
    more = ("junk MB", "peak MB", "lowest free MB", "seconds")
    for kind in dict.fromkeys(row.kind for row in rows):
        names = tuple(dict.fromkeys(name for row in rows for name in row.fitting))
        legend = ", ".join(f"{name[0]} = {name}" for name in names)
        ground.show(
            f"{kind} ({legend})",
            (*columns, *more),
            (_cells(row) for row in rows if row.kind == kind),
        )


def show_summary(rows: Sequence[Row]) -> None:
    """A line for each contender."""
    columns = ("", "starts", "ready", "refused", "failed", "Errno 28", "disk full", "with junk")
    more = ("most junk MB", "reserve broken", "packages that fit", "of them importable")
    names = tuple(dict.fromkeys(row.contender for row in rows))
    ground.show(
        "every disk together",
        (*columns, *more),
        (_summary(name, [row for row in rows if row.contender == name]) for name in names),
    )


def _cells(row: Row) -> list[str]:
    return [
        _mb(row.free),
        str(row.free_inodes),
        row.contender,
        row.outcome,
        " ".join(name[0] for name in row.importable) or "-",
        "yes" if row.no_space else "",
        _mb(row.junk),
        _mb(row.peak),
        _mb(row.lowest),
        f"{row.seconds:.0f}",
    ]


def _summary(name: str, rows: Sequence[Row]) -> list[str]:
    outcomes = [row.outcome for row in rows]
    return [
        name,
        str(len(rows)),
        str(outcomes.count("ready")),
        str(outcomes.count("refused")),
        str(len(rows) - outcomes.count("ready") - outcomes.count("refused")),
        str(sum(row.no_space for row in rows)),
        str(sum(row.ran_out for row in rows)),
        str(sum(row.junk_entries > 0 for row in rows)),
        _mb(max(row.junk for row in rows)),
        str(sum(row.lowest < row.reserve for row in rows)),
        str(sum(len(row.fitting) for row in rows)),
        str(sum(len(row.fitting) - len(row.missed) for row in rows)),
    ]


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}"
