"""What the layers hold and no promised import and no check loads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Spare:
    """A distribution of a layer that no promised import and no check loaded.

    Attributes:
        payload: bytes of its files, without bytecode.
        files: how many.
        packages: those of the manifest that bring it by their requirements.
        removable: everything was proved without it and the other removable ones.
    """

    name: str
    version: str
    payload: int
    files: int
    packages: tuple[str, ...]
    removable: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Slimming:
    """What could be left out, and what the layers hold in all.

    Attributes:
        spares: the largest first.
        payload: bytes of all layers' files, without bytecode.
        unchecked: packages without a check: what the worker loads after the import was not seen.
    """

    spares: tuple[Spare, ...]
    payload: int
    unchecked: tuple[str, ...]

    @property
    def removable(self) -> int:
        """Bytes that could go."""
        return sum(spare.payload for spare in self.spares if spare.removable)

    @property
    def excludes(self) -> dict[str, tuple[str, ...]]:
        """Package to the names for its ``exclude``."""
        found: dict[str, list[str]] = {}
        for spare in self.spares:
            for package in spare.packages if spare.removable else ():
                found.setdefault(package, []).append(spare.name)
        return {package: tuple(sorted(names)) for package, names in found.items()}
