"""Up to the plan: probe, detect, resolve, size. The platform is looked at, and nothing changes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from preheat.decisions.baking import composing_order, image_first
from preheat.decisions.compose import Composition
from preheat.decisions.coupling import remarks, useless
from preheat.decisions.cuda import overridden
from preheat.decisions.detect import Sighting, find, unmet
from preheat.decisions.plan import Known, Planner, by_importance
from preheat.decisions.room import Room
from preheat.decisions.size import Measure
from preheat.edges.cleaning.layers import available
from preheat.edges.disk.volumes import read_volumes
from preheat.edges.engine.engine import Engine, Source
from preheat.edges.engine.installation import links
from preheat.edges.platform import inventory
from preheat.edges.platform.cuda import read_cuda
from preheat.edges.platform.fingerprint import Fingerprint, fingerprint
from preheat.edges.platform.probe import probe
from preheat.planning.builds import Builder, Unbuilt, sources, with_wheels
from preheat.planning.cuda_bounds import resolve_around
from preheat.planning.cuda_substitutes import Substitutes
from preheat.planning.lock import Locks
from preheat.planning.resolve import Question, Resolution, composition
from preheat.planning.session import Session
from preheat.planning.state import State
from preheat.words.lock import Lock
from preheat.words.manifest import Package
from preheat.words.plan import Step
from preheat.words.platform import Platform, RecordState, Volume
from preheat.words.settings import Settings
from preheat.words.store import Directory


@dataclass(frozen=True, kw_only=True, slots=True)
class Detected:
    """What is there already, and what is left to do.

    Attributes:
        platform: without what is there and broken: a layer is made instead.
        steps: of packages that need no layer or cannot have one, by name.
        left: the other packages, by importance.
    """

    platform: Platform
    steps: Mapping[str, Step]
    left: tuple[Package, ...]

    def skipping(self, reasons: Mapping[str, str]) -> Detected:
        """Without those packages, by name, which cannot be had for these reasons."""
        skipped = {p.name: Step.skip(p, reasons[p.name]) for p in self.left if p.name in reasons}
        left = tuple(package for package in self.left if package.name not in skipped)
        return replace(self, steps={**self.steps, **skipped}, left=left)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sourced:
    """A resolution with the wheels that the store has of what is compiled against the platform.

    Attributes:
        sources: all that is compiled so.
        unbuilt: that of it which the store has no wheel of.
    """

    resolution: Resolution
    sources: tuple[Unbuilt, ...]
    unbuilt: tuple[Unbuilt, ...]


class Surveyor:
    """Finds out, for one session, what is there and what is to be done."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._settings = session.order.settings
        self._packages = by_importance(session.order.manifest.package)

    def survey(self) -> State:
        """Everything up to the plan.

        Raises:
            PreheatError: the platform or the lock is unusable.
        """
        session = self._session
        platform = self._timed_probe()
        # One after the other: nothing runs on the platform before its files are noted.
        with ThreadPoolExecutor(1, thread_name_prefix="preheat-aside") as aside:
            before = aside.submit(self._note, platform)
            detected = self._detect(platform, before)
            if session.prover.torch is not None and len(detected.left) > 1:
                aside.submit(session.prover.torch.begin, detected.platform)
            if not all(package.build_isolation for package in detected.left):
                # What is built against the platform runs on it.
                before.result()
            engine = self._engine(detected.platform, detected.left)
            answer = Locks(session).answer(self._question(detected), engine)
            detected = detected.skipping(answer.resolution.refused | answer.unanswered)
            if session.staging is not None and detected.left:
                engine.prepare()
            builder = Builder(session=session, platform=detected.platform, engine=engine)
            sourced = self._sourced(answer.resolution, detected, builder)
            detected = detected.skipping(builder.refusals(sourced.unbuilt))
            planner = self._planner(sourced, detected, builder)
            return State(
                platform=detected.platform,
                before=before.result(),
                packages=self._ordered(planner),
                planner=planner,
                engine=engine,
                builder=builder,
                sources=sourced.sources,
                request=sourced.resolution.request,
                unanswered=bool(answer.unanswered),
                solver_outputs=sourced.resolution.solver_outputs,
                lock=answer.kept,
            )

    def resolve(self) -> Resolution:
        """A fresh resolution of every package that is wanted here and not provided.

        Raises:
            ResolutionError: the index does not answer.
        """
        detected = self._detect(self._timed_probe(), None)
        engine = self._engine(detected.platform, ())
        question = self._question(detected)
        with self._session.clock.stage("resolve"):
            reader, stated = self._session.reader, self._settings.cuda
            return resolve_around(question, engine, reader, stated)

    # What is there

    def _timed_probe(self) -> Platform:
        with self._session.clock.stage("probe"):
            return self._probe()

    def _probe(self) -> Platform:
        """The platform, with what is stated of its CUDA."""
        session, stated = self._session, self._settings.cuda
        keeps = session.staging is not None
        memory = inventory.Memory(place=session.store.platforms, keeps=keeps)
        platform = probe(session.order.executable, memory)
        read = read_cuda(platform, os.environ, stated.toolkit)
        return replace(platform, cuda=overridden(read, stated, self._settings.sources))

    def _note(self, platform: Platform) -> Fingerprint:
        """The platform's files, where something may be published beside them."""
        if self._session.staging is None:
            return {}
        with self._session.clock.stage("fingerprint"):
            return fingerprint(platform.interpreter.sites)

    def _detect(self, platform: Platform, before: Future[Fingerprint] | None) -> Detected:
        """Packages that need no layer: unwanted here, or provided by the platform and proved."""
        steps: dict[str, Step] = {}
        provided: list[Step] = []
        sound = platform
        for package in self._packages:
            reason = unmet(package, platform)
            if reason:
                steps[package.name] = Step.skip(package, reason, wanted=False)
                continue
            sighting = _sighting(package, platform)
            broken = [name for name, files in sighting.truncated.items() if files]
            sound = sound.without(broken, RecordState.TRUNCATED)
            finding = find(package, platform, sighting)
            if finding.present:
                provided.append(Step.provided(package, finding.reason, finding.version))
            elif reason := useless(package, platform):
                steps[package.name] = Step.skip(package, reason)
        if provided and before is not None:
            before.result()
        with self._session.clock.stage("detect"):
            proofs = self._session.prover.provided([step.package for step in provided], platform)
        for step in provided:
            proof = proofs[step.package.name]
            if proof.ok:
                steps[step.package.name] = step
            else:
                sound = sound.without(step.package.names, RecordState.BROKEN)
                self._session.clock.listener.event(
                    "not-importable", package=step.package.name, reason=proof.reason
                )
        left = tuple(package for package in self._packages if package.name not in steps)
        return Detected(platform=sound, steps=steps, left=left)

    # What is to be done

    def _question(self, detected: Detected) -> Question:
        return Question(
            manifest=self._session.order.manifest,
            packages=detected.left,
            platform=detected.platform,
            protect=self._settings.protected,
        )

    def _engine(self, platform: Platform, packages: Sequence[Package]) -> Engine:
        """The engine for that platform, as patient as those packages may wait."""
        session, settings = self._session, self._settings

        def patience() -> float | None:
            left = [session.clock.left(package) for package in packages]
            return None if None in left else max((t for t in left if t is not None), default=None)

        source = Source(
            index=settings.index,
            timeout=settings.index_timeout,
            offline=settings.offline,
            build_requires=_build_requires(self._packages),
            patience=patience,
        )
        return Engine(platform, source, cache=session.cache, scratch=session.scratch)

    def _sourced(self, resolution: Resolution, detected: Detected, builder: Builder) -> Sourced:
        """The resolution with what the store has built already."""
        found = tuple(sources(resolution.lock, detected.left, detected.platform))
        kept = builder.kept(found)
        if kept:
            lock = with_wheels(resolution.lock, kept)
            wheels = [each for each in lock.distributions if each.name in kept]
            held = self._session.built_reader.read(wheels)
            contents = {**resolution.contents, **held}
            resolution = replace(resolution, lock=lock, contents=contents)
        unbuilt = tuple(sources(resolution.lock, detected.left, detected.platform))
        return Sourced(resolution=resolution, sources=found, unbuilt=unbuilt)

    def _composition(self, resolution: Resolution, detected: Detected) -> Composition:
        """The resolution, ready to be cut into layers, without what the platform's CUDA serves."""
        whole = composition(resolution, detected.left, detected.platform)
        found = Substitutes(
            composition=whole, protect=self._settings.protected, stated=self._settings.cuda
        )
        return replace(whole, stand_ins=found.stand_ins(), copies=found.copies())

    def _planner(self, sourced: Sourced, detected: Detected, builder: Builder) -> Planner:
        session, settings = self._session, self._settings
        whole = self._composition(sourced.resolution, detected)
        there = available(session.store)
        # Only now: the engine has its index pages, and the metadata of the platform is there.
        volumes = self._volumes()
        return Planner(
            composition=whole,
            fixed=detected.steps,
            known=Known(
                layers=there,
                packed=there - session.store.layers(),
                baked=session.store.baked(),
                verdicts=session.prover.verdicts,
            ),
            only=session.order.only,
            unreachable=_unreachable(whole.lock, settings),
            room=Room(volumes=volumes, keep_free=settings.space.keep_free),
            measure=Measure.of(
                volumes[0],
                version=detected.platform.interpreter.version,
                bytecode=settings.compile,
            ),
            bytecode=settings.compile,
            notes={
                source.package.name: builder.note(source)
                for source in sourced.unbuilt
                if source.package.name not in detected.steps
            },
            remarks=remarks(
                whole.lock.distributions, detected.platform, sourced.resolution.avoided
            ),
        )

    def _ordered(self, planner: Planner) -> tuple[Package, ...]:
        """The packages as they compose: what the image holds comes first."""
        order = self._session.order
        if planner.known.baked:
            return composing_order(planner, order.manifest.package, planner.known.baked)
        return image_first(order.manifest.package, order.only or ())

    def _volumes(self) -> tuple[Volume, ...]:
        """Those that a startup touches, that of the layers first."""
        session, store = self._session, self._session.store
        places = {"local": store.local} if store.packed else {"store": store.root}
        places |= {
            "cache": Directory.STAGING.under(store.local),
            "temp": Path(tempfile.gettempdir()),
        }
        holder, *others = read_volumes({**places, "store": store.root} if store.packed else places)
        if session.staging is not None:
            # Trying is better than knowing; a plan, which changes nothing, cannot try.
            holder = replace(holder, links=links(session.cache, session.staging.place))
        return (holder, *others)


def _unreachable(lock: Lock, settings: Settings) -> frozenset[str]:
    """Distributions that cannot be fetched, since no index may be asked."""
    there = (d.name for d in lock.distributions if urlsplit(d.archive.url).scheme != "file")
    return frozenset(there if settings.offline else ())


def _build_requires(packages: Sequence[Package]) -> tuple[str, ...]:
    """What builds against the platform need besides it, each once."""
    wanted = (text for p in packages if p.builds_on_platform for text in p.build_requires)
    return tuple(dict.fromkeys(wanted))


def _sighting(package: Package, platform: Platform) -> Sighting:
    path = platform.interpreter.path
    own = [platform.find(name) for name in package.names]
    return Sighting(
        resolvable={name: inventory.resolvable(name, path) for name in package.imports},
        truncated={d.name: inventory.truncated(d) for d in own if d is not None},
    )
