"""The script that preheat replaces: `pip install` in a try/except, package after package.

Its algorithm written anew, with its mistakes: the look at dotted imports, the find(1) that deletes
nothing, no look at what pip left behind. It runs in the platform's own interpreter, by its path,
with `pip` on the PATH; its thresholds and the packages come as one JSON argument. What is kinder
than the original: it looks at the disk that it installs to, which need not be `/`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Disk:
    """The one disk that the script knows; thresholds in bytes."""

    root: str
    clean_below: int
    skip_below: int

    def free(self) -> int:
        """Bytes that an ordinary user can take."""
        stats = os.statvfs(self.root)
        return stats.f_bavail * stats.f_frsize


def can_import(name: str) -> bool:
    """Import it, and look the dotted rest up as attributes, which submodules may not be."""
    first, *rest = name.split(".")
    try:
        module = __import__(first)
        for part in rest:
            module = getattr(module, part)
    except (ImportError, AttributeError):
        return False
    return True


def cleanup_disk_space() -> None:
    """Clear pip's cache, and all of the temporary directory; as the second command means to."""
    temp = os.environ["TMPDIR"]
    commands = (
        ["pip", "cache", "purge"],
        ["find", temp, "-type", "f", "-delete", "2>/dev/null", "||", "true"],
    )
    for command in commands:
        try:
            subprocess.run(command, check=False)
        except OSError as error:
            print(f"cleanup: {error}")


def check_and_install_package(package: str, import_name: str, disk: Disk) -> bool:
    """Try, clean, skip or install: what pip says is believed."""
    if can_import(import_name):
        print(f"{package} is there already")
        return True
    if disk.free() < disk.clean_below:
        print(f"low disk space ({disk.free() / 1e6:.0f} MB), cleaning up")
        cleanup_disk_space()
        if disk.free() < disk.skip_below:
            print(f"insufficient disk space ({disk.free() / 1e6:.0f} MB), skipping {package}")
            return False
    try:
        command = ["pip", "install", "--no-cache-dir", package]
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"failed to install {package}: {error}")
        return False
    print(f"{package} installed")
    return True


def main() -> None:
    """All packages in order; 1 where a required one is not there, as far as the script knows."""
    task = json.loads(sys.argv[1])
    disk = Disk(task["root"], task["clean_below"], task["skip_below"])
    done = {
        name: check_and_install_package(name, module, disk)
        for name, module in task["packages"].items()
    }
    sys.exit(0 if all(done[name] for name in task["required"]) else 1)


if __name__ == "__main__":
    main()
