"""Which earlier resolution serves best while the index does not answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from preheat.words.lock import Lock
from preheat.words.manifest import Package
from preheat.words.platform import Platform


def best_lock(
    packages: Sequence[Package], platform: Platform, locks: Iterable[Lock]
) -> tuple[Lock, tuple[Package, ...]] | None:
    """The lock that satisfies the most important packages, and those that it leaves out.

    Args:
        packages: in order of importance.
        platform: what lies beneath.
        locks: of that platform, the newest first; among equals the first one wins.
    """
    best: tuple[list[bool], Lock] | None = None
    for lock in locks:
        served = [_serves(lock, package, platform) for package in packages]
        if any(served) and (best is None or served > best[0]):
            best = (served, lock)
    if best is None:
        return None
    served, lock = best
    left_out = [package for package, good in zip(packages, served, strict=True) if not good]
    return lock, tuple(left_out)


def _serves(lock: Lock, package: Package, platform: Platform) -> bool:
    return all(_has(lock, requirement, platform) for requirement in package.requirements)


def _has(lock: Lock, requirement: Requirement, platform: Platform) -> bool:
    name = canonicalize_name(requirement.name)
    locked = lock.find(name)
    beneath = platform.find(name)
    version = locked.version if locked else beneath.version if beneath else None
    try:
        return version is not None and requirement.specifier.contains(
            Version(version), prereleases=True
        )
    except InvalidVersion:
        return False
