"""The plan, made of what is known; nothing here looks anything up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from preheat.decisions.compose import Composition
from preheat.decisions.identity import layer_digest, verdict_key
from preheat.decisions.room import Load, Room
from preheat.decisions.size import Measure
from preheat.words.footprint import Footprint
from preheat.words.lock import Contents
from preheat.words.manifest import Package
from preheat.words.plan import Action, Need, Plan, PlannedLayer, Step, Verdict

_HAS_IT = "the store has its layer"
_HAS_PACK = "the store has its layer, packed"
_IN_IMAGE = "the image has its layer"
_ELSEWHERE = "its layer is not to be made here"
_OFFLINE = "offline, and neither the store nor the image has its layer"


@dataclass(frozen=True, kw_only=True)
class Known:
    """What earlier starts left in the store.

    Attributes:
        layers: digests of published layers.
        packed: those of them that are to be unpacked first.
        baked: those of them that are in the worker's image, each with its package.
        verdicts: by key; expired failures are not among them.
    """

    layers: frozenset[str] = frozenset()
    packed: frozenset[str] = frozenset()
    baked: Mapping[str, str] = field(default_factory=dict)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)


@dataclass(kw_only=True)
class Progress:
    """How far composing has come: what the layers hold that succeeded, or will.

    Attributes:
        placed: name of each distribution to the digest of the layer that holds it.
        layers: digests, in order.
        load: what is to be installed and is not yet measured as used space.
        spared: names of the stand-ins that were counted already.
    """

    placed: dict[str, str] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)
    load: Load = field(default_factory=Load)
    spared: set[str] = field(default_factory=set)

    def measured_anew(self) -> None:
        """What was installed so far is no longer free: it is not to be counted again."""
        self.load = Load()

    def accept(self, step: Step) -> None:
        """The step's layer is there, or will be: later layers build on it."""
        for each in step.distributions:
            self.placed[each.name] = step.layer
        self.spared |= {each.name for each in step.stand_ins}
        if step.layer and step.layer not in self.layers:
            self.layers.append(step.layer)
        if step.action in (Action.INSTALL, Action.REUSE):
            # What the engine unpacked for it is gone again when the next one's turn comes.
            self.load += replace(load_of(step), files=0, directories=0)


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Decides, package after package, what to do.

    Attributes:
        fixed: packages that are decided already: on the platform, unmet conditions, refused.
        bytecode: which modules' layers hold: those ``imported``, ``all`` or ``none``.
        notes: package name to what is to be said of its installation.
        remarks: name of a distribution to what is to be said where a layer brings it.
        only: packages whose layers may be made here; None for all. The others still count where
            layers are cut, so that these are cut as if all were made.
        unreachable: distributions that cannot be fetched.
    """

    composition: Composition
    fixed: Mapping[str, Step]
    known: Known
    room: Room
    measure: Measure
    bytecode: str
    notes: Mapping[str, str] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)
    only: frozenset[str] | None = None
    unreachable: frozenset[str] = frozenset()

    # Whole plans

    def plan(self, packages: tuple[Package, ...]) -> Plan:
        """Every package's step, as if each installation succeeds."""
        progress = Progress()
        steps = []
        for index, package in enumerate(packages):
            step = self.step(package, progress, packages[index + 1 :])
            if step.action is not Action.SKIP:
                progress.accept(step)
            steps.append(step)
        needs = self.room.needs(_together(steps))
        return Plan(steps=tuple(steps), needs=needs, links=self.room.links)

    def layers(
        self, packages: tuple[Package, ...], wanted: Collection[str] | None = None
    ) -> frozenset[str]:
        """Digests of the layers that the startup will use, whether all fits in the end or not.

        Args:
            packages: all of them, as they are composed.
            wanted: names of those whose layers are meant; None for all.
        """
        endless = replace(self, room=self.room.boundless())
        steps = (*self.plan(packages).steps, *endless.plan(packages).steps)
        return frozenset(
            step.layer
            for step in steps
            if step.layer and (wanted is None or step.package.name in wanted)
        )

    def shortages(self, packages: tuple[Package, ...]) -> tuple[Need, ...]:
        """What must be free on each volume that is short, so that nothing is left out."""
        plan = self.plan(packages)
        if not any(step.short for step in plan.steps):
            # A volume that is short of room for packs leaves out nothing.
            return tuple(need for need in plan.needs if self.room.is_short(need))
        endless = replace(self, room=self.room.boundless())
        needs = self.room.needs(_together(endless.plan(packages).steps))
        return tuple(need for need in needs if self.room.is_short(need))

    # Planners for what turns out on the way

    def without_layer(self, digest: str) -> Planner:
        """A planner that knows that the store lacks that layer after all."""
        layers = self.known.layers - {digest}
        return replace(self, known=replace(self.known, layers=layers))

    def bringing(self, package: Package, why: str) -> Planner:
        """A planner that has the package bring NVIDIA's libraries after all, and says why."""
        old = self.composition
        names = ", ".join(sorted(old.left_out(package)))
        note = f"brings {names}, since with the platform's libraries: {why}"
        return replace(
            self,
            composition=replace(old, bringing=old.bringing | {package.name}),
            notes={**self.notes, package.name: note},
        )

    # One package

    def step(self, package: Package, progress: Progress, later: tuple[Package, ...]) -> Step:
        """What to do for one package, given what earlier ones have placed."""
        if package.name in self.fixed:
            return self.fixed[package.name]
        coming = tuple(p for p in later if p.name not in self.fixed)
        distributions = self.composition.layer(package, progress.placed, coming)
        refusal = self.composition.escaping(distributions) or self.composition.clash(
            distributions, progress.placed
        )
        if refusal:
            return Step.skip(package, refusal, version=self._version(package))
        if not distributions:
            return self._within_earlier(package, progress)
        stand_ins = self.composition.stood_in(package, progress.placed)
        draft = PlannedLayer(
            distributions=distributions,
            links=self.composition.links(distributions, stand_ins),
            stand_ins=stand_ins,
            over=tuple(progress.layers),
        )
        failure = self._known_failure((*draft.over, self._digest(draft)), package)
        if failure and self.composition.left_out(package):
            return self.bringing(package, failure).step(package, progress, later)
        return self._best(package, draft, progress)

    def _within_earlier(self, package: Package, progress: Progress) -> Step:
        """The step of a package for which no layer is needed beyond those that are there."""
        version = self._version(package)
        failure = self._known_failure(tuple(progress.layers), package)
        if failure:
            return Step.skip(package, failure, version=version)
        first = package.names[0]
        return Step(
            package=package,
            action=Action.REUSE,
            reason="earlier layers and the platform hold all of it",
            version=version,
            content=PlannedLayer(
                digest=progress.placed.get(first, ""), over=tuple(progress.layers)
            ),
        )

    def _best(self, package: Package, draft: PlannedLayer, progress: Progress) -> Step:
        """The layer with bytecode, where that is wanted and fits; else the one without."""
        made = self._with_layer(package, draft, progress)
        if made.action is Action.REUSE or self.bytecode == "none":
            return made
        without = replace(self, bytecode="none", measure=replace(self.measure, python=None))
        if not made.short and without._digest(draft) not in self.known.layers:
            return made
        plain = without._with_layer(package, draft, progress)
        if plain.action is Action.REUSE:
            return plain
        if made.short and plain.action is Action.INSTALL:
            reason = f"{plain.reason}; without bytecode, which does not fit: imports are slower"
            return replace(plain, reason=reason)
        return made

    def _with_layer(self, package: Package, draft: PlannedLayer, progress: Progress) -> Step:
        """The step with the drafted layer, if it is there or may be made."""
        version = self._version(package)
        layer = replace(draft, digest=self._digest(draft), bytecode=self.bytecode)
        failure = self._known_failure((*layer.over, layer.digest), package)
        if failure:
            skipped = Step.skip(package, failure, version=version)
            return replace(skipped, failed=layer.distributions)
        present = layer.digest in self.known.layers
        absent = None if present else self._why_not(package, layer)
        if absent:
            return Step.skip(package, absent, version=version)
        layer = replace(layer, shadows=self.composition.shadows(layer.distributions))
        step = self._reuse(package, layer) if present else self._install(package, layer)
        spared = sum(e.size for e in layer.stand_ins if e.name not in progress.spared)
        step = replace(step, spared=spared)
        if present and layer.digest not in self.known.packed:
            return step
        refusal = self.room.refusal(progress.load + load_of(step))
        return step if refusal is None else step.short_of_room(refusal)

    def _reuse(self, package: Package, layer: PlannedLayer) -> Step:
        whole = self._footprint(layer)
        unpacked = replace(whole, files=0, directories=0)
        there = Footprint(payload=whole.payload, exact=whole.exact)
        return Step(
            package=package,
            action=Action.REUSE,
            reason=self._has(layer.digest),
            version=self._version(package),
            content=layer,
            footprint=unpacked if layer.digest in self.known.packed else there,
        )

    def _install(self, package: Package, layer: PlannedLayer) -> Step:
        return Step(
            package=package,
            action=Action.INSTALL,
            reason=self._why(package, layer),
            version=self._version(package),
            content=layer,
            footprint=self._footprint(layer),
            download=sum(each.archive.size or 0 for each in layer.distributions),
        )

    # What is known of a layer

    def _digest(self, layer: PlannedLayer) -> str:
        return layer_digest(
            layer.distributions,
            self.composition.platform,
            bytecode=self.bytecode,
            links=layer.links,
        )

    def _footprint(self, layer: PlannedLayer) -> Footprint:
        return self.measure.footprint(_contents(layer, self.composition.contents))

    def _known_failure(self, layers: tuple[str, ...], package: Package) -> str:
        """The sentence for a package that failed before over these layers; empty if it did not."""
        key = verdict_key(layers, package, self.composition.platform)
        verdict = self.known.verdicts.get(key)
        if verdict is None or verdict.ok:
            return ""
        return f"failed before on this platform: {verdict.reason}"

    def _version(self, package: Package) -> str | None:
        """The version of the package's first requirement, locked or else on the platform."""
        name = package.names[0]
        locked = self.composition.lock.find(name)
        if locked is not None:
            return locked.version
        beneath = self.composition.platform.find(name)
        return beneath.version if beneath else None

    # Reasons

    def _why_not(self, package: Package, layer: PlannedLayer) -> str | None:
        """Why a layer that is not there cannot be made, whatever room there is."""
        if self.only is not None and package.name not in self.only:
            return _ELSEWHERE
        offline = any(each.name in self.unreachable for each in layer.distributions)
        return _OFFLINE if offline else None

    def _has(self, digest: str) -> str:
        if digest in self.known.baked:
            return _IN_IMAGE
        return _HAS_PACK if digest in self.known.packed else _HAS_IT

    def _why(self, package: Package, layer: PlannedLayer) -> str:
        first = package.names[0]
        absent = self.composition.platform.find(first) is None
        why = f"the platform has no {first}" if absent else "the platform's version does not do"
        remarks = (self.remarks.get(each.name) for each in layer.distributions)
        return "; ".join(filter(None, [why, self.notes.get(package.name), *remarks]))


