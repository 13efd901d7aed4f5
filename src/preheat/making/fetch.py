"""Into staging: one package when its turn comes, or several ahead of theirs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from preheat.edges.cleaning.layers import available
from preheat.edges.disk.atomic import sync_filesystem
from preheat.edges.disk.usage import Gauge, watch
from preheat.edges.engine.engine import Engine
from preheat.edges.process.limits import available_processors
from preheat.edges.store import staged_layer
from preheat.edges.store.staging import Staging
from preheat.planning.session import Session
from preheat.words.engine import Request
from preheat.words.errors import Cancelled, DiskFull
from preheat.words.lock import Contents, Locked
from preheat.words.plan import Step
from preheat.words.quantities import in_mb

# One may wait for the disk while another removes files.
_SYNC_THREADS = 2
# Each keeps tens of connections and two processors busy; the first should not have to share much,
# since its proof can begin while the others are unpacked.
_MOST_FETCHES_AT_ONCE = 3

Scripts = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrived:
    """What came with an installation.

    Attributes:
        scripts: the console scripts, whose launchers are not among the files.
        fetched: bytes of the archives that came, each whole and by its sha256; what a killed
            startup had left in the engine's cache is not among them.
    """

    scripts: Scripts
    fetched: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a step installs.

    Attributes:
        contents: each distribution with what its archive holds.
    """

    step: Step
    contents: tuple[tuple[Locked, Contents], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetcher:
    """Brings what a step installs into a directory, and checks it.

    Attributes:
        request: what was resolved.
    """

    session: Session
    engine: Engine
    request: Request

    def fetch(self, wanted: Wanted, target: Path) -> Arrived:
        """Installs, watches the disk meanwhile, and compares what lies there with the wheels.

        Args:
            wanted: what to install.
            target: an empty directory.

        Raises:
            InstallError: it cannot be had, or something is missing, or the disk is full.
            OSError: the disk refuses.
        """
        step, there = wanted.step, self.engine.unpacked()
        with self._watched(step):
            timeout = self.session.clock.left(step.package)
            self.engine.install(step.distributions, target, self.request, timeout=timeout)
        staged_layer.check(target, wanted.contents)
        staged_layer.link(target, step.links)
        came = (d for d in step.distributions if (d.name, d.version) not in there)
        fetched = sum(each.archive.size or 0 for each in came)
        return Arrived(scripts=staged_layer.take_scripts(target), fetched=fetched)

    def _watched(self, step: Step) -> contextlib.AbstractContextManager[None]:
        """Tells how far it is; stops it where something else eats the disk meanwhile."""
        label, total = f"install {step.package.name}", max(2, step.disk)
        local, listener = self.session.store.local, self.session.clock.listener
        # It was planned to leave twice that; what the plan did not know of has taken it.
        least = self.session.order.settings.space.keep_free // 2

        def told(size: int, free: int) -> None:
            listener.progress(label, min(size, total - 1), total, free=free)

        def short(free: int) -> None:
            self.engine.interrupt(
                DiskFull(
                    f"something else has taken space from {local}: stopped with {in_mb(free)} left"
                )
            )

        return watch(Gauge(place=str(local), told=told, least=least, short=short))


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """A layer in staging, checked, and claimed until `held` is closed.

    Attributes:
        seconds: how long it took, by stage.
        held: the claim and the directory.
    """

    place: Path
    arrived: Arrived
    seconds: dict[str, float]
    held: contextlib.ExitStack


class Ahead:
    """Fetches what is planned before its turn comes, while what came before is proved.

    A context: what nobody took is gone at its end.
    """

    def __init__(self, fetcher: Fetcher, staging: Staging) -> None:
        self._fetcher = fetcher
        self._staging = staging
        self._pool: ThreadPoolExecutor | None = None
        self._fetches: dict[str, tuple[Future[Fetched], contextlib.ExitStack]] = {}
        self._aside: ThreadPoolExecutor | None = None
        self._syncs: list[Future[None]] = []

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.drop()
        for pool in (self._pool, self._aside):
            if pool is not None:
                pool.shutdown()

    @property
    def begun(self) -> bool:
        """Whether archives of several packages lie in the engine's cache."""
        return self._pool is not None

    def begin(self, wanted: Iterable[Wanted]) -> None:
        """Fetches them, a few at a time, the first ones first; once in its life.

        They are claimed in order, as far as nobody else is making one of them. So whoever has to
        wait for another startup holds nothing that a third may wait for: what comes before has been
        taken by then.
        """
        at_once = max(1, min(_MOST_FETCHES_AT_ONCE, available_processors() // 2))
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="preheat-fetch")
        self._aside = ThreadPoolExecutor(_SYNC_THREADS, thread_name_prefix="preheat-aside")
        for each in wanted:
            layer = each.step.layer
            if layer in available(self._fetcher.session.store):
                continue
            held = contextlib.ExitStack()
            claimed = self._staging.claims.claimed(layer, lambda seconds: False)
            if not held.enter_context(claimed):
                held.close()
                return
            self._fetches[layer] = self._pool.submit(self._fetch, each, held), held

    def take(self, step: Step) -> Fetched | None:
        """What was fetched for that step; whoever takes it closes ``held``. None if nothing was.

        Raises:
            InstallError, StoreError, OSError: fetching it failed so.
        """
        if step.layer not in self._fetches:
            return None
        fetch, _ = self._fetches[step.layer]
        # Whoever is interrupted here leaves it to `drop`.
        wait([fetch])
        del self._fetches[step.layer]
        return fetch.result()

    def coming(self, step: Step) -> Future[Fetched] | None:
        """What is still on its way for that step; None where it is there, or is not fetched."""
        fetch, _ = self._fetches.get(step.layer, (None, None))
        return fetch if fetch is not None and not fetch.done() else None

    def arrived(self, step: Step) -> Fetched | None:
        """What lies there by now for that step; it stays there. None if it has failed, too."""
        fetch, _ = self._fetches.get(step.layer, (None, None))
        if fetch is None or not fetch.done() or fetch.cancelled() or fetch.exception():
            return None
        return fetch.result()

    def sync(self, place: Path) -> None:
        """Begins to bring to the disk what lies there."""
        if self._aside is not None:
            self._syncs.append(self._aside.submit(_sync_if_there, place))

    def wait_until_synced(self) -> None:
        """Waits for that.

        The kernel tells an error once, and it may be about anything on that filesystem: from the
        first one on, nothing of this startup may be published.

        Raises:
            OSError: what was written did not reach the disk.
        """
        for sync in tuple(self._syncs):
            sync.result()

    def give_back(self) -> None:
        """Removes what the engine unpacked, meanwhile: after the last layer nobody needs it."""
        if self._aside is not None:
            self._aside.submit(self._staging.give_back_archives)

    def drop(self) -> None:
        """Ends what goes on, and removes what nobody has taken."""
        left = tuple(self._fetches.values())
        self._fetches.clear()
        for fetch, _ in left:
            fetch.cancel()
        stopped = Cancelled("it is no longer planned so")
        while wait([fetch for fetch, _ in left], timeout=0.02).not_done:
            self._fetcher.engine.interrupt(stopped)
        for _, held in left:
            held.close()

    def _fetch(self, wanted: Wanted, held: contextlib.ExitStack) -> Fetched:
        step, seconds = wanted.step, dict[str, float]()
        try:
            directory = self._staging.directory(f"layer-{step.layer[:16]}")
            place = held.enter_context(directory)
            with self._fetcher.session.clock.part("install", step.package.name, seconds):
                arrived = self._fetcher.fetch(wanted, place)
        except BaseException:
            held.close()
            raise
        # What is on its way to the disk by now need not be waited for later.
        self.sync(place)
        return Fetched(place=place, arrived=arrived, seconds=seconds, held=held)


def _sync_if_there(place: Path) -> None:
    """Brings it to the disk; what was dropped meanwhile is of no use to anybody."""
    with contextlib.suppress(FileNotFoundError):
        sync_filesystem(place)
