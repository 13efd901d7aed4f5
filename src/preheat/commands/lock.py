"""Writes a lock (PEP 751) beside a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from preheat.edges.engine.lock_file import NAME
from preheat.making.provision import Provision
from preheat.words.listener import Listener
from preheat.words.lock import Lock
from preheat.words.order import Order


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A lock that was written.

    Attributes:
        complete: every required package can be had.
    """

    file: Path
    lock: Lock
    complete: bool


def write_lock(order: Order, listener: Listener) -> Written:
    """Resolves anew, and writes the lock with sizes and hashes.

    Raises:
        ResolutionError: the index does not answer.
        StoreError: the file cannot be written.
        PlatformError: the interpreter cannot be run.
    """
    file = order.manifest_file.parent / NAME
    made = Provision(order, listener).lock(file)
    required = {package.name for package in order.manifest.package if package.required}
    refused = {name for name, _ in made.refused}
    return Written(file=file, lock=made, complete=not required & refused)
