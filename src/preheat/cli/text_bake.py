"""What went into the image and what onto the volume, as text for people."""

from __future__ import annotations

from preheat.cli.tables import console, mb_or_dash, megabytes, table
from preheat.words.baking import Baked


def show_baked(baked: Baked) -> None:
    """Where each package goes and why, then the lines for the image."""
    out = console()
    rows = table("package", "in", "MB", "why", right=["MB"])
    for each in baked.placements:
        rows.add_row(
            each.package + (" *" if each.required else ""),
            each.place,
            mb_or_dash(each.bytes),
            each.reason,
        )
    out.print(rows)
    size, budget = megabytes(baked.size("image")), megabytes(baked.budget)
    out.print(f"image: {size} of {budget} MB in {baked.image}", markup=False)
    where = f"in {baked.volume}" if baked.volume else "that the first start makes"
    out.print(f"volume: {megabytes(baked.size('volume'))} MB {where}", markup=False)
    copy, env = baked.dockerfile
    out.print(
        "\nFor the image; where this ran in the image itself, the second line is enough:\n"
        f"{copy}\n{env}",
        markup=False,
    )
    if baked.volume:
        out.print(f"The worker must find {baked.volume} as its store.", markup=False)
    if any(each.required for each in baked.placements):
        out.print("* required")
