"""Makes a manifest's packages ready: by the pointer that the last startup left, or the long way.

Following the pointer imports nothing heavy: whatever the long way needs is imported there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

from preheat import pointer
from preheat.commands.invocation import Invocation, manifest_of, order_of, settings_of
from preheat.start import PackageState
from preheat.words.listener import Listener

Listening = Callable[[], AbstractContextManager[Listener]]
"""Opens whoever is told of progress, once there is any."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Startup:
    """What one startup is asked for.

    Attributes:
        deadline: how long optional packages are waited for, as it was written; None for as long
            as the settings say.
        retry: what failed before is tried again.
        locked: the lock beside the manifest must be used.
        cold: the pointer is not followed, even where it is valid.
    """

    invocation: Invocation
    deadline: str | None = None
    retry: bool = False
    locked: bool = False
    cold: bool = False


def warm(startup: Startup, listening: Listening) -> dict[str, Any]:
    """Makes everything ready, and returns the report as a document.

    Raises:
        PreheatError: the manifest is wrong, or the store or the platform unusable.
    """
    followed = follow(startup, listening)
    if followed is None:
        return go_cold(startup, listening)
    from preheat.edges.disk.volumes import free_bytes

    store = followed["store"]
    free = free_bytes(store)
    volume = {"role": "store", "path": store, "before": free, "after": free}
    return {**followed, "volumes": [volume]}


def follow(startup: Startup, listening: Listening) -> dict[str, Any] | None:
    """What the pointer says, as a report without volumes; None where the startup must be cold.

    Packed layers that are not on this machine yet are unpacked.
    """
    begin = time.perf_counter()
    invocation = startup.invocation
    if startup.retry or startup.locked or startup.cold or invocation.settings:
        # Settings of the command line are looked at by a cold startup only.
        return None
    facts, why_cold = find_pointer(invocation)
    if facts is None or (why_cold and not _unpacked(invocation, facts, listening)):
        return None
    pointer.note(facts, warm=not why_cold)
    packages = [{**row, "bytes_predicted": 0, "bytes_actual": 0} for row in facts["packages"]]
    return {
        "schema": facts["schema"],
        "ready": all(package.ok for package in map(PackageState, packages) if package.required),
        "warm": not why_cold,
        "seconds": round(time.perf_counter() - begin, 6),
        "packages": packages,
        "capabilities": facts["capabilities"],
        "paths": facts["layers"],
        "volumes": [],
        "bootstrap": facts["bootstrap"],
        "store": facts["store"],
        "local": facts["local"],
        "shared": facts["shared"],
    }


def find_pointer(invocation: Invocation) -> tuple[dict[str, Any] | None, str]:
    """The pointer for that manifest and interpreter, and why the next startup is not warm.

    Raises:
        ManifestError: there is no manifest.
        PlatformError: the interpreter cannot be run.
    """
    interpreter = pointer.running()
    if invocation.python != sys.executable:
        from preheat.edges.platform.probe import ask_interpreter

        asked = ask_interpreter(invocation.python)
        interpreter = (asked.full_version, asked.prefix, asked.cache_tag)
    named = str(invocation.store.absolute()) if invocation.store else None
    return pointer.examine(str(manifest_of(invocation)), named, interpreter)


def go_cold(startup: Startup, listening: Listening) -> dict[str, Any]:
    """Probes, plans, installs and proves, and returns the report as a document.

    Raises:
        PreheatError: the manifest is wrong, or the store or the platform unusable.
    """
    from preheat.making.provision import Provision

    _end_when_told()
    order = order_of(
        startup.invocation,
        {"deadline": startup.deadline},
        retry=startup.retry,
        locked=startup.locked,
    )
    with listening() as listener:
        return asdict(Provision(order, listener).warm())


def _unpacked(invocation: Invocation, facts: Mapping[str, Any], listening: Listening) -> bool:
    """Unpacks what the pointer names, and returns whether all of it is there now."""
    from preheat.making.unpack import unpack_layers

    _end_when_told()
    with listening() as listener:
        return unpack_layers(facts, settings_of(invocation), invocation.python, listener)


def _end_when_told() -> None:
    """Ends this process as Ctrl-C does, with nothing left behind, on SIGTERM or without parent."""
    import signal

    from preheat.edges.process.child import end_with_parent

    # A platform that stops a worker sends this first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    end_with_parent()
