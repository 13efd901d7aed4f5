"""The plan, made of what is known; nothing here looks anything up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from preheat.decisions.compose import Composition
from preheat.decisions.identity import layer_digest, verdict_key
from preheat.decisions.room import Load, Room
from preheat.decisions.size import Measure
from preheat.words.lock import Contents, Locked
from preheat.words.manifest import Package
from preheat.words.plan import Action, Need, Plan, Step, Verdict
from preheat.words.stand_in import Link, StandIn

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
    """Where composing stands: what earlier layers hold, after they succeeded or failed."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Piece:
    """What one package's layer is made of."""

    package: Package
    distributions: tuple[Locked, ...]
    stand_ins: tuple[StandIn, ...]
    links: tuple[Link, ...]

    @property
    def linked(self) -> Contents:
        """The links as files: what a link takes is the name of its target."""
        return Contents(
            files=tuple((link.path, len(link.target)) for link in self.links), requires=()
        )

    def without_copies(self, contents: Contents) -> Contents:
        """What a wheel holds and no link takes the place of."""
        gone = {link.path for link in self.links if link.sha256}
        if not gone:
            return contents
        files = tuple(file for file in contents.files if file[0] not in gone)
        return replace(contents, files=files)


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Decides, package after package, what to do.

    Attributes:
        fixed: packages that are decided already: on the platform, unmet conditions, refused.
        bytecode: which modules' layers hold: those ``imported``, ``all`` or ``none``.
        notes: package name to what is to be said of its installation.
        remarks: the same by the name of a distribution that the layer brings.
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

    def without_layer(self, digest: str) -> Planner:
        """The same, where the store turns out not to have that layer."""
        layers = self.known.layers - {digest}
        return replace(self, known=replace(self.known, layers=layers))

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
        """Every layer that the start will use, whether all fits in the end or not.

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

    def step(self, package: Package, progress: Progress, later: tuple[Package, ...]) -> Step:
        """What to do for one package, given what earlier ones have placed."""
        if package.name in self.fixed:
            return self.fixed[package.name]
        coming = tuple(p for p in later if p.name not in self.fixed)
        layer = self.composition.layer(package, progress.placed, coming)
        version = self._version(package)
        refusal = self.composition.escaping(layer) or self.composition.clash(layer, progress.placed)
        if refusal:
            return Step(package=package, action=Action.SKIP, reason=refusal, version=version)
        if not layer:
            return self._within_earlier(package, progress, version)
        stand_ins = self.composition.stood_in(package, progress.placed)
        piece = _Piece(
            package=package,
            distributions=layer,
            stand_ins=stand_ins,
            links=self.composition.links(layer, stand_ins),
        )
        failure = self._known_failure((*progress.layers, self._digest(piece)), package)
        left_out = self.composition.left_out(package)
        if failure and left_out:
            return self.bringing(package, failure).step(package, progress, later)
        return self._best(piece, progress, version)

    def _best(self, piece: _Piece, progress: Progress, version: str | None) -> Step:
        """The layer with bytecode, where that is wanted and fits."""
        made = self._layer(piece, progress, version)
        if made.action is Action.REUSE or self.bytecode == "none":
            return made
        plain = self._plain()
        if not made.short and plain._digest(piece) not in self.known.layers:
            return made
        return self._or_plain(made, plain._layer(piece, progress, version))

    def bringing(self, package: Package, why: str) -> Planner:
        """The same, where the package brings NVIDIA's libraries after all, with the reason."""
        old = self.composition
        names = ", ".join(sorted(old.left_out(package)))
        note = f"brings {names}, since with the platform's libraries: {why}"
        return replace(
            self,
            composition=replace(old, bringing=old.bringing | {package.name}),
            notes={**self.notes, package.name: note},
        )

    def _plain(self) -> Planner:
        return replace(self, bytecode="none", measure=replace(self.measure, python=None))

    def _or_plain(self, made: Step, plain: Step) -> Step:
        """The layer without bytecode, where it is there already or all that fits."""
        if plain.action is Action.REUSE:
            return plain
        if made.short and plain.action is Action.INSTALL:
            reason = f"{plain.reason}; without bytecode, which does not fit: imports are slower"
            return replace(plain, reason=reason)
        return made

    def _layer(self, piece: _Piece, progress: Progress, version: str | None) -> Step:
        """The step with a layer of those distributions."""
        package, layer = piece.package, piece.distributions
        name = self._digest(piece)
        over = tuple(progress.layers)
        failure = self._known_failure((*over, name), package)
        if failure:
            return Step(
                package=package,
                action=Action.SKIP,
                reason=failure,
                version=version,
                failed=layer,
            )
        held = (self.composition.contents[d.name] for d in layer)
        footprint = self.measure.footprint([*map(piece.without_copies, held), piece.linked])
        present = name in self.known.layers
        absent = None if present else self._why_not(package, layer)
        if absent:
            return Step(package=package, action=Action.SKIP, reason=absent, version=version)
        ready = present and name not in self.known.packed
        step = Step(
            package=package,
            action=Action.REUSE if present else Action.INSTALL,
            reason=self._has(name) if present else self._why(package, layer),
            version=version,
            layer=name,
            distributions=layer,
            download=0 if present else sum(d.archive.size or 0 for d in layer),
            payload=footprint.payload,
            disk=0 if ready else footprint.disk,
            inodes=0 if ready else footprint.inodes,
            files=0 if present else footprint.files,
            directories=0 if present else footprint.directories,
            exact=footprint.exact,
            bytecode=self.bytecode,
            shadows=self.composition.shadows(layer),
            over=over,
            stand_ins=piece.stand_ins,
            links=piece.links,
            spared=sum(e.size for e in piece.stand_ins if e.name not in progress.spared),
        )
        refusal = None if ready else self.room.refusal(progress.load + load_of(step))
        if refusal is None:
            return step
        return Step(
            package=package,
            action=Action.SKIP,
            reason=refusal,
            version=version,
            disk=step.disk,
            exact=step.exact,
        )

    def _why_not(self, package: Package, layer: tuple[Locked, ...]) -> str | None:
        """Why a layer that is not there cannot be made, whatever room there is."""
        if self.only is not None and package.name not in self.only:
            return _ELSEWHERE
        return _OFFLINE if any(each.name in self.unreachable for each in layer) else None

    def _has(self, layer: str) -> str:
        if layer in self.known.baked:
            return _IN_IMAGE
        return _HAS_PACK if layer in self.known.packed else _HAS_IT

    def _digest(self, piece: _Piece) -> str:
        return layer_digest(
            piece.distributions,
            self.composition.platform,
            bytecode=self.bytecode,
            links=piece.links,
        )

    def _known_failure(self, layers: tuple[str, ...], package: Package) -> str:
        key = verdict_key(layers, package, self.composition.platform)
        verdict = self.known.verdicts.get(key)
        if verdict is None or verdict.ok:
            return ""
        return f"failed before on this platform: {verdict.reason}"

    def _within_earlier(self, package: Package, progress: Progress, version: str | None) -> Step:
        failure = self._known_failure(tuple(progress.layers), package)
        if failure:
            return Step(package=package, action=Action.SKIP, reason=failure, version=version)
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

    def _why(self, package: Package, layer: Iterable[Locked]) -> str:
        first = package.names[0]
        absent = self.composition.platform.find(first) is None
        why = f"the platform has no {first}" if absent else "the platform's version does not do"
        said = [self.notes.get(package.name), *(self.remarks.get(each.name) for each in layer)]
        return "; ".join(filter(None, [why, *said]))


def _together(steps: Iterable[Step]) -> Load:
    bringing = (Action.INSTALL, Action.REUSE)
    return sum((load_of(step) for step in steps if step.action in bringing), Load())


def load_of(step: Step) -> Load:
    """What installing that step brings, or unpacking it."""
    if step.action is Action.REUSE:
        return Load(disk=step.disk, inodes=step.inodes)
    return Load(
        disk=step.disk,
        made=step.disk,
        inodes=step.inodes,
        files=step.files,
        directories=step.directories,
        distributions=len(step.distributions),
        builds=sum(not each.archive.is_wheel for each in step.distributions),
    )


def by_importance(packages: tuple[Package, ...]) -> tuple[Package, ...]:
    """Required packages first, each kind in the manifest's order."""
    return tuple(sorted(packages, key=lambda package: not package.required))
