"""What the engine is asked for, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One joint resolution.

    Attributes:
        requirements: PEP 508, all of them at once.
        constraints: hard bounds: the protected distributions at the platform's versions.
        overrides: requirements that replace what distributions declare.
        excludes: canonical names that are left out wherever they are declared.
        wheels_only: canonical names whose source distributions are not built.
        no_isolation: canonical names that build against the platform itself.
    """

    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    wheels_only: tuple[str, ...] = ()
    no_isolation: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """A version that the engine would put beside the platform."""

    name: str
    version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Solved:
    """Versions that satisfy a request, besides what the platform has."""

    pins: tuple[Pin, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Unsolved:
    """No versions do.

    Attributes:
        solver_output: the solver's own words, shown under ``--verbose``.
        unreachable: the index did not answer, so nothing is known about the request.
        silent: it did not refuse either, so that each further request would wait as long again.
    """

    solver_output: str
    unreachable: bool = False
    silent: bool = False
