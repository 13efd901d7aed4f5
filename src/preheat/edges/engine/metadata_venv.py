"""The metadata venv: a virtual environment with the platform's metadata and nothing else.

It holds what our inventory found whole. So the engine sees the platform as we do (behind a venv, on
Debian's managed Python), cannot write to it, and does not count what is half installed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from packaging.version import InvalidVersion, Version

from preheat.words.platform import Platform


def make_metadata_venv(platform: Platform, directory: Path) -> Path:
    """A virtual environment with the platform's metadata only; returns its interpreter.

    A ``.pth`` makes the platform importable in it, for builds without isolation.
    """
    interpreter = platform.interpreter
    minor = ".".join(interpreter.version.split(".")[:2])
    site = directory / "lib" / f"python{minor}" / "site-packages"
    site.mkdir(parents=True)
    binaries = directory / "bin"
    binaries.mkdir()
    python = binaries / "python"
    python.symlink_to(interpreter.base_executable)
    (directory / "pyvenv.cfg").write_text(
        f"home = {os.path.dirname(interpreter.base_executable)}\n"
        "include-system-site-packages = false\n"
        f"version = {interpreter.version}\n",
        encoding="utf-8",
    )
    for each in platform.distributions:
        if not each.state.present or each.version is None or not _is_version(each.version):
            continue
        info = site / f"{each.name.replace('-', '_')}-{each.version}.dist-info"
        if info.exists():
            continue
        info.mkdir()
        original = Path(each.metadata, "METADATA")
        if original.is_file():
            shutil.copyfile(original, info / "METADATA")
        else:
            headers = [f"Name: {each.name}", f"Version: {each.version}"]
            headers += [f"Requires-Dist: {requirement}" for requirement in each.requires]
            text = "\n".join(["Metadata-Version: 2.1", *headers, ""])
            (info / "METADATA").write_text(text, encoding="utf-8")
        (info / "INSTALLER").write_text("preheat\n", encoding="utf-8")
        (info / "RECORD").touch()
    (site / "_platform.pth").write_text(
        "".join(f"{place}\n" for place in interpreter.sites), encoding="utf-8"
    )
    return python


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True
