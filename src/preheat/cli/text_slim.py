"""What the layers could do without, as text for people."""

from __future__ import annotations

from collections.abc import Mapping

import tomli_w

from preheat.cli.tables import console, megabytes, table
from preheat.words.slim import Slimming


def show_slimming(found: Slimming, stated: Mapping[str, tuple[str, ...]]) -> None:
    """The table, the bytes, and the lines for the manifest.

    Args:
        found: what came of it.
        stated: package to what its ``exclude`` names already.
    """
    out = console()
    if not found.spares:
        out.print("every distribution of the layers was loaded")
        return
    rows = table("distribution", "version", "MB", "files", "brought by", "without it")
    for spare in found.spares:
        rows.add_row(
            spare.name,
            spare.version,
            megabytes(spare.payload),
            str(spare.files),
            ", ".join(spare.packages),
            "works" if spare.removable else "does not work",
        )
    out.print(rows)
    share = found.removable / found.payload if found.payload else 0.0
    out.print(
        f"{megabytes(found.removable)} of {megabytes(found.payload)} MB ({share:.0%}) were loaded "
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
