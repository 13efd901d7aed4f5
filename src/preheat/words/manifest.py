"""The manifest: which packages a worker wants warmed, in order of importance, and how.

A manifest is `preheat.toml`, or the table `[tool.preheat]` of a `pyproject.toml`. This module
holds its values and turns an already decoded document into them; it reads no file. Every key is
described once, here: the JSON Schema, the reference page and the error messages are made from it.

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
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from preheat.words.errors import ManifestError

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
            words = _quoted(
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


def _quoted(text: str) -> str:
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
        return Problem(where=where, found=_with_reason(found, str(error)), allowed=self.allowed)

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


def _with_reason(found: object, reason: str) -> str:
    return f"{shown(found)} ({_one_line(redact(reason))})" if reason else shown(found)


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value or not value.strip():
        raise ValueError
    return value.strip()


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


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


def _is_module(text: str) -> bool:
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in text.split("."))


def _module(value: object) -> str:
    text = _text(value)
    if not _is_module(text):
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
MarkerText = Annotated[str, MARKER]
Module = Annotated[str, MODULE]
Check = Annotated[str, CHECK]
Accelerator = Annotated[str, ACCELERATOR]
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
Urls = Annotated[tuple[Url, ...], Several(allowed="an array of URLs")]
PathsOrUrls = Annotated[tuple[PathOrUrl, ...], Several(allowed="an array of paths and URLs")]

# ---------------------------------------------------------------------------------------------
# The values


def _kebab(name: str) -> str:
    return name.replace("_", "-")


# In TOML keys are written with hyphens; in Python a value is made with its field names.
_CONFIG = ConfigDict(
    extra="forbid", alias_generator=_kebab, validate_by_alias=True, validate_by_name=True
)


class _Redacted:
    """A dataclass whose repr never shows the credentials of a URL."""

    __slots__ = ()

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        inside = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields if f.repr)
        return redact(f"{type(self).__name__}({inside})")


@dataclass(frozen=True, kw_only=True, slots=True, config=_CONFIG)
class Condition:
    """`[package.when]`: what the platform must have for a package to be wanted there at all."""

    accelerator: Accelerator | None = Field(
        default=None,
        description='"cuda": only where an NVIDIA GPU is usable; "none": only where none is. '
        "Not stated: both.",
    )
    compute_capability: Specifier | None = Field(
        default=None,
        description="The CUDA compute capability that a GPU must have, as a version specifier: "
        '">=8.0". Without a GPU it is not met.',
    )
    cuda: Specifier | None = Field(
        default=None,
        description="The CUDA version that the platform's torch was built for, as a version "
        'specifier: ">=12". Without CUDA it is not met.',
    )
    marker: MarkerText | None = Field(
        default=None,
        description="An environment marker (PEP 508) that must hold for the platform's "
        "interpreter: \"python_version >= '3.11'\".",
    )


@dataclass(frozen=True, kw_only=True, slots=True, repr=False, config=_CONFIG)
class Package(_Redacted):
    """`[[package]]`: something that the worker wants to import, and what it takes to get it."""

    name: Name = Field(
        description="What the package is called here, in reports and in capabilities. Each name "
        "once; case, and the difference between -, _ and ., do not count."
    )
    requires: Requirements = Field(
        description='What to install, as requirements (PEP 508): ["transformers>=4.48.1"].'
    )
    imports: Modules = Field(
        description="The modules that must import, dotted ones too, before the package counts as "
        'ready: ["google.cloud.speech"].'
    )
    check: Check = Field(
        default="",
        description="Python code to run after the imports, in the same process; an exception is a "
        "failure. A dotted name alone is a module that is run, as by `python -m`.",
    )
    check_gpu: Flag = Field(
        default=False,
        description="Whether to run imports and check once more with the GPU visible, where the "
        "platform has one. The first run never sees it.",
    )
    required: Flag = Field(
        default=False,
        description="Whether the worker cannot live without the package: if it is not ready, "
        "preheat ends with exit status 3.",
    )
    when: Condition = Field(
        default_factory=Condition,
        description="What the platform must have for the package to be wanted; where it has not, "
        "the package is skipped with that reason.",
    )
    build_isolation: Flag = Field(
        default=True,
        description="Whether its source distributions are built in an environment of their own "
        "(PEP 517). false: against the platform, with what is installed there.",
    )
    build: Flag | None = Field(
        default=None,
        description="Whether its own requirements may be built from source distributions. Not "
        "stated: the same as build-isolation, for what is compiled against the platform can take "
        "very long.",
    )
    exclude: Names = Field(
        default=(),
        description="Distributions that are never installed for it, though something it needs "
        "declares them.",
    )
    override: Overrides = Field(
        default=(),
        description="Requirements (PEP 508) that replace whatever anyone else declares for the "
        "same distribution.",
    )
    import_timeout: Limit | None = Field(
        default=None,
        description="How long its imports and its check may take. Not stated: the import-timeout "
        "of the whole manifest.",
    )

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """`requires`, parsed."""
        return tuple(map(Requirement, self.requires))

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names of the distributions that `requires` names."""
        return tuple(canonicalize_name(each.name) for each in self.requirements)

    @property
    def overrides(self) -> tuple[Requirement, ...]:
        """`override`, parsed."""
        return tuple(map(Requirement, self.override))

    @property
    def may_build(self) -> bool:
        """Whether source distributions of its own requirements may be built."""
        return self.build_isolation if self.build is None else self.build

    @property
    def check_module(self) -> str | None:
        """The module that `check` names, or None where it is code or empty."""
        return self.check if _is_module(self.check) else None


