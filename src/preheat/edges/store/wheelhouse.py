"""Wheels that were built once and serve every worker of the store.

    built/SOURCE/ID/NAME.whl             the wheel
    built/SOURCE/ID/provenance.json      how it was built, and what it is for

SOURCE is the sha256 of the source distribution. The wheel is written last, by a rename: without it
there is nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from preheat.decisions.building import unfit
from preheat.edges.disk.atomic import drop_abandoned, sync_directory, unwritable, write_atomically
from preheat.words.building import DeviceCode, Provenance, Target
from preheat.words.lock import Archive

_FACTS = "provenance.json"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A wheel of the store, and how it was built."""

    archive: Archive
    provenance: Provenance


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheelhouse:
    """The built wheels of one store."""

    root: Path

    def find(self, source: str, target: Target) -> Kept | None:
        """A wheel of that source distribution that fits, whole as it was kept.

        Args:
            source: sha256 of the source distribution.
            target: what it must match.
        """
        return next((k for k in self.all(source) if unfit(k.provenance, target) is None), None)

    def all(self, source: str = "*") -> Iterator[Kept]:
        """Every wheel of that source distribution, or of all."""
        for facts in sorted(self.root.glob(f"{source}/*/{_FACTS}")):
            kept = _read(facts)
            if kept is not None:
                yield kept

    def keep(self, wheel: Path, provenance: Provenance) -> Kept:
        """Publishes a wheel; an equal one may be there already.

        Args:
            wheel: the file.
            provenance: of it.

        Raises:
            StoreError: the disk refuses.
        """
        place = self.root / provenance.source / provenance.sha256[:16]
        facts = json.dumps(_document(provenance)).encode()
        write_atomically(place / _FACTS, facts)
        write_atomically(place / provenance.filename, wheel.read_bytes())
        try:
            sync_directory(place)
            sync_directory(place.parent)
        except OSError as error:
            raise unwritable(self.root, error) from error
        return Kept(archive=_archive(place, provenance), provenance=provenance)

    def tidy(self) -> None:
        """Removes what writers that were killed left half-written."""
        for place in self.root.glob("*/*/"):
            drop_abandoned(place)


def sha256_of(file: Path) -> str:
    """Of the file's bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _read(facts: Path) -> Kept | None:
    """What is kept there; None where its files are not as they were kept."""
    try:
        document = json.loads(facts.read_text(encoding="utf-8"))
        device = {key: frozenset(value) for key, value in document.pop("device").items()}
        target = document.pop("target")
        target["capabilities"] = tuple(target["capabilities"])
        provenance = Provenance(**document, target=Target(**target), device=DeviceCode(**device))
        whole = os.stat(facts.parent / provenance.filename).st_size == provenance.size
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return (
        Kept(archive=_archive(facts.parent, provenance), provenance=provenance) if whole else None
    )


def _archive(place: Path, provenance: Provenance) -> Archive:
    return Archive(
        filename=provenance.filename,
        url=(place / provenance.filename).absolute().as_uri(),
        sha256=provenance.sha256,
        size=provenance.size,
    )


def _document(provenance: Provenance) -> dict[str, object]:
    device = {key: sorted(value) for key, value in asdict(provenance.device).items()}
    return {**asdict(provenance), "device": device}
