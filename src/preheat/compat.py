"""The imperative calls of scripts that are being moved over. Loaded only when they are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from preheat import start
from preheat.edges.manifest.pip_calls import Call, read_call, write_manifest
from preheat.edges.process import child
from preheat.words.errors import ManifestError, PreheatError

# What this process asked for so far: later calls are resolved together with it.
_asked: dict[str, Call] = {}


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
    before = [kept for name, kept in _asked.items() if name != call.name]
    label = f"{package_name} ({description})" if description else package_name
    try:
        ready = start.warm(write_manifest([*before, call]))
    except ManifestError:
        raise
    except PreheatError as error:
        start.tell(f"preheat: {label}: {error}")
        return False
    state = ready[call.name]
    start.tell(f"preheat: {label}: {state.status}: {state.reason}")
    if not state.ok:
        return False
    _asked[call.name] = call.at(state.version)
    # Imported before in another version: this process goes on with that one.
    return call.imports[0].partition(".")[0] not in ready.conflicts


def cleanup_disk_space() -> dict[str, Any]:
    """Frees leftovers and caches, preheat's own and those of known programs, as `preheat clean`.

    Returns:
        ``freed``: bytes, measured by the filesystem; ``tiers``: the same by kind; ``before`` and
        ``after``: bytes free.

    Raises:
        PreheatError: the store cannot be read.
    """
    return child.command(["clean"])
