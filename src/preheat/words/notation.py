"""How single values are written in a manifest: read, described, and refused when they are wrong.

One `Notation` for each kind of value. It reads the text, says in words what is allowed, and gives
the JSON Schema, so that an error, the reference page and an editor say the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from preheat.words.display import quoted, with_reason
from preheat.words.problem import Problem

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Notation(Generic[T]):
    """How one kind of value is written.

    As the metadata of an `Annotated` type it is the whole of that type's validation.

    Attributes:
        allowed: the phrase that errors and the reference page show.
        read: takes what TOML (or a caller) holds and returns the value, or raises ValueError,
            whose text, if any, says what is wrong.
        write: goes back to what TOML would hold.
        json_schema: for editors.
    """

    allowed: str
    read: Callable[[object], T]
    write: Callable[[T], object] = str
    json_schema: Mapping[str, object]

    def problem(self, where: str, found: object, error: ValueError) -> Problem:
        """Return the problem of a `found` value that `read` refused with `error`."""
        return Problem(where=where, found=with_reason(found, str(error)), allowed=self.allowed)

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(self.write),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return dict(self.json_schema)

    def _validate(self, value: object) -> T:
        try:
            return self.read(value)
        except ValueError as error:
            raise _refusal(self.allowed, str(error)) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Several:
    """Metadata of a type that holds several values.

    Attributes:
        allowed: the phrase that says what the whole of them may be.
        least: how many there must be.
        kinds: what TOML must write them as.
    """

    allowed: str
    least: int = 0
    kinds: tuple[type[Collection[Any]], ...] = (list, tuple)

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | ({"minItems": self.least} if self.least else {})

    def _check(self, value: object) -> object:
        if not isinstance(value, self.kinds) or len(value) < self.least:
            raise _refusal(self.allowed)
        return value


def one_of(*words: str) -> Notation[str]:
    """Return the notation of a value that is one of these words, two at least."""
    *others, last = map(quoted, words)

    def read(value: object) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return Notation(
        allowed=f"{', '.join(others)} or {last}", read=read, json_schema={"enum": list(words)}
    )


def any_text(allowed: str, *, read: Callable[[object], str] | None = None) -> Notation[str]:
    """Return the notation of a text that is not blank, which `read` may look at more closely."""
    return Notation(
        allowed=allowed,
        read=read or read_text,
        json_schema={"type": "string", "minLength": 1},
    )


def text_like(
    pattern: str, allowed: str, *, canonical: Callable[[str], str] = str
) -> Notation[str]:
    """Return the notation of a text that fits `pattern` whole, of which `canonical` is kept."""

    def read(value: object) -> str:
        text = read_text(value)
        if not re.fullmatch(pattern, text):
            raise ValueError
        return canonical(text)

    return Notation(
        allowed=allowed, read=read, json_schema={"type": "string", "pattern": f"^{pattern}$"}
    )


def read_text(value: object) -> str:
    """Return a text without the blanks around it.

    Raises:
        ValueError: it is no text, blank, or holds a null character.
    """
    if not isinstance(value, str) or "\0" in value or not value.strip():
        raise ValueError
    return value.strip()


def _refusal(allowed: str, reason: str = "") -> PydanticCustomError:
    return PydanticCustomError(
        "preheat", "Allowed: {allowed}", {"allowed": allowed, "reason": reason}
    )
