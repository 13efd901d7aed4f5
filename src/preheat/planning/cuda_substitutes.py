"""What the platform's CUDA libraries stand in for, of all that would be installed or is there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from preheat.decisions.compose import Composition
from preheat.decisions.stand_ins import Wheel, copies, is_candidate, stand_in, stem_of, stems
from preheat.edges.platform.cuda_libraries import Search, libraries_of, of_distribution
from preheat.edges.store.wheelhouse import sha256_of
from preheat.words.lock import Locked
from preheat.words.manifest import Package, StatedCuda
from preheat.words.stand_in import Library, LibraryDirectory, Link, StandIn


@dataclass(frozen=True, kw_only=True)
class Substitutes:
    """Finds out, for each package, what of NVIDIA's need not lie in its layer.

    Attributes:
        protect: names and patterns of the protected set: only what is in it is left out.
        stated: the settings about CUDA.
    """

    composition: Composition
    protect: Sequence[str]
    stated: StatedCuda

    def stand_ins(self) -> dict[str, tuple[StandIn, ...]]:
        """Package name to what the platform's libraries stand in for."""
        if not self._wheels and not self._installed:
            return {}
        return {each.name: tuple(self._for(each)) for each in self.composition.packages}

    def copies(self) -> dict[str, tuple[Link, ...]]:
        """Name of a distribution to links in place of NVIDIA's libraries that it holds.

        By name and size, here; whether a file is an equal one is seen when it is there.
        """
        known = {(each.name, each.size): each for each in self._libraries()}
        found: dict[str, tuple[Link, ...]] = {}
        for name, contents in self.composition.contents.items():
            alike = ((path, known.get((was, size))) for path, was, size in copies(contents))
            links = [
                Link(path=path, target=library.path, sha256=sha256_of(Path(library.path)))
                for path, library in alike
                if library is not None
            ]
            if links:
                found[name] = tuple(links)
        return found

    def _libraries(self) -> Iterator[Library]:
        for directory in self._directories:
            yield from directory.libraries
        for each in self.composition.platform.distributions:
            if each.state.present and is_candidate(each.name, self.protect):
                yield from libraries_of(each)

    def _for(self, package: Package) -> Iterator[StandIn]:
        direct = frozenset(self.composition.beside_torch(package))
        for name in self.composition.needs(package):
            if name in self._installed and name in direct:
                yield self._installed[name]
            # What a package asks for before all else is what it is; it is not left out.
            elif name in self._wheels and name != package.names[0]:
                wheel = Wheel(
                    locked=self._wheels[name],
                    contents=self.composition.contents[name],
                    requirements=tuple(self._asked_by(package)),
                )
                found = stand_in(wheel, self._directories)
                if found is not None:
                    yield found

    @cached_property
    def _installed(self) -> dict[str, StandIn]:
        """Distributions of the platform, of which no other version is to be installed."""
        lock = self.composition.lock
        needed = {name for p in self.composition.packages for name in self.composition.needs(p)}
        here = (
            of_distribution(each)
            for each in self.composition.platform.distributions
            if each.state.present
            and each.name in needed
            and is_candidate(each.name, self.protect)
            and lock.find(each.name) is None
        )
        return {each.name: each for each in here if each is not None}

    @cached_property
    def _wheels(self) -> dict[str, Locked]:
        """Those of the lock that are NVIDIA's libraries and nothing else."""
        contents = self.composition.contents
        return {
            each.name: each
            for each in self.composition.lock.distributions
            if is_candidate(each.name, self.protect) and stems(contents[each.name])
        }

    @cached_property
    def _directories(self) -> tuple[LibraryDirectory, ...]:
        """Where the platform has libraries that a wheel of NVIDIA's in the lock holds."""
        contents = (
            self.composition.contents[each.name]
            for each in self.composition.lock.distributions
            if is_candidate(each.name, self.protect)
        )
        wanted = frozenset(stem_of(was) for each in contents for _, was, _ in copies(each))
        if not wanted:
            return ()
        return Search(
            platform=self.composition.platform,
            environ=os.environ,
            stated=self.stated,
            stems=wanted,
        ).directories()

    def _asked_by(self, package: Package) -> Iterator[str]:
        """Every requirement of the package, and of what would be installed for it."""
        yield from package.requires
        for name in self.composition.needs(package):
            if self.composition.lock.find(name) is not None:
                yield from self.composition.contents[name].requires
