"""What ought to be kept on a disk of that size, told from what lies on a disk without bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from bench.contenders import Goods
from bench.residue import Weight
from bench.smalldisk import Space

Names: TypeAlias = "tuple[str, ...]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What ought to be kept, and what would be left above the reserve at the tightest moment."""

    names: Names
    left: Space


@dataclass(frozen=True, kw_only=True, slots=True)
class Oracle:
    """Knows the weight of every set of packages, in order of importance.

    Attributes:
        weights: what each set holds together, with all that it requires, bytecode included.
        bare: the same without bytecode.
        working: what an installer that links from its cache holds beside it while it works.
    """

    goods: Goods
    weights: Mapping[Names, Weight]
    bare: Mapping[Names, Weight]
    working: Mapping[Names, Weight]

    def keeps(self, free: Space) -> Names:
        """Those of `expected`."""
        return self.expected(free).names

    def expected(self, free: Space) -> Expected:
        """The packages that fit and leave the reserve: the most important ones first.

        What fits only without its bytecode is kept without.
        """
        kept: Names = ()
        taken = Weight()
        spare = self._left(taken, kept, free)
        for name in by_importance(self.goods):
            names = (*kept, name)
            for weights in (self.weights, self.bare):
                more = _difference(weights[names], weights[kept])
                left = self._left(_sum(taken, more), names, free)
                if left.bytes >= 0 and left.inodes >= 0:
                    kept, taken, spare = names, _sum(taken, more), left
                    break
        return Expected(names=kept, left=spare)

    def left(self, names: Names, free: Space) -> Space:
        """What would be left above the reserve at the tightest moment; below zero: is short."""
        return self._left(self.weights[names], names, free)

    def _left(self, weight: Weight, names: Names, free: Space) -> Space:
        working = self.working[names]
        return Space(
            bytes=free.bytes - self.goods.keep_free - weight.bytes - working.bytes,
            inodes=free.inodes - weight.inodes - working.inodes,
        )


def _sum(one: Weight, other: Weight) -> Weight:
    return Weight(bytes=one.bytes + other.bytes, inodes=one.inodes + other.inodes)


def _difference(one: Weight, other: Weight) -> Weight:
    return Weight(bytes=one.bytes - other.bytes, inodes=one.inodes - other.inodes)


def sets_of(goods: Goods) -> list[Names]:
    """Every set of the packages, each in order of importance."""
    sets: list[Names] = [()]
    for name in by_importance(goods):
        sets += [(*names, name) for names in sets]
    return sets


def by_importance(goods: Goods) -> Names:
    """Required packages first, each kind in order."""
    return tuple(sorted(goods.imports, key=lambda name: name not in goods.required))
