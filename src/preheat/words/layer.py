"""A layer: what it says of itself, and how it lies on a path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# The store's format names one fact otherwise than we do.
_HAS_PTH_ON_DISK = "hooked"


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerFacts:
    """What a published layer says of itself.

    Attributes:
        package: the package of the manifest that it was made for.
        distributions: name and version of each.
        payload: bytes of files without bytecode.
        disk: bytes of blocks, as du counts them.
        files: how many.
        has_pth: it holds ``.pth`` files.
        scripts: console script to its ``module:attribute``.
        links: to the platform's libraries: path below the layer, and target.
    """

    digest: str
    package: str
    distributions: tuple[tuple[str, str], ...]
    payload: int
    disk: int
    files: int
    has_pth: bool
    scripts: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> LayerFacts:
        """The facts that a decoded JSON document states, as `document` gives it.

        Raises:
            TypeError, KeyError: it is none.
        """
        # Layers from before there were links say nothing of them.
        whole = {"links": (), **document}
        whole["has_pth"] = whole.pop(_HAS_PTH_ON_DISK)
        pairs = ("distributions", "scripts", "links")
        return cls(**{**whole, **{key: tuple(map(tuple, whole[key])) for key in pairs}})

    def document(self) -> dict[str, Any]:
        """The facts as they are written to disk, for JSON; `of` reads them back."""
        return {
            _HAS_PTH_ON_DISK if key == "has_pth" else key: value
            for key, value in asdict(self).items()
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerPath:
    """A layer as it lies on a path: published, in staging, or thinned.

    Attributes:
        path: its directory.
        has_pth: it holds ``.pth`` files, which run before anything is imported.
        digest: its name in the store.
    """

    path: str
    has_pth: bool
    digest: str
