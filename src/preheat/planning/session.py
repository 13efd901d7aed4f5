"""What the stages of one startup share, made once and handed on whole."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from preheat.edges.disk.atomic import answering
from preheat.edges.index.wheels import Reader
from preheat.edges.process.clock import Clock
from preheat.edges.store.open import open_store
from preheat.edges.store.staging import Staging
from preheat.edges.store.store import Store
from preheat.proving.prover import Prover
from preheat.words.listener import Listener
from preheat.words.manifest import Package
from preheat.words.order import Order


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """What the stages of one startup share.

    The engine is not among it: it works for one platform, and comes with the `State`.

    Attributes:
        order: what is asked for.
        store: where layers are kept.
        clock: what each stage took, and what is left until the deadline.
        prover: proves packages, and remembers what came of it.
        reader: reads what archives hold.
        built_reader: reads what wheels hold that were built here, and keeps no memory of them.
        scratch: an empty directory for the engine, gone in the end.
        cache: the engine's, for what it fetches.
        staging: where layers are made; None where nothing is to be changed.
    """

    order: Order
    store: Store
    clock: Clock
    prover: Prover
    reader: Reader
    built_reader: Reader
    scratch: Path
    cache: Path
    staging: Staging | None = None

    def in_scratch(self, scratch: Path) -> Session:
        """Another session of this startup, with a directory of its own, that knows nothing yet."""
        prover = Prover(self.order, self.store, self.clock, self.staging)
        return replace(self, scratch=scratch, prover=prover)

    def remembering(self) -> Session:
        """This session, with a reader that keeps in the store what it has read."""
        return replace(self, reader=_reader(self.order, self.store, remember=True))

    @property
    def own_staging(self) -> Staging:
        """Where layers are made, in a session that may."""
        if self.staging is None:
            raise AssertionError("a session that changes nothing makes nothing")
        return self.staging


@contextlib.contextmanager
def looking(order: Order, listener: Listener) -> Iterator[Session]:
    """A session that leaves the disk as it is: what it writes is gone at its end.

    Raises:
        ManifestError: packed layers are asked for, and this machine has no place for them.
        StoreError: a disk refuses in the middle.
    """
    clock = Clock(listener, order.settings.deadline)
    store = open_store(order.settings)
    with (
        answering(store.root),
        tempfile.TemporaryDirectory(prefix="preheat-plan-") as scratch,
    ):
        yield Session(
            order=order,
            store=store,
            clock=clock,
            prover=Prover(order, store, clock, None),
            reader=_reader(order, store, remember=False),
            built_reader=_reader(order, store, remember=False),
            scratch=Path(scratch),
            cache=Path(scratch, "cache"),
        )


@contextlib.contextmanager
def working(order: Order, listener: Listener) -> Iterator[Session]:
    """A session that may change the store, with a place of its own on the layers' filesystem.

    Raises:
        ManifestError: packed layers are asked for, and this machine has no place for them.
        StoreError: the store cannot be written, or a disk refuses in the middle.
    """
    clock = Clock(listener, order.settings.deadline)
    store = open_store(order.settings)
    with answering(store.root):
        store.prepare()
        with store.begin() as staging:
            scratch = staging.place / "engine"
            scratch.mkdir()
            yield Session(
                order=order,
                store=store,
                clock=clock,
                prover=Prover(order, store, clock, staging),
                reader=_reader(order, store, remember=True),
                built_reader=_reader(order, store, remember=False),
                scratch=scratch,
                cache=staging.cache,
                staging=staging,
            )


@contextlib.contextmanager
def claimed(
    session: Session, key: str, packages: Sequence[Package], layer: str = ""
) -> Iterator[bool]:
    """Waits while another startup makes the same, as long as one of the packages has time left.

    Args:
        session: that wants it; one that changes nothing waits for nobody.
        key: of what is to be made.
        packages: that need it.
        layer: that is made for the one package; empty where it is the resolution for all of them.

    Yields:
        Whether it is ours to make. What was waited for may have been made meanwhile.
    """
    if session.staging is None:
        yield True
        return
    clock, told = session.clock, False
    name = packages[0].name if layer else "the resolution"

    def wait(seconds: float) -> bool:
        nonlocal told
        if not told:
            if layer:
                clock.listener.event("waiting", package=name, layer=layer)
            else:
                clock.listener.event("waiting", what="the resolution of another start")
            told = True
        clock.listener.progress(f"wait for another start: {name}", 0, 1)
        return not all(clock.why_late(package) for package in packages)

    with session.staging.claims.claimed(key, wait) as ours:
        if told:
            clock.listener.progress(f"wait for another start: {name}", 1, 1)
        yield ours


def _reader(order: Order, store: Store, *, remember: bool) -> Reader:
    """What reads archives for that order; the store keeps what was read, if it is to remember."""
    settings = order.settings
    return Reader(
        store.contents,
        indexes=[*settings.index.extra, settings.index.url or ""],
        timeout=None if settings.offline else settings.index_timeout,
        remember=remember,
    )
