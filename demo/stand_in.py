"""A stand-in for a platform image: a virtual environment with torch, numpy and preheat itself.

Not named platform.py: a program's own directory comes first on its path, and torch imports the
standard library's `platform`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from uv import find_uv_bin

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).resolve().parents[1]

# numpy 2.4 needs Python 3.11; older ones take the newest that they have.
SMALL = ["numpy==2.4.6; python_version >= '3.11'", "numpy; python_version < '3.11'"]
FULL = ["torch==2.13.0", *SMALL]


def make(where: Path, *, small: bool) -> Path:
    """Make the platform, or bring the one of an earlier run up to date; return its interpreter."""
    provides = SMALL if small else FULL
    interpreter = where / "bin" / "python"
    complete = where / "complete"
    if complete.exists():
        print(f"stand-in platform: {where}, made by an earlier run", flush=True)
    else:
        size = f"{megabytes_to_download(provides):,.0f} MB"
        print(
            f"stand-in platform: {size} to download, this once, less what uv's cache has; "
            "the start that is shown downloads more, as its plan will say",
            flush=True,
        )
        uv("venv", "--quiet", "--clear", "--python", sys.executable, str(where))
    # Images are mostly built by pip, which compiles what it installs.
    arguments = ["--compile-bytecode", "--python", str(interpreter)]
    if complete.exists():
        arguments.append("--quiet")
    uv("pip", "install", *arguments, "--reinstall-package", "preheat", str(PROJECT), *provides)
    complete.touch()
    return interpreter


def own_ground(home: Path) -> dict[str, str]:
    """What has preheat clean in that directory only, where space is short."""
    return {"PREHEAT_INTERNAL_GROUND": str(home.resolve())}


def megabytes_to_download(provides: list[str]) -> float:
    """What the index says the platform's archives weigh together."""
    sources = [str(PROJECT / "pyproject.toml"), "-"]
    arguments = ["--quiet", "--format", "pylock.toml", "--python", sys.executable]
    lock = uv("pip", "compile", *sources, *arguments, text="\n".join(provides))
    return sum(archive_bytes(package) for package in tomllib.loads(lock)["packages"]) / 1e6


def archive_bytes(package: dict[str, Any]) -> int:
    """The size of the wheel that fits here; of the source where there is none."""
    archives = package.get("wheels") or [package.get("sdist", {})]
    return int(archives[0].get("size", 0))


def uv(*arguments: str, text: str | None = None) -> str:
    """Run uv and return what it says; its progress and errors go where ours go."""
    command = [find_uv_bin(), *arguments]
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def main() -> None:
    """Make one where the command line says."""
    parser = argparse.ArgumentParser(description="make a stand-in for a platform image")
    parser.add_argument("where", type=Path)
    parser.add_argument("--small", action="store_true", help="without torch")
    options = parser.parse_args()
    print(make(options.where, small=options.small))


if __name__ == "__main__":
    main()
