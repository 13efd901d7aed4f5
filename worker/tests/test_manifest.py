"""The worker's own manifest, read as preheat reads it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WORKER = Path(__file__).parents[1]


def test_packages_come_in_the_order_of_their_importance() -> None:
    optional = [row["name"] for row in manifest()["package"] if not row.get("required")]
    assert optional == ["google-cloud-speech", "flash-attn", "whisperx"]


def test_the_worker_cannot_live_without_f5_tts_and_what_it_imports() -> None:
    required = [row["name"] for row in manifest()["package"] if row.get("required")]
    assert required == ["transformers", "f5-tts"]


def test_preheat_accepts_the_manifest(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "preheat", "status", "--json")
    place = ("--manifest", str(WORKER / "preheat.toml"), "--store", str(tmp_path / "store"))
    said = subprocess.run(
        (*command, *place), capture_output=True, text=True, check=False, timeout=60
    )
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)


def test_the_worker_uses_only_what_preheat_makes_public() -> None:
    assert [name for name in imported(WORKER / "src") if name.startswith("preheat.")] == []


def test_the_library_never_imports_the_worker() -> None:
    library = WORKER.parent / "src" / "preheat"
    assert [name for name in imported(library) if name.startswith("f5_tts_worker")] == []


def imported(tree: Path) -> Iterator[str]:
    """Every module that the Python files below `tree` import, as it is written there."""
    for file in tree.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def manifest() -> dict[str, Any]:
    """The worker's manifest as data."""
    return tomllib.loads((WORKER / "preheat.toml").read_text(encoding="utf-8"))
