"""Bytes on disk, told before the first is fetched, beside what the layers occupy in the end."""

from __future__ import annotations

import shutil

from bench import ground
from bench.payload import EXCLUDES, PLATFORM, tables


def measure() -> None:
    """Warm the four packages into a fresh store and compare."""
    home = ground.BUILD / "payload"
    python = ground.make_venv(home / "platform", *PLATFORM)
    store = ground.BUILD / "predicted" / "store"
    shutil.rmtree(store, ignore_errors=True)
    manifest = ground.write_manifest(store.parent / "preheat.toml", tables(EXCLUDES))
    options = ("--manifest", str(manifest), "--store", str(store), "--python", str(python))
    packages = ground.preheat("warm", *options)["packages"]
    if not isinstance(packages, list):
        raise SystemExit("the report has no packages")
    made = [package for package in packages if package["status"] == "installed"]
    told = sum(package["bytes_predicted"] for package in made)
    real = sum(package["bytes_actual"] for package in made)
    rows = [(p["name"], p["bytes_predicted"], p["bytes_actual"]) for p in made]
    ground.show(
        "megabytes on disk, blocks and bytecode included",
        ("", "predicted", "real", "off by"),
        (
            [name, f"{before / 1e6:,.1f}", f"{after / 1e6:,.1f}", f"{before / after - 1:+.1%}"]
            for name, before, after in [*rows, ("together", told, real)]
        ),
    )
    ground.keep("predicted", {n: {"predicted": b, "real": a} for n, b, a in rows})
