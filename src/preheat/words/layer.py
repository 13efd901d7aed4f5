"""A published layer, in its own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerFacts:
    """What a published layer says of itself.

    Attributes:
        package: the package of the manifest that it was made for.
        distributions: name and version of each.
        payload: bytes of files without bytecode.
        disk: bytes of blocks, as du counts them.
        files: how many.
        hooked: it holds ``.pth`` files.
        scripts: console script to its ``module:attribute``.
        links: to the platform's libraries: path below the layer, and target.
    """

    digest: str
    package: str
    distributions: tuple[tuple[str, str], ...]
    payload: int
    disk: int
    files: int
    hooked: bool
    scripts: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> LayerFacts:
        """The facts that a decoded JSON document states.

        Raises:
            TypeError, KeyError: it is none.
        """
        # Layers of before hold no links, and say nothing of them.
        whole = {"links": (), **document}
        pairs = ("distributions", "scripts", "links")
        return cls(**{**whole, **{key: tuple(map(tuple, whole[key])) for key in pairs}})
