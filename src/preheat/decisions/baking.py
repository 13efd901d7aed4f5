"""Which packages go into the image: required ones first, then the smallest, up to a budget.

A worker without its volume has only the image's layers. They are composed before all others, so
that what they hold does not depend on the volume.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from preheat.decisions.plan import Known, Planner, by_importance
from preheat.words.baking import Place
from preheat.words.manifest import Package
from preheat.words.plan import Action, Step
from preheat.words.quantities import in_mb

PlaceAndReason = tuple[Place, str]


def image_first(packages: tuple[Package, ...], baked: Collection[str]) -> tuple[Package, ...]:
    """The packages in the image, then the others; each kind by importance."""
    ordered = by_importance(packages)
    return tuple(sorted(ordered, key=lambda package: package.name not in baked))


def composing_order(
    planner: Planner, packages: tuple[Package, ...], layers: Mapping[str, str]
) -> tuple[Package, ...]:
    """The order in which layers are composed: first those that the image has for this manifest.

    A package whose layer in the image is outdated is made anew, so that it does not come first.

    Args:
        planner: of the startup.
        packages: all of them.
        layers: of the image, by digest, each with its package.
    """
    baked = set(layers.values())
    while True:
        ordered = image_first(packages, baked)
        if not baked:
            return ordered
        steps = planner.plan(ordered).steps
        stale = {s.package.name for s in steps if s.package.name in baked and s.layer not in layers}
        unknown = baked.difference(package.name for package in packages)
        if not stale and not unknown:
            return ordered
        baked -= stale | unknown


def steps_from_nothing(planner: Planner, ordered: tuple[Package, ...]) -> tuple[Step, ...]:
    """The steps into an empty store with room for everything."""
    empty = replace(planner, known=Known(), room=planner.room.boundless())
    return empty.plan(ordered).steps


def choose(
    steps: Sequence[Step],
    built: Collection[str],
    budget: int,
    cost: Callable[[frozenset[str]], int],
) -> dict[str, PlaceAndReason]:
    """The place of each package, by name, with the reason.

    Required packages are placed first, in their order. Of the others, each time the one that adds
    the fewest bytes to the image.

    Args:
        steps: what would be done for each package, were there no image.
        built: packages that are compiled against the platform.
        budget: bytes for the image.
        cost: returns the bytes of the layers of these packages, composed alone.
    """
    found: dict[str, PlaceAndReason] = {}
    left: list[Package] = []
    image: frozenset[str] = frozenset()
    for step in steps:
        package = step.package
        if step.action in (Action.PLATFORM, Action.SKIP):
            found[package.name] = ("neither", step.reason)
        elif package.name in built:
            found[package.name] = ("volume", "compiled against the platform: kept with its wheel")
        elif package.bake == "volume":
            found[package.name] = ("volume", "the manifest says so")
        elif package.bake == "image":
            found[package.name] = ("image", "the manifest says so")
            image |= {package.name}
        else:
            left.append(package)
    while left:
        first = next((p for p in left if p.required), None)
        package = first or min(left, key=lambda p: cost(image | {p.name}))
        left.remove(package)
        size = cost(image | {package.name})
        if size <= budget:
            image |= {package.name}
            what = "required" if package.required else "the smallest that was left"
            found[package.name] = ("image", f"{what}, and {in_mb(size)} with it are in the budget")
        else:
            reason = f"{in_mb(size)} with it in the image are over the budget of {in_mb(budget)}"
            found[package.name] = ("volume", reason)
    return found
