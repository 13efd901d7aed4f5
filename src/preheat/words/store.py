"""What a store is made of: its directories, and what each of them holds.

The names are part of the store's format: stores that were made before are read by them, and the
warm path, which imports nothing of this, spells ``leases`` and ``starts`` itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """A directory of a store.

    Attributes:
        name: its name below the store's root.
        holds: what lies in it, for people.
        local: it is on the machine's own disk where the store keeps its layers packed.
        baked: the part of a store that is in a worker's image has it too.
        packed: only a store that keeps its layers packed has it.
    """

    name: str
    holds: str
    local: bool = False
    baked: bool = False
    packed: bool = False


class Directory(Enum):
    """Every directory that preheat makes in a store."""

    LAYERS = Described(
        name="layers",
        holds="published layers by digest, each the site directory that goes on the path",
        local=True,
        baked=True,
    )
    PACKS = Described(
        name="packs", holds="published layers by digest, each as one file", packed=True
    )
    STAGING = Described(
        name="staging",
        holds="what a running start is making, with the engine's cache while it runs",
        local=True,
    )
    BOOTSTRAPS = Described(
        name="bootstraps", holds="what children of an activated process start with", local=True
    )
    LEASES = Described(name="leases", holds="which starts are running, and who uses which layers")
    CLAIMS = Described(name="claims", holds="which start is making which layer")
    VERDICTS = Described(name="verdicts", holds="what was proved, good or bad", baked=True)
    LOCKS = Described(
        name="locks",
        holds="what was resolved for a manifest on a platform (PEP 751)",
        baked=True,
    )
    CONTENTS = Described(name="contents", holds="what is inside an archive, by sha256", baked=True)
    PLATFORMS = Described(
        name="platforms", holds="inventories of site directories that were read before"
    )
    STARTS = Described(
        name="starts", holds="the pointers that warm starts follow, and the last reports"
    )
    BUILT = Described(
        name="built", holds="wheels that were built for a platform, by their source's sha256"
    )
    CALLS = Described(name="calls", holds="manifests of scripts that call preheat as they did pip")

    @property
    def dirname(self) -> str:
        """Its name below the store's root."""
        return self.value.name

    def under(self, base: Path) -> Path:
        """The directory below that root."""
        return base / self.value.name
