"""What was found out for a start, and what of it turns out otherwise on the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from preheat.decisions.plan import Planner
from preheat.decisions.room import Room
from preheat.edges.disk.volumes import read_volumes
from preheat.edges.engine.engine import Engine
from preheat.edges.engine.lock_file import read_lock, write_lock
from preheat.edges.index.wheels import Reader
from preheat.edges.platform.fingerprint import Fingerprint, changes, fingerprint
from preheat.edges.store.wheelhouse import Kept
from preheat.planning.builds import Builder, Unbuilt, with_wheels
from preheat.planning.resolve import Resolution, composition, with_older
from preheat.proving.prover import Prover
from preheat.words.engine import Request
from preheat.words.errors import PlatformChangedError, ResolutionError
from preheat.words.lock import Locked
from preheat.words.manifest import Package
from preheat.words.outcome import Outcome
from preheat.words.plan import Action, Step
from preheat.words.platform import Platform


@dataclass(frozen=True, kw_only=True)
class Decided:
    """All that is found out before anything is changed.

    Attributes:
        before: the platform's files, as they were found; nothing where nothing is published.
        unanswered: the index was silent about some packages.
        sources: what there is as source only, and is compiled against the platform.
        builder: has wheels that are compiled against the platform.
        solver_outputs: what the solver said about each package that it refused.
        lock: where the store keeps the resolution; None where it keeps none.
    """

    platform: Platform
    before: Fingerprint
    planner: Planner
    engine: Engine
    sources: tuple[Unbuilt, ...]
    builder: Builder
    request: Request
    prover: Prover
    unanswered: bool
    solver_outputs: dict[str, str]
    lock: Path | None

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
        composition = self.planner.composition
        sources = self.builder.sources(composition.lock, composition.packages)
        return tuple(source for source in sources if source.locked.name in names)

    def with_wheel(self, source: Unbuilt, kept: Kept, reader: Reader) -> Decided:
        """The same with a wheel in place of its source: its size is known now."""
        old = self.planner.composition
        lock = with_wheels(old.lock, {source.locked.name: kept})
        read = reader.read([each for each in lock.distributions if each.name == source.locked.name])
        composition = replace(old, lock=lock, contents={**old.contents, **read})
        notes = {k: v for k, v in self.planner.notes.items() if k != source.package.name}
        return replace(self, planner=replace(self.planner, composition=composition, notes=notes))

    def with_older(self, companion: Locked, why: str, reader: Reader) -> Decided | None:
        """The same with the next older release of a companion of torch; None where none is.

        Args:
            companion: what failed.
            why: how, in a sentence.
            reader: reads what the older one holds.
        """
        old = self.planner.composition
        resolution = Resolution(lock=old.lock, contents=dict(old.contents), request=self.request)
        try:
            found = with_older(resolution, companion, self.platform, (self.engine, reader))
        except ResolutionError:
            return None
        if found is None:
            return None
        older = found.lock.find(companion.name)
        remark = (
            f"{older.name} {older.version}, since with {companion.version} {why}" if older else ""
        )
        remarks = {**self.planner.remarks, companion.name: remark}
        whole = composition(found, old.packages, self.platform)
        # All else is as it was, and so is what serves it.
        copies = {name: links for name, links in old.copies.items() if name != companion.name}
        whole = replace(whole, stand_ins=old.stand_ins, bringing=old.bringing, copies=copies)
        return replace(self, planner=replace(self.planner, composition=whole, remarks=remarks))

    def keep_lock(self) -> None:
        """Has the store keep the resolution as it is by now: the next start goes by it.

        What was built here stays in it as its source: another store has no such wheel.
        """
        if self.lock is None:
            return
        now = self.planner.composition
        kept = read_lock(self.lock)
        same = {(d.name, d.version): d for d in kept.distributions}
        found = tuple(same.get((d.name, d.version), d) for d in now.lock.distributions)
        write_lock(replace(kept, distributions=found), dict(now.contents), self.lock)

    def measured_anew(self) -> Decided:
        """The same with what is free by now."""
        room = self.planner.room
        volumes = read_volumes({volume.role: volume.path for volume in room.volumes})
        known = zip(volumes, room.volumes, strict=True)
        return self.with_room(replace(room, volumes=[replace(v, links=o.links) for v, o in known]))

    def bringing(self, package: Package, why: str) -> Decided:
        """The same, where a package brings NVIDIA's libraries, with the reason."""
        return replace(self, planner=self.planner.bringing(package, why))

    def without_layer(self, digest: str) -> Decided:
        """The same, where the store turns out not to have that layer."""
        return replace(self, planner=self.planner.without_layer(digest))

    def with_room(self, room: Room) -> Decided:
        """The same in another room."""
        return replace(self, planner=replace(self.planner, room=room))

    def refuse_changed_platform(self) -> None:
        """Nothing is published beside a platform that is not as it was found.

        Raises:
            PlatformChangedError: with the first files that changed.
        """
        found = changes(self.before, fingerprint(self.platform.interpreter.sites))
        if not found:
            return
        raise PlatformChangedError(
            f"{len(found)} files of the platform changed during the start, {found[0]} first; "
            "nothing more is published",
            hint="stop whatever else writes to the platform, then start again",
            paths=found[:5],
        )
