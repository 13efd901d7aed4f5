"""Which distributions lie in which layer.

Each package of the manifest gets one layer, in order. It holds what the package needs and neither
the platform nor an earlier layer has. The question is asked anew after each layer succeeded or
failed, so that what a failed layer shared goes to the next package that needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from packaging.utils import canonicalize_name

from preheat.decisions.graph import Graph, refuses
from preheat.decisions.imports import Territory, groups, territory
from preheat.words.lock import Contents, Lock, Locked
from preheat.words.manifest import Package
from preheat.words.plan import Shadow
from preheat.words.platform import Platform
from preheat.words.stand_in import Link, StandIn

_FINDS_ITS_OWN_LIBRARIES = "torch"


@dataclass(frozen=True, kw_only=True)
class Composition:
    """A resolution of all packages together, ready to be divided into layers.

    Attributes:
        lock: what is to be installed, besides the platform.
        contents: name to what its archive holds.
        platform: what lies beneath.
        packages: the packages that take part, in order of importance.
        beneath: where the platform's own distributions lie, by name, as far as it is known.
        stand_ins: package name to what the platform's CUDA libraries stand in for.
        bringing: names of packages that failed with them, and whose layers hold the wheels.
        copies: name of a distribution to links in place of its own copies of such libraries.
    """

    lock: Lock
    contents: Mapping[str, Contents]
    platform: Platform
    packages: tuple[Package, ...]
    beneath: Mapping[str, Territory]
    stand_ins: Mapping[str, tuple[StandIn, ...]] = field(default_factory=dict)
    bringing: frozenset[str] = frozenset()
    copies: Mapping[str, tuple[Link, ...]] = field(default_factory=dict)

    @cached_property
    def graph(self) -> Graph:
        """What each distribution of the lock and the platform requires."""
        requires = {d.name: d.requires for d in self.platform.distributions if d.state.present}
        requires |= {name: contents.requires for name, contents in self.contents.items()}
        return Graph(
            requires=requires,
            environment=self.platform.interpreter.markers,
            overrides={},
        )

    @cached_property
    def territories(self) -> dict[str, Territory]:
        """The directories of each locked distribution, by name."""
        return {
            name: territory(path for path, _ in contents.files)
            for name, contents in self.contents.items()
        }

    @cached_property
    def _groups(self) -> dict[str, tuple[str, ...]]:
        return groups(self.territories)

    @cached_property
    def _needs(self) -> dict[str, tuple[str, ...]]:
        return {package.name: self._closure(package) for package in self.packages}

    def needs(self, package: Package) -> tuple[str, ...]:
        """Canonical names that one of the packages needs, wherever they come from."""
        return self._needs[package.name]

    def _closure(self, package: Package, without: Iterable[str] = ()) -> tuple[str, ...]:
        overrides: dict[str, str] = {
            canonicalize_name(each.name): str(each) for each in package.overrides
        }
        graph = replace(self.graph, overrides=overrides)
        return graph.closure(package.requires, (*package.exclude, *without))

    def beside_torch(self, package: Package) -> tuple[str, ...]:
        """Canonical names that the package needs by itself, leaving out what only torch needs.

        Torch finds its libraries where it was installed, whatever is in a layer.
        """
        return self._closure(package, [_FINDS_ITS_OWN_LIBRARIES])

    def stood_in(self, package: Package, placed: Iterable[str] = ()) -> tuple[StandIn, ...]:
        """NVIDIA's distributions that the package needs and the platform's libraries replace.

        Args:
            package: of the manifest.
            placed: names that earlier layers hold.
        """
        taken = frozenset(placed)
        brings = package.name in self.bringing
        return tuple(
            each
            for each in self.stand_ins.get(package.name, ())
            if each.name not in taken and (each.wheel is None or not brings)
        )

    def links(self, layer: Iterable[Locked], stand_ins: Iterable[StandIn]) -> tuple[Link, ...]:
        """The links that a layer of these distributions holds, by their paths."""
        links = {link.path: link for each in stand_ins for link in each.links}
        links |= {link.path: link for each in layer for link in self.copies.get(each.name, ())}
        return tuple(links[path] for path in sorted(links))

    def left_out(self, package: Package) -> frozenset[str]:
        """Names of locked distributions that the platform's libraries replace for the package."""
        return frozenset(each.name for each in self.stood_in(package) if each.wheel is not None)

    def missing(self, package: Package) -> tuple[str, ...]:
        """Names that it needs and that are neither locked nor on the platform.

        Another package excludes them.
        """
        return tuple(
            name
            for name in self.needs(package)
            if self.lock.find(name) is None and self.platform.find(name) is None
        )

    def layer(
        self, package: Package, placed: Iterable[str], wanted: Iterable[Package]
    ) -> tuple[Locked, ...]:
        """What the package's layer holds.

        Args:
            package: whose layer.
            placed: names that earlier layers hold.
            wanted: packages that are still to come; those of their distributions that share a
                regular package with one of this layer's come into it.
        """
        taken = frozenset(placed)
        locked = {d.name: d for d in self.lock.distributions}
        own = [
            name
            for name in self.needs(package)
            if name in locked and name not in taken and name not in self.left_out(package)
        ]
        coming = {
            name for later in wanted for name in {*self.needs(later)} - self.left_out(later)
        } | set(own)
        layer = dict.fromkeys(own)
        for name in own:
            for mate in self._groups.get(name, ()):
                if mate in coming and mate not in taken:
                    layer.setdefault(mate)
        return tuple(locked[name] for name in sorted(layer))

    def clash(self, layer: Iterable[Locked], placed: Iterable[str] = ()) -> str | None:
        """Why these distributions cannot lie over the platform or beside earlier layers.

        None where they can.
        """
        shadowed = {d.name for d in self.lock.distributions}
        above = {name: self.territories[name] for name in placed if name in self.territories}
        for each in layer:
            mine = self.territories[each.name]
            for other, theirs in self.beneath.items():
                shared = mine.shared_with(theirs) if other not in shadowed else None
                if shared:
                    return (
                        f"{each.name} {each.version} and the platform's {other} both hold "
                        f"{shared.replace('/', '.')}, which cannot be split over two places"
                    )
            for other, theirs in above.items():
                shared = mine.shared_with(theirs)
                if shared:
                    return (
                        f"{each.name} and {other} both hold {shared.replace('/', '.')}, and "
                        f"{other} already lies in another layer"
                    )
        return None

    def escaping(self, layer: Iterable[Locked]) -> str | None:
        """Why one of these archives is refused: a member leads out of it. None where none does."""
        for each in layer:
            path = self.contents[each.name].escapes
            if path:
                return f"{each.archive.filename} holds a path that leads out of it: {path}"
        return None

    def shadows(self, layer: Iterable[Locked]) -> tuple[Shadow, ...]:
        """Platform distributions that a layer of these hides, and which packages need that."""
        found = []
        for each in layer:
            beneath = self.platform.find(each.name)
            if beneath is not None and beneath.version is not None:
                found.append(
                    Shadow(
                        name=each.name,
                        platform_version=beneath.version,
                        layer_version=each.version,
                        needed_by=tuple(
                            package.name
                            for package in self.packages
                            if self._refuses(package, each.name, beneath.version)
                        ),
                    )
                )
        return tuple(found)

    def _refuses(self, package: Package, name: str, version: str) -> bool:
        """Whether something that the package needs does not accept that version."""
        needs = (
            text for owner in self.needs(package) for text in self.graph.requires.get(owner, ())
        )
        return any(refuses(text, name, version) for text in (*package.requires, *needs))
