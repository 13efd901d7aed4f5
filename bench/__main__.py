"""`python -m bench` says what there is and measures the warm start; names choose others."""

from __future__ import annotations

import argparse

from bench import payload, predicted, warm

BENCHES = {"warm": warm, "payload": payload, "predicted": predicted}


def main() -> None:
    """Run what is named, or the warm start, which needs no gigabytes."""
    lines = [
        f"  {name:<10} {str(bench.__doc__).splitlines()[0]}" for name, bench in BENCHES.items()
    ]
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="measurements:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="*", help="what to run; the default is warm")
    names = parser.parse_args().name
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    if not names:
        print("\n".join([str(parser.description), "running: warm", ""]), flush=True)
    for name in names or ["warm"]:
        BENCHES[name].measure()


if __name__ == "__main__":
    main()
