"""What every table of a manifest is made with, and where a manifest came from."""

from __future__ import annotations

import dataclasses

from pydantic import ConfigDict

from preheat.words.display import redact


def kebab(name: str) -> str:
    """Return the key in TOML of a field."""
    return name.replace("_", "-")


# In TOML keys are written with hyphens; in Python a value is made with its field names.
CONFIG = ConfigDict(
    extra="forbid", alias_generator=kebab, validate_by_alias=True, validate_by_name=True
)


class Redacted:
    """A dataclass whose repr never shows the credentials of a URL."""

    __slots__ = ()

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        inside = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields if f.repr)
        return redact(f"{type(self).__name__}({inside})")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a manifest came from: its file in words, that file's directory, the keys it states."""

    source: str = ""
    directory: str = ""
    stated: frozenset[str] = frozenset()
