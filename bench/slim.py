"""What `preheat slim` leaves of the payload: its proposal taken over, installed and imported.

Around a platform with CUDA torch, beside unconstrained uv. In the end every file of the platform's
protected distributions is compared, by its hash, with every file of the layers.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import ground
from bench.payload import EXCLUDES, PLATFORM, REQUIREMENTS, tables
from bench.scales import Payload, Scales, belongs_to_the_platform, pins_of
from preheat.edges.platform import inventory
from preheat.edges.platform.probe import probe

HOME = ground.BUILD / "slim"
PLACE = ground.BUILD / "payload" / "platform"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A manifest, warmed: what it brought, and what was put on the path."""

    payload: Payload
    paths: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """Layers on the path of a platform."""

    python: Path
    paths: tuple[Path, ...]


def measure() -> None:
    """Warm, slim, warm anew in an empty store; print the tables and keep the figures."""
    python = ground.make_venv(PLACE, *PLATFORM)
    scales = Scales(python, HOME / "scales")
    every = scales.unconstrained(REQUIREMENTS)
    whole = ground.write_manifest(HOME / "whole.toml", tables(EXCLUDES))
    first = warm(whole, HOME / "whole", python, scales)
    thin = Path(shutil.copy(whole, HOME / "thin.toml"))
    options = ("--manifest", str(thin), "--store", str(HOME / "whole"))
    found = ground.preheat("slim", "--write", *options, "--python", str(python))
    second = warm(thin, HOME / "thin", python, scales)
    imports = {name: can_import(python, second.paths, name) for name in REQUIREMENTS.values()}
    again = duplicated(protected_files(python), second.paths)
    rows = {
        "uv, unconstrained": every,
        "preheat, with excludes": first.payload,
        "preheat, after slim": second.payload,
    }
    ground.show(
        f"bytes without .pyc for {', '.join(REQUIREMENTS)}",
        ("", "MB", "of uv's", "distributions"),
        (
            [
                name,
                f"{each.bytes / 1e6:,.0f}",
                f"{each.bytes / every.bytes:.3f}",
                str(len(each.distributions)),
            ]
            for name, each in rows.items()
        ),
    )
    print("imported in a fresh process:", imports)
    print(f"bytes of protected files that the layers hold again: {sum(again.values()):,}", again)
    payload = {
        name: {
            "bytes": each.bytes,
            "share": round(each.bytes / every.bytes, 4),
            "distributions": len(each.distributions),
        }
        for name, each in rows.items()
    }
    figures = {"payload": payload, "imports": imports, "duplicated": again}
    ground.keep("slim", {**figures, "spares": found["spares"]})


def stages() -> tuple[Served, Served]:
    """The layers before and after slimming; made, where they are not there."""
    if not (HOME / "thin.toml").exists():
        measure()
    before, after = (
        ground.preheat(
            "warm",
            *("--manifest", str(HOME / f"{name}.toml")),
            *("--store", str(HOME / name), "--python", str(PLACE / "bin" / "python")),
        )["paths"]
        for name in ("whole", "thin")
    )
    if not isinstance(before, list) or not isinstance(after, list):
        raise SystemExit("the reports have no paths")
    python = PLACE / "bin" / "python"
    return (
        Served(python=python, paths=tuple(map(Path, before))),
        Served(python=python, paths=tuple(map(Path, after))),
    )


def warm(manifest: Path, store: Path, python: Path, scales: Scales) -> Stage:
    """A cold start in an empty store, of which every package must be ready."""
    shutil.rmtree(store, ignore_errors=True)
    options = ("--manifest", str(manifest), "--store", str(store), "--python", str(python))
    report = ground.preheat("warm", *options)
    packages, paths = report["packages"], report["paths"]
    if not isinstance(packages, list) or not isinstance(paths, list):
        raise SystemExit("the report has no packages")
    bad = [f"{p['name']}: {p['reason']}" for p in packages if p["status"] != "installed"]
    if bad:
        raise SystemExit(f"not ready: {'; '.join(bad)}")
    return Stage(payload=scales.weigh(pins_of(packages)), paths=tuple(map(Path, paths)))


def can_import(python: Path, paths: Sequence[Path], module: str) -> bool:
    """Whether a fresh process imports it, with the layers before the platform."""
    done = subprocess.run(
        (str(python), "-c", f"import {module}"),
        env=ground.surroundings(
            PYTHONPATH=os.pathsep.join(map(str, paths)), PYTHONDONTWRITEBYTECODE="1"
        ),
        stdout=subprocess.DEVNULL,
        stderr=sys.stderr,
        check=False,
    )
    return done.returncode == 0


def duplicated(files: Iterable[Path], layers: Iterable[Path]) -> Mapping[str, int]:
    """Those of the platform's files that lie in a layer too, by the layer's path, in bytes.

    Licences and empty modules are the same everywhere: what is in ``.dist-info``, and what is
    empty, is not compared. A link to a file of the platform holds no bytes of it.
    """
    protected = {_digest(file) for file in files if file.stat().st_size}
    return {
        str(file.relative_to(layer)): file.stat().st_size
        for layer in layers
        for file in layer.rglob("*")
        if file.is_file()
        and not file.is_symlink()
        and ".dist-info" not in str(file)
        and file.stat().st_size
        and _digest(file) in protected
    }


def protected_files(python: Path) -> Iterator[Path]:
    """The files of the platform's torch, triton and NVIDIA's distributions."""
    for each in probe(str(python)).distributions:
        if belongs_to_the_platform(each.name):
            for path in inventory.files(each):
                file = Path(each.location, path)
                if ".dist-info" not in path and file.is_file():
                    yield file


def _digest(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()
