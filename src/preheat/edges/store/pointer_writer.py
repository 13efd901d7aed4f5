"""Leaves what the warm start follows, and reads it back for those who only look."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from preheat import pointer
from preheat.edges.disk.atomic import write_atomically
from preheat.edges.disk.volumes import read_volumes
from preheat.edges.store.store import Store
from preheat.words.layer import LayerPath
from preheat.words.platform import Interpreter
from preheat.words.report import PackageReport, Report


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """What a start leaves for the next one.

    Attributes:
        layers: what goes on the path, in order.
        bootstrap: directory that children start with.
        shadowed: import names of the platform that a layer hides.
        libraries: the platform's, that links in the layers lead to.
        expires: unix time after which the next start is cold; infinity where nothing failed.
    """

    manifest: Path
    interpreter: Interpreter
    report: Report
    layers: tuple[LayerPath, ...]
    bootstrap: str
    shadowed: tuple[str, ...]
    libraries: tuple[str, ...]
    expires: float


def leave_pointer(store: Store, left: Left) -> None:
    """Writes the pointer whole, over an older one.

    Raises:
        StoreError: the disk refuses.
    """
    interpreter = left.interpreter
    file = _place(store, left.manifest, interpreter)
    rows = [_row(package) for package in left.report.packages]
    statuses = {row["name"]: row["status"] for row in rows}
    summary = {"ready": left.report.ready, "packages": statuses}
    facts = {
        "format": pointer.FORMAT,
        "schema": left.report.schema,
        "manifest": pointer.hash_of(left.manifest.read_bytes()),
        "python": interpreter.full_version,
        "prefix": interpreter.prefix,
        "environment": pointer.settings_in(os.environ),
        "driver": pointer.driver(),
        "sites": [[site, *pointer.site_state(site)] for site in interpreter.sites],
        "layers": [layer.path for layer in left.layers],
        "hooked": [layer.path for layer in left.layers if layer.has_pth],
        "bootstrap": left.bootstrap,
        "packages": rows,
        "capabilities": left.report.capabilities,
        "shadowed": list(left.shadowed),
        "libraries": list(left.libraries),
        "expires": left.expires,
        # Then other machines see our processes by their leases only.
        "shared": not read_volumes({"store": store.root})[0].quota_known,
        "store": str(store.root),
        # Where the layers are unpacked, if the store keeps them packed.
        "local": str(store.local) if store.packed else "",
        "report": f"{file}.json",
        "history": json.dumps(summary, separators=(",", ":"))[1:],
    }
    write_atomically(file, pointer.pack_pointer(facts))


def keep_report(store: Store, manifest: Path, interpreter: Interpreter, report: Report) -> Path:
    """Keeps the report of the last cold start beside its pointer.

    Raises:
        StoreError: the disk refuses.
    """
    file = Path(f"{_place(store, manifest, interpreter)}.json")
    write_atomically(file, json.dumps(asdict(report), indent=1).encode())
    return file


def report_file(store: Store, manifest: Path, prefix: str, cache_tag: str) -> Path:
    """Where the last report of that manifest and interpreter is kept."""
    return Path(pointer.pointer_file(str(store.root), str(manifest), prefix, cache_tag) + ".json")


def _row(package: PackageReport) -> dict[str, object]:
    """A package as the next start finds it: what was installed now will be reused then."""
    installed = package.status == "installed"
    return {
        "name": package.name,
        "status": "reused" if installed else package.status,
        "reason": "the store has its layer" if installed else package.reason,
        "version": package.version,
        "layer": package.layer,
        "required": package.required,
    }


def _place(store: Store, manifest: Path, interpreter: Interpreter) -> Path:
    return Path(
        pointer.pointer_file(
            str(store.root), str(manifest), interpreter.prefix, interpreter.cache_tag
        )
    )
