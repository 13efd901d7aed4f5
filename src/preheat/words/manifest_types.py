"""The kinds of values that a manifest holds: the notation of each, and the type made of it.

Names, requirements, specifiers and markers are those of the packaging standards
(https://packaging.python.org/en/latest/specifications/), read by the `packaging` library.
"""

from __future__ import annotations

import ast
import keyword
import re
import textwrap
import warnings
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from preheat.words.notation import Notation, Several, any_text, one_of, read_text, text_like
from preheat.words.quantities import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

# ---------------------------------------------------------------------------------------------
# Reading


def is_module(text: str) -> bool:
    """Whether text is a dotted module name."""
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in text.split("."))


def _parsed(parse: Callable[[str], object], refusal: type[ValueError]) -> Callable[[object], str]:
    """Return a reader of text that `parse` takes, and that raises `refusal` otherwise."""

    def read(value: object) -> str:
        text = read_text(value)
        try:
            parse(text)
        except refusal as error:
            raise ValueError(str(error).partition("\n")[0]) from error
        except RecursionError as error:
            raise ValueError("nested too deep") from error
        return text

    return read


def _read_specifier(value: object) -> str:
    text = read_text(value)
    try:
        SpecifierSet(text)
    except InvalidSpecifier as error:
        raise ValueError from error
    return text


def _read_module(value: object) -> str:
    text = read_text(value)
    if not is_module(text):
        raise ValueError
    return text


def _read_code(value: object) -> str:
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


def _read_url(value: object) -> str:
    text = read_text(value)
    try:
        parts = urlsplit(text)
        # Asked for, since only that reads it: no port is a number where a password holds a `/`.
        _ = parts.port
    except ValueError:
        # The library's own words can quote the credentials.
        raise ValueError from None
    remote = parts.scheme in ("http", "https") and parts.netloc
    local = parts.scheme == "file" and parts.path
    if not (remote or local) or re.search(r"\s", text):
        raise ValueError
    return text


def _read_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _duration(allowed: str, *, least: float, most: str) -> Notation[float]:
    """Return the notation of a duration between `least` seconds and `most`."""
    longest = parse_duration(most)

    def read(value: object) -> float:
        seconds = parse_duration(value)
        if not least <= seconds <= longest:
            raise ValueError("too long" if seconds > longest else "too short")
        return seconds

    return Notation(
        allowed=allowed,
        read=read,
        write=format_duration,
        json_schema=_number_or_text("number", DURATION_PATTERN),
    )


def _number_or_text(number: str, pattern: str) -> dict[str, object]:
    return {
        "anyOf": [
            {"type": number, "minimum": 0},
            {"type": "string", "pattern": rf"^\s*{pattern}\s*$"},
        ]
    }


# ---------------------------------------------------------------------------------------------
# Notations

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_NAME_WITH_WILDCARDS = r"[A-Za-z0-9*](?:[A-Za-z0-9._*-]*[A-Za-z0-9*])?"

PATH = any_text("the path of a directory")
PATH_OR_URL = any_text("a path or a URL")
FLAG: Notation[bool] = Notation(
    allowed="true or false", read=_read_flag, write=bool, json_schema={"type": "boolean"}
)
SIZE = Notation(
    allowed='a size such as "500MB", "1.5 GB" or "2GiB", or a number of bytes',
    read=parse_size,
    write=format_size,
    json_schema=_number_or_text("integer", SIZE_PATTERN),
)
DURATION = _duration(
    'a duration such as "90s", "10m", "6h" or "2d", or a number of seconds, up to "3650d"',
    least=0,
    most="3650d",
)
# poll(2) takes its time in milliseconds in a C int: waiting for longer than 24 days overflows.
LIMIT = _duration(
    'a duration such as "90s" or "10m", or a number of seconds, from 0.001 to "7d"',
    least=0.001,
    most="7d",
)
NAME = text_like(
    _NAME,
    'the name of a distribution, such as "google-cloud-speech"',
    canonical=canonicalize_name,
)
NAME_PATTERN = text_like(
    _NAME_WITH_WILDCARDS,
    'the name of a distribution, in which * stands for any characters, such as "nvidia-*"',
    canonical=canonicalize_name,
)
CAPABILITY = text_like(
    _NAME, 'the name of a capability, of letters, digits, "-", "_" and ".": "word-timing"'
)
REQUIREMENT = any_text(
    'a requirement (PEP 508) such as "transformers>=4.48.1"',
    read=_parsed(Requirement, InvalidRequirement),
)
SPECIFIER = any_text('a version specifier such as ">=8.0" or ">=12,<13"', read=_read_specifier)
VERSION = text_like(r"[0-9]+(?:\.[0-9]+)*", 'a version such as "13.0"')
MARKER = any_text(
    "an environment marker (PEP 508) such as \"python_version >= '3.11'\"",
    read=_parsed(Marker, InvalidMarker),
)
MODULE = Notation(
    allowed='the dotted name of a module, such as "google.cloud.speech"',
    read=_read_module,
    json_schema={"type": "string", "pattern": r"^[^\s.-]+(\.[^\s.-]+)*$"},
)
CHECK = Notation(
    allowed="Python code, or the dotted name of a module to run",
    read=_read_code,
    json_schema={"type": "string"},
)
ACCELERATOR = one_of("cuda", "none")
BYTECODE = one_of("imported", "all", "none")
LAYER_FORM = one_of("auto", "packed", "directory")
PART = one_of("image", "volume")
URL = Notation(
    allowed='a URL that starts with "https://", "http://" or "file://", with /, ?, # and @ of a '
    "password written as %2F, %3F, %23 and %40",
    read=_read_url,
    json_schema={"type": "string", "pattern": "^(https?|file)://"},
)

# ---------------------------------------------------------------------------------------------
# Types of one value

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

# ---------------------------------------------------------------------------------------------
# Types of several values

Names = Annotated[tuple[Name, ...], Several(allowed="an array of names")]
Alternatives = Annotated[
    tuple[Name, ...], Several(allowed="an array of names, at least one", least=1)
]
NamePatterns = Annotated[tuple[NamePattern, ...], Several(allowed="an array of names")]
Modules = Annotated[
    tuple[Module, ...], Several(allowed="an array of dotted module names, at least one", least=1)
]
MaybeRequirements = Annotated[
    tuple[RequirementText, ...], Several(allowed="an array of requirements")
]
Requirements = Annotated[
    tuple[RequirementText, ...], Several(allowed="an array of requirements, at least one", least=1)
]
Versions = Annotated[tuple[VersionText, ...], Several(allowed="an array of versions")]
Urls = Annotated[tuple[Url, ...], Several(allowed="an array of URLs")]
Directories = Annotated[tuple[PathText, ...], Several(allowed="an array of paths")]
PathsOrUrls = Annotated[tuple[PathOrUrl, ...], Several(allowed="an array of paths and URLs")]
