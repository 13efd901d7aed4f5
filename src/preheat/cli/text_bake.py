"""What went into the image and what onto the volume, as text for people."""

from __future__ import annotations

from dataclasses import asdict

from preheat.cli.text import console
from preheat.words.baking import Baked


def as_document(baked: Baked) -> dict[str, object]:
    """The same as data."""
    return {
        "ready": baked.ready,
        "image": {
            "path": str(baked.image),
            "budget": baked.budget,
            "bytes": baked.size("image"),
        },
        "volume": {
            "path": str(baked.volume) if baked.volume else None,
            "bytes": baked.size("volume"),
        },
        "packages": [asdict(each) for each in baked.placements],
        "dockerfile": list(baked.dockerfile),
    }


def show_baked(baked: Baked) -> None:
    """Where each package goes and why, then the lines for the image."""
    from rich.table import Table

    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("package", "in", "MB", "why"):
        table.add_column(column, justify="right" if column == "MB" else "left", overflow="fold")
    for each in baked.placements:
        table.add_row(
            each.package + (" *" if each.required else ""),
            each.place,
            f"{each.bytes / 1e6:,.1f}" if each.bytes else "-",
            each.reason,
        )
    out.print(table)
    size, budget = baked.size("image") / 1e6, baked.budget / 1e6
    out.print(f"image: {size:,.1f} of {budget:,.1f} MB in {baked.image}", markup=False)
    where = f"in {baked.volume}" if baked.volume else "that the first start makes"
    out.print(f"volume: {baked.size('volume') / 1e6:,.1f} MB {where}", markup=False)
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
