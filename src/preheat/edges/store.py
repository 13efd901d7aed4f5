"""The store on disk: layers, verdicts, locks and the engine's cache, in one directory.

    layers/DIGEST/       published layers, each the site directory that goes on the path
    staging/ID/          what a running start is making; an ``owner`` file is locked while it lives
    verdicts/KEY.json    what was proved, good or bad
    locks/NAME.toml      what was resolved for a manifest on a platform (PEP 751)
    contents/SHA.json    what is inside an archive
    platforms/           inventories of site directories that were read before
    bootstraps/DIGEST/   what children of an activated process start with
    starts/              pointers that the warm start follows
    cache/               the engine's; archives in it are hardlinked into layers
    history.jsonl        one line for each start

Everything is written beside its place and renamed into it. A layer's directory appears whole or
not at all, under a name made of its content.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from preheat.edges.disk import (
    rename_new,
    sync_directory,
    sync_filesystem,
    unwritable,
    write_atomically,
)
from preheat.words.errors import StoreError
from preheat.words.plan import Verdict

FACTS = ".preheat.json"
"""What a layer says of itself; no import finds that name."""

# A start that died on another host holds no lock here; its staging is left for this long.
_STAGING_GRACE = 6 * 3600.0
_HISTORY_KEPT = 1000


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
    """

    digest: str
    package: str
    distributions: tuple[tuple[str, str], ...]
    payload: int
    disk: int
    files: int
    hooked: bool
    scripts: tuple[tuple[str, str], ...]


