"""From a decoded TOML document to a manifest, or to a line for each thing that is wrong with it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from preheat.words.display import quoted, shown, with_reason
from preheat.words.errors import ManifestError
from preheat.words.manifest import (
    REPEATED,
    BuildLimits,
    Condition,
    Index,
    Manifest,
    Package,
    Space,
    StatedCuda,
    repeated_names,
)
from preheat.words.manifest_table import Origin, kebab
from preheat.words.notation import Notation, Several
from preheat.words.problem import Problem, did_you_mean

# Each table of the file, by the path of its keys.
TABLES: Mapping[tuple[str, ...], type] = {
    (): Manifest,
    ("package",): Package,
    ("package", "when"): Condition,
    ("package", "build-limits"): BuildLimits,
    ("space",): Space,
    ("index",): Index,
    ("cuda",): StatedCuda,
}

_HINT = "every key is described in docs/reference/manifest.md, and for editors in the JSON Schema"


def parse_manifest(document: Mapping[str, object], source: str, directory: str = "") -> Manifest:
    """Return the manifest that a decoded TOML `document` states.

    `source` names the document in errors, as a person would: `preheat.toml`. `directory` is where
    its relative paths start, or empty for the working directory.

    Raises:
        ManifestError: one line for each thing that is wrong; its data are `file` and `problems`,
            dictionaries of `where`, `found`, `allowed` and `suggestion`.
    """
    packages = document.get("package")
    names = [_name(entry) for entry in packages] if isinstance(packages, list | tuple) else []
    problems = list(repeated_names(names))
    try:
        manifest = _DOCUMENT.validate_python(dict(document), by_alias=True, by_name=False)
    except ValidationError as refused:
        errors = refused.errors(include_url=False)
        problems += [_problem(error, names) for error in errors if error["type"] != REPEATED]
    if problems:
        raise refuse(source, problems)
    # The one field that is not the user's to state, and therefore none of the constructor's.
    origin = Origin(source=source, directory=directory, stated=frozenset(_stated(document)))
    object.__setattr__(manifest, "origin", origin)
    return manifest


def refuse(source: str, problems: Sequence[Problem]) -> ManifestError:
    """Return the error that reports all of a manifest's `problems`, one on each line."""
    return ManifestError(
        "\n".join(f"{source}: {problem}" for problem in problems),
        hint=_HINT,
        file=source,
        problems=tuple(map(dataclasses.asdict, problems)),
    )


_DOCUMENT = TypeAdapter(Manifest)


def fields_of(table: type) -> dict[str, FieldInfo]:
    """Return the fields of one of the TABLES under their TOML keys, in order."""
    fields: dict[str, FieldInfo] = table.__pydantic_fields__  # type: ignore[attr-defined]
    return {kebab(name): field for name, field in fields.items() if field.init is not False}


def allowed_in(field: object) -> str:
    """Return the phrase that says which values a field, or the type of one, allows."""
    if isinstance(field, FieldInfo):
        metadata, inner = field.metadata, [field.annotation]
    else:
        metadata, inner = list(getattr(field, "__metadata__", ())), list(get_args(field))
    for item in metadata:
        if isinstance(item, Notation | Several):
            return item.allowed
    return next(filter(None, map(allowed_in, inner)), "")


def _name(entry: object) -> str | None:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    return name if isinstance(name, str) and name.strip() else None


def _stated(document: Mapping[str, object]) -> Iterator[str]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from (f"{key}.{inner}" for inner in value)
        else:
            yield key


def _problem(error: ErrorDetails, names: Sequence[str | None]) -> Problem:
    location = error["loc"]
    table = tuple(part for part in location[:-1] if isinstance(part, str))
    context = error.get("ctx", {})
    where, found, allowed, suggestion = _where(location, names), shown(error["input"]), "", ""
    match error["type"]:
        case "preheat":
            allowed = context["allowed"]
            found = with_reason(error["input"], context["reason"])
        case "missing":
            found, allowed = "nothing", allowed_in(fields_of(TABLES[table])[str(location[-1])])
        case "unexpected_keyword_argument":
            found, known = "an unknown key", list(fields_of(TABLES[table]))
            allowed, suggestion = ", ".join(known), _suggestion(str(location[-1]), table)
        case "dataclass_type":
            allowed = "a table"
        case "invalid_key":
            found, allowed = "a key that is not text", "keys that are text"
        case _:
            allowed = error["msg"]
    return Problem(where=where, found=found, allowed=allowed, suggestion=suggestion)


def _suggestion(key: str, table: tuple[str, ...]) -> str:
    for other, values in TABLES.items():
        if other != table and kebab(key) in fields_of(values):
            return f"it belongs in [{'.'.join(other)}]" if other else "it belongs above all tables"
    return did_you_mean(key, list(fields_of(TABLES[table])))


def _where(location: Sequence[int | str], names: Sequence[str | None]) -> str:
    match list(location):
        case ["package", int(position), *inner]:
            name = names[position]
            label = f"package[{position}]" + (f" {shown(name)}" if name else "")
            return f"{label}: {_path(inner)}" if inner else label
        case ["capabilities", key, "[key]"]:
            return _path(["capabilities", key])
        case whole:
            return _path(whole)


def _path(parts: Sequence[int | str]) -> str:
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            path += ("." if path else "") + (part if bare else quoted(part))
    return path
