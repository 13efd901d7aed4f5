"""What installed distributions require of one another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from preheat.decisions.requirements import holding
from preheat.words.examination import Examination
from preheat.words.platform import Distribution


def bounds(seen: Examination, owner: Distribution, name: str) -> Iterator[Requirement]:
    """What a distribution requires of that name here, extras aside."""
    markers = seen.platform.interpreter.markers if seen.platform else {}
    likely = (t for t in owner.requires if name in t.lower().replace("_", "-").replace(".", "-"))
    for requirement in holding(likely, markers):
        if canonicalize_name(requirement.name) == name:
            yield requirement


def required_from(seen: Examination, root: str) -> set[str]:
    """Names that a distribution requires, at any depth; extras count."""
    needs = {e.distribution.name: e.distribution.requires for e in seen.installed if e.visible}
    found: set[str] = set()
    queue = [root]
    while queue:
        for text in needs.get(queue.pop(), ()):
            name = canonicalize_name(re.split(r"[^A-Za-z0-9._-]", text.strip(), maxsplit=1)[0])
            if name not in found:
                found.add(name)
                queue.append(name)
    return found


def requiring(seen: Examination, names: Sequence[str]) -> list[str]:
    """Who requires one of these, besides themselves."""
    found = {
        each.distribution.name
        for each in seen.installed
        if each.visible and each.distribution.name not in names
        for name in names
        for _ in bounds(seen, each.distribution, name)
    }
    return sorted(found)


def as_version(version: str | None) -> Version:
    """The version; one that is none counts as 0."""
    try:
        return Version(version or "0")
    except InvalidVersion:
        return Version("0")


def major(version: str | None) -> int:
    """Its first number."""
    return as_version(version).major


def accepts(requirement: Requirement, version: str | None) -> bool:
    """Whether that version will do; one that is none refuses nothing."""
    try:
        return requirement.specifier.contains(Version(version or ""), prereleases=True)
    except InvalidVersion:
        return True
