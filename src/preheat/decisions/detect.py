"""Whether a package is wanted here (`when`), and whether the platform already provides it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from preheat.decisions.graph import Graph, refuses, stated_extras
from preheat.words.manifest import Condition, Package
from preheat.words.platform import Distribution, Platform


@dataclass(frozen=True, kw_only=True, slots=True)
class Sighting:
    """What was seen of the platform's files for one package.

    Attributes:
        resolvable: dotted import to whether a finder would find it.
        truncated: distribution name to files whose size is not what RECORD says.
    """

    resolvable: Mapping[str, bool]
    truncated: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Whether the platform has a package, and why. An import must still prove that it works."""

    present: bool
    reason: str
    version: str | None = None


def find(package: Package, platform: Platform, sighting: Sighting) -> Finding:
    """Looks at distributions, versions, files and imports, in that order, up to the first fault."""
    version = None
    remarks: list[str] = []
    for requirement in package.requirements:
        if not _applies(requirement, platform):
            continue
        name = canonicalize_name(requirement.name)
        distribution = platform.find(name)
        if distribution is None:
            return Finding(present=False, reason=_absence(name, platform))
        if not _satisfies(distribution.version, requirement.specifier):
            return Finding(
                present=False,
                reason=f"the platform has {name} {distribution.version}, "
                f"which is not {requirement.specifier}",
            )
        broken = sighting.truncated.get(name)
        if broken:
            return Finding(
                present=False,
                reason=f"{name} {distribution.version} is half-installed: {broken[0]} "
                "is not the file that its RECORD lists",
            )
        lacking = _lacking_for_extras(requirement, distribution, platform)
        if lacking:
            return Finding(present=False, reason=lacking)
        remarks += _unknown_extras(requirement, distribution)
        version = version or distribution.version
    for module in package.imports:
        if not sighting.resolvable.get(module, False):
            reason = f"nothing on the platform provides import {module}"
            return Finding(present=False, reason=reason)
    reason = "; ".join(["the platform provides it", *remarks])
    return Finding(present=True, reason=reason, version=version)


def unmet(package: Package, platform: Platform) -> str | None:
    """Why a package is not wanted here; None where it is.

    That is the first part of its ``when`` that does not hold, or the marker of its requirements,
    where none of them holds: installers pass over such a requirement, and so it promises nothing.
    """
    reason = next(filter(None, _unmet(package.when, platform)), None)
    if reason or any(_applies(each, platform) for each in package.requirements):
        return reason
    markers = dict.fromkeys(str(each.marker) for each in package.requirements)
    return f"nothing of it is required here: {', '.join(markers)}" if markers else None


def _applies(requirement: Requirement, platform: Platform) -> bool:
    marker = requirement.marker
    return marker is None or marker.evaluate(dict(platform.interpreter.markers))


def _lacking_for_extras(
    requirement: Requirement, distribution: Distribution, platform: Platform
) -> str | None:
    """What a requirement's extras need, at any depth, and the platform does not have."""
    if not requirement.extras:
        return None
    declared = {each.name: each.requires for each in platform.distributions if each.state.present}
    graph = Graph(requires=declared, environment=platform.interpreter.markers, overrides={})
    wanted = f"{distribution.name}[{','.join(sorted(requirement.extras))}]"
    needed = set(graph.closure([wanted])) - set(graph.closure([distribution.name]))
    for name in sorted(needed):
        if platform.find(name) is None:
            return f"{_absence(name, platform)}, which {wanted} needs"
    for text in filter(lambda each: _is_of_extra(each, requirement), distribution.requires):
        for found in platform.distributions:
            if found.version and refuses(text, found.name, found.version):
                needs = text.partition(";")[0].strip()
                return f"{wanted} needs {needs}, and the platform has {found.version}"
    return None


def _is_of_extra(text: str, requirement: Requirement) -> bool:
    """Whether a declared requirement comes with one of the extras that are asked for."""
    return any(each in stated_extras(text) for each in map(canonicalize_name, requirement.extras))


def _unknown_extras(requirement: Requirement, distribution: Distribution) -> Iterator[str]:
    """Extras that are asked for and do not exist: installers pass over them with a warning."""
    known = set(distribution.extras).union(*map(stated_extras, distribution.requires))
    has = f" (it has {', '.join(sorted(known))})" if known else ""
    for extra in sorted(map(canonicalize_name, requirement.extras)):
        if extra not in known:
            yield f"{distribution.name} {distribution.version} has no extra {extra}{has}"


def _unmet(condition: Condition, platform: Platform) -> Iterator[str | None]:
    devices = platform.cuda.compute_capability
    if condition.accelerator == "cuda" and not devices:
        yield "no CUDA device is visible here"
    if condition.accelerator == "none" and devices:
        yield f"a CUDA device is here ({devices[0].source})"
    if condition.compute_capability:
        allowed = SpecifierSet(condition.compute_capability)
        if not any(device.value in allowed for device in devices):
            have = ", ".join(f"{d.value} ({d.source})" for d in devices) or "no device"
            yield f"needs compute capability {condition.compute_capability}; here: {have}"
    if condition.cuda:
        cuda = platform.cuda.runtime.value if platform.cuda.runtime else None
        if cuda is None or cuda not in SpecifierSet(condition.cuda):
            yield f"needs CUDA {condition.cuda}; the platform's torch brings {cuda or 'none'}"
    if condition.marker and not Marker(condition.marker).evaluate(
        dict(platform.interpreter.markers)
    ):
        yield f"its marker does not hold here: {condition.marker}"


def _absence(name: str, platform: Platform) -> str:
    for left in platform.leftovers:
        if left.name == name:
            detail = f": {left.missing[0]}" if left.missing else ""
            return f"{name} is half-installed on the platform ({left.state.value}{detail})"
        if left.name.startswith("~") and left.name[1:] in name:
            return f"{name} is absent; {left.name} is {left.state.value}"
    return f"the platform has no {name}"


def _satisfies(version: str | None, specifier: SpecifierSet) -> bool:
    try:
        return specifier.contains(Version(version or ""), prereleases=True)
    except InvalidVersion:
        return not specifier
