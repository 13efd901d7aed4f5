"""A worker's two parts, made ahead of time: layers for its image, and a store for its volume.

Both are made by starts like any other. The first one has the image's part for its store and makes
what was chosen for it; the second has the volume's for its store and finds those layers in the
image, as a worker will.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from preheat.decisions.baking import choose, image_first, steps_from_nothing
from preheat.decisions.plan import by_importance
from preheat.edges.disk.deletion import erase
from preheat.edges.store.open import open_store
from preheat.edges.store.store import Store
from preheat.making.provision import Provision
from preheat.planning.session import looking, working
from preheat.planning.state import State
from preheat.planning.survey import Surveyor
from preheat.words.baking import Baked, Place, Placement
from preheat.words.errors import StoreError
from preheat.words.listener import Listener
from preheat.words.order import Order
from preheat.words.outcome import READY
from preheat.words.plan import Action
from preheat.words.report import Report
from preheat.words.store import Directory


@dataclass(frozen=True, kw_only=True)
class Bake:
    """One manifest's parts.

    Attributes:
        order: what a startup of the worker is asked for; its own store and image are not looked at.
        listener: told what happens.
        image: directory of the image's part, where the worker will find it.
        volume: the store on the volume, likewise; None where its part is left to the first startup.
        budget: bytes that the image's part may take.
    """

    order: Order
    listener: Listener
    image: Path
    volume: Path | None
    budget: int

    def plan(self) -> Baked:
        """What would go where; nothing is written.

        Raises:
            PreheatError: the platform, the manifest or the index is unusable.
        """
        with looking(self._image_order.without_deadline(), self.listener) as session:
            return self._placed(Surveyor(session).survey())

    def run(self) -> Baked:
        """Makes both parts.

        Raises:
            StoreError: the image's part holds layers that are not of this manifest, or a disk
                refuses.
            PreheatError: the platform, the manifest or the index is unusable.
        """
        with working(self._image_order.without_deadline(), self.listener) as session:
            state, store = Surveyor(session).survey(), session.store
            planned = self._placed(state)
            self._refuse_others(state, planned, store)
        order = replace(self._image_order, only=planned.names("image"))
        made: dict[Place, tuple[Store, Report]] = {}
        made["image"] = (store, Provision(order, self.listener).warm())
        self._leave_what_is_read()
        if self.volume is not None:
            order = self._volume_order(self.volume)
            made["volume"] = (open_store(order.settings), Provision(order, self.listener).warm())
        placements = tuple(self._made(each, made) for each in planned.placements)
        return replace(planned, placements=placements)

    # What is decided

    @property
    def _image_order(self) -> Order:
        settings = replace(self.order.settings, store=self.image, layers="directory", image=None)
        return replace(self.order, settings=settings)

    def _volume_order(self, volume: Path) -> Order:
        settings = replace(self.order.settings, store=volume, image=self.image)
        return replace(self.order, settings=settings)

    def _placed(self, state: State) -> Baked:
        packages, planner = self.order.manifest.package, state.planner

        def cost(names: frozenset[str]) -> int:
            alone = replace(planner, only=names)
            return sum(
                step.disk for step in steps_from_nothing(alone, image_first(packages, names))
            )

        steps = steps_from_nothing(planner, by_importance(packages))
        built = {source.package.name for source in state.sources}
        found = choose(steps, built, self.budget, cost)
        in_image = [name for name, (place, _) in found.items() if place == "image"]
        unwanted = {step.package.name for step in steps if not step.wanted}
        ordered = steps_from_nothing(planner, image_first(packages, in_image))
        placements = (
            Placement(
                package=step.package.name,
                required=step.package.required and step.package.name not in unwanted,
                place=found[step.package.name][0],
                reason=found[step.package.name][1],
                bytes=step.disk,
                available=step.action is not Action.SKIP,
            )
            for step in ordered
        )
        return Baked(
            image=self.image,
            volume=self.volume,
            budget=self.budget,
            placements=tuple(placements),
        )

    def _refuse_others(self, state: State, baked: Baked, store: Store) -> None:
        """Layers that an earlier bake left would be in the image, and nobody would use them.

        Raises:
            StoreError: with the first of them.
        """
        names = baked.names("image")
        needed = state.planner.layers(image_first(self.order.manifest.package, names), names)
        others = sorted(store.layers() - needed)
        if others:
            raise StoreError(
                f"{self.image} holds {len(others)} layers that this manifest does not put in the "
                f"image, {store.layer(others[0])} first",
                hint="remove that directory, or name another one with --image",
            )

    # What is made

    def _leave_what_is_read(self) -> None:
        """What only a startup at work needs is no part of an image."""
        baked = {directory.dirname for directory in Directory if directory.value.baked}
        for entry in list(self.image.iterdir()):
            if entry.name not in baked:
                erase(entry)

    def _made(self, each: Placement, made: Mapping[Place, tuple[Store, Report]]) -> Placement:
        """What became of one package, by the startup whose part it is in."""
        if each.place not in made:
            return each
        store, report = made[each.place]
        row = next(row for row in report.packages if row.name == each.package)
        if row.status not in READY:
            return replace(each, place="neither", reason=row.reason, bytes=0, available=False)
        facts = store.facts(Path(row.layer).name) if row.layer else None
        # A package may lie in another one's layer, whole.
        own = facts is not None and facts.package == each.package
        return replace(each, bytes=facts.disk if facts and own else 0)