class Store:
    """One store. Nothing is created until the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def cache(self) -> Path:
        """The engine's cache."""
        return self.root / "cache"

    @property
    def contents(self) -> Path:
        """What is inside archives, by sha256."""
        return self.root / "contents"

    @property
    def platforms(self) -> Path:
        """Inventories of site directories."""
        return self.root / "platforms"

    @property
    def starts(self) -> Path:
        """Pointers that the warm start follows."""
        return self.root / "starts"

    def layer(self, digest: str) -> Path:
        """Where the layer of that digest is, or would be."""
        return self.root / "layers" / digest

    def prepare(self) -> None:
        """Makes the directories, and removes the staging of starts that were killed.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            for name in ("layers", "staging", "verdicts", "locks", "contents", "starts"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self.cache.mkdir(exist_ok=True)
            (self.root / "bootstraps").mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(self.root, error) from error
        self.drop_staging(now())

    def layers(self) -> frozenset[str]:
        """Digests of the published layers; one that lost its facts counts as absent."""
        try:
            names = os.listdir(self.root / "layers")
        except OSError:
            return frozenset()
        return frozenset(name for name in names if (self.layer(name) / FACTS).is_file())

    def facts(self, digest: str) -> LayerFacts:
        """What that layer says of itself.

        Raises:
            StoreError: it is not there, or was damaged from outside.
        """
        try:
            stored = json.loads((self.layer(digest) / FACTS).read_text(encoding="utf-8"))
            stored["distributions"] = tuple(map(tuple, stored["distributions"]))
            stored["scripts"] = tuple(map(tuple, stored["scripts"]))
            return LayerFacts(**stored)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StoreError(
                f"the layer {self.layer(digest)} is not whole: {error}",
                hint="remove that directory; the next start makes it again",
            ) from error

    def verdicts(self, now: float) -> dict[str, Verdict]:
        """Every verdict by key, without failures that have expired."""
        found = {}
        for text in _texts(self.root / "verdicts", ".json"):
            with contextlib.suppress(ValueError, TypeError):
                verdict = Verdict(**json.loads(text))
                if verdict.ok or verdict.expires > now:
                    found[verdict.key] = verdict
        return found

    def remember(self, verdict: Verdict) -> None:
        """Keeps a verdict, over an older one of the same key."""
        text = json.dumps(asdict(verdict))
        write_atomically(self.root / "verdicts" / f"{verdict.key}.json", text.encode())

    def lock_file(self, manifest: str, platform: str) -> Path:
        """Where the resolution for that manifest on that platform is kept."""
        return self.root / "locks" / f"pylock.{manifest[:16]}-{platform[:16]}.toml"

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
    def stage(self) -> Iterator[Path]:
        """A directory of our own on the store's filesystem; gone at the end, whatever happens.

        Raises:
            StoreError: it cannot be made.
        """
        try:
            place, owner = self._new_staging()
        except OSError as error:
            raise unwritable(self.root, error) from error
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            os.close(owner)

    def _new_staging(self) -> tuple[Path, int]:
        """A directory and the descriptor that locks it."""
        while True:
            place = self.root / "staging" / uuid.uuid4().hex
            place.mkdir(parents=True)
            owner = os.open(place / "owner", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(owner, fcntl.LOCK_EX)
            if os.fstat(owner).st_nlink:
                return place, owner
            # Before it was locked, another start took it for a dead one's and removed it.
            os.close(owner)

    def unreferenced_staging(self, now: float) -> tuple[Path, ...]:
        """Staging whose owner lives no more: unlocked here, and old enough for any host."""
        found = []
        for place in self._staging():
            with _disowned(place, now) as dead:
                if dead:
                    found.append(place)
        return tuple(found)

    def drop_staging(self, now: float) -> None:
        """Removes it."""
        for place in self._staging():
            with _disowned(place, now) as dead:
                if dead:
                    shutil.rmtree(place, ignore_errors=True)

    def _staging(self) -> list[Path]:
        try:
            return sorted((self.root / "staging").iterdir())
        except OSError:
            return []

    @contextlib.contextmanager
    def engine_cache(self, *, keep: bool = False) -> Iterator[Path]:
        """The engine's cache for the length of a start; the last one to leave empties it.

        Its archives are hardlinked into layers by then, so what is left would be kept twice as
        soon as a layer goes. A start that was killed leaves it, and the next one goes on from it.

        Args:
            keep: leave it as it is in the end.
        """
        self.cache.mkdir(parents=True, exist_ok=True)
        with self._cache_lock(fcntl.LOCK_SH):
            yield self.cache
        if not keep:
            self.drop_cache()

    def drop_cache(self) -> bool:
        """Empties the engine's cache; False where a start is using it, or it is a link."""
        if self.cache.is_symlink():
            return False
        try:
            with self._cache_lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
                for entry in self.cache.iterdir():
                    if entry.is_dir() and not entry.is_symlink():
                        shutil.rmtree(entry, ignore_errors=True)
                    else:
                        entry.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def cache_is_empty(self) -> bool:
        """Whether no earlier start left anything in the engine's cache."""
        try:
            return not any(self.cache.iterdir())
        except OSError:
            return True

    def cache_is_idle(self) -> bool:
        """Whether no start is using the engine's cache."""
        try:
            with self._cache_lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
                return True
        except OSError:
            return False

    @contextlib.contextmanager
    def _cache_lock(self, operation: int) -> Iterator[None]:
        descriptor = os.open(self.root / "cache.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, operation)
            yield
        finally:
            os.close(descriptor)

    def publish(self, staged: Path, facts: LayerFacts) -> Path:
        """Makes a verified directory the layer of its digest; an equal one may be there already.

        Raises:
            StoreError: the disk refuses to keep it; nothing has appeared then.
        """
        target = self.layer(facts.digest)
        try:
            (staged / FACTS).write_text(json.dumps(asdict(facts)), encoding="utf-8")
            sync_filesystem(staged)
            if not rename_new(staged, target) and not (target / FACTS).is_file():
                # Somebody removed files by hand: what is left goes, out of the way first.
                target.rename(staged.with_name("damaged"))
                rename_new(staged, target)
            sync_directory(target.parent)
        except OSError as error:
            raise unwritable(self.root, error) from error
        return target


@contextlib.contextmanager
def _disowned(place: Path, now: float) -> Iterator[bool]:
    """Whether nobody owns that staging; nobody can while this is held."""
    old = False
    try:
        old = now - place.lstat().st_mtime >= _STAGING_GRACE
        descriptor = os.open(place / "owner", os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        # Between mkdir and the owner's file lie microseconds; hours are not among them.
        yield place.is_dir() and old
        return
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield old or not _locks_may_not_reach(place)
    finally:
        os.close(descriptor)


def _locks_may_not_reach(place: Path) -> bool:
    """Whether the filesystem is one that other hosts share, where flock may be local."""
    from preheat.edges.probe import read_volumes

    return not read_volumes({"store": str(place)})[0].quota_known


def _texts(directory: Path, suffix: str) -> Iterator[str]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    for name in names:
        if name.endswith(suffix):
            with contextlib.suppress(OSError):
                yield (directory / name).read_text(encoding="utf-8")


def now() -> float:
    """Unix time, for what expires."""
    return time.time()
