"""The start of a worker: warm in milliseconds, or cold in a child process.

A warm start follows the pointer that the last start left, if manifest, interpreter, platform and
driver are unchanged and the layers are still there; then the layers go on the path. It starts no
process, asks no network, and imports nothing that a bare interpreter has not loaded, which is why
values are slotted classes written by hand here and not dataclasses.

A cold start runs in a child, so that the worker's own process never holds a module, of preheat's
dependencies or a platform's, that a layer is about to shadow.
"""

from __future__ import annotations

import atexit
import os
import sys
import time

from preheat.activation import activate
from preheat.lease import SHARED, USE_LEASE_SECONDS, Lease, take
from preheat.pointer import (
    UNPACK,
    examine,
    first_gone,
    note,
    pending_removal,
    pointer_file,
    read_pointer,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from preheat.words.errors import RequiredPackageError

_BOOTSTRAP = "PREHEAT_INTERNAL_BOOTSTRAP"


class PackageState:
    """What became of one package of the manifest.

    Attributes:
        name: as in the manifest.
        status: ``platform``, ``reused``, ``installed``, ``skipped`` or ``failed``.
        reason: why, in a sentence.
        version: of its first requirement, or None.
        layer: directory that it is imported from, or None.
        required: whether the worker cannot live without it.
    """

    __slots__ = ("layer", "name", "reason", "required", "status", "version")

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.name: str = row["name"]
        self.status: str = row["status"]
        self.reason: str = row["reason"]
        self.version: str | None = row["version"]
        self.layer: str | None = row["layer"]
        self.required: bool = row["required"]

    @property
    def ok(self) -> bool:
        """Whether its imports work in this process."""
        return self.status in ("platform", "reused", "installed")

    def __repr__(self) -> str:
        return f"<{self.name} {self.version or '-'}: {self.status}>"


class Ready:
    """What a start made ready, by package name.

    Attributes:
        report: file of the last cold start's report.
        warm: the short path was taken.
        seconds: what the start took in this process, activation included.
        paths: directories that were put on the path.
        conflicts: modules imported before the start that a layer would have shadowed; this
            process keeps the platform's, and mixes versions if it goes on.
    """

    __slots__ = ("_capabilities", "_packages", "conflicts", "paths", "report", "seconds", "warm")

    def __init__(self, facts: Mapping[str, Any], *, warm: bool) -> None:
        self._packages = {row["name"]: PackageState(row) for row in facts["packages"]}
        self._capabilities: dict[str, str | None] = facts["capabilities"]
        self.report: str = facts["report"]
        self.warm = warm
        self.seconds = 0.0
        self.paths: tuple[str, ...] = ()
        self.conflicts: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> PackageState:
        return self._packages[name]

    def __iter__(self) -> Iterator[PackageState]:
        return iter(self._packages.values())

    def __contains__(self, name: object) -> bool:
        return name in self._packages

    def __len__(self) -> int:
        return len(self._packages)

    @property
    def ok(self) -> bool:
        """Whether everything required is ready."""
        return all(package.ok for package in self if package.required)

    def choose(self, capability: str) -> str | None:
        """The first package of that capability that works here, or None.

        Raises:
            KeyError: the manifest has no such capability.
        """
        return self._capabilities[capability]

    def __repr__(self) -> str:
        return f"<preheat {'warm' if self.warm else 'cold'}: {list(self)}>"


def warm(
    manifest: str | os.PathLike[str] | None = None,
    *,
    store: str | os.PathLike[str] | None = None,
    deadline: float | None = None,
    retry: bool = False,
) -> Ready:
    """Makes what the manifest names importable in this process and in its children.

    Args:
        manifest: ``preheat.toml``, or a ``pyproject.toml`` with ``[tool.preheat]``; by default
            the one in the working directory.
        store: where layers are kept; by default what the settings say.
        deadline: seconds after which optional packages are no longer waited for.
        retry: try packages again that failed before.

    Raises:
        preheat.PreheatError: the manifest is wrong, the store unusable; or, as
            RequiredPackageError, a required package could not be made ready.
    """
    begin = time.perf_counter()
    file = os.path.abspath(manifest or _find_manifest())
    named = None if store is None else os.path.abspath(store)
    facts, why = (None, "") if retry else examine(file, named)
    if facts is not None and not why and (lease := hold(facts)) is not None:
        note(facts)
        ready = Ready(facts, warm=True)
    else:
        asked = ["--retry"] if retry else [] if why == UNPACK else ["--cold"]
        facts, lease = _start_cold_and_hold(file, named, deadline, asked)
        ready = Ready(facts, warm=False)
    atexit.register(lease.release)
    _activate_here(ready, facts)
    ready.seconds = time.perf_counter() - begin
    if not ready.ok:
        raise required_error(facts["packages"], hint=f"the whole report: {ready.report}")
    return ready


def hold(facts: Mapping[str, Any]) -> Lease | None:
    """A lease on a start's layers, so that no collector removes them; None if one is being removed.

    First the lease, then the look at what is marked for removal: a collector does it the other way
    round, so one of the two always sees the other.
    """
    layers = [os.path.basename(layer) for layer in facts["layers"]]
    try:
        lease = take(os.path.join(facts["store"], "leases"), layers, USE_LEASE_SECONDS)
    except OSError:
        # A store that cannot be written can still be started from.
        lease = Lease.none()
    pending = pending_removal(facts["local"] or facts["store"])
    if any(layer in layers for layer in pending) or first_gone(facts):
        lease.release()
        return None
    if facts["shared"] and lease.file:
        lease.keep_renewing()
        os.environ[SHARED] = lease.file
    return lease


def _find_manifest() -> str:
    named = os.environ.get("PREHEAT_MANIFEST")
    if named:
        return named
    return "preheat.toml" if os.path.exists("preheat.toml") else "pyproject.toml"


def tell(line: str) -> None:
    """Writes a line to standard error; where it is closed, or takes nothing, nobody is told."""
    try:  # noqa: SIM105  # contextlib would be one more module on the warm path
        sys.stderr.write(f"{line}\n")
    except (AttributeError, OSError, ValueError):
        pass


def _activate_here(ready: Ready, facts: Mapping[str, Any]) -> None:
    """Activates the layers in this process and for its children."""
    layers = facts["layers"]
    bootstrap = facts["bootstrap"]
    old = os.environ.get(_BOOTSTRAP)
    left = _deactivate(old, layers) if old and old != bootstrap else []
    shadowed = [name for name in facts["shadowed"] if _is_elsewhere(name, layers)]
    ready.conflicts = tuple(dict.fromkeys([*shadowed, *left]))
    if ready.conflicts:
        names = ", ".join(ready.conflicts)
        tell(
            f"preheat: imported before the start, so this process keeps what it has: {names}; "
            "call preheat.warm() before importing them"
        )
    sites = [row[0] for row in facts["sites"]]
    ready.paths = tuple(activate(layers, sites, facts["hooked"]))
    if bootstrap and old != bootstrap:
        rest = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
        rest = [place for place in rest if place != old]
        os.environ["PYTHONPATH"] = os.pathsep.join([bootstrap, *rest])
        os.environ[_BOOTSTRAP] = bootstrap


def _deactivate(bootstrap: str, staying: Sequence[str]) -> list[str]:
    """Removes from the path what an earlier activation, here or in a parent, put on it.

    Returns:
        Modules that were imported from layers that are not activated again.
    """
    try:
        with open(os.path.join(bootstrap, "path"), encoding="utf-8") as file:
            lines = file.read().split("\n")
    except OSError:
        return []
    layers = [line[len("layer ") :] for line in lines if line.startswith("layer ")]
    sys.path[:] = [place for place in sys.path if not _is_below(place, layers)]
    gone = [layer for layer in layers if layer not in staying]
    tops = sorted(name for name in sys.modules if "." not in name)
    return [name for name in tops if _is_below(_origin(name), gone)]


def _is_elsewhere(name: str, layers: Sequence[str]) -> bool:
    """Whether a module is imported already, and not from these layers."""
    return name in sys.modules and not _is_below(_origin(name), layers)


def _origin(name: str) -> str:
    """The file of an imported module, or the first directory of a namespace."""
    module = sys.modules[name]
    places = getattr(module, "__path__", None) or ("",)
    return getattr(module, "__file__", None) or str(next(iter(places), ""))


def _is_below(place: str, layers: Sequence[str]) -> bool:
    return any(place == layer or place.startswith(layer + os.sep) for layer in layers)


def _start_cold_and_hold(
    manifest: str, store: str | None, deadline: float | None, asked: list[str]
) -> tuple[dict[str, Any], Lease]:
    """A cold start and a lease on its layers; once more if one was removed before it was held."""
    for options in (asked, asked or ["--cold"]):
        facts = _start_cold(manifest, store, deadline, options)
        lease = hold(facts)
        if lease is not None:
            return facts, lease
    from preheat.words.errors import StoreError

    raise StoreError(
        f"a layer went away as it was made ready: {first_gone(facts) or facts['store']}",
        hint="another process keeps removing layers from this store",
    )


def _start_cold(
    manifest: str, store: str | None, deadline: float | None, options: list[str]
) -> dict[str, Any]:
    from preheat.edges.process import child
    from preheat.words.errors import PreheatError

    report = child.provision(manifest, store, deadline, options)
    pointer = pointer_file(report["store"], manifest, sys.prefix, sys.implementation.cache_tag)
    facts = read_pointer(pointer)
    if facts is None:
        raise PreheatError(f"the start left no pointer at {pointer}")
    # What became of the packages in this start: the pointer says it for the next one.
    return {**facts, "packages": report["packages"]}


def required_error(packages: Iterable[Mapping[str, Any]], *, hint: str) -> RequiredPackageError:
    """The error for a start in which a required package is not ready."""
    from preheat.words.errors import RequiredPackageError

    missing = [PackageState(row) for row in packages]
    missing = [package for package in missing if package.required and not package.ok]
    return RequiredPackageError(
        "required and not ready: " + "; ".join(f"{p.name}: {p.reason}" for p in missing),
        hint=hint,
        packages=tuple(package.name for package in missing),
    )
