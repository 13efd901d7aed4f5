"""What the layers could do without, as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import tomli_w

from preheat.cli.text import console
from preheat.words.slim import Slimming


def as_document(found: Slimming) -> dict[str, object]:
    """The same as data."""
    return {
        **asdict(found),
        "removable": found.removable,
        "exclude": {package: list(names) for package, names in found.excludes.items()},
    }


def show_slimming(found: Slimming, stated: Mapping[str, tuple[str, ...]]) -> None:
    """The table, the bytes, and the lines for the manifest.

    Args:
        found: what came of it.
        stated: package to what its ``exclude`` names already.
    """
    from rich.table import Table

    out = console()
    if not found.spares:
        out.print("every distribution of the layers was loaded")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("distribution", "version", "MB", "files", "brought by", "without it"):
        table.add_column(column, overflow="fold")
    for spare in found.spares:
        table.add_row(
            spare.name,
            spare.version,
            f"{spare.payload / 1e6:,.1f}",
            str(spare.files),
            ", ".join(spare.packages),
            "works" if spare.removable else "does not work",
        )
    out.print(table)
    share = found.removable / found.payload if found.payload else 0.0
    out.print(
        f"{found.removable / 1e6:,.1f} of {found.payload / 1e6:,.1f} MB ({share:.0%}) were loaded "
        "by no promised import and no check, and everything is proved without them"
    )
    if found.unchecked:
        out.print(
            f"without a check: {', '.join(found.unchecked)}; what the worker loads after the "
            "import was not seen. State a check that does the work, and run this again."
        )
    for package, names in found.excludes.items():
        every = sorted({*stated.get(package, ()), *names})
        out.print(f"\n# {package}\n{tomli_w.dumps({'exclude': every}).rstrip()}", markup=False)
