"""Which distributions are protected, and what the engine is told about them."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from packaging.utils import canonicalize_name

from preheat.decisions.graph import NAME
from preheat.words.manifest import Package
from preheat.words.platform import Platform

CUDA_FAMILIES = ("nvidia-*", "cuda-*")
"""Names of NVIDIA's distributions."""


def protected(platform: Platform, names: Iterable[str]) -> dict[str, str]:
    """Canonical name to version of what the platform has and nothing may replace.

    The ``nvidia-*`` and ``cuda-*`` families count where the platform's torch requires them, at
    any depth: the same library for another program is not torch's.
    """
    patterns = tuple(names)
    of_torch = _required_by("torch", platform)
    found: dict[str, str] = {}
    for each in platform.distributions:
        if not each.state.present or each.version is None:
            continue
        if not any(fnmatchcase(each.name, pattern) for pattern in patterns):
            continue
        family = any(fnmatchcase(each.name, pattern) for pattern in CUDA_FAMILIES)
        if not family or each.name in of_torch:
            found.setdefault(each.name, each.version)
    return found


def withheld(platform: Platform, names: Iterable[str], packages: Iterable[Package]) -> set[str]:
    """Names that no dependency may bring: ``torch``, where the platform lacks it.

    It would come with gigabytes of another CUDA. A package may still ask for it by name.
    """
    asked = {name for package in packages for name in package.names}
    if "torch" in names and platform.find("torch") is None and "torch" not in asked:
        return {"torch"}
    return set()


def constraints(held: dict[str, str], absent: Iterable[str]) -> tuple[str, ...]:
    """The protected versions as constraints; what is withheld gets one that nothing meets."""
    lines = [f"{name}=={version}" for name, version in sorted(held.items())]
    return (*lines, *(f"{name}<0" for name in sorted(absent)))


def _required_by(root: str, platform: Platform) -> set[str]:
    found: set[str] = set()
    queue = [root]
    while queue:
        distribution = platform.find(queue.pop())
        for text in distribution.requires if distribution else ():
            # The name alone: hundreds are read here, and the grammar takes its time.
            start = NAME.match(text)
            name = canonicalize_name(start.group()) if start else ""
            if name and name not in found:
                found.add(name)
                queue.append(name)
    return found
