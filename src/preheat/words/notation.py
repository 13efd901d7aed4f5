"""How single values are written in a manifest: read, described, and shown when they are wrong.

One `Notation` for each kind of value. It reads the text, says in words what is allowed, and gives
the JSON Schema, so that an error, the reference page and an editor say the same.

Names, requirements, specifiers and markers are those of the packaging standards
(https://packaging.python.org/en/latest/specifications/), read by the `packaging` library.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import json
import keyword
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Generic, TypeVar, get_args
from urllib.parse import urlsplit

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from pydantic import (
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

# ---------------------------------------------------------------------------------------------
# Showing what a user wrote

# A password may hold an unescaped slash, which ends the authority for every parser: the second
# branch hides those too, and leaves "host:8080/project@v1" alone.
_USERINFO = re.compile(r"(?<=://)(?:[^\s/?#]*|[^\s/@:]*:(?!\d+[/?#])[^\s@]*)@")


_SHOWN_CHARACTERS = 80
_SHOWN_BITS = 64


def redact(text: str) -> str:
    """Return `text` with the user and password of every URL in it replaced by `***`."""
    return _USERINFO.sub("***@", text)


def shown(value: object) -> str:
    """Return `value` as a person would write it in TOML: one line, short, no credentials."""
    match value:
        case None:
            words = "nothing"
        case bool():
            words = "true" if value else "false"
        case str():
            text = redact(value)
            words = quoted(
                text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."
            )
        case int() if value.bit_length() > _SHOWN_BITS:
            # Python itself refuses to write out integers of more than some thousand digits.
            words = f"an integer of {value.bit_length()} bits"
        case int() | float():
            words = str(value)
        case Mapping():
            words = "a table" if value else "an empty table"
        case list() | tuple():
            words = f"an array of {len(value)}" if value else "an empty array"
        case _:
            words = f"a {type(value).__name__}"
    return words


def quoted(text: str) -> str:
    """Return text in quotes, on one line."""
    return _one_line(json.dumps(text, ensure_ascii=False))


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong: where, what was found there, what is allowed, and a suggestion."""

    where: str
    found: str
    allowed: str
    suggestion: str = ""

    def __str__(self) -> str:
        line = f"{self.where}: found {self.found}; allowed: {self.allowed}"
        return f"{line}; {self.suggestion}" if self.suggestion else line


def nearest(word: str, known: Sequence[str]) -> str:
    """Return `did you mean "..."?` for the known word most like `word`, or an empty string."""
    close = difflib.get_close_matches(word, known, n=1) or difflib.get_close_matches(
        word.lower().replace("_", "-"), known, n=1
    )
    return f'did you mean "{close[0]}"?' if close else ""


# ---------------------------------------------------------------------------------------------
# Notations: how one value is written, read, and described


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Notation(Generic[T]):
    """How one kind of value is written.

    `read` takes what TOML (or a caller) holds and returns the value, or raises ValueError, whose
    text, if any, says what is wrong; `write` goes back to what TOML would hold; `allowed` is the
    phrase that errors and the reference page show. As the metadata of an `Annotated` type it is
    the whole of that type's validation.
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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Several:
    """Metadata of a type that holds several values: TOML must write it as one of `kinds`.

    There must be `least` values or more, and `allowed` is the phrase that says all of it.
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


