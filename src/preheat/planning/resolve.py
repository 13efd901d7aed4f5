"""From packages to a lock: jointly, around the protected, each failure costing one package."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from packaging.utils import canonicalize_name

from preheat.decisions.building import label_refusal, target_of
from preheat.decisions.compose import Composition
from preheat.decisions.coupling import avoiding, misfit, partners
from preheat.decisions.explain import sentence
from preheat.decisions.identity import manifest_digest, platform_digest
from preheat.decisions.imports import territory
from preheat.decisions.protect import constraints, protected, withheld
from preheat.edges.engine.engine import Engine
from preheat.edges.index.wheels import Reader
from preheat.edges.platform import inventory
from preheat.words.engine import Pin, Request, Solved, Unsolved
from preheat.words.errors import Unreachable
from preheat.words.lock import Contents, Lock, Locked
from preheat.words.manifest import Manifest, Package
from preheat.words.platform import Platform

# An index may have one release for many CUDAs; beyond that it is not a matter of another one.
_MISFITS_OF_ONE = 12


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to be resolved: packages in order of importance, on a platform.

    Attributes:
        protect: names and patterns of the protected set.
        exclusions: constraints that leave out wheels which are for another platform.
        unpinned: protected names that count as there in whatever version is asked for.
    """

    manifest: Manifest
    packages: tuple[Package, ...]
    platform: Platform
    protect: tuple[str, ...]
    exclusions: tuple[str, ...] = ()
    unpinned: frozenset[str] = frozenset()

    @cached_property
    def held(self) -> dict[str, str]:
        """The protected distributions that the platform has, with their versions."""
        return protected(self.platform, self.protect)

    @cached_property
    def coupled(self) -> dict[str, str]:
        """What goes with the platform's torch, where nothing else decides it."""
        stated = {each.name for package in self.packages for each in package.overrides}
        return partners(self.platform, {*self.held, *map(canonicalize_name, stated)})

    @property
    def goes_with_torch(self) -> dict[str, str]:
        """By name, what to say of a requirement that what is coupled does not meet."""
        torch = f"the platform's torch {self.platform.torch.version if self.platform.torch else ''}"
        return {
            name: f"no {name} goes with {torch}"
            if specifier == "<0"
            else f"with {torch} goes {name}{specifier}"
            for name, specifier in self.coupled.items()
        }

    @property
    def absent(self) -> set[str]:
        """What the platform lacks and a dependency must not bring."""
        return withheld(self.platform, self.protect, self.packages)

    def request(
        self, packages: Iterable[Package], excludes: Iterable[str], pins: Iterable[Pin] = ()
    ) -> Request:
        """The engine's request for those packages, where those versions are decided already."""
        chosen = tuple(packages)
        decided = tuple(f"{pin.name}=={pin.version}" for pin in pins)
        held = {name: version for name, version in self.held.items() if name not in self.unpinned}
        return Request(
            requirements=tuple(text for package in chosen for text in package.requires),
            constraints=(
                *constraints(held, self.absent),
                *(f"{name}{specifier}" for name, specifier in sorted(self.coupled.items())),
                *self.exclusions,
                *decided,
            ),
            overrides=tuple(text for package in chosen for text in package.override),
            excludes=tuple(sorted({*excludes, *self.unpinned})),
            wheels_only=_own_names(package for package in chosen if not package.may_build),
            no_isolation=_own_names(p for p in chosen if not p.build_isolation),
        )


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """A lock with what its archives hold, and the request that it answers.

    Attributes:
        solver_outputs: what the solver said about each refused package, in its own words.
        avoided: name to why a release of it was left out that would have been chosen.
        unanswered: package name to why the index could not be asked about it.
    """

    lock: Lock
    contents: dict[str, Contents]
    request: Request
    solver_outputs: dict[str, str] = field(default_factory=dict)
    avoided: dict[str, str] = field(default_factory=dict)
    unanswered: dict[str, str] = field(default_factory=dict)

    @property
    def refused(self) -> dict[str, str]:
        """Package name to the sentence that says why it cannot be had."""
        return dict(self.lock.refused)