def _contents(layer: PlannedLayer, contents: Mapping[str, Contents]) -> Iterator[Contents]:
    """What a layer holds: its archives but for what links replace, and the links as files."""
    replaced = {link.path for link in layer.links if link.sha256}
    for each in layer.distributions:
        archive = contents[each.name]
        if replaced:
            files = tuple(file for file in archive.files if file[0] not in replaced)
            archive = replace(archive, files=files)
        yield archive
    # What a link takes is the name of its target.
    links = tuple((link.path, len(link.target)) for link in layer.links)
    yield Contents(files=links, requires=())


def _together(steps: Iterable[Step]) -> Load:
    """What installing and unpacking brings in all."""
    bringing = (Action.INSTALL, Action.REUSE)
    return sum((load_of(step) for step in steps if step.action in bringing), Load())


def load_of(step: Step) -> Load:
    """What installing a step's layer brings, or unpacking it."""
    if step.action is Action.REUSE:
        return Load(disk=step.disk, inodes=step.footprint.inodes)
    return Load(
        disk=step.disk,
        made=step.disk,
        inodes=step.footprint.inodes,
        files=step.footprint.files,
        directories=step.footprint.directories,
        distributions=len(step.distributions),
        builds=sum(not each.archive.is_wheel for each in step.distributions),
    )


def by_importance(packages: tuple[Package, ...]) -> tuple[Package, ...]:
    """Required packages first, each kind in the manifest's order."""
    return tuple(sorted(packages, key=lambda package: not package.required))
