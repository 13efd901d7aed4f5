"""Whether a package is wanted here (`when`), and whether the platform already provides it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from packaging.markers import Marker
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from preheat.words.manifest import Condition, Package
from preheat.words.platform import Platform


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
    for requirement in package.requirements:
        if requirement.marker and not requirement.marker.evaluate(
            dict(platform.interpreter.markers)
        ):
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
        version = version or distribution.version
    for module in package.imports:
        if not sighting.resolvable.get(module, False):
            reason = f"nothing on the platform provides import {module}"
            return Finding(present=False, reason=reason)
    return Finding(present=True, reason="the platform provides it", version=version)


def unmet(condition: Condition, platform: Platform) -> str | None:
    """The sentence for the first part of ``when`` that does not hold here; None where all do."""
    return next(filter(None, _unmet(condition, platform)), None)


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
