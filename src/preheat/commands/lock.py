"""Writes a lock (PEP 751) beside a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from preheat.edges.engine import lock_file
from preheat.planning.session import looking
from preheat.planning.survey import Surveyor
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
    file = order.manifest_file.parent / lock_file.NAME
    with looking(order, listener) as session:
        # What archives hold is true for ever: with it, a plan from the lock asks no index.
        found = Surveyor(session.remembering()).resolve()
        lock_file.write_lock(found.lock, found.contents, file)
    made = found.lock
    required = {package.name for package in order.manifest.package if package.required}
    refused = {name for name, _ in made.refused}
    return Written(file=file, lock=made, complete=not required & refused)
