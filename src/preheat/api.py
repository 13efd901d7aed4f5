"""What ``import preheat`` offers beyond the warm path. Loaded only when it is needed.

Everything heavy happens in a child process: this one is a worker's, and must not hold modules
that a layer is about to shadow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from preheat import start
from preheat.edges.calls import Call, read_call, write_manifest
from preheat.edges.surroundings import without_layers
from preheat.words import errors
from preheat.words.errors import PreheatError, RequiredPackageError

_LOCATION = str(Path(__file__).parents[1])
_RUN = f"import sys; sys.path.append({_LOCATION!r}); from preheat.cli import main; main()"

_asked: dict[str, Call] = {}


def provision_in_child(
    manifest: str, store: str | None, deadline: float | None, retry: bool
) -> dict[str, Any]:
    """Runs a cold start and returns the facts of the pointer that it left.

    Raises:
        PreheatError: what the child reported, as it would have been raised here.
    """
    arguments = ["warm", "--json", "--cold", "--manifest", manifest]
    arguments += ["--store", os.fspath(store)] if store else []
    arguments += ["--deadline", str(deadline)] if deadline is not None else []
    arguments += ["--retry"] if retry else []
    report = _command(arguments)
    pointer = start.pointer_file(
        report["store"], manifest, sys.prefix, sys.implementation.cache_tag
    )
    facts = start.read_pointer(pointer)
    if facts is None:
        raise PreheatError(f"the start left no pointer at {pointer}")
    return facts


def required_error(ready: start.Ready) -> RequiredPackageError:
    """The error for a start in which a required package is not ready."""
    missing = [package for package in ready if package.required and not package.ok]
    reasons = "; ".join(f"{package.name}: {package.reason}" for package in missing)
    return RequiredPackageError(
        f"required and not ready: {reasons}",
        hint=f"the whole report: {ready.report}",
        packages=tuple(package.name for package in missing),
    )


def check_and_install_package(
    package_name: str,
    import_name: str | None = None,
    install_command: Sequence[str] | None = None,
    description: str = "",
) -> bool:
    """Makes one package importable in this process, around the platform; never raises for it.

    For scripts that did ``pip install`` in a try/except. Earlier calls of this process are kept
    at the versions that they got.

    Args:
        package_name: what it is called, and the requirement where none is given.
        import_name: what it promises to import, dotted or not; by default the name with
            underscores.
        install_command: requirement strings and installer flags, as
            ``["flash-attn", "--no-build-isolation"]``.
        description: said in the log.

    Returns:
        Whether the import works now.

    Raises:
        ManifestError: the arguments are not a requirement, an import or a known flag.
    """
    call = read_call(package_name, import_name, install_command or ())
    before = {name: kept for name, kept in _asked.items() if name != call.name}
    manifest = write_manifest([*before.values(), call])
    label = f"{package_name} ({description})" if description else package_name
    try:
        ready = start.warm(manifest)
    except PreheatError as error:
        sys.stderr.write(f"preheat: {label}: {error}\n")
        return False
    state = ready[call.name]
    if state.ok:
        _asked[call.name] = call.at(state.version)
    sys.stderr.write(f"preheat: {label}: {state.status}: {state.reason}\n")
    return bool(state.ok)


def cleanup_disk_space() -> dict[str, Any]:
    """Frees what is preheat's own and needed by nobody.

    Returns:
        ``freed``: bytes, measured by the filesystem; ``tiers``: the same by kind; ``before`` and
        ``after``: bytes free.
    """
    return _command(["clean", "--json"])


def _command(arguments: Sequence[str]) -> dict[str, Any]:
    answer = subprocess.run(
        [sys.executable, "-c", _RUN, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=without_layers(os.environ),
        check=False,
    )
    try:
        found: dict[str, Any] = json.loads(answer.stdout)
    except ValueError:
        raise PreheatError(
            f"the start ended with exit {answer.returncode} and no report",
            hint="what it said is above",
        ) from None
    if "error" in found:
        raise _as_raised(found["error"])
    return found


def _as_raised(error: Mapping[str, Any]) -> PreheatError:
    """The exception that the child's error was."""
    for kind in _kinds(PreheatError):
        if kind.code == error["code"]:
            return kind(error["message"], hint=error["hint"])
    return PreheatError(error["message"], hint=error["hint"])


def _kinds(root: type[PreheatError]) -> list[type[PreheatError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, root)]
