"""Which lock counts: one that was given, one that is kept, a new one, or the best of the old."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from preheat.decisions.fallback import best_lock
from preheat.decisions.identity import digest, manifest_digest, platform_digest
from preheat.edges.engine.engine import Engine
from preheat.edges.engine.lock_file import read_lock, write_lock
from preheat.edges.index.wheels import load_http
from preheat.planning.cuda_bounds import resolve_around
from preheat.planning.resolve import Question, Resolution, from_lock
from preheat.planning.session import Session, claimed
from preheat.words.display import redact
from preheat.words.errors import LockError, Unreachable
from preheat.words.lock import Contents, Lock

_EMPTY = Lock(distributions=(), manifest="", platform="")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The resolution that counts.

    Attributes:
        unanswered: package name to why the index could not be asked about it.
        kept: where the store keeps it; None where it was given, or is not kept.
    """

    resolution: Resolution
    unanswered: dict[str, str]
    kept: Path | None = None


class Locks:
    """The locks of a store, as one startup goes by them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._order = session.order
        self._clock = session.clock

    def answer(self, question: Question, engine: Engine) -> Answer:
        """The resolution to go by.

        Raises:
            LockError: a lock was given that is not for this manifest and platform.
            ResolutionError: the engine fails for another reason than a silent index.
        """
        if self._order.lock is not None:
            return self._from(self._given(self._order.lock, question), question)
        kept = self._kept(question)
        if kept is not None:
            return replace(self._from(kept, question), kept=self._file(question))
        if not question.packages:
            return self._from(_EMPTY, question)
        # Of many that ask the same, one asks the index; the others read its answer.
        key = self._file(question).name
        with claimed(self._session, key, question.packages):
            made_meanwhile = self._kept(question)
            if made_meanwhile is not None:
                return replace(self._from(made_meanwhile, question), kept=self._file(question))
            return self._anew(question, engine)

    def _anew(self, question: Question, engine: Engine) -> Answer:
        try:
            with self._clock.stage("resolve"), ThreadPoolExecutor(1) as aside:
                # While the engine is at work, this process waits.
                aside.submit(load_http)
                reader, stated = self._session.reader, self._order.settings.cuda
                found = resolve_around(question, engine, reader, stated)
        except Unreachable as error:
            self._clock.listener.event("index-unreachable", reason=error.message)
            return self._from_the_past(question, error.why)
        kept = None
        if self._session.staging is not None:
            kept = self._file(question)
            write_lock(found.lock, found.contents, kept)
        return Answer(resolution=found, unanswered=found.unanswered, kept=kept)

    def _from(self, lock: Lock, question: Question) -> Answer:
        return Answer(resolution=from_lock(lock, question, self._session.reader), unanswered={})

    def _given(self, file: Path, question: Question) -> Lock:
        lock = read_lock(file)
        if lock.manifest != manifest_digest(question.manifest, question.protect):
            raise LockError(
                f"{file} was made for another manifest", hint="make it again: preheat lock"
            )
        if lock.platform != platform_digest(question.platform):
            raise LockError(
                f"{file} was made for another platform (other Python, or other distributions)",
                hint="make it again on this platform: preheat lock",
            )
        uncovered = [p.name for p in question.packages if p.name not in lock.packages]
        if uncovered:
            raise LockError(
                f"{file} was made where {', '.join(uncovered)} was not wanted",
                hint="make it again on this machine: preheat lock",
            )
        return lock

    def _kept(self, question: Question) -> Lock | None:
        """The resolution of an earlier startup; one with refusals holds until they are retried."""
        if self._order.retry:
            return None
        own, *baked = self._files(question)
        # The image's holds whatever its age: another answer would be for other layers than it has.
        ages = self._order.settings.retry_after, float("inf")
        found = (
            self._kept_in(f, question, age) for f, age in zip([own, *baked], ages, strict=False)
        )
        return next(filter(None, found), None)

    def _kept_in(self, file: Path, question: Question, oldest: float) -> Lock | None:
        try:
            lock = read_lock(file)
            age = time.time() - file.stat().st_mtime
        except (LockError, OSError):
            return None
        wanted = {package.name for package in question.packages}
        if not wanted <= set(lock.packages):
            # A condition is met now that was not then.
            return None
        refused = dict(lock.refused)
        if any(package.required and package.name in refused for package in question.packages):
            # What the worker cannot live without is asked for at every startup.
            return None
        fresh = not lock.refused or age < oldest
        return lock if fresh or self._order.settings.offline else None

    def _from_the_past(self, question: Question, why: str) -> Answer:
        """The last good layers serve while the index is silent."""
        found = best_lock(question.packages, question.platform, self._older(question))
        lock, missing = found or (_EMPTY, question.packages)
        named = self._order.settings.index.url
        where = f" ({redact(named)})" if named else ""
        reason = f"{why}{where}, and the store has no earlier resolution of it"
        if self._order.settings.offline:
            reason = "offline, and neither the platform nor the store has it"
        return Answer(
            resolution=from_lock(lock, question, self._session.reader),
            unanswered={
                package.name: self._clock.why_late(package) or reason for package in missing
            },
        )

    def _older(self, question: Question) -> list[Lock]:
        suffix = f"-{platform_digest(question.platform)[:16]}.toml"
        places = self._session.store.locks
        files = [f for p in places for f in p.glob("*.toml") if f.name.endswith(suffix)]
        locks = []
        for file in sorted(files, key=lambda f: f.stat().st_mtime, reverse=True):
            with contextlib.suppress(LockError):
                lock = read_lock(file)
                # What is protected now may not have been then.
                if not any(lock.find(name) for name in question.held):
                    locks.append(lock)
        return locks

    def _file(self, question: Question) -> Path:
        return self._files(question)[0]

    def _files(self, question: Question) -> tuple[Path, ...]:
        # A lock names addresses: one that another index answered would be asked there again.
        index = self._order.settings.index
        places = [redact(place) for place in (index.url or "", *index.extra, *index.find_links)]
        stated = asdict(self._order.settings.cuda)
        told = [stated] if any(stated.values()) else []
        asked = digest([manifest_digest(question.manifest, question.protect), places, *told])
        return self._session.store.lock_files(asked, platform_digest(question.platform))


def keep_releases(file: Path, now: Lock, contents: Mapping[str, Contents]) -> None:
    """Has a kept lock name the releases that are used by now: the next startup goes by it.

    What was built here stays in it as its source: another store has no such wheel.

    Raises:
        LockError: the lock that was kept is gone.
        StoreError: the disk refuses.
    """
    kept = read_lock(file)
    same = {(each.name, each.version): each for each in kept.distributions}
    found = tuple(same.get((each.name, each.version), each) for each in now.distributions)
    write_lock(replace(kept, distributions=found), dict(contents), file)