class FrozenMap(Mapping[K, V]):
    """A mapping that cannot be changed and, where its values can be, is hashed by content."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[K, V] | None = None) -> None:
        self._items: dict[K, V] = dict(items or {})

    def __getitem__(self, key: K) -> V:
        return self._items[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return f"FrozenMap({self._items!r})"

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        key, value = get_args(source)
        return core_schema.no_info_after_validator_function(
            cls,
            handler.generate_schema(dict[key, value]),  # type: ignore[valid-type]
            serialization=core_schema.plain_serializer_function_ser_schema(dict),
        )


def _refusal(allowed: str, reason: str = "") -> PydanticCustomError:
    return PydanticCustomError(
        "preheat", "Allowed: {allowed}", {"allowed": allowed, "reason": reason}
    )


def with_reason(found: object, reason: str) -> str:
    """Return what was found, and in brackets what is wrong with it."""
    return f"{shown(found)} ({_one_line(redact(reason))})" if reason else shown(found)


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value or not value.strip():
        raise ValueError
    return value.strip()


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


_NUMBERS = r"[0-9]+(?:\.[0-9]+)*"
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_NAME_PATTERN = r"[A-Za-z0-9*](?:[A-Za-z0-9._*-]*[A-Za-z0-9*])?"


def _matching(expression: str, canonical: Callable[[str], str]) -> Callable[[object], str]:
    def read(value: object) -> str:
        text = _text(value)
        if not re.fullmatch(expression, text):
            raise ValueError
        return canonical(text)

    return read


def _requirement(value: object) -> str:
    text = _text(value)
    try:
        Requirement(text)
    except InvalidRequirement as error:
        raise ValueError(str(error).partition("\n")[0]) from error
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return text


def _specifier(value: object) -> str:
    text = _text(value)
    try:
        SpecifierSet(text)
    except InvalidSpecifier as error:
        raise ValueError from error
    return text


def _marker(value: object) -> str:
    text = _text(value)
    try:
        Marker(text)
    except InvalidMarker as error:
        raise ValueError(str(error).partition("\n")[0]) from error
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return text


def is_module(text: str) -> bool:
    """Whether text is a dotted module name."""
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in text.split("."))


def _module(value: object) -> str:
    text = _text(value)
    if not is_module(text):
        raise ValueError
    return text


def _check(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    code = textwrap.dedent(value).strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from error
    except (MemoryError, RecursionError) as error:
        raise ValueError("nested too deep") from error
    return code


def _accelerator(value: object) -> str:
    if value not in ("cuda", "none"):
        raise ValueError
    return str(value)


def _bytecode(value: object) -> str:
    if value not in ("imported", "all", "none"):
        raise ValueError
    return str(value)


def _layer_form(value: object) -> str:
    if value not in ("auto", "packed", "directory"):
        raise ValueError
    return str(value)


def _part(value: object) -> str:
    if value not in ("image", "volume"):
        raise ValueError
    return str(value)


def _url(value: object) -> str:
    text = _text(value)
    try:
        parts = urlsplit(text)
    except ValueError:
        # The library's own words can quote the credentials.
        raise ValueError from None
    remote = parts.scheme in ("http", "https") and parts.netloc
    local = parts.scheme == "file" and parts.path
    if not (remote or local) or re.search(r"\s", text):
        raise ValueError
    return text


_SIZE = r"([0-9]+(?:\.[0-9]+)?)\s*(?:([kKmMgGtTpP][iI]?)?[bB])?"
_DURATION = r"([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)"
_LARGEST_SIZE = 2**63 - 1
_SIZE_UNITS = {
    prefix + suffix: base**power
    for suffix, base in (("", 1000), ("i", 1024))
    for power, prefix in enumerate(("k", "M", "G", "T", "P"), start=1)
}
_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_size(value: object) -> int:
    """Return the bytes that `value` stands for, fractions of a byte cut off.

    An integer is a number of bytes. Text is a number with a unit: B, the decimal kB, MB, GB, TB,
    PB (powers of 1000), or the binary KiB to PiB (powers of 1024; IEC 80000-13). Upper and lower
    case are the same.

    Raises:
        ValueError: it is anything else, negative, or more than 2**63 - 1 bytes.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError
    if isinstance(value, str):
        written = re.fullmatch(_SIZE, value.strip())
        if written is None:
            raise ValueError
        units = {unit.lower(): factor for unit, factor in _SIZE_UNITS.items()}
        value = int(Fraction(written[1]) * units.get((written[2] or "").lower(), 1))
    if not 0 <= value <= _LARGEST_SIZE:
        raise ValueError("negative" if value < 0 else "too large")
    return value


