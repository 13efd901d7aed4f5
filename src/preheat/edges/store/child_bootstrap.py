"""The one directory that children of an activated process start with, and their launchers."""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from preheat import activation, lease
from preheat.decisions.identity import digest
from preheat.edges.disk.atomic import rename_new, unwritable
from preheat.edges.store.store import Store
from preheat.words.layer import LayerPath
from preheat.words.platform import Interpreter
from preheat.words.store import Directory

# The kernel cuts a first line at 255 bytes and knows no spaces, so a shell finds the interpreter.
# More than any path has (PATH_MAX).
_SHEBANG_BYTES = 8192
_LAUNCHER = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import sys
from {module} import {root}
if __name__ == "__main__":
    sys.argv[0] = sys.argv[0].removesuffix(".exe")
    sys.exit({attribute}())
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Activated:
    """What an activation puts on the path.

    Attributes:
        layers: in order.
        scripts: console script to its ``module:attribute``; the first layer's wins.
    """

    layers: tuple[LayerPath, ...]
    scripts: tuple[tuple[str, str], ...]


def of_layers(store: Store, interpreter: Interpreter, digests: Iterable[str]) -> Path:
    """Makes what children start with over those layers, which are published and ready.

    Raises:
        StoreError: a layer is not there, or the disk refuses.
    """
    facts = [store.facts(digest) for digest in digests]
    scripts: dict[str, str] = {}
    for each in facts:
        for name, target in each.scripts:
            scripts.setdefault(name, target)
    activated = Activated(
        layers=tuple(store.on_path(each) for each in facts),
        scripts=tuple(sorted(scripts.items())),
    )
    return make(store, interpreter, activated)


def make(store: Store, interpreter: Interpreter, activated: Activated) -> Path:
    """Makes the directory, or finds an equal one.

    Raises:
        StoreError: the disk refuses.
    """
    source, leases = inspect.getsource(activation), inspect.getsource(lease)
    lines = [("tag", interpreter.cache_tag)]
    lines += [("site", site) for site in interpreter.sites]
    lines += [("layer", layer.path) for layer in activated.layers]
    lines += [("hooked", layer.path) for layer in activated.layers if layer.has_pth]
    path = "".join(f"{kind} {value}\n" for kind, value in lines)
    name = digest([source, leases, path, activated.scripts, interpreter.executable])[:32]
    target = Directory.BOOTSTRAPS.under(store.local) / name
    if target.is_dir():
        return target
    with store.stage() as staging:
        staged = staging / "bootstrap"
        try:
            files = {"path": path, "sitecustomize.py": _sitecustomize(source)}
            _fill(staged, {**files, "_preheat_lease.py": leases})
            _make_launchers(staged / "bin", interpreter, activated)
            rename_new(staged, target)
        except OSError as error:
            raise unwritable(store.local, error) from error
    return target


def _sitecustomize(source: str) -> str:
    return f"{source}\n\nas_sitecustomize(os.path.dirname(os.path.abspath(__file__)))\n"


def _fill(place: Path, files: dict[str, str]) -> None:
    place.mkdir()
    for name, text in files.items():
        (place / name).write_text(text, encoding="utf-8")


def _make_launchers(place: Path, interpreter: Interpreter, activated: Activated) -> None:
    place.mkdir()
    for name, target in activated.scripts:
        module, _, attribute = target.partition("[")[0].strip().partition(":")
        attribute = attribute.strip() or "main"
        text = _LAUNCHER.format(
            python=interpreter.executable,
            module=module.strip(),
            root=attribute.split(".")[0],
            attribute=attribute,
        )
        _write_executable(place / name, text.encode())
    for script in _shipped_scripts(activated.layers):
        if not (place / script.name).exists():
            _adopt(script, place / script.name, interpreter)


def _shipped_scripts(layers: Sequence[LayerPath]) -> Iterable[Path]:
    """Scripts that wheels ship as files (``.data/scripts``), not as entry points."""
    for layer in layers:
        with contextlib.suppress(OSError):
            yield from sorted(
                entry for entry in Path(layer.path, "bin").iterdir() if entry.is_file()
            )


def _adopt(script: Path, target: Path, interpreter: Interpreter) -> None:
    body = _python_script(script)
    if body is not None:
        exec_line = f"""#!/bin/sh\n'''exec' "{interpreter.executable}" "$0" "$@"\n' '''\n"""
        _write_executable(target, exec_line.encode() + body)
        return
    if os.access(script, os.X_OK):
        target.symlink_to(script)
    else:
        shutil.copyfile(script, target)
        target.chmod(0o755)


def _python_script(script: Path) -> bytes | None:
    """What follows the lines that name an interpreter; None where that is no Python.

    Where the interpreter's path is longer than the kernel takes (127 bytes) or has spaces, there
    are three lines that sh and Python both read: `#!/bin/sh`, `'''exec' PYTHON "$0" "$@"`, `' '''`.
    """
    with script.open("rb") as file:
        first = file.readline(_SHEBANG_BYTES)
        if first.startswith(b"#!/bin/sh"):
            first = file.readline(_SHEBANG_BYTES)
            if not first.startswith(b"'''exec'") or file.readline(8).strip() != b"' '''":
                return None
        elif not first.startswith(b"#!"):
            return None
        return file.read() if b"python" in first else None


def _write_executable(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    file.chmod(0o755)
