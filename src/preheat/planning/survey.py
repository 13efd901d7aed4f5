"""Up to the plan: probe, detect, resolve, size. The platform is looked at, and nothing changes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

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
from preheat.edges.index.wheels import Reader
from preheat.edges.platform import inventory
from preheat.edges.platform.cuda import read_cuda
from preheat.edges.platform.fingerprint import Fingerprint, fingerprint
from preheat.edges.platform.probe import probe
from preheat.edges.process.clock import Clock
from preheat.edges.store.staging import Staging
from preheat.edges.store.store import Store
from preheat.edges.store.wheelhouse import Kept
from preheat.planning.builds import Builder, with_wheels
from preheat.planning.cuda_bounds import resolve_around
from preheat.planning.cuda_substitutes import Service
from preheat.planning.lock import Locks
from preheat.planning.resolve import Question, Resolution, composition
from preheat.planning.state import Decided
from preheat.proving.prover import Prover, TorchAhead
from preheat.words.lock import Lock
from preheat.words.manifest import Package
from preheat.words.order import Order
from preheat.words.plan import Action, Step
from preheat.words.platform import Platform, RecordState, Volume
from preheat.words.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Workplace:
    """Where the engine works.

    Attributes:
        scratch: a directory of our own, gone in the end.
        cache: the engine's.
        staging: of the start that works there; None for a plan, which changes nothing.
        torch: the platform's, imported ahead by that start.
    """

    scratch: Path
    cache: Path
    staging: Staging | None = None
    torch: TorchAhead | None = None

    @property
    def lasting(self) -> bool:
        """Whether what is learnt may be kept in the store."""
        return self.staging is not None


class Decision:
    """Finds out, for one order, what is there and what is to be done."""

    def __init__(self, order: Order, store: Store, clock: Clock) -> None:
        self._order = order
        self._store = store
        self._clock = clock
        self._packages = by_importance(order.manifest.package)

    def decide(self, workplace: Workplace) -> Decided:
        """Everything up to the plan.

        Raises:
            PreheatError: the platform or the lock is unusable.
        """
        with self._clock.stage("probe"):
            platform = self._probe(workplace)
        # One after the other: nothing runs on the platform before its files are noted.
        with ThreadPoolExecutor(1, thread_name_prefix="preheat-aside") as aside:
            before = aside.submit(self._note, platform, workplace)
            return self._decide(platform, workplace, before, aside)

    def _note(self, platform: Platform, workplace: Workplace) -> Fingerprint:
        if not workplace.lasting:
            return {}
        with self._clock.stage("fingerprint"):
            return fingerprint(platform.interpreter.sites)

    def _decide(
        self,
        platform: Platform,
        workplace: Workplace,
        before: Future[Fingerprint],
        aside: ThreadPoolExecutor,
    ) -> Decided:
        """The rest, while files are noted; what needs them to be comes after `aside`'s work."""
        settings = self._order.settings
        prover = Prover(self._order, self._store, self._clock, workplace.staging)
        fixed, platform = self._detect(platform, prover, before)
        left = tuple(p for p in self._packages if p.name not in fixed)
        if workplace.torch and len(left) > 1:
            aside.submit(workplace.torch.begin, platform)
            prover.ahead = workplace.torch
        if not all(package.build_isolation for package in left):
            # What is built against the platform runs on it.
            before.result()
        engine = self._engine(platform, left, workplace)
        locks = Locks(
            order=self._order,
            store=self._store,
            clock=self._clock,
            reader=self._reader(remember=workplace.lasting),
            claims=workplace.staging.claims if workplace.staging else None,
        )
        answer = locks.answer(self._question(platform, left), engine)
        resolution = answer.resolution
        for package in left:
            reason = (answer.resolution.refused | answer.unanswered).get(package.name)
            if reason:
                fixed[package.name] = Step(package=package, action=Action.SKIP, reason=reason)
        taking_part = tuple(p for p in left if p.name not in fixed)
        if workplace.lasting and taking_part:
            engine.prepare()
        builder = Builder(
            order=self._order,
            store=self._store,
            clock=self._clock,
            platform=platform,
            prover=prover,
        )
        sources = tuple(builder.sources(resolution.lock, taking_part))
        kept = builder.kept(sources)
        if kept:
            resolution = _with_wheels(resolution, kept, self.reader)
        unbuilt = tuple(builder.sources(resolution.lock, taking_part))
        for name, reason in builder.refusals(unbuilt).items():
            package = next(p for p in taking_part if p.name == name)
            fixed[name] = Step(package=package, action=Action.SKIP, reason=reason)
        taking_part = tuple(p for p in taking_part if p.name not in fixed)
        whole = composition(resolution, taking_part, platform)
        service = Service(composition=whole, protect=settings.protected, stated=settings.cuda)
        whole = replace(whole, stand_ins=service.stand_ins(), copies=service.copies())
        # Only now: the engine has its index pages, and the shadow of the platform is there.
        there = available(self._store)
        volumes = self._volumes(workplace)
        planner = Planner(
            composition=whole,
            fixed=fixed,
            known=Known(
                layers=there,
                packed=there - self._store.layers(),
                baked=self._store.baked(),
                verdicts=prover.verdicts,
            ),
            only=self._order.only,
            unreachable=_unreachable(resolution.lock, settings),
            room=Room(volumes=volumes, keep_free=settings.space.keep_free),
            measure=Measure.of(
                volumes[0], version=platform.interpreter.version, bytecode=settings.compile
            ),
            bytecode=settings.compile,
            notes={s.package.name: builder.note(s) for s in unbuilt if s.package.name not in fixed},
            remarks=remarks(resolution.lock.distributions, platform, resolution.avoided),
        )
        return Decided(
            platform=platform,
            before=before.result(),
            planner=planner,
            engine=engine,
            sources=sources,
            builder=builder,
            request=resolution.request,
            prover=prover,
            unanswered=bool(answer.unanswered),
            solver_outputs=resolution.solver_outputs,
            lock=answer.kept,
        )

    def resolve(self, workplace: Workplace) -> Resolution:
        """A fresh resolution of every package that is wanted here and not provided.

        Raises:
            ResolutionError: the index does not answer.
        """
        with self._clock.stage("probe"):
            platform = self._probe(workplace)
        prover = Prover(self._order, self._store, self._clock, None)
        fixed, platform = self._detect(platform, prover, None)
        left = tuple(p for p in self._packages if p.name not in fixed)
        engine = self._engine(platform, (), workplace)
        question = self._question(platform, left)
        with self._clock.stage("resolve"):
            # What archives hold is true for ever: with it, a plan from the lock asks no index.
            return resolve_around(
                question, (engine, self._reader(remember=True)), self._order.settings.cuda
            )

    def _detect(
        self, platform: Platform, prover: Prover, before: Future[Fingerprint] | None
    ) -> tuple[dict[str, Step], Platform]:
        """Packages that need no layer: unwanted here, or provided by the platform and proved.

        What is there and broken counts as absent from then on: the second value is the platform
        without it, so that a layer is made instead.
        """
        fixed: dict[str, Step] = {}
        provided: list[Step] = []
        sound = platform
        for package in self._packages:
            reason = unmet(package.when, platform)
            if reason:
                fixed[package.name] = Step(
                    package=package, action=Action.SKIP, reason=reason, wanted=False
                )
                continue
            sighting = _sighting(package, platform)
            broken = [name for name, files in sighting.truncated.items() if files]
            sound = sound.without(broken, RecordState.TRUNCATED)
            finding = find(package, platform, sighting)
            if finding.present:
                step = Step(
                    package=package,
                    action=Action.PLATFORM,
                    reason=finding.reason,
                    version=finding.version,
                )
                provided.append(step)
            elif reason := useless(package, platform):
                fixed[package.name] = Step(package=package, action=Action.SKIP, reason=reason)
        if provided and before is not None:
            before.result()
        with self._clock.stage("detect"):
            proofs = prover.provided([step.package for step in provided], platform)
        for step in provided:
            proof = proofs[step.package.name]
            if proof.ok:
                fixed[step.package.name] = step
            else:
                sound = sound.without(step.package.names, RecordState.BROKEN)
                self._clock.listener.event(
                    "not-importable", package=step.package.name, reason=proof.reason
                )
        return fixed, sound

    def _probe(self, workplace: Workplace) -> Platform:
        settings = self._order.settings
        platform = probe(self._order.executable, self._memory(workplace))
        read = read_cuda(platform, os.environ, settings.cuda.toolkit)
        return replace(platform, cuda=overridden(read, settings.cuda, settings.sources))

    def _volumes(self, workplace: Workplace) -> tuple[Volume, ...]:
        """Those that a start touches, that of the layers first."""
        store = self._store
        places = {"local": store.local} if store.packed else {"store": store.root}
        places |= {"cache": store.local / "staging", "temp": Path(tempfile.gettempdir())}
        holder, *others = read_volumes({**places, "store": store.root} if store.packed else places)
        if workplace.staging is not None:
            # Trying is better than knowing; a plan, which changes nothing, cannot try.
            holder = replace(holder, links=links(workplace.cache, workplace.staging.place))
        return (holder, *others)

    def _memory(self, workplace: Workplace) -> inventory.Memory:
        return inventory.Memory(place=self._store.platforms, keeps=workplace.lasting)

    def _question(self, platform: Platform, packages: tuple[Package, ...]) -> Question:
        return Question(
            manifest=self._order.manifest,
            packages=packages,
            platform=platform,
            protect=self._order.settings.protected,
        )

    def _engine(
        self, platform: Platform, packages: Sequence[Package], workplace: Workplace
    ) -> Engine:
        settings = self._order.settings

        def patience() -> float | None:
            left = [self._clock.left(package) for package in packages]
            return None if None in left else max((t for t in left if t is not None), default=None)

        source = Source(
            index=settings.index,
            timeout=settings.index_timeout,
            offline=settings.offline,
            build_requires=_build_requires(self._packages),
            patience=patience,
        )
        return Engine(platform, source, cache=workplace.cache, scratch=workplace.scratch)

    @property
    def reader(self) -> Reader:
        """Reads what wheels hold, and keeps no memory of those that were built here."""
        return self._reader(remember=False)

    def _reader(self, *, remember: bool) -> Reader:
        settings = self._order.settings
        return Reader(
            self._store.contents,
            indexes=[*settings.index.extra, settings.index.url or ""],
            timeout=None if settings.offline else settings.index_timeout,
            remember=remember,
        )


def _unreachable(lock: Lock, settings: Settings) -> frozenset[str]:
    """Distributions that cannot be fetched, since no index may be asked."""
    there = (d.name for d in lock.distributions if urlsplit(d.archive.url).scheme != "file")
    return frozenset(there if settings.offline else ())


def _build_requires(packages: Sequence[Package]) -> tuple[str, ...]:
    """What builds against the platform need besides it, each once."""
    wanted = (text for p in packages if p.builds_on_platform for text in p.build_requires)
    return tuple(dict.fromkeys(wanted))


def _with_wheels(resolution: Resolution, wheels: Mapping[str, Kept], reader: Reader) -> Resolution:
    lock = with_wheels(resolution.lock, wheels)
    read = reader.read([each for each in lock.distributions if each.name in wheels])
    return replace(resolution, lock=lock, contents={**resolution.contents, **read})


def _sighting(package: Package, platform: Platform) -> Sighting:
    path = platform.interpreter.path
    own = [platform.find(name) for name in package.names]
    return Sighting(
        resolvable={name: inventory.resolvable(name, path) for name in package.imports},
        truncated={d.name: inventory.truncated(d) for d in own if d is not None},
    )