def resolve(question: Question, engine: Engine, reader: Reader) -> Resolution:
    """Asks the engine for everything at once; where that fails, package after package.

    Raises:
        ResolutionError: the index does not answer. Nothing is known about the packages then.
    """
    refused = _refused_by_name(question.packages)
    unfit, exclusions = _unfit(question, engine)
    refused |= unfit
    question = replace(question, exclusions=(*question.exclusions, *exclusions))
    packages = tuple(p for p in question.packages if p.name not in refused)
    excludes = {name for package in packages for name in package.exclude}
    misfits = _Misfits(question.platform)
    while True:
        search = _Search(question, excludes, engine)
        search.run(packages)
        resolution = _locate(question, search, engine, reader)
        avoided = misfits.found(resolution)
        if avoided:
            question = replace(question, exclusions=(*question.exclusions, *avoided))
            continue
        wanted = _wanted_after_all(question, search, resolution)
        if not wanted:
            break
        # One package excludes what another one needs: it is had, and left out of the one's layer.
        excludes -= wanted
    protected_names: dict[str, str | None] = {**question.held, **dict.fromkeys(question.absent)}
    for package in packages:
        solver_output = search.solver_outputs.get(package.name)
        if solver_output is not None:
            refused[package.name] = misfits.behind(solver_output, package) or sentence(
                solver_output, package.name, protected_names, question.goes_with_torch
            )
    lock = replace(
        resolution.lock,
        packages=tuple(p.name for p in question.packages if p.name not in search.unanswered),
        refused=tuple(sorted(refused.items())),
    )
    return replace(
        resolution,
        lock=lock,
        solver_outputs=search.solver_outputs,
        unanswered=search.unanswered,
        avoided=misfits.why,
    )


def composition(
    resolution: Resolution, packages: Sequence[Package], platform: Platform
) -> Composition:
    """The resolution ready to be cut into layers, with what the platform holds in the same places.

    The platform's files are listed only for owners of the top-level names that layers bring.
    """
    tops = {
        path.partition("/")[0]
        for contents in resolution.contents.values()
        for path, _ in contents.files
    }
    beneath = {}
    for distribution in platform.distributions:
        if not distribution.state.present:
            continue
        files = inventory.files(distribution)
        if any(path.partition("/")[0] in tops for path in files):
            beneath[distribution.name] = territory(files)
    return Composition(
        lock=resolution.lock,
        contents=resolution.contents,
        platform=platform,
        packages=tuple(packages),
        beneath=beneath,
    )


def from_lock(lock: Lock, question: Question, reader: Reader) -> Resolution:
    """The resolution that a lock holds; only contents that are not remembered are read."""
    contents = reader.read(lock.distributions)
    for each in lock.distributions:
        if not contents[each.name].exact:
            requires = each.requires
            if requires is None:
                requires = _all_others(each.name, lock.distributions)
            contents[each.name] = replace(contents[each.name], requires=requires)
    kept = [p for p in question.packages if p.name not in dict(lock.refused)]
    excludes = {name for package in kept for name in package.exclude}
    return Resolution(lock=lock, contents=contents, request=question.request(kept, excludes))


class _Search:
    """A joint solution, and what had to be left out of it.

    Attributes:
        kept: packages that are in the solution.
        solved: the solution.
        solver_outputs: what the solver said about each package that it refused.
        unanswered: package name to why the index could not be asked about it.
    """

    def __init__(self, question: Question, excludes: set[str], engine: Engine) -> None:
        self.excludes = frozenset(excludes)
        self.kept: list[Package] = []
        self.solved = Solved(pins=())
        self.solver_outputs: dict[str, str] = {}
        self.unanswered: dict[str, str] = {}
        self._question = question
        self._engine = engine

    def run(self, packages: Sequence[Package]) -> None:
        """Everything at once, or else one after the other; then those that override something.

        The engine applies an override to everyone, so what the others got is decided before.

        Raises:
            ResolutionError: the index does not answer at all.
        """
        plain = [package for package in packages if not package.override]
        if plain and not self._add(plain):
            for package in plain:
                self._add_alone(package, len(packages))
        decided = self.solved.pins
        for package in packages:
            if package.override:
                self._add_alone(package, len(packages), decided)

    def _add(self, packages: Sequence[Package]) -> bool:
        outcome = self._engine.resolve(self._question.request(packages, self.excludes))
        if isinstance(outcome, Solved):
            self.kept, self.solved = list(packages), outcome
            return True
        if outcome.silent:
            raise _unreachable(outcome)
        return False

    def _add_alone(self, package: Package, of: int, decided: Iterable[Pin] = ()) -> None:
        request = self._question.request([*self.kept, package], self.excludes, decided)
        outcome = self._engine.resolve(request)
        if isinstance(outcome, Solved):
            self.kept.append(package)
            self.solved = outcome
        elif not outcome.unreachable:
            self.solver_outputs[package.name] = outcome.solver_output
        elif outcome.silent or len(self.unanswered) + 1 == of:
            raise _unreachable(outcome)
        else:
            # One project of the index may be out of order, and costs those who need it.
            self.unanswered[package.name] = _silence(outcome)