def format_size(size: int) -> str:
    """Return `size` bytes in the largest unit that is exact; `parse_size` reads it back."""
    for unit, factor in sorted(_SIZE_UNITS.items(), key=lambda item: -item[1]):
        if size and size % factor == 0:
            return f"{size // factor}{unit.replace('ki', 'Ki')}B"
    return f"{size}B"


def parse_duration(value: object) -> float:
    """Return the seconds that `value` stands for.

    A number is a number of seconds. Text is a number with one of the units s, m (minutes), h, d,
    or with none, for seconds.

    Raises:
        ValueError: it is anything else, negative, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    if isinstance(value, str):
        written = re.fullmatch(_DURATION, value.strip())
        if written is None:
            raise ValueError
        value = float(written[1]) * _DURATION_UNITS.get(written[2], 1)
    try:
        seconds = float(value)
    except OverflowError:
        raise ValueError("too long") from None
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError
    return seconds


def format_duration(seconds: float) -> str:
    """Return `seconds` in the largest unit that is exact; `parse_duration` reads it back."""
    for unit in ("d", "h", "m"):
        factor = _DURATION_UNITS[unit]
        if seconds and seconds % factor == 0:
            return f"{int(seconds // factor)}{unit}"
    exact = int(seconds) if seconds.is_integer() else seconds
    return f"{Decimal(repr(exact)):f}s"


def _between(least: float, most: str) -> Callable[[object], float]:
    longest = parse_duration(most)

    def read(value: object) -> float:
        seconds = parse_duration(value)
        if not least <= seconds <= longest:
            raise ValueError("too long" if seconds > longest else "too short")
        return seconds

    return read


def _one_or_text(kind: str, expression: str) -> dict[str, object]:
    return {
        "anyOf": [
            {"type": kind, "minimum": 0},
            {"type": "string", "pattern": rf"^\s*{expression}\s*$"},
        ]
    }


_DURATION_SCHEMA = _one_or_text("number", _DURATION)

PATH = Notation(
    allowed="the path of a directory", read=_text, json_schema={"type": "string", "minLength": 1}
)
PATH_OR_URL = Notation(
    allowed="a path or a URL", read=_text, json_schema={"type": "string", "minLength": 1}
)
FLAG: Notation[bool] = Notation(
    allowed="true or false", read=_flag, write=bool, json_schema={"type": "boolean"}
)
SIZE = Notation(
    allowed='a size such as "500MB", "1.5 GB" or "2GiB", or a number of bytes',
    read=parse_size,
    write=format_size,
    json_schema=_one_or_text("integer", _SIZE),
)
DURATION = Notation(
    allowed='a duration such as "90s", "10m", "6h" or "2d", or a number of seconds, up to "3650d"',
    read=_between(0, "3650d"),
    write=format_duration,
    json_schema=_DURATION_SCHEMA,
)
# poll(2) takes its time in milliseconds in a C int: waiting for longer than 24 days overflows.
LIMIT = Notation(
    allowed='a duration such as "90s" or "10m", or a number of seconds, from 0.001 to "7d"',
    read=_between(0.001, "7d"),
    write=format_duration,
    json_schema=_DURATION_SCHEMA,
)
NAME = Notation(
    allowed='the name of a distribution, such as "google-cloud-speech"',
    read=_matching(_NAME, canonicalize_name),
    json_schema={"type": "string", "pattern": f"^{_NAME}$"},
)
NAME_PATTERN = Notation(
    allowed='the name of a distribution, in which * stands for any characters, such as "nvidia-*"',
    read=_matching(_NAME_PATTERN, canonicalize_name),
    json_schema={"type": "string", "pattern": f"^{_NAME_PATTERN}$"},
)
CAPABILITY = Notation(
    allowed='the name of a capability, of letters, digits, "-", "_" and ".": "word-timing"',
    read=_matching(_NAME, str),
    json_schema={"type": "string", "pattern": f"^{_NAME}$"},
)
REQUIREMENT = Notation(
    allowed='a requirement (PEP 508) such as "transformers>=4.48.1"',
    read=_requirement,
    json_schema={"type": "string", "minLength": 1},
)
SPECIFIER = Notation(
    allowed='a version specifier such as ">=8.0" or ">=12,<13"',
    read=_specifier,
    json_schema={"type": "string", "minLength": 1},
)
VERSION = Notation(
    allowed='a version such as "13.0"',
    read=_matching(_NUMBERS, str),
    json_schema={"type": "string", "pattern": f"^{_NUMBERS}$"},
)
MARKER = Notation(
    allowed="an environment marker (PEP 508) such as \"python_version >= '3.11'\"",
    read=_marker,
    json_schema={"type": "string", "minLength": 1},
)
MODULE = Notation(
    allowed='the dotted name of a module, such as "google.cloud.speech"',
    read=_module,
    json_schema={"type": "string", "pattern": r"^[^\s.-]+(\.[^\s.-]+)*$"},
)
CHECK = Notation(
    allowed="Python code, or the dotted name of a module to run",
    read=_check,
    json_schema={"type": "string"},
)
ACCELERATOR = Notation(
    allowed='"cuda" or "none"', read=_accelerator, json_schema={"enum": ["cuda", "none"]}
)
BYTECODE = Notation(
    allowed='"imported", "all" or "none"',
    read=_bytecode,
    json_schema={"enum": ["imported", "all", "none"]},
)
LAYER_FORM = Notation(
    allowed='"auto", "packed" or "directory"',
    read=_layer_form,
    json_schema={"enum": ["auto", "packed", "directory"]},
)
PART = Notation(
    allowed='"image" or "volume"', read=_part, json_schema={"enum": ["image", "volume"]}
)
URL = Notation(
    allowed='a URL that starts with "https://", "http://" or "file://"',
    read=_url,
    json_schema={"type": "string", "pattern": "^(https?|file)://"},
)

PathText = Annotated[str, PATH]
PathOrUrl = Annotated[str, PATH_OR_URL]
Flag = Annotated[bool, FLAG]
Size = Annotated[int, SIZE]
Duration = Annotated[float, DURATION]
Limit = Annotated[float, LIMIT]
Name = Annotated[str, NAME]
NamePattern = Annotated[str, NAME_PATTERN]
CapabilityName = Annotated[str, CAPABILITY]
RequirementText = Annotated[str, REQUIREMENT]
Specifier = Annotated[str, SPECIFIER]
VersionText = Annotated[str, VERSION]
MarkerText = Annotated[str, MARKER]
Module = Annotated[str, MODULE]
Check = Annotated[str, CHECK]
Accelerator = Annotated[str, ACCELERATOR]
Bytecode = Annotated[str, BYTECODE]
LayerForm = Annotated[str, LAYER_FORM]
Part = Annotated[str, PART]
Url = Annotated[str, URL]
Names = Annotated[tuple[Name, ...], Several(allowed="an array of names")]
Alternatives = Annotated[
    tuple[Name, ...], Several(allowed="an array of names, at least one", least=1)
]
NamePatterns = Annotated[tuple[NamePattern, ...], Several(allowed="an array of names")]
Modules = Annotated[
    tuple[Module, ...], Several(allowed="an array of dotted module names, at least one", least=1)
]
Overrides = Annotated[tuple[RequirementText, ...], Several(allowed="an array of requirements")]
Requirements = Annotated[
    tuple[RequirementText, ...], Several(allowed="an array of requirements, at least one", least=1)
]
Versions = Annotated[tuple[VersionText, ...], Several(allowed="an array of versions")]
Urls = Annotated[tuple[Url, ...], Several(allowed="an array of URLs")]
Directories = Annotated[tuple[PathText, ...], Several(allowed="an array of paths")]
PathsOrUrls = Annotated[tuple[PathOrUrl, ...], Several(allowed="an array of paths and URLs")]
