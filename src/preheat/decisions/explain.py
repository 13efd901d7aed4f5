"""One readable sentence out of uv's solver output."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from packaging.utils import canonicalize_name

_NOTHING: Mapping[str, str] = {}
_NOT_FOUND = re.compile(r"([\w.\-]+) was not found in the (?:package registry|cache|provided)")
_NO_WHEEL = re.compile(r"([\w.\-]+)(?:[=<>!~,\w.*+]*)? ha(?:s|ve) no usable wheels")
_NO_TAG = re.compile(r"([\w.\-]+)\S* ha(?:s|ve) no wheels with a matching ([\w ]+?) tag")
_PYTHON = re.compile(
    r"Python version \((\S+)\) does not satisfy Python(\S+) and (.+?) depends? on Python"
)
_BUILD = re.compile(r"Failed to build `([^`]+)`(?:.*?\[stderr\] (.*?))?(?: hint:|$)")
_DEPENDS = re.compile(
    r"([\w.\-]+)((?:[=<>!~][^\s]*)?) depends? on ([\w.\-]+)((?:[=<>!~][^\s]*)?)", re.DOTALL
)
_NO_VERSION = re.compile(r"(?:there is|there are) no versions? of ([\w.\-]+)([=<>!~]\S*)")
_REQUIRED = re.compile(r"(?:you require|and) ([\w.\-]+)([=<>!~][^\s,]+)")
_ONLY = re.compile(r"only (\S+) (?:is|are) available and you require ([^\s,]+)")
_SENTENCES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (_NOT_FOUND, lambda m: f"{m[1]} is not on the configured index"),
    (
        _NO_WHEEL,
        lambda m: (
            f"there is no ready wheel of {m[1]} for this platform, and building it here is "
            "not allowed (build = true in the manifest allows it)"
        ),
    ),
    (_NO_TAG, lambda m: f"no wheel of {m[1]} is for this platform: none has its {m[2]} tag"),
    (_BUILD, lambda m: f"{m[1]} does not build from its source: {(m[2] or 'no words')[-200:]}"),
    (_PYTHON, lambda m: f"{m[3]} needs Python {m[2]}; this is Python {m[1]}"),
    (_ONLY, lambda m: f"{m[2]} cannot be had: the configured index has {m[1]}"),
    (_NO_VERSION, lambda m: f"no version of {m[1]} fits {m[2].rstrip(',')}"),
    (_DEPENDS, lambda m: f"{m[1]}{m[2]} needs {m[3]}{m[4]}, which does not go with the rest"),
)


def sentence(
    solver_output: str,
    package: str,
    protected: Mapping[str, str | None],
    coupled: Mapping[str, str] = _NOTHING,
) -> str:
    """Why a package cannot be had.

    Args:
        solver_output: what uv wrote.
        package: the package of the manifest that it was asked to add.
        protected: canonical name to the platform's version, None where the platform lacks it
            and preheat will not bring it.
        coupled: canonical name of what must go with the platform's torch to the words that say
            which version does.
    """
    text = re.sub(r"\s+", " ", solver_output)
    for match in _DEPENDS.finditer(_distribute(text)):
        who, which, needed, bound = match.groups()
        name = canonicalize_name(needed)
        if name in protected and canonicalize_name(who) not in protected:
            return _about_protected(who + which, name + bound, protected[name])
        if name in coupled and bound:
            return _about_coupled(who + which, name + bound, coupled[name])
    for needed, bound in _REQUIRED.findall(text):
        name = canonicalize_name(needed)
        if name in protected and bound != f"=={protected[name]}":
            return _about_protected(package, name + bound, protected[name])
        if name in coupled and (bound == "<0" or not coupled[name].endswith(name + bound)):
            return _about_coupled(package, name + bound, coupled[name])
    for pattern, spell in _SENTENCES:
        found = pattern.search(text)
        if found:
            return spell(found).replace(",,", ",")
    reason = re.sub(r"^error:\s*", "", text)[:300]
    return f"no versions satisfy {package}: {reason}"


def _about_protected(who: str, need: str, version: str | None) -> str:
    need = need.rstrip(",")
    name = re.split(r"[=<>!~]", need)[0]
    if version is None:
        asking = re.split(r"[=<>!~]", who)[0]
        return f"{asking} needs {name}, which this platform does not provide"
    return f"{who} needs {need}; the platform's {name} {version} is protected"


def _about_coupled(who: str, need: str, goes: str) -> str:
    need = need.rstrip(",")
    name, asking = (re.split(r"[=<>!~]", text)[0] for text in (need, who))
    if need.endswith("<0"):
        return goes if name == asking else f"{asking} needs {name}, and {goes}"
    return f"{need} is asked for; {goes}" if name == asking else f"{who} needs {need}; {goes}"


def _distribute(text: str) -> str:
    """``all of: a b depend on c`` said as ``b depends on c``, so that one pattern reads both."""
    return re.sub(r"all of: (?:\S+ )*?(\S+) depend on", r"\1 depends on", text)
