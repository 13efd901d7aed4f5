"""The most bytes that a start takes at any moment, over what it leaves installed (root only).

Every start has a filesystem of its own, looked at with statvfs all the time; uv once more with its
cache on a second one. What is installed is what is taken once caches and temporary files are gone.
"""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Mapping

from bench import contenders, ground
from bench.cold import SMALL
from bench.contenders import Contender, Goods, Place
from bench.smalldisk import Kind, keep_mounts_private, mounted, watched
from bench.survival import fetch
from tests.support.index import Index

ROUNDS = 1
KINDS = ("tmpfs", "ext4")
GOODS = Goods(imports=SMALL, required=(), keep_free=0)
CACHE_ELSEWHERE = "uv, cache on another filesystem"
CONTENDERS = (
    Contender(name="preheat", start=contenders.start_preheat),
    Contender(name=f"preheat, {contenders.IMPORTED}", start=contenders.start_imported),
    Contender(name="uv, cache on the same filesystem", start=contenders.start_uv),
    Contender(name=CACHE_ELSEWHERE, start=contenders.start_uv),
    Contender(name="pip", start=contenders.start_pip),
)


def measure() -> None:
    """Start each on fresh filesystems, print the table and keep the figures."""
    if os.geteuid() != 0:
        raise SystemExit("peak mounts filesystems of its own: it needs root")
    home = ground.BUILD / "peak"
    tools = ground.make_venv(home / "tools", "pip").parent
    wheels = fetch(tools, home / "wheels", GOODS)
    keep_mounts_private()
    rows = {}
    with Index(wheels) as index:
        for kind in KINDS:
            place = Place(root=home / kind / "disk", tools=tools, index=index.url)
            for each in CONTENDERS:
                found = [start(each, Kind(name=kind), place) for _ in range(ROUNDS)]
                rows[f"{each.name}, {kind}"] = {
                    "peak": statistics.median(peak for peak, _ in found),
                    "installed": statistics.median(final for _, final in found),
                }
    show(rows)


def start(contender: Contender, kind: Kind, place: Place) -> tuple[float, float]:
    """One start: the most bytes taken, on both filesystems together, and those installed."""
    with (
        mounted(kind, place.root.parent) as disk,
        mounted(Kind(name="tmpfs"), place.root.parents[1] / "second") as second,
    ):
        place.furnish()
        if contender.name == CACHE_ELSEWHERE:
            cache = place.root / "home" / ".cache"
            cache.symlink_to(second.root)
        before = disk.settled().bytes
        spare = second.settled().bytes
        with watched(disk) as lowest, watched(second) as also:
            ended = contender.start(place, GOODS)
        peak = before - lowest.bytes + spare - also.bytes
        if ended.status:
            raise SystemExit(f"{contender.name}: {ended.output[-2000:]}")
        for name in ("home", "tmp"):
            shutil.rmtree(place.root / name)
        return peak, before - disk.settled().bytes


def show(rows: Mapping[str, Mapping[str, float]]) -> None:
    """The table, and the figures."""
    ground.show(
        f"MB on disk for {', '.join(SMALL)}, medians of {ROUNDS} starts",
        ("", "peak", "installed", "peak over installed"),
        (
            [
                name,
                f"{each['peak'] / 1e6:,.1f}",
                f"{each['installed'] / 1e6:,.1f}",
                f"{each['peak'] / each['installed']:.3f}",
            ]
            for name, each in rows.items()
        ),
    )
    ground.keep("peak", {"packages": list(SMALL), "rounds": ROUNDS, "bytes": rows})
