"""What became of wheels that were to be built, as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from preheat.cli.text import console
from preheat.words.building import Work


def as_document(works: Sequence[Work]) -> dict[str, object]:
    """The same as data."""
    rows = []
    for work in works:
        row = asdict(work)
        if work.provenance is not None:
            device = work.provenance.device
            row["provenance"]["device"] = {
                "cubins": sorted(device.cubins),
                "ptx": sorted(device.ptx),
            }
        rows.append({**row, "ready": work.ready})
    return {"ready": all(work.ready for work in works), "wheels": rows}


def show_works(works: Sequence[Work]) -> None:
    """A table, and a sentence for each wheel that is not there."""
    from rich.table import Table

    out = console()
    if not works:
        out.print("nothing of this manifest is built against the platform")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("package", "version", "", "wheel", "MB", "for", "minutes", "jobs", "memory, GB"):
        table.add_column(column, overflow="fold")
    for work in works:
        made = work.provenance
        if made is None:
            minutes = f"~{work.expected.seconds / 60:,.0f}" if work.expected.seconds else ""
            table.add_row(
                *(work.package, work.version, work.status, work.expected.wheel, "", "", minutes),
                *(str(work.expected.jobs), f"~{work.expected.memory / 1e9:,.1f}"),
            )
            continue
        codes = [f"sm_{code}" for code in sorted(made.device.cubins)]
        codes += [f"compute_{code}" for code in sorted(made.device.ptx)]
        table.add_row(
            *(work.package, work.version, work.status, made.filename),
            *(f"{made.size / 1e6:,.1f}", " ".join(codes), f"{made.seconds / 60:,.1f}"),
            *(str(made.jobs), f"{made.memory / 1e9:,.1f}"),
        )
    out.print(table)
    for work in works:
        if work.reason:
            out.print(f"{work.package}: {work.reason}", markup=False)
