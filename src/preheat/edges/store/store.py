"""The store on disk: layers, verdicts, locks and the engine's cache, in one directory, or in two.

    layers/DIGEST/       published layers, each the site directory that goes on the path
    staging/ID/          what a running start is making, and the engine's cache while it runs
    leases/ID            who that start is, or a process that uses layers
    claims/DIGEST        which start is making that layer
    verdicts/KEY.json    what was proved, good or bad
    locks/NAME.toml      what was resolved for a manifest on a platform (PEP 751)
    contents/SHA.json    what is inside an archive
    platforms/           inventories of site directories that were read before
    built/SHA/           wheels that were built for a platform, by their source
    bootstraps/DIGEST/   what children of an activated process start with
    starts/              pointers that the warm start follows
    history.jsonl        one line for each start

On a network volume layers are packed, and three of these are on the machine's own disk instead:

    packs/DIGEST.tar.zst a published layer as one file
    layers/, staging/, bootstraps/   on the local disk: a layer is made there, or unpacked

A worker's image may hold some layers too, in a directory laid out like a store's, with what was
resolved and proved for them. A start looks there first, and never writes there.

Everything is written beside its place and renamed into it. A layer's directory appears whole or
not at all, under a name made of its content.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from preheat import lease
from preheat.edges.disk.atomic import (
    drop_abandoned,
    rename_new,
    sync_directory,
    sync_filesystem,
    temporary_name,
    unwritable,
    write_atomically,
)
from preheat.edges.disk.deletion import erase
from preheat.edges.store.leases import EVERYTHING, Leases
from preheat.edges.store.pack import read_index, unpack, write_pack
from preheat.edges.store.shelf import FACTS, PACKS, Shelf
from preheat.edges.store.staging import Staging
from preheat.edges.store.wheelhouse import Wheelhouse
from preheat.words.errors import PackDamaged, StoreError
from preheat.words.layer import LayerFacts, LayerPath
from preheat.words.pack import PackIndex
from preheat.words.plan import Verdict

BAKED = frozenset({"layers", "verdicts", "locks", "contents"})
"""What an image holds of a store."""

_LOCAL = ("layers", "staging", "bootstraps")
_SHARED = ("leases", "claims", "verdicts", "locks", "contents", "platforms", "starts", "built")
_DIRECTORIES = (*_SHARED, *_LOCAL)
_HISTORY_KEPT = 1000


class Store:
    """One store. Nothing is created until the first write.

    Args:
        root: its directory.
        local: a directory on the machine's own disk, where its layers are packed.
        image: a directory of the worker's image that has layers too.
    """

    def __init__(self, root: Path, local: Path | None = None, image: Path | None = None) -> None:
        self.root = root
        self.local = local or root
        self.packed = local is not None
        self._image = image

    @property
    def ready(self) -> Shelf:
        """Layers that can go on the path."""
        return Shelf(base=self.local, packed=False)

    @property
    def image(self) -> Shelf | None:
        """Layers that are in the worker's image; no collector takes them."""
        return Shelf(base=self._image, packed=False) if self._image else None

    def places(self, name: str) -> tuple[Path, ...]:
        """Directories of that name: the store's own, which may be written, then the image's."""
        return tuple(base / name for base in (self.root, self._image) if base)

    @property
    def packs(self) -> Shelf:
        """Layers as one file each; empty where they are not packed."""
        return Shelf(base=self.root, packed=True)

    @property
    def shelves(self) -> tuple[Shelf, ...]:
        """Everywhere that layers of this store may be, what is lost most cheaply first."""
        if not self.packed:
            return (self.ready,)
        # Directories on a volume that has packs now: from before, or of those who want it so.
        return (self.ready, Shelf(base=self.root, packed=False), self.packs)

    @property
    def leases(self) -> Leases:
        """Who is at work in the store, and who uses it."""
        return Leases(self.root / "leases")

    @property
    def platforms(self) -> Path:
        """Inventories of site directories."""
        return self.root / "platforms"

    @property
    def built(self) -> Wheelhouse:
        """Wheels that were built once."""
        return Wheelhouse(root=self.root / "built")

    @property
    def starts(self) -> Path:
        """Pointers that the warm start follows."""
        return self.root / "starts"

    def layer(self, digest: str) -> Path:
        """Where the layer of that digest is, or would be."""
        shelf = self.image
        if shelf is not None and shelf.witness(digest).is_file():
            return shelf.place(digest)
        return self.ready.place(digest)

    def on_path(self, facts: LayerFacts) -> LayerPath:
        """The layer that says this of itself, as it lies on a path."""
        path = str(self.layer(facts.digest))
        return LayerPath(path=path, has_pth=facts.has_pth, digest=facts.digest)

    def baked(self) -> dict[str, str]:
        """The image's layers by digest, each with the package that it was made for.

        Raises:
            StoreError: one was damaged from outside.
        """
        digests = self.image.digests() if self.image else ()
        return {digest: self.facts(digest).package for digest in sorted(digests)}

    def prepare(self) -> None:
        """Makes the directories, and removes small files that killed starts left half-written.

        Raises:
            StoreError: it cannot be written.
        """
        self._refuse_what_is_none()
        try:
            for name in (*_SHARED, *([PACKS] if self.packed else ())):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.root, error) from error
        self.prepare_local()
        for name in ("", "calls", *_DIRECTORIES, *([PACKS] if self.packed else ())):
            drop_abandoned(self.root / name)
        self.built.tidy()
        if self.packed:
            drop_abandoned(self.local)

    def prepare_local(self) -> None:
        """Makes the directories on this machine's own disk: those of a volume take their time.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            for name in _LOCAL:
                (self.local / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.local, error) from error

    def _refuse_what_is_none(self) -> None:
        """A directory of something else does not become a store."""
        try:
            names = {name for name in os.listdir(self.root) if not name.startswith(".")}
        except OSError:
            return
        names -= {"lost+found"}
        if names and not names.intersection((*_DIRECTORIES, PACKS, "calls", "history.jsonl")):
            raise StoreError(
                f"{self.root} is not empty, and no store of preheat",
                hint=f"name a directory of its own: {self.root / 'preheat'}",
            )

    def layers(self) -> frozenset[str]:
        """Digests of the layers that can go on the path; one without its facts is absent."""
        return self.ready.digests() | (self.image.digests() if self.image else frozenset())

    def facts(self, digest: str) -> LayerFacts:
        """What that layer says of itself.

        Raises:
            StoreError: it is not there, or was damaged from outside.
        """
        try:
            text = (self.layer(digest) / FACTS).read_text(encoding="utf-8")
            return LayerFacts.of(json.loads(text))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StoreError(
                f"the layer {self.layer(digest)} is not whole: {error}",
                hint="remove that directory; the next start makes it again",
            ) from error

    def verdict(self, key: str) -> Verdict | None:
        """The verdict of that key, where there is one; it may have expired."""
        for place in self.places("verdicts"):
            with contextlib.suppress(OSError, ValueError, TypeError):
                return Verdict(**json.loads((place / f"{key}.json").read_text()))
        return None

    def verdicts(self, now: float) -> dict[str, Verdict]:
        """Every verdict by key, without failures that have expired."""
        found: dict[str, Verdict] = {}
        # The store's own come last, over the image's, which are older.
        places = reversed(self.places("verdicts"))
        for text in (text for place in places for text in _texts(place, ".json")):
            with contextlib.suppress(ValueError, TypeError):
                verdict = Verdict(**json.loads(text))
                if verdict.ok or verdict.expires > now:
                    found[verdict.key] = verdict
        return found

    def remember(self, verdict: Verdict) -> None:
        """Keeps a verdict, over an older one of the same key."""
        text = json.dumps(asdict(verdict))
        write_atomically(self.root / "verdicts" / f"{verdict.key}.json", text.encode())

    def lock_files(self, manifest: str, platform: str) -> tuple[Path, ...]:
        """Where the resolution for that manifest on that platform may be kept, as in `places`."""
        name = f"pylock.{manifest[:16]}-{platform[:16]}.toml"
        return tuple(place / name for place in self.places("locks"))

    def append_history(self, line: Mapping[str, object]) -> None:
        """Adds one start to the history, in one write; only the last thousand are kept."""
        file = self.root / "history.jsonl"
        text = json.dumps(line, separators=(",", ":")) + "\n"
        with file.open("a+b") as handle:
            if handle.tell():
                handle.seek(-1, os.SEEK_END)
                # What a killed start left of its line must not take this one with it.
                text = text if handle.read() == b"\n" else "\n" + text
            handle.write(text.encode())
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        if len(lines) > 2 * _HISTORY_KEPT:
            write_atomically(file, "".join(lines[-_HISTORY_KEPT:]).encode())

    def history(self) -> tuple[dict[str, object], ...]:
        """The starts that are remembered, oldest first; a torn line is left out."""
        try:
            text = (self.root / "history.jsonl").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ()
        found = []
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return tuple(line for line in found if isinstance(line, dict))

    @contextlib.contextmanager
    def begin(self) -> Iterator[Staging]:
        """A start's own place on the store's filesystem; gone at the end, whatever happens.

        Raises:
            StoreError: it cannot be made.
        """
        with self.leases.held([EVERYTHING]) as own:
            staging = Staging(root=self.root, local=self.local, lease=own, leases=self.leases)
            try:
                staging.place.mkdir(parents=True)
            except OSError as error:
                raise unwritable(self.local, error) from error
            try:
                yield staging
            finally:
                erase(staging.place)

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """The same, for what is made at once.

        Raises:
            StoreError: it cannot be made.
        """
        with self.begin() as staging:
            yield staging.place

    def unreferenced_staging(self) -> tuple[Path, ...]:
        """Staging whose owner lives no more, on this machine or another."""
        places: list[Path] = []
        for base in dict.fromkeys((self.local, self.root)):
            with contextlib.suppress(OSError):
                places += sorted((base / "staging").iterdir())
        ours = (place for place in places if lease.is_ours(place.name))
        return tuple(place for place in ours if not self.leases.lives(place.name))

    def drop_staging(self) -> None:
        """Removes it, and the leases of the dead."""
        for place in self.unreferenced_staging():
            erase(place)
            self.leases.forget(place.name)
        self.leases.prune()

    def publish(self, staged: Path, facts: LayerFacts) -> Path:
        """Makes a verified directory the layer of its digest; an equal one may be there already.

        Raises:
            StoreError: the disk refuses to keep it; nothing has appeared then.
        """
        try:
            (staged / FACTS).write_text(json.dumps(facts.document), encoding="utf-8")
        except OSError as error:
            raise unwritable(self.local, error) from error
        return self._put(staged, facts.digest)

    def _put(self, staged: Path, digest: str) -> Path:
        target = self.ready.place(digest)
        try:
            sync_filesystem(staged)
            if not rename_new(staged, target) and not (target / FACTS).is_file():
                # Somebody removed files by hand: what is left goes, out of the way first.
                target.rename(staged.with_name("damaged"))
                rename_new(staged, target)
            sync_directory(target.parent)
        except OSError as error:
            raise unwritable(self.local, error) from error
        return target

    def pack(self, digest: str) -> Path:
        """Publishes a layer that is ready as one file; it may be there already.

        Raises:
            StoreError: the volume refuses to keep it, or it cannot be packed; nothing has
                appeared then.
        """
        target = self.packs.place(digest)
        staged = temporary_name(target)
        try:
            with staged.open("xb") as file:
                write_pack(self.layer(digest), self.facts(digest), file)
                file.flush()
                os.fsync(file.fileno())
            rename_new(staged, target)
            sync_directory(target.parent)
        except OSError as error:
            raise unwritable(self.root, error) from error
        finally:
            with contextlib.suppress(OSError):
                staged.unlink()
        return target

    def index(self, digest: str) -> PackIndex:
        """What a packed layer holds; one that is damaged is gone then.

        Raises:
            PackError: it cannot be used.
        """
        file = self.packs.place(digest)
        try:
            return read_index(file)
        except PackDamaged:
            self._forget(digest)
            raise

    def unpack(
        self, digest: str, staging: Staging, wait: Callable[[float], bool] = lambda seconds: True
    ) -> LayerFacts:
        """Makes a packed layer ready on the local disk; of many on one machine, one does it.

        Args:
            digest: of the layer.
            staging: of the start.
            wait: called with the seconds that another start has been waited for; False gives up.

        Raises:
            PackError: the pack is damaged; nothing has appeared then, and the pack is gone.
            StoreError, OSError: the local disk refuses; nothing has appeared then.
        """
        machine = lease.machine_number(lease.identity()[0])
        with staging.claims.claimed(f"{digest}-{machine}", wait):
            if digest not in self.layers():
                self._unpack(digest, staging)
        return self.facts(digest)

    def _unpack(self, digest: str, staging: Staging) -> None:
        file = self.packs.place(digest)
        index = self.index(digest)
        with staging.directory(f"unpack-{digest[:16]}") as place:
            try:
                unpack(file, index, place)
                if index.facts.digest != digest or not (place / FACTS).is_file():
                    raise PackDamaged(f"the packed layer {file} holds another one than it says")
            except PackDamaged:
                self._forget(digest)
                raise
            self._put(place, digest)

    def _forget(self, digest: str) -> None:
        """Removes a pack that nobody can use."""
        with contextlib.suppress(OSError):
            self.packs.place(digest).unlink()


def _texts(directory: Path, suffix: str) -> Iterator[str]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    for name in names:
        if name.endswith(suffix):
            with contextlib.suppress(OSError):
                yield (directory / name).read_text(encoding="utf-8")