@dataclass(frozen=True, kw_only=True, slots=True, config=_CONFIG)
class Space:
    """`[space]`: how much of the disk is left alone, in bytes."""

    clean_below: Size = Field(
        default=10**9, description="Clean caches when less than this is free, before installing."
    )
    keep_free: Size = Field(
        default=500 * 10**6,
        description="How much stays free after everything is installed; what does not fit above "
        "it is not installed.",
    )


@dataclass(frozen=True, kw_only=True, slots=True, repr=False, config=_CONFIG)
class Index(_Redacted):
    """`[index]`: where distributions come from. Nothing else is asked for them."""

    url: Url | None = Field(
        default=None,
        description="The package index (PEP 503 or 691). Not stated: the engine's own "
        "configuration, or else PyPI.",
    )
    extra: Urls = Field(default=(), description="More indexes, asked before `url`.")
    find_links: PathsOrUrls = Field(
        default=(),
        description="Directories, or pages with links, that hold distributions. A relative "
        "path starts at the manifest's directory.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a manifest came from: its file in words, that file's directory, the keys it states."""

    source: str = ""
    directory: str = ""
    stated: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True, repr=False, config=_CONFIG)
class Manifest(_Redacted):
    """What a worker wants warmed, and how: the whole file."""

    package: Annotated[
        tuple[Package, ...], Several(allowed="tables that start with [[package]]")
    ] = Field(default=(), description="The packages, the most important first.")
    capabilities: Annotated[
        FrozenMap[CapabilityName, Alternatives],
        Several(allowed="a table of arrays of names", kinds=(Mapping,)),
    ] = Field(
        default_factory=FrozenMap,
        json_schema_extra={"additionalProperties": False},
        description="What the worker wants done, each with the packages that can do it, the best "
        "first. A name that is no package of the manifest is looked for on the platform.",
    )
    space: Space = Field(default_factory=Space, description="How much of the disk is left alone.")
    index: Index = Field(default_factory=Index, description="Where distributions come from.")
    store: PathText | None = Field(
        default=None,
        description="The directory where layers are kept; ~ is the home directory, and a relative "
        "path starts at the manifest's directory. Not stated: `preheat` on the network volume "
        "where the platform mounts one, or else in the user's cache directory.",
    )
    protected: NamePatterns = Field(
        default=("torch", "torchvision", "torchaudio", "triton", "nvidia-*", "cuda-*"),
        description="Distributions of the platform that are never replaced, shadowed or fetched "
        "again. Stating it replaces the default.",
    )
    offline: Flag = Field(
        default=False, description="Whether to use only what is already on this machine."
    )
    compile: Flag = Field(
        default=True, description="Whether to compile what is installed to bytecode (PEP 552)."
    )
    retry_after: Duration = Field(
        default=6 * 3600.0,
        description="How long a failure is remembered; until then the package is not tried again.",
    )
    import_timeout: Limit = Field(
        default=300.0,
        description="How long the imports and the check of one package may take.",
    )
    index_timeout: Limit = Field(
        default=30.0, description="How long an index may take to answer one request."
    )
    deadline: Limit | None = Field(
        default=None,
        description="How long a start may take; optional packages that cannot be ready by then "
        "are skipped. Not stated: as long as it needs.",
    )
    origin: SkipJsonSchema[Origin] = dataclasses.field(
        default=Origin(), init=False, compare=False, repr=False
    )

    @model_validator(mode="after")
    def _each_name_once(self) -> Manifest:
        for problem in _repeated([package.name for package in self.package]):
            raise PydanticCustomError(_REPEATED, "{problem}", {"problem": str(problem)})
        return self


_REPEATED = "preheat_repeated"


def _repeated(names: Sequence[str | None]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for position, name in enumerate(names):
        if name is None:
            continue
        before = first.setdefault(canonicalize_name(name), position)
        if before != position:
            yield Problem(
                where=f"package[{position}] {shown(name)}: name",
                found=f"{shown(name)}, which package[{before}] is already called",
                allowed="each name once",
            )


# ---------------------------------------------------------------------------------------------
# From a decoded document to the values

# Each table of the file, by the path of its keys.
TABLES: Mapping[tuple[str, ...], type] = {
    (): Manifest,
    ("package",): Package,
    ("package", "when"): Condition,
    ("space",): Space,
    ("index",): Index,
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
    problems = list(_repeated(names))
    try:
        manifest = _DOCUMENT.validate_python(dict(document), by_alias=True, by_name=False)
    except ValidationError as refused:
        errors = refused.errors(include_url=False)
        problems += [_problem(error, names) for error in errors if error["type"] != _REPEATED]
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
    return {_kebab(name): field for name, field in fields.items() if field.init is not False}


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
            found = _with_reason(error["input"], context["reason"])
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
        if other != table and _kebab(key) in fields_of(values):
            return f"it belongs in [{'.'.join(other)}]" if other else "it belongs above all tables"
    return nearest(key, list(fields_of(TABLES[table])))


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
            path += ("." if path else "") + (part if bare else _quoted(part))
    return path
