"""What the layers could do without: traced by a proof, and decided by a proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from preheat.decisions.slimming import removable
from preheat.edges.proof.runner import Limits, Stack, opened
from preheat.edges.store import thinning
from preheat.edges.store.thinning import Held
from preheat.planning.session import Session, working
from preheat.planning.state import State
from preheat.planning.survey import Surveyor
from preheat.proving.stack import stack_of
from preheat.proving.trial import Trial
from preheat.words.errors import InstallError
from preheat.words.listener import Listener
from preheat.words.manifest import Package
from preheat.words.order import Order
from preheat.words.plan import Action
from preheat.words.slim import Slimming, Spare


class Slimmer:
    """Finds out what one manifest's layers could do without; nothing of them is changed."""

    def __init__(self, order: Order, listener: Listener) -> None:
        self._order = order.without_deadline()
        self._listener = listener

    def find(self) -> Slimming:
        """Traces, tries without, and tells.

        Raises:
            InstallError: not every layer is there, or a package does not work.
            PreheatError: the store, the platform or the index is unusable.
        """
        with working(self._order, self._listener) as session:
            ready = _ready(session)
            if not ready.packages:
                return Slimming(spares=(), payload=0, unchecked=())
            return ready.slimming()


def _ready(session: Session) -> _Ready:
    """Everything that a startup would use, held, and unpacked where it is packed.

    Raises:
        InstallError: a layer is not there.
    """
    state, store, staging = Surveyor(session).survey(), session.store, session.own_staging
    steps = state.plan().steps
    absent = [step.package.name for step in steps if step.action is Action.INSTALL]
    if absent:
        raise InstallError(f"not in the store yet: {', '.join(absent)}", hint="run: preheat warm")
    served = [step for step in steps if step.action is Action.REUSE]
    names = dict.fromkeys(step.layer for step in served if step.layer)
    staging.lease.hold(names)
    for name in names:
        if name not in store.layers():
            store.unpack(name, staging)
    stack = stack_of(store, state.platform.interpreter, tuple(names))
    return _Ready(
        session=session,
        state=state,
        packages=tuple(step.package for step in served),
        stack=stack,
        held={layer.path: thinning.held_by(layer.path) for layer in stack.layers},
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ready:
    """What a startup would use, all of it there.

    Attributes:
        packages: those that layers serve.
        held: layer's directory to what its distributions hold.
    """

    session: Session
    state: State
    packages: tuple[Package, ...]
    stack: Stack
    held: Mapping[str, tuple[Held, ...]]

    def slimming(self) -> Slimming:
        """What is not loaded, and what of it can really go.

        Raises:
            InstallError: a package does not work.
        """
        clock, staging = self.session.clock, self.session.own_staging
        limits = Limits(seconds=self.session.order.settings.import_timeout, place=staging.place)
        with clock.stage("trace"):
            loaded = {
                thinning.source_of(path) for path in opened(self.packages, self.stack, limits)
            }
        spares = self._spares(loaded)
        total = 2 * len(spares)
        tries = 0

        def holds(names: frozenset[str]) -> bool:
            nonlocal tries
            tries += 1
            clock.listener.progress(f"prove without {len(names)} distributions", tries, total)
            return self._holds(names)

        with clock.stage("prove without"):
            gone = removable([spare.name for spare in spares], holds)
        return Slimming(
            spares=tuple(replace(spare, removable=spare.name in gone) for spare in spares),
            payload=sum(held.payload for each in self.held.values() for held in each),
            unchecked=tuple(package.name for package in self.packages if not package.check),
        )

    def _spares(self, loaded: set[str]) -> list[Spare]:
        """What was not loaded and is no package's own requirement, the largest first."""
        composition = self.state.composition
        own = {name for package in self.packages for name in package.names}
        found = []
        for held in (held for each in self.held.values() for held in each):
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
                        for package in self.packages
                        if held.name in composition.needs(package)
                    ),
                )
            )
        return sorted(found, key=lambda spare: (-spare.payload, spare.name))

    def _holds(self, names: frozenset[str]) -> bool:
        """Whether everything is proved, one after the other, over layers without those."""
        with self.session.own_staging.directory("slim") as place:
            thin = []
            for number, layer in enumerate(self.stack.layers):
                target = place / str(number)
                without = [each for each in self.held[layer.path] if each.name in names]
                thinning.thinned(layer.path, without, target)
                thin.append(replace(layer, path=str(target)))
            stack = replace(self.stack, layers=tuple(thin))
            trial = Trial(packages=self.packages, stack=stack, platform=self.state.platform)
            return all(proof.ok for proof in self.session.prover.prove(trial).values())
