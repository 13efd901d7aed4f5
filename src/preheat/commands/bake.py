"""A worker's two parts, made ahead of time: layers for its image, and a store for its volume.

Both are made by starts like any other. The first one has the image's part for its store and makes
what was chosen for it; the second has the volume's for its store and finds those layers in the
image, as a worker will.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from preheat.decisions.baking import choose, filling, image_first
from preheat.decisions.plan import by_importance
from preheat.edges.disk.atomic import answering
from preheat.edges.disk.deletion import erase
from preheat.edges.process.clock import Clock
from preheat.edges.store.open import open_store
from preheat.edges.store.store import Store
from preheat.making.provision import Provision
from preheat.planning.state import Decided
from preheat.planning.survey import Decision, Workplace
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
        order: what a start of the worker is asked for; its own store and image are not looked at.
        listener: told what happens.
        image: directory of the image's part, where the worker will find it.
        volume: the store on the volume, likewise; None where its part is left to the first start.
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
        with (
            answering(self.image),
            tempfile.TemporaryDirectory(prefix="preheat-bake-") as scratch,
        ):
            place = Path(scratch)
            return self._placed(self._decide(Workplace(scratch=place, cache=place / "cache")))

    def run(self) -> Baked:
        """Makes both parts.

        Raises:
            StoreError: the image's part holds layers that are not of this manifest, or a disk
                refuses.
            PreheatError: the platform, the manifest or the index is unusable.
        """
        store = self._image_store
        with answering(self.image):
            store.prepare()
            with store.begin() as staging:
                scratch = staging.place / "engine"
                scratch.mkdir()
                workplace = Workplace(scratch=scratch, cache=staging.cache, staging=staging)
                decided = self._decide(workplace)
                planned = self._placed(decided)
                self._refuse_others(decided, planned, store)
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

    @property
    def _image_store(self) -> Store:
        return open_store(self._image_order.settings)

    def _decide(self, workplace: Workplace) -> Decided:
        clock = Clock(self.listener, None)
        return Decision(self._image_order, self._image_store, clock).decide(workplace)

    def _placed(self, decided: Decided) -> Baked:
        packages, planner = self.order.manifest.package, decided.planner

        def cost(names: frozenset[str]) -> int:
            alone = replace(planner, only=names)
            return sum(step.disk for step in filling(alone, image_first(packages, names)))

        steps = filling(planner, by_importance(packages))
        built = {source.package.name for source in decided.sources}
        found = choose(steps, built, self.budget, cost)
        in_image = [name for name, (place, _) in found.items() if place == "image"]
        unwanted = {step.package.name for step in steps if not step.wanted}
        ordered = filling(planner, image_first(packages, in_image))
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

    def _refuse_others(self, decided: Decided, baked: Baked, store: Store) -> None:
        """Layers that an earlier bake left would be in the image, and nobody would use them.

        Raises:
            StoreError: with the first of them.
        """
        names = baked.names("image")
        needed = decided.planner.layers(image_first(self.order.manifest.package, names), names)
        others = sorted(store.layers() - needed)
        if others:
            raise StoreError(
                f"{self.image} holds {len(others)} layers that this manifest does not put in the "
                f"image, {store.layer(others[0])} first",
                hint="remove that directory, or name another one with --image",
            )

    # What is made

    def _leave_what_is_read(self) -> None:
        """What only a start at work needs is no part of an image."""
        baked = {directory.dirname for directory in Directory if directory.value.baked}
        for entry in list(self.image.iterdir()):
            if entry.name not in baked:
                erase(entry)

    def _made(self, each: Placement, made: Mapping[Place, tuple[Store, Report]]) -> Placement:
        """What became of one package, by the start whose part it is in."""
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
