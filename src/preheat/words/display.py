"""What a person wrote, shown back to that person: short, on one line, without credentials."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

# What follows "://", up to the next white space or the next URL.
_AFTER_SCHEME = re.compile(r"(?<=://)(?:(?![A-Za-z][\w+.-]*://)\S)+")
_HOST_AND_PORT = re.compile(r"(?:\[[\w:.%]*\]|[^:@\[\]]*)(?::\d*)?")

_SHOWN_CHARACTERS = 80
_SHOWN_BITS = 64


def redact(text: str) -> str:
    """Return `text` with the user and password of every URL in it replaced by `***`.

    A password may hold an unescaped `/`, `?`, `#` or `@`, each of which ends the authority
    (RFC 3986) for some parser. Where that leaves no host with a port, all up to the last `@` goes.
    """
    return _AFTER_SCHEME.sub(lambda found: _without_userinfo(found[0]), text)


def _without_userinfo(address: str) -> str:
    authority = re.split("[/?#]", address, maxsplit=1)[0]
    userinfo, at, host = authority.rpartition("@")
    # A host with a user and at once a query is rather the middle of a password.
    cut = bool(at) and address[len(authority) :][:1] in ("?", "#")
    if "@" in address and (cut or _HOST_AND_PORT.fullmatch(host) is None):
        return f"***@{address.rpartition('@')[2]}"
    return f"***@{address[len(userinfo) + 1 :]}" if at else address


def shown(value: object) -> str:
    """Return `value` as a person would write it in TOML: one line, short, no credentials."""
    match value:
        case None:
            words = "nothing"
        case bool():
            words = "true" if value else "false"
        case str():
            # White space ends an address, and a password may hold it too.
            text = redact(re.sub(r"(?<=://)[^@]*\s.*@", "***@", value, flags=re.DOTALL))
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


def with_reason(found: object, reason: str) -> str:
    """Return what was found, and in brackets what is wrong with it."""
    return f"{shown(found)} ({_one_line(redact(reason))})" if reason else shown(found)


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
