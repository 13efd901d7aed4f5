"""`python -m bench` says what there is and measures the warm start; names choose others."""

from __future__ import annotations

import argparse
import ast
import importlib
import os
from pathlib import Path

from bench.ground import OWN_GROUND
from tests.support.own_ground import refuse_to_clean_the_machine

BENCHES = (
    "warm",
    "cold",
    "cold-four",
    "second",
    "plan",
    "gpu",
    "gpu-checks",
    "gpu-flash",
    "growth",
    "field",
    "payload",
    "predicted",
    "slim",
    "imports",
    "peak",
    "kill",
    "race",
    "sight",
    "survival",
    "survival-small",
    "volume",
    "worker-disks",
    "plots",
)
ON_A_GPU = ("gpu", "gpu-checks", "gpu-flash")
"""What `all` leaves out: they need an NVIDIA GPU, and the last one many minutes to build."""


def main() -> None:
    """Run what is named, or the warm start, which needs no gigabytes."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="measurements:\n" + "\n".join(f"  {n:<14} {_about(n)}" for n in BENCHES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="*", help="what to run, or all; the default is warm")
    parser.add_argument("--kills", type=int, help="how often kill kills each")
    stated = parser.parse_args()
    os.environ |= OWN_GROUND
    refuse_to_clean_the_machine()
    names = stated.name
    if "all" in names:
        names = [name for name in BENCHES if name not in ON_A_GPU]
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    if not names:
        print("\n".join([str(parser.description), "running: warm", ""]), flush=True)
    for name in names or ["warm"]:
        # Each has needs of its own: one that is not asked for need not find them.
        bench = importlib.import_module(f"bench.{_module(name)}")
        if name == "kill" and stated.kills:
            bench.KILLS = stated.kills  # type: ignore[attr-defined]
        bench.measure()


def _about(name: str) -> str:
    """The first line of what the bench says of itself."""
    source = Path(__file__).with_name(f"{_module(name)}.py").read_text(encoding="utf-8")
    return str(ast.get_docstring(ast.parse(source))).splitlines()[0]


def _module(name: str) -> str:
    return name.replace("-", "_")


if __name__ == "__main__":
    main()
