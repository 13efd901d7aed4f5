"""One readable sentence out of the solver's wall of text."""

from __future__ import annotations

import re
from collections.abc import Mapping

from packaging.utils import canonicalize_name

_NOT_FOUND = re.compile(r"([\w.\-]+) was not found in the (?:package registry|cache|provided)")
_NO_WHEEL = re.compile(r"([\w.\-]+)(?:[=<>!~,\w.*+]*)? ha(?:s|ve) no usable wheels")
_DEPENDS = re.compile(
    r"([\w.\-]+)((?:[=<>!~][^\s]*)?) depends? on ([\w.\-]+)((?:[=<>!~][^\s]*)?)", re.DOTALL
)
_NO_VERSION = re.compile(r"(?:there is|there are) no versions? of ([\w.\-]+)([=<>!~]\S*)")
_PYTHON = re.compile(r"Python(>=?\S+|<\S+)")


def sentence(wall: str, package: str, protected: Mapping[str, str | None]) -> str:
    """Why a package cannot be had.

    Args:
        wall: what uv wrote.
        package: the package of the manifest that it was asked to add.
        protected: canonical name to the platform's version, None where the platform lacks it
            and preheat will not bring it.
    """
    text = re.sub(r"\s+", " ", wall)
    for match in _DEPENDS.finditer(_distribute(text)):
        who, which, needed, bound = match.groups()
        name = canonicalize_name(needed)
        if name in protected and canonicalize_name(who) not in protected:
            return _about_protected(who + which, name + bound, protected[name])
    missing = _NOT_FOUND.search(text)
    if missing:
        return f"{missing.group(1)} is not on the configured index"
    no_wheel = _NO_WHEEL.search(text)
    if no_wheel:
        return (
            f"there is no ready wheel of {no_wheel.group(1)} for this platform, and building it "
            f"here is not allowed (build = true in the manifest allows it)"
        )
    no_version = _NO_VERSION.search(text)
    if no_version:
        return f"no version of {no_version.group(1)} fits {no_version.group(2).rstrip(',')}"
    depends = _DEPENDS.search(text)
    if depends:
        who, which, needed, bound = depends.groups()
        return f"{who}{which} needs {needed}{bound}, which does not go with the rest".replace(
            ",,", ","
        )
    first = re.sub(r"^error:\s*", "", text)
    return f"no versions satisfy {package}: {first[:300]}"


def _about_protected(who: str, need: str, version: str | None) -> str:
    need = need.rstrip(",")
    if version is None:
        return f"{who} needs {need}, which this platform does not provide"
    name = re.split(r"[=<>!~]", need)[0]
    return f"{who} needs {need}; the platform's {name} {version} is protected"


def _distribute(text: str) -> str:
    """``all of: a b depend on c`` said as ``b depends on c``, so that one pattern reads both."""
    return re.sub(r"all of: (?:\S+ )*?(\S+) depend on", r"\1 depends on", text)
