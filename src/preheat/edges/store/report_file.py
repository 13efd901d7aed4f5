"""The last report, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from preheat.edges.platform.probe import ask_interpreter
from preheat.edges.store.pointer_writer import report_file
from preheat.edges.store.store import Store
from preheat.words.errors import PreheatError
from preheat.words.report import Report


def last_report(store: Store, manifest: Path, executable: str) -> dict[str, Any]:
    """The document of the last cold start for that manifest and interpreter.

    Raises:
        PreheatError: there was none.
    """
    interpreter = ask_interpreter(executable)
    file = report_file(store, manifest, interpreter.prefix, interpreter.cache_tag)
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise PreheatError(
            f"no start is remembered for {manifest} in {store.root}", hint="run: preheat warm"
        ) from None
    return document


def report_from(document: Mapping[str, Any]) -> Report:
    """A report as a value again; keys that only programs want are left out.

    Raises:
        PreheatError: it was written by another version.
    """
    adapter = TypeAdapter(Report)
    known = {key: document[key] for key in Report.__dataclass_fields__ if key in document}
    try:
        return adapter.validate_python(known)
    except ValidationError as error:
        raise PreheatError(
            f"the report was written by another version of preheat: {error}",
            hint="run: preheat warm --cold",
        ) from error
