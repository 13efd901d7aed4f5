"""Wheels that are compiled against the platform: had from the store, or built there once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from preheat.decisions.building import (
    environment,
    estimate,
    jobs,
    refusal,
    target_of,
    wheel_name,
)
from preheat.decisions.identity import digest
from preheat.edges.disk.volumes import read_volumes
from preheat.edges.engine.build import Built, Job
from preheat.edges.engine.engine import Engine
from preheat.edges.platform.build_tools import read_workshop
from preheat.edges.platform.fatbin import device_code_of_wheel
from preheat.edges.store.wheelhouse import Kept, sha256_of
from preheat.planning.session import Session
from preheat.words.building import Estimate, Provenance, Target, Work, Workshop
from preheat.words.engine import Request
from preheat.words.errors import InstallError, TimedOut, Transient
from preheat.words.lock import Lock, Locked
from preheat.words.manifest import Package
from preheat.words.platform import Platform
from preheat.words.proof import Proof
from preheat.words.quantities import in_gb


@dataclass(frozen=True, kw_only=True, slots=True)
class Unbuilt:
    """A source distribution that is to be compiled against the platform, for one package."""

    package: Package
    locked: Locked
    target: Target

    @property
    def key(self) -> str:
        """The name under which it is claimed, and under which a failure is remembered."""
        return f"built-{self.locked.archive.sha256[:32]}-{digest(asdict(self.target))[:16]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Builder:
    """Has wheels for one platform.

    Attributes:
        platform: what they are compiled against.
        engine: builds them.
    """

    session: Session
    platform: Platform
    engine: Engine

    def kept(self, sources: Iterable[Unbuilt]) -> dict[str, Kept]:
        """The store's wheels that fit, by the name of their distribution."""
        found = {source.locked.name: self.kept_of(source) for source in sources}
        return {name: kept for name, kept in found.items() if kept is not None}

    def kept_of(self, source: Unbuilt) -> Kept | None:
        """The store's wheel of it, if it has one that fits."""
        return self.session.store.built.find(source.locked.archive.sha256, source.target)

    def refusals(self, sources: Iterable[Unbuilt]) -> dict[str, str]:
        """Package name to the sentence that says why it is not built here, or not again yet."""
        found = {}
        for source in sources:
            known = self.session.prover.verdicts.get(source.key)
            if known is not None and not known.ok:
                why: str | None = f"failed before on this platform: {known.reason}"
            else:
                why = self.missing(source)
            if why:
                found[source.package.name] = why
        return found

    def missing(self, source: Unbuilt) -> str | None:
        """The sentence that says what a build of it lacks here; None where it may begin."""
        limits, left = source.package.build_limits, self.session.clock.left(source.package)
        why = refusal(self._workshop(), limits, source.target, left)
        wheel = self.expected(source).wheel
        return f"nobody has built {wheel} for this platform, and {why}" if why else None

    def expected(self, source: Unbuilt) -> Estimate:
        """What building it will take here."""
        interpreter, locked = self.platform.interpreter, source.locked
        python = "cp" + "".join(interpreter.version.split(".")[:2])
        wheel = wheel_name(
            locked.name, locked.version, source.target, (python, interpreter.machine)
        )
        return estimate(self._workshop(), source.package.build_limits, source.target, wheel)

    def ahead_of_time(self, source: Unbuilt, request: Request) -> Work:
        """Has the store keep its wheel: what came of it, whatever that is.

        Raises:
            StoreError: the disk refuses to keep the wheel.
        """
        kept, status, reason = self.kept_of(source), "kept", ""
        if kept is None:
            # Asked for by name, it is tried again, whatever is remembered.
            status, reason = "refused", self.missing(source) or ""
        if kept is None and not reason:
            try:
                kept, status = self.build(source, request), "built"
            except InstallError as error:
                status, reason = "failed", error.message
        return Work(
            package=source.package.name,
            name=source.locked.name,
            version=source.locked.version,
            status=status,
            reason=reason,
            expected=self.expected(source),
            provenance=kept.provenance if kept else None,
        )

    def note(self, source: Unbuilt) -> str:
        """What a plan says of a build to come."""
        expected = self.expected(source)
        minutes = f", about {expected.seconds / 60:,.0f} minutes" if expected.seconds else ""
        return (
            f"built here first, within {source.package.build_limits.time / 60:,.0f} minutes: "
            f"{expected.jobs} jobs, {in_gb(expected.memory)} of memory, "
            f"{in_gb(expected.disk)} of disk{minutes}"
        )

    def build(self, source: Unbuilt, request: Request) -> Kept:
        """Builds it within its limits, and keeps the wheel in the store.

        Raises:
            InstallError: the build fails, or is ended at its limit.
            StoreError: the disk refuses to keep the wheel.
        """
        clock, package, workshop = self.session.clock, source.package, self._workshop()
        count = jobs(workshop, package.build_limits)
        left = clock.left(package)
        budget = package.build_limits.time if left is None else min(package.build_limits.time, left)
        label = f"build {package.name}"

        def told(seconds: float) -> None:
            # As a part of what is allowed: how much of it is done, no compiler tells.
            clock.listener.progress(label, min(seconds / budget, 0.99), 1)

        job = Job(
            source=source.locked,
            request=request,
            variables=environment(source.target, count, self._cuda_home(), self._includes()),
            seconds=budget,
            told=told,
        )
        clock.listener.event("building", package=package.name, jobs=count, budget_s=round(budget))
        with self.session.own_staging.directory(f"build-{source.locked.name}") as target:
            try:
                built = self.engine.build(job, target)
            except InstallError as error:
                raise self._failed(source, error) from error
            provenance = self._provenance(source, built, workshop, count)
            kept = self.session.store.built.keep(built.wheel, provenance)
        clock.listener.event(
            "built",
            package=package.name,
            wheel=provenance.filename,
            seconds=provenance.seconds,
            peak_memory_mb=round(provenance.memory / 1e6),
        )
        return kept

    def _failed(self, source: Unbuilt, error: InstallError) -> InstallError:
        """What it failed by; remembered, unless the machine, the network or a deadline did it."""
        if self.session.clock.why_late(source.package) or isinstance(error, Transient):
            return error
        if isinstance(error, TimedOut):
            minutes = source.package.build_limits.time / 60
            error = InstallError(
                f"its build was ended after {minutes:,.0f} minutes (build-limits.time)"
            )
        failure = Proof(package=source.package.name, ok=False, reason=error.message)
        self.session.prover.remember(source.key, failure)
        return error

    def _provenance(
        self, source: Unbuilt, built: Built, workshop: Workshop, count: int
    ) -> Provenance:
        return Provenance(
            name=source.locked.name,
            version=source.locked.version,
            source=source.locked.archive.sha256,
            filename=built.wheel.name,
            sha256=sha256_of(built.wheel),
            size=built.wheel.stat().st_size,
            target=source.target,
            device=device_code_of_wheel(built.wheel),
            seconds=round(built.seconds, 1),
            jobs=count,
            memory=built.memory,
            nvcc=workshop.toolkit if source.target.cuda else "",
            when=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )

    def _workshop(self) -> Workshop:
        free = read_volumes({"local": self.session.store.local})[0].free
        keep_free = self.session.order.settings.space.keep_free
        return read_workshop(self.platform.cuda, os.environ, max(0, free - keep_free))

    def _cuda_home(self) -> str:
        nvcc = self.platform.cuda.nvcc
        return str(Path(nvcc.value).parents[1]) if nvcc else ""

    def _includes(self) -> Iterator[str]:
        """Headers that torch's own wheels bring and a bare toolkit lacks: cuBLAS's, cuSPARSE's."""
        yield from filter(None, [os.environ.get("CPATH")])
        for site in self.platform.interpreter.sites:
            yield from map(str, sorted(Path(site).glob("nvidia/cu*/include")))
            yield from map(str, sorted(Path(site).glob("nvidia/*/include")))


def sources(lock: Lock, packages: Iterable[Package], platform: Platform) -> Iterator[Unbuilt]:
    """What the lock has as source only, and is to be compiled against the platform."""
    for package in packages:
        if not package.builds_on_platform:
            continue
        target = target_of(platform, package.build_limits)
        for name in package.names:
            locked = lock.find(name)
            if locked is not None and not locked.archive.is_wheel:
                yield Unbuilt(package=package, locked=locked, target=target)


def with_wheels(lock: Lock, wheels: Mapping[str, Kept]) -> Lock:
    """The lock with built wheels in place of their sources, by name."""
    return replace(
        lock,
        distributions=tuple(
            replace(each, archive=wheels[each.name].archive) if each.name in wheels else each
            for each in lock.distributions
        ),
    )
