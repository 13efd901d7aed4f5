"""`python -m bench` says what there is and measures the warm start; names choose others."""

from __future__ import annotations

import argparse

from bench import (
    cold,
    gpu,
    growth,
    imports,
    kill,
    payload,
    peak,
    plan,
    plots,
    predicted,
    race,
    second,
    sight,
    slim,
    survival,
    survival_small,
    volume,
    warm,
    worker_disks,
)

BENCHES = {
    "warm": warm,
    "cold": cold,
    "second": second,
    "plan": plan,
    "gpu": gpu,
    "growth": growth,
    "payload": payload,
    "predicted": predicted,
    "slim": slim,
    "imports": imports,
    "peak": peak,
    "kill": kill,
    "race": race,
    "sight": sight,
    "survival": survival,
    "survival-small": survival_small,
    "volume": volume,
    "worker-disks": worker_disks,
    "plots": plots,
}
ON_A_GPU = ("gpu",)
"""What `all` leaves out: it needs an NVIDIA GPU."""


def main() -> None:
    """Run what is named, or the warm start, which needs no gigabytes."""
    lines = [
        f"  {name:<14} {str(bench.__doc__).splitlines()[0]}" for name, bench in BENCHES.items()
    ]
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="measurements:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="*", help="what to run, or all; the default is warm")
    parser.add_argument("--kills", type=int, default=kill.KILLS, help="how often kill kills each")
    stated = parser.parse_args()
    names, kill.KILLS = stated.name, stated.kills
    if "all" in names:
        names = [name for name in BENCHES if name not in ON_A_GPU]
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    if not names:
        print("\n".join([str(parser.description), "running: warm", ""]), flush=True)
    for name in names or ["warm"]:
        BENCHES[name].measure()


if __name__ == "__main__":
    main()
