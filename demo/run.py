"""preheat's whole job, shown: a platform, a plan, a cold start, a worker, a warm start.

Everything is made below build/demo. The platform is kept between runs; the store is not, so that
the first start is always a cold one.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import stand_in

BUILD = Path("build/demo")
MANIFEST = "demo/preheat.toml"


def main() -> int:
    """Show every step; the first that fails ends the demonstration with its exit status."""
    parser = argparse.ArgumentParser(description="show preheat at work")
    parser.add_argument("--small", action="store_true", help="around a platform without torch")
    small = parser.parse_args().small
    os.chdir(stand_in.PROJECT)
    try:
        show(small=small)
    except subprocess.CalledProcessError as error:
        print(f"\n{shlex.join(error.cmd)} ended with {error.returncode}", file=sys.stderr)
        return error.returncode
    return 0


def show(*, small: bool) -> None:
    """Go through the steps in order."""
    home = BUILD / ("small" if small else "full")
    heading("A platform image that already has " + ("numpy" if small else "torch and numpy"))
    platform = home / "platform"
    python = str(stand_in.make(platform, small=small))
    store = home / "store"
    shutil.rmtree(store, ignore_errors=True)
    settle(home)
    before = fingerprint(platform)

    heading("What would be done; sizes are predicted from the wheels' own directories")
    run(python, "-m", "preheat", "plan", "--manifest", MANIFEST)
    heading("The first start is cold; it reports what was found, decided, done and proved")
    run(python, "-m", "preheat", "warm", "--manifest", MANIFEST)
    heading("A worker that uses it: preheat.warm(), then plain imports")
    run(python, "demo/speak.py")
    heading("The next start: warm")
    show_warm_start(python)
    heading("The starts so far, one line for each")
    run(python, "-m", "preheat", "report", "--history", "--manifest", MANIFEST)

    same = fingerprint(platform) == before
    print(f"\nThe platform's {len(before):,} files are {'as they were' if same else 'CHANGED'}.")


def settle(home: Path) -> None:
    """Have every command from now on keep its store in that directory, and clean nothing else."""
    os.environ["PREHEAT_STORE"] = str((home / "store").resolve())
    os.environ |= stand_in.own_ground(home)


def show_warm_start(python: str) -> None:
    """Start once more, and say in words what the report's JSON says."""
    begin = time.perf_counter()
    said = run(python, "-m", "preheat", "warm", "--manifest", MANIFEST, "--json", quiet=True)
    whole = time.perf_counter() - begin
    started = json.loads(said)
    ready = "ready" if started["ready"] else "NOT READY"
    how = "warm" if started["warm"] else "cold"
    print(
        f"{ready} in {started['seconds'] * 1000:.1f} ms, {how} "
        f"({whole * 1000:.0f} ms with the start of Python and of the command line)"
    )


def heading(text: str) -> None:
    """Set a step apart."""
    print(f"\n── {text} ──", flush=True)


def run(*command: str, quiet: bool = False) -> str:
    """Show a command, run it, and return what it said where that is not for reading."""
    print(f"$ {shlex.join(command)}", flush=True)
    stdout = subprocess.PIPE if quiet else None
    return subprocess.run(command, stdout=stdout, text=True, check=True).stdout


def fingerprint(directory: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file; a write to any of them shows."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


if __name__ == "__main__":
    sys.exit(main())
