"""The last cold startup's report, and how the startups before it went."""

from __future__ import annotations

from typing import Any

from preheat.commands.invocation import Invocation, manifest_of, settings_of
from preheat.edges.store.report_file import last_report
from preheat.edges.store.store import Store


def history(invocation: Invocation) -> tuple[dict[str, object], ...]:
    """A line for each startup that the store remembers, oldest first.

    Raises:
        ManifestError: the manifest that was named is wrong, or a setting is.
    """
    return _store(invocation).history.starts()


def last(invocation: Invocation) -> dict[str, Any]:
    """The report of the last cold startup, as a document.

    Raises:
        ManifestError: there is no manifest, or it or a setting is wrong.
        PreheatError: there was none for that manifest and interpreter.
    """
    return last_report(_store(invocation), manifest_of(invocation), invocation.python)


def _store(invocation: Invocation) -> Store:
    return Store(settings_of(invocation).store)
