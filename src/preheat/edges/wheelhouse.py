"""Wheels that were built once and serve every worker of the store.

    built/SOURCE/ID/NAME.whl             the wheel
    built/SOURCE/ID/provenance.json      how it was built, and what it is for

SOURCE is the sha256 of the source distribution. A directory appears whole, by a rename.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from preheat.decisions.building import unfit
from preheat.edges.disk import rename_new, sync_directory, sync_filesystem, unwritable
from preheat.words.building import DeviceCode, Provenance, Target
from preheat.words.lock import Archive

_FACTS = "provenance.json"
_CHUNK = 1 << 20


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

    def keep(self, wheel: Path, provenance: Provenance, staging: Path) -> Kept:
        """Publishes a wheel; an equal one may be there already.

        Args:
            wheel: the file.
            provenance: of it.
            staging: a directory of our own on the store's filesystem.

        Raises:
            StoreError: the disk refuses.
        """
        staged = staging / f"wheel-{provenance.sha256[:16]}"
        place = self.root / provenance.source / provenance.sha256[:16]
        try:
            staged.mkdir()
            shutil.copyfile(wheel, staged / provenance.filename)
            (staged / _FACTS).write_text(json.dumps(_document(provenance)), encoding="utf-8")
            place.parent.mkdir(parents=True, exist_ok=True)
            sync_filesystem(staged)
            rename_new(staged, place)
            sync_directory(place.parent)
        except OSError as error:
            raise unwritable(self.root, error) from error
        return Kept(archive=_archive(place, provenance), provenance=provenance)


def sha256_of(file: Path) -> str:
    """Of the file's bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
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
