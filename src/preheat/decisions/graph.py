"""What a package needs at any depth: the closure of its requirements over lock and platform."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""How a requirement begins (PEP 508)."""

# One without extras and address, whatever versions it accepts; and what its marker says of extras.
_VERSIONS = r"(?:[=~!<>]=?|===)\s*v?\d[\w.*+!-]*"
_PLAIN = re.compile(
    rf"\s*({NAME.pattern})\s*(?:{_VERSIONS}(?:\s*,\s*{_VERSIONS})*\s*)?(?:;\s*(.+?)\s*)?"
)
_EXTRA = re.compile(r"""\bextra\s*==\s*['"]([^'"]*)['"]""")
_OR = re.compile(r"\bor\b")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Need:
    """What a requirement says besides versions: canonical name, extras, text of its marker."""

    name: str
    extras: tuple[str, ...]
    marker: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """What each known distribution declares that it needs.

    Attributes:
        requires: canonical name to its ``Requires-Dist``, lock before platform.
        environment: the PEP 508 environment that markers are read in.
        overrides: canonical name to the requirement that replaces every mention of it.
        held: markers that were evaluated before, under each extra; distributions share them.
        known: what distributions need, as read before, under each extra; packages share them.
    """

    requires: Mapping[str, tuple[str, ...]]
    environment: Mapping[str, str]
    overrides: Mapping[str, str]
    held: dict[tuple[str, str], bool] = field(default_factory=dict, compare=False, repr=False)
    known: dict[tuple[str, str], tuple[_Need, ...]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def closure(self, roots: Iterable[str], excludes: Iterable[str] = ()) -> tuple[str, ...]:
        """Canonical names that the roots need, breadth first, the roots' own names included.

        Args:
            roots: PEP 508 requirements.
            excludes: canonical names that are neither visited nor returned.
        """
        left_out = frozenset(excludes)
        order: dict[str, None] = {}
        seen: set[tuple[str, str]] = set()
        queue = deque(self._overridden(self._needs(roots, ""), ""))
        while queue:
            need = queue.popleft()
            if need.name in left_out:
                continue
            order.setdefault(need.name)
            for wanted in ("", *need.extras):
                visited = need.name, wanted
                if visited not in seen:
                    seen.add(visited)
                    queue += self._overridden(self._of(*visited), wanted)
        return tuple(order)

    def _of(self, name: str, extra: str) -> tuple[_Need, ...]:
        """What a distribution declares that it needs under an extra."""
        if (name, extra) not in self.known:
            self.known[name, extra] = self._needs(self.requires.get(name, ()), extra)
        return self.known[name, extra]

    def _needs(self, texts: Iterable[str], extra: str) -> tuple[_Need, ...]:
        own = (_read(text) for text in texts if not _is_for_another(text, extra))
        return tuple(need for need in own if need and self._holds(need.marker, extra))

    def _overridden(self, needs: Iterable[_Need], extra: str) -> Iterator[_Need]:
        for need in needs:
            replacement = _read(self.overrides[need.name]) if need.name in self.overrides else None
            if replacement is None:
                yield need
            elif self._holds(replacement.marker, extra):
                yield replace(replacement, name=need.name)

    def _holds(self, text: str, extra: str) -> bool:
        if not text:
            return not extra
        key = text, extra
        if key not in self.held:
            marker = _marker(text)
            holds = marker.evaluate({**self.environment, "extra": extra})
            if extra:
                # Under an extra, only what the extra adds: the rest was visited without it.
                holds = holds and not marker.evaluate({**self.environment, "extra": ""})
            self.held[key] = holds
        return self.held[key]


def refuses(text: str, name: str, version: str) -> bool:
    """Whether a requirement is about that canonical name, and does not accept that version."""
    start = NAME.match(text)
    if start is None or canonicalize_name(start.group()) != name:
        return False
    requirement = _parse(text)
    if requirement is None:
        return False
    try:
        return not requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def stated_extras(text: str) -> frozenset[str]:
    """Canonical names of the extras that a requirement's marker asks about."""
    return frozenset(map(canonicalize_name, _EXTRA.findall(text.partition(";")[2])))


def _is_for_another(text: str, extra: str) -> bool:
    """Whether the text alone tells that only another extra brings it.

    Most of what large distributions declare is of extras that nobody asks for, and reading all of
    it by the grammar takes longer than the rest of a plan. A marker with ``or`` or parentheses is
    left to the grammar.
    """
    marker = text.partition(";")[2]
    if not marker or "(" in marker or _OR.search(marker):
        return False
    stated = _EXTRA.search(marker)
    return stated is not None and canonicalize_name(stated.group(1)) != canonicalize_name(extra)


@lru_cache(maxsize=8192)
def _read(text: str) -> _Need | None:
    """Most requirements are plain, and few markers differ: the grammar reads only the rest."""
    try:
        plain = _PLAIN.fullmatch(text)
        if plain is not None:
            name, marker = plain.groups(default="")
            if marker:
                _marker(marker)
            return _Need(name=canonicalize_name(name), extras=(), marker=marker)
        requirement = Requirement(text)
    except (InvalidRequirement, InvalidMarker):
        # Old metadata on an index may break PEP 508; the engine has already judged it.
        return None
    return _Need(
        name=canonicalize_name(requirement.name),
        extras=tuple(sorted(requirement.extras)),
        marker=str(requirement.marker or ""),
    )


@lru_cache(maxsize=1024)
def _marker(text: str) -> Marker:
    return Marker(text)


@lru_cache(maxsize=8192)
def _parse(text: str) -> Requirement | None:
    try:
        return Requirement(text)
    except InvalidRequirement:
        # Old metadata on an index may break PEP 508; the engine has already judged it.
        return None
