"""What became of wheels that were to be built, as text for people."""

from __future__ import annotations

from collections.abc import Sequence

from preheat.cli.tables import console, gigabytes, megabytes, table
from preheat.words.building import Work


def show_works(works: Sequence[Work]) -> None:
    """A table, and a sentence for each wheel that is not there."""
    out = console()
    if not works:
        out.print("nothing of this manifest is built against the platform")
        return
    rows = table(*("package", "version", "", "wheel", "MB", "for", "minutes", "jobs", "memory, GB"))
    for work in works:
        made = work.provenance
        if made is None:
            minutes = f"~{work.expected.seconds / 60:,.0f}" if work.expected.seconds else ""
            rows.add_row(
                *(work.package, work.version, work.status, work.expected.wheel, "", "", minutes),
                *(str(work.expected.jobs), f"~{gigabytes(work.expected.memory)}"),
            )
            continue
        codes = [f"sm_{code}" for code in sorted(made.device.cubins)]
        codes += [f"compute_{code}" for code in sorted(made.device.ptx)]
        rows.add_row(
            *(work.package, work.version, work.status, made.filename),
            *(megabytes(made.size), " ".join(codes), f"{made.seconds / 60:,.1f}"),
            *(str(made.jobs), gigabytes(made.memory)),
        )
    out.print(rows)
    for work in works:
        if work.reason:
            out.print(f"{work.package}: {work.reason}", markup=False)
