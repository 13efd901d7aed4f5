"""What the layers could do without: traced by a proof, and decided by a proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from preheat.decisions.baking import composing_order
from preheat.decisions.slimming import removable
from preheat.edges.disk.atomic import answering
from preheat.edges.process.clock import Clock
from preheat.edges.proof.runner import Limits, Stack, opened
from preheat.edges.store import thinning
from preheat.edges.store.open import open_store
from preheat.edges.store.staging import Staging
from preheat.edges.store.thinning import Held
from preheat.planning.state import Decided
from preheat.planning.survey import Decision, Workplace
from preheat.proving.stack import stack_of
from preheat.words.errors import InstallError
from preheat.words.listener import Listener
from preheat.words.manifest import Package
from preheat.words.order import Order
from preheat.words.plan import Action
from preheat.words.slim import Slimming, Spare


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ready:
    """What a start would use, and that all of it is there.

    Attributes:
        packages: those that layers serve.
        held: layer's directory to what its distributions hold.
    """

    decided: Decided
    packages: tuple[Package, ...]
    stack: Stack
    held: Mapping[str, tuple[Held, ...]]


class Slimmer:
    """Finds out what one manifest's layers could do without; nothing of them is changed."""

    def __init__(self, order: Order, listener: Listener) -> None:
        self._order = order
        self._clock = Clock(listener, None)
        self._store = open_store(order.settings)

    def find(self) -> Slimming:
        """Traces, tries without, and tells.

        Raises:
            InstallError: not every layer is there, or a package does not work.
            PreheatError: the store, the platform or the index is unusable.
        """
        with answering(self._store.root):
            self._store.prepare()
            with self._store.begin() as staging:
                ready = self._ready(staging)
                return self._slimming(ready, staging)

    def _ready(self, staging: Staging) -> _Ready:
        scratch = staging.place / "engine"
        scratch.mkdir()
        workplace = Workplace(scratch=scratch, cache=staging.cache, staging=staging)
        decided = Decision(self._order, self._store, self._clock).decide(workplace)
        planner, packages = decided.planner, self._order.manifest.package
        ordered = composing_order(planner, packages, planner.known.baked)
        steps = planner.plan(ordered).steps
        absent = [step.package.name for step in steps if step.action is Action.INSTALL]
        if absent:
            raise InstallError(
                f"not in the store yet: {', '.join(absent)}", hint="run: preheat warm"
            )
        served = [step for step in steps if step.action is Action.REUSE]
        names = dict.fromkeys(step.layer for step in served if step.layer)
        staging.lease.hold(names)
        for name in names:
            if name not in self._store.layers():
                self._store.unpack(name, staging)
        stack = stack_of(self._store, decided.platform.interpreter, tuple(names))
        return _Ready(
            decided=decided,
            packages=tuple(step.package for step in served),
            stack=stack,
            held={layer: thinning.held_by(layer) for layer in stack.layers},
        )

    def _slimming(self, ready: _Ready, staging: Staging) -> Slimming:
        limits = Limits(seconds=self._order.settings.import_timeout, place=staging.place)
        if not ready.packages:
            return Slimming(spares=(), payload=0, unchecked=())
        with self._clock.stage("trace"):
            loaded = {
                thinning.source_of(path) for path in opened(ready.packages, ready.stack, limits)
            }
        spares = self._spares(ready, loaded)
        total = 2 * len(spares)
        tries = 0

        def holds(names: frozenset[str]) -> bool:
            nonlocal tries
            tries += 1
            self._clock.listener.progress(f"prove without {len(names)} distributions", tries, total)
            return self._holds(ready, names, staging)

        with self._clock.stage("prove without"):
            gone = removable([spare.name for spare in spares], holds)
        return Slimming(
            spares=tuple(replace(spare, removable=spare.name in gone) for spare in spares),
            payload=sum(held.payload for each in ready.held.values() for held in each),
            unchecked=tuple(package.name for package in ready.packages if not package.check),
        )

    def _spares(self, ready: _Ready, loaded: set[str]) -> list[Spare]:
        """What was not loaded and is no package's own requirement, the largest first."""
        composition = ready.decided.planner.composition
        own = {name for package in ready.packages for name in package.names}
        found = []
        for held in (held for each in ready.held.values() for held in each):
            if held.name in own or held.is_loaded(loaded):
                continue
            found.append(
                Spare(
                    name=held.name,
                    version=held.version,
                    payload=held.payload,
                    files=len(held.files),
                    packages=tuple(
                        package.name
                        for package in ready.packages
                        if held.name in composition.needs(package)
                    ),
                )
            )
        return sorted(found, key=lambda spare: (-spare.payload, spare.name))

    def _holds(self, ready: _Ready, names: frozenset[str], staging: Staging) -> bool:
        """Whether everything is proved, alone and together, over layers without those."""
        with staging.directory("slim") as place:
            thin = {}
            for number, (layer, held) in enumerate(ready.held.items()):
                target = place / str(number)
                thinning.thinned(layer, [each for each in held if each.name in names], target)
                thin[layer] = str(target)
            stack = replace(
                ready.stack,
                layers=tuple(thin.values()),
                hooked=tuple(thin[layer] for layer in ready.stack.hooked),
            )
            prover = ready.decided.prover
            return all(
                proof.ok for proof in prover.run(ready.packages, stack, ready.decided.platform)
            )
