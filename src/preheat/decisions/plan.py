"""The plan, made of what is known; nothing here looks anything up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from preheat.decisions.compose import Composition
from preheat.decisions.identity import layer_digest, verdict_key
from preheat.decisions.room import Load, Room
from preheat.decisions.size import Measure
from preheat.words.manifest import Package
from preheat.words.plan import Action, Plan, Step, Verdict


@dataclass(frozen=True, kw_only=True)
class Known:
    """What earlier starts left in the store.

    Attributes:
        layers: digests of published layers.
        verdicts: by key; expired failures are not among them.
    """

    layers: frozenset[str] = frozenset()
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)


@dataclass(kw_only=True)
class Progress:
    """Where composing stands: what earlier layers hold, after they succeeded or failed."""

    placed: dict[str, str] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)
    load: Load = field(default_factory=Load)

    def accept(self, step: Step) -> None:
        """The step's layer is there, or will be: later layers build on it."""
        for each in step.distributions:
            self.placed[each.name] = step.layer
        if step.layer and step.layer not in self.layers:
            self.layers.append(step.layer)
        if step.action is Action.INSTALL:
            self.load += load_of(step)


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Decides, package after package, what to do.

    Attributes:
        settled: packages that are decided already: on the platform, unmet conditions, refused.
        compiled: whether layers carry bytecode.
    """

    composition: Composition
    settled: Mapping[str, Step]
    known: Known
    room: Room
    measure: Measure
    compiled: bool

    def plan(self, packages: tuple[Package, ...]) -> Plan:
        """Every package's step, as if each installation succeeds."""
        progress = Progress()
        steps = []
        for index, package in enumerate(packages):
            step = self.step(package, progress, packages[index + 1 :])
            if step.action is not Action.SKIP:
                progress.accept(step)
            steps.append(step)
        return Plan(steps=tuple(steps), needs=self.room.needs(progress.load))

    def wanted(self, packages: tuple[Package, ...]) -> int | None:
        """Bytes free on the store's filesystem that leave nothing out; None where all fits."""
        if not any(step.action is Action.SKIP and step.disk for step in self.plan(packages).steps):
            return None
        endless = replace(self, room=self.room.boundless())
        load = Load()
        for step in endless.plan(packages).steps:
            if step.action is Action.INSTALL:
                load += load_of(step)
        return self.room.wanted(load)

    def step(self, package: Package, progress: Progress, later: tuple[Package, ...]) -> Step:
        """What to do for one package, given what earlier ones have placed."""
        if package.name in self.settled:
            return self.settled[package.name]
        coming = tuple(p for p in later if p.name not in self.settled)
        layer = self.composition.layer(package, progress.placed, coming)
        version = self._version(package)
        refusal = self.composition.escaping(layer) or self.composition.clash(layer, progress.placed)
        if refusal:
            return Step(package=package, action=Action.SKIP, reason=refusal, version=version)
        name = ""
        if layer:
            name = layer_digest(layer, self.composition.platform, compiled=self.compiled)
        over = tuple(progress.layers)
        verdict = self.known.verdicts.get(
            verdict_key((*over, name) if name else over, package, self.composition.platform)
        )
        if verdict is not None and not verdict.ok:
            reason = f"failed before on this platform: {verdict.reason}"
            return Step(package=package, action=Action.SKIP, reason=reason, version=version)
        if not layer:
            return self._within_earlier(package, progress, version)
        footprint = self.measure.footprint(self.composition.contents[d.name] for d in layer)
        present = name in self.known.layers
        step = Step(
            package=package,
            action=Action.REUSE if present else Action.INSTALL,
            reason="the store has its layer" if present else self._why(package),
            version=version,
            layer=name,
            distributions=layer,
            download=0 if present else sum(d.archive.size or 0 for d in layer),
            payload=footprint.payload,
            disk=0 if present else footprint.disk,
            inodes=0 if present else footprint.inodes,
            exact=footprint.exact,
            shadows=self.composition.shadows(layer),
            over=over,
        )
        if step.action is Action.INSTALL:
            refusal = self.room.refusal(progress.load + load_of(step))
            if refusal:
                return Step(
                    package=package,
                    action=Action.SKIP,
                    reason=refusal,
                    version=version,
                    disk=step.disk,
                    exact=step.exact,
                )
        return step

    def _within_earlier(self, package: Package, progress: Progress, version: str | None) -> Step:
        first = package.names[0]
        return Step(
            package=package,
            action=Action.REUSE,
            reason="earlier layers and the platform hold all of it",
            version=version,
            layer=progress.placed.get(first, ""),
            over=tuple(progress.layers),
        )

    def _version(self, package: Package) -> str | None:
        name = package.names[0]
        locked = self.composition.lock.find(name)
        if locked is not None:
            return locked.version
        beneath = self.composition.platform.find(name)
        return beneath.version if beneath else None

    def _why(self, package: Package) -> str:
        first = package.names[0]
        if self.composition.platform.find(first) is None:
            return f"the platform has no {first}"
        return "the platform's version does not do"


def load_of(step: Step) -> Load:
    """What installing that step brings."""
    return Load(
        disk=step.disk,
        inodes=step.inodes,
        distributions=len(step.distributions),
        builds=sum(not each.archive.is_wheel for each in step.distributions),
    )


def by_importance(packages: tuple[Package, ...]) -> tuple[Package, ...]:
    """Required packages first, each kind in the manifest's order."""
    return tuple(sorted(packages, key=lambda package: not package.required))