class _Misfits:
    """What the resolver chose and cannot work here: it is asked again without, until all fits.

    Attributes:
        why: name to the sentence about the last one of it.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.why: dict[str, str] = {}
        self._times: Counter[str] = Counter()

    def found(self, resolution: Resolution) -> list[str]:
        """Constraints that leave out those of a lock."""
        avoided = []
        for each in resolution.lock.distributions:
            why = misfit(each, resolution.contents[each.name], self._platform)
            if why:
                self.why[each.name] = why
                self._times[each.name] += 1
                many = self._times[each.name] > _MISFITS_OF_ONE
                avoided.append(f"{each.name}<0" if many else avoiding(each))
        return avoided

    def behind(self, solver_output: str, package: Package) -> str | None:
        """The sentence about the one that is why a package cannot be had; None if none is."""
        for name, why in self.why.items():
            if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", solver_output):
                return why if name in package.names else f"it needs {name}: {why}"
        return None


def _silence(outcome: Unsolved) -> str:
    if "401 Unauthorized" in outcome.solver_output:
        return "the index refuses to answer (401 Unauthorized): check its credentials"
    return "the index does not answer for something that it needs"


def _unreachable(outcome: Unsolved) -> Unreachable:
    refuses = "401 Unauthorized" in outcome.solver_output
    return Unreachable(
        "the index does not answer: " + outcome.solver_output.replace("\n", " ")[:400],
        hint="check the network and the index settings; layers that are there go on serving",
        why=_silence(outcome) if refuses else "the index cannot be reached",
    )


def _locate(question: Question, search: _Search, engine: Engine, reader: Reader) -> Resolution:
    pins = search.solved.pins
    request = question.request(search.kept, search.excludes)
    located = engine.locate(pins, request)
    contents = reader.read(located)
    contents |= declared_of(located, contents, request, engine)
    lock = Lock(
        distributions=located,
        manifest=manifest_digest(question.manifest, question.protect),
        platform=platform_digest(question.platform),
    )
    return Resolution(lock=lock, contents=contents, request=request)


def declared_of(
    located: Sequence[Locked], contents: Mapping[str, Contents], request: Request, engine: Engine
) -> dict[str, Contents]:
    """By name, what could not be read of archives, with what the engine says that they require.

    Args:
        located: all that was chosen.
        contents: what is known of it.
        request: that it was chosen for.
        engine: that chose it.
    """
    pins = [Pin(name=each.name, version=each.version) for each in located]
    unread = [pin for pin in pins if not contents[pin.name].exact]
    declared = engine.declared(unread, pins, request)
    return {
        name: replace(contents[name], requires=declared.get(name, _all_others(name, located)))
        for name in (pin.name for pin in unread)
    }


def _all_others(unknown: str, located: Sequence[Locked]) -> tuple[str, ...]:
    """What a distribution may need of which nothing is known: too much, rather than too little."""
    return tuple(each.name for each in located if each.name != unknown)


def _unfit(question: Question, engine: Engine) -> tuple[dict[str, str], tuple[str, ...]]:
    """What is offered of packages that match the platform, and says itself that it does not.

    Returns:
        Package name to why none of its wheels will do, where it may not be built either; and
        constraints that leave the unfit versions out for the others.
    """
    refused: dict[str, str] = {}
    exclusions: list[str] = []
    for package in question.packages:
        if package.build_isolation:
            continue
        target = target_of(question.platform, package.build_limits)
        for name in package.names:
            versions, has_source = engine.offered(name)
            found = {v: why for v in sorted(versions) if (why := label_refusal(v, target))}
            exclusions += [f"{name}!={version}" for version in found]
            if found and len(found) == len(versions) and not (has_source and package.may_build):
                version, why = list(found.items())[-1]
                refused[package.name] = f"no wheel of {name} is for this platform: {version} {why}"
    return refused, tuple(exclusions)


def _wanted_after_all(question: Question, search: _Search, resolution: Resolution) -> set[str]:
    if not search.excludes:
        return set()
    whole = composition(resolution, search.kept, question.platform)
    return {n for package in search.kept for n in whole.missing(package) if n in search.excludes}


def _own_names(packages: Iterable[Package]) -> tuple[str, ...]:
    return tuple(sorted({name for package in packages for name in package.names}))


def _refused_by_name(packages: Iterable[Package]) -> dict[str, str]:
    """Requirements that name a place without a hash: nothing could prove what they were."""
    refused = {}
    for package in packages:
        for requirement in package.requirements:
            url = requirement.url or ""
            path = Path(url.removeprefix("file://").partition("#")[0])
            if url.startswith(("git+", "hg+", "svn+", "bzr+")):
                refused[package.name] = (
                    f"{requirement.name} is required from a checkout ({url.split('@')[0]}), which "
                    "has no hash; build it to a wheel and name the wheel"
                )
            elif url.startswith("file://") and path.is_dir():
                refused[package.name] = (
                    f"{requirement.name} is required from a directory ({path}), which has no "
                    "hash; build it to a wheel and name the wheel"
                )
    return refused
