"""The manifest as a file: found, read, and its settings completed by the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from preheat.edges.manifest import toml
from preheat.edges.manifest.default_store import default_local, default_store
from preheat.words.display import shown
from preheat.words.errors import ManifestError, NoManifest
from preheat.words.manifest import Manifest
from preheat.words.manifest_parser import parse_manifest, refuse
from preheat.words.problem import Problem
from preheat.words.settings import Settings, resolve_settings

FILE = "preheat.toml"
PROJECT = "pyproject.toml"
TABLE = "[tool.preheat]"

_HINT = f"write a {FILE}, or name the manifest with --manifest FILE or PREHEAT_MANIFEST"


def find_manifest(start: Path, environ: Mapping[str, str] | None = None) -> Path:
    """Return the manifest's file: what PREHEAT_MANIFEST names, or what is in `start`.

    In `start`, and in none of its parents, `preheat.toml` comes first, then a `pyproject.toml`
    with a table `[tool.preheat]`. `environ` is the process's own where it is not given. The file
    that PREHEAT_MANIFEST names is not looked at; a relative one starts at `start`.

    Raises:
        NoManifest: there is none, with the places that were looked at in `places`.
        ManifestError: the `pyproject.toml` cannot be read.
    """
    named = (os.environ if environ is None else environ).get("PREHEAT_MANIFEST")
    if named:
        return start / named
    own, project = start / FILE, start / PROJECT
    if own.exists():
        return own
    lacks = "not there"
    if project.exists():
        if _project_table(_load(project)) is not None:
            return project
        lacks = "no such table"
    raise NoManifest(
        f"no manifest: looked for {own} (not there) and for {TABLE} in {project} ({lacks})",
        hint=_HINT,
        places=(str(own), str(project)),
    )


def read_manifest(path: Path) -> Manifest:
    """Return the manifest in the file `path`: of a `pyproject.toml`, its table `[tool.preheat]`.

    Raises:
        ManifestError: the file cannot be read, is not TOML (with `file`, `line` and `column`), or
            states what is not allowed (with `file` and `problems`).
    """
    document = _load(path)
    table: object = document
    source = str(path)
    if path.name == PROJECT:
        table = _project_table(document)
        source = f"{path} {TABLE}"
        if table is None:
            raise ManifestError(f"{path}: it has no table {TABLE}", hint=_HINT, file=str(path))
    if not isinstance(table, dict):
        problem = Problem(where="tool.preheat", found=shown(table), allowed="a table")
        raise refuse(str(path), [problem])
    return parse_manifest(table, source, directory=str(path.parent))


def read_settings(
    manifest: Manifest,
    command_line: Mapping[str, object],
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings of this process: see `resolve_settings`.

    `environ` is the process's own where it is not given.

    Raises:
        ManifestError: a variable or an argument is unknown, or its value is not allowed.
    """
    environment = os.environ if environ is None else environ
    settings = resolve_settings(
        manifest, environment, command_line, default_store(environment), Path.cwd()
    )
    local = default_local(environment) if settings.local is None else None
    return settings.with_local(local) if local else settings


def _project_table(document: Mapping[str, object]) -> object:
    tool = document.get("tool")
    return tool.get("preheat") if isinstance(tool, dict) else None


def _load(path: Path) -> dict[str, object]:
    try:
        return toml.load(path)
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file", hint=_HINT, file=str(path)) from None
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}", file=str(path)) from error
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        raise _not_toml(path, before, "not UTF-8") from error
    except RecursionError as error:
        raise ManifestError(f"{path}: not TOML: nested too deep", file=str(path)) from error
    except ValueError as error:
        reason, line, column = _explained(str(error))
        if line:
            raise _not_toml_at(path, line, column, reason) from error
        raise _not_toml(path, path.read_text(encoding="utf-8"), reason) from error


def _explained(message: str) -> tuple[str, int, int]:
    at = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    if at is None:
        return message.removesuffix(" (at end of document)"), 0, 0
    return at[1], int(at[2]), int(at[3])


def _not_toml(path: Path, before: str, reason: str) -> ManifestError:
    line = before.count("\n") + 1
    return _not_toml_at(path, line, len(before) - before.rfind("\n"), reason)


def _not_toml_at(path: Path, line: int, column: int, reason: str) -> ManifestError:
    return ManifestError(
        f"{path}: line {line}, column {column}: not TOML: {reason}",
        file=str(path),
        line=line,
        column=column,
    )
