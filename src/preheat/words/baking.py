"""Which packages go into a worker's image and which onto its volume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Place = Literal["image", "volume", "neither"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where one package's layer goes.

    Attributes:
        required: the manifest requires it, and its condition holds here.
        place: ``neither`` where no layer is made: the platform has it, or it cannot be had.
        reason: why there, in a sentence.
        bytes: that its layer takes, blocks and every module's bytecode included; once it is made,
            what it really takes.
        available: a worker with both parts can import it, as far as is known.
    """

    package: str
    required: bool
    place: Place
    reason: str
    bytes: int = 0
    available: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Baked:
    """The parts of a worker, as planned or as made.

    Attributes:
        image: directory of the image's part.
        volume: that of the volume's, or None where its part is left to the first start.
        budget: bytes that the image's part may take.
        placements: of every package, in the order in which layers are composed.
    """

    image: Path
    volume: Path | None
    budget: int
    placements: tuple[Placement, ...]

    def size(self, place: Place) -> int:
        """Bytes of the layers there."""
        return sum(each.bytes for each in self.placements if each.place == place)

    def names(self, place: Place) -> frozenset[str]:
        """The packages there."""
        return frozenset(each.package for each in self.placements if each.place == place)

    @property
    def ready(self) -> bool:
        """Whether everything required is available."""
        return all(each.available for each in self.placements if each.required)

    @property
    def dockerfile(self) -> tuple[str, ...]:
        """The lines for the image: to copy its part there, and to name the directory."""
        return (f"COPY {self.image} {self.image}", f"ENV PREHEAT_IMAGE={self.image}")
