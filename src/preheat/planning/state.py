"""What is known of a startup so far, and what of it turns out otherwise on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from preheat.decisions.compose import Composition
from preheat.decisions.plan import Planner
from preheat.decisions.room import Room
from preheat.edges.engine.engine import Engine
from preheat.edges.platform.fingerprint import Fingerprint
from preheat.edges.store.wheelhouse import Kept
from preheat.planning.builds import Builder, Unbuilt, sources, with_wheels
from preheat.words.engine import Request
from preheat.words.lock import Contents, Locked
from preheat.words.manifest import Package
from preheat.words.outcome import Outcome
from preheat.words.plan import Action, Need, Plan, Step
from preheat.words.platform import Platform, Volume


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """All that is known before anything is changed, and then by each change.

    What is found out later is another planner; everything else stays.

    Attributes:
        platform: without what is there and broken.
        before: the platform's files, as they were found; nothing where nothing is published.
        packages: in the order in which their layers are composed.
        planner: what it takes to plan each of them.
        engine: works for that platform.
        builder: builds for that platform.
        sources: what there is as source only, and is compiled against the platform.
        request: what was resolved.
        unanswered: the index was silent about some packages.
        solver_outputs: what the solver said about each package that it refused.
        lock: where the store keeps the resolution; None where it keeps none.
    """

    platform: Platform
    before: Fingerprint
    packages: tuple[Package, ...]
    planner: Planner
    engine: Engine
    builder: Builder
    sources: tuple[Unbuilt, ...]
    request: Request
    unanswered: bool
    solver_outputs: dict[str, str]
    lock: Path | None

    @property
    def composition(self) -> Composition:
        """The resolution, as it is cut into layers by now."""
        return self.planner.composition

    @property
    def room(self) -> Room:
        """What is free, as far as it is known."""
        return self.planner.room

    def plan(self) -> Plan:
        """Every package's step, as if each installation succeeds."""
        return self.planner.plan(self.packages)

    def layers(self) -> frozenset[str]:
        """Every layer that may be used, whether all fits in the end or not."""
        return self.planner.layers(self.packages)

    def shortages(self) -> tuple[Need, ...]:
        """What must be free on each volume that is short, so that nothing is left out."""
        return self.planner.shortages(self.packages)

    def outcome(self, step: Step) -> Outcome:
        """The outcome to begin with: as planned."""
        planned = Outcome.planned(step)
        planned.trace = self.solver_outputs.get(step.package.name, "")
        return planned

    def unbuilt(self, step: Step) -> tuple[Unbuilt, ...]:
        """What must be built before that step can be taken."""
        if step.action is not Action.INSTALL:
            return ()
        names = {each.name for each in step.distributions}
        whole = self.composition
        return tuple(
            source
            for source in sources(whole.lock, whole.packages, self.platform)
            if source.locked.name in names
        )

    def contents(self, step: Step) -> tuple[tuple[Locked, Contents], ...]:
        """What that step installs, each with what its archive holds."""
        held = self.composition.contents
        return tuple((each, held[each.name]) for each in step.distributions)

    # What turns out otherwise

    def with_wheel(self, source: Unbuilt, kept: Kept, held: Mapping[str, Contents]) -> State:
        """With a wheel in place of its source: its size is known now.

        Args:
            source: what was built.
            kept: the wheel.
            held: by name, what it holds.
        """
        old = self.composition
        whole = replace(
            old,
            lock=with_wheels(old.lock, {source.locked.name: kept}),
            contents={**old.contents, **held},
        )
        notes = {k: v for k, v in self.planner.notes.items() if k != source.package.name}
        return self._with(replace(self.planner, composition=whole, notes=notes))

    def with_release(self, whole: Composition, name: str, remark: str) -> State:
        """With another release of one distribution, and what is to be said of it.

        What serves the others goes on serving them.
        """
        old = self.composition
        copies = {each: links for each, links in old.copies.items() if each != name}
        whole = replace(whole, stand_ins=old.stand_ins, bringing=old.bringing, copies=copies)
        remarks = {**self.planner.remarks, name: remark}
        return self._with(replace(self.planner, composition=whole, remarks=remarks))

    def bringing(self, package: Package, why: str) -> State:
        """Where a package brings NVIDIA's libraries, with the reason."""
        return self._with(self.planner.bringing(package, why))

    def without_layer(self, digest: str) -> State:
        """Where the store turns out not to have that layer."""
        return self._with(self.planner.without_layer(digest))

    def with_room(self, room: Room) -> State:
        """With other room."""
        return self._with(replace(self.planner, room=room))

    def with_volumes(self, volumes: Sequence[Volume]) -> State:
        """With what is free by now on each volume, in their order."""
        known = zip(volumes, self.room.volumes, strict=True)
        measured = [replace(now, links=before.links) for now, before in known]
        return self.with_room(replace(self.room, volumes=measured))

    def _with(self, planner: Planner) -> State:
        return replace(self, planner=planner)
