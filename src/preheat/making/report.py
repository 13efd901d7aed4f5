"""The account of a startup: outcomes as a report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from preheat.decisions.compose import Composition
from preheat.decisions.protect import protected
from preheat.edges.disk.volumes import read_volumes
from preheat.edges.store.store import Store
from preheat.planning.session import Session
from preheat.planning.state import State
from preheat.words.layer import LayerPath
from preheat.words.outcome import Outcome
from preheat.words.platform import Platform, Volume
from preheat.words.report import (
    FactReport,
    PackageReport,
    PlatformReport,
    Report,
    StageReport,
    StandInReport,
    VolumeReport,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Active:
    """What goes on the path in the end."""

    layers: tuple[LayerPath, ...] = ()
    bootstrap: str = ""


@dataclass(frozen=True, kw_only=True)
class Account:
    """Everything that a report is made of."""

    session: Session
    state: State
    outcomes: Sequence[Outcome]
    active: Active

    def report(self) -> Report:
        """The report, as of now."""
        clock, store = self.session.clock, self.session.store
        volumes = self.state.room.volumes
        return Report(
            ready=all(o.good for o in self.outcomes if o.required),
            warm=False,
            seconds=round(clock.seconds, 3),
            packages=tuple(_package(outcome, store) for outcome in self.outcomes),
            capabilities=self._capabilities(),
            paths=tuple(layer.path for layer in self.active.layers),
            volumes=_volumes(volumes),
            stages=(*clock.stages, *_by_package(self.outcomes)),
            platform=_platform(self.state.platform, self.session.order.settings.protected),
            started=clock.started,
            store=str(store.root),
            bootstrap=self.active.bootstrap,
            local=str(store.local) if store.packed else "",
            shared=any(v.role == "store" and not v.quota_known for v in volumes),
        )

    def _capabilities(self) -> dict[str, str | None]:
        """The first of each capability's packages that works; other names are the platform's."""
        good = {o.step.package.name: o.good for o in self.outcomes}

        def works(name: str) -> bool:
            return good[name] if name in good else self.state.platform.find(name) is not None

        return {
            capability: next(filter(works, names), None)
            for capability, names in self.session.order.manifest.capabilities.items()
        }


def shadowed_modules(outcomes: Iterable[Outcome], composition: Composition) -> tuple[str, ...]:
    """Import names of platform distributions that a layer hides."""
    names: set[str] = set()
    for outcome in outcomes:
        if outcome.status not in ("reused", "installed"):
            continue
        for shadow in outcome.step.shadows:
            names |= {
                path.split("/")[0].removesuffix(".py")
                for path, _ in composition.contents[shadow.name].files
                if path.endswith(".py") and path.count("/") <= 1
            }
    return tuple(sorted(name for name in names if name.isidentifier()))


def linked_libraries(outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    """The platform's libraries that links in the layers of what works lead to."""
    good = (outcome.step for outcome in outcomes if outcome.good)
    return tuple(sorted({link.target for step in good for link in step.links}))


def history_line(report: Report, when: float) -> dict[str, object]:
    """What is remembered of a startup for ever."""
    return {
        "started": round(when, 3),
        "warm": report.warm,
        "ready": report.ready,
        "packages": {package.name: package.status for package in report.packages},
        "seconds": report.seconds,
        "bytes": sum(package.bytes_actual for package in report.packages),
    }


def _by_package(outcomes: Sequence[Outcome]) -> Iterator[StageReport]:
    """What was done for one package after the other, each stage summed up."""
    for name in dict.fromkeys(stage for each in outcomes for stage in each.seconds):
        done = [each for each in outcomes if name in each.seconds]
        writes = name == "install"
        yield StageReport(
            name=name,
            seconds=round(sum(each.seconds[name] for each in done), 3),
            bytes_predicted=sum(each.step.disk for each in done) if writes else 0,
            bytes_actual=sum(each.actual for each in done) if writes else 0,
            download=sum(each.step.download for each in done) if writes else 0,
            fetched=sum(each.fetched for each in done) if writes else 0,
        )


def _package(outcome: Outcome, store: Store) -> PackageReport:
    step = outcome.step
    in_layer = outcome.status in ("reused", "installed") and step.layer
    return PackageReport(
        name=step.package.name,
        status=outcome.status,
        required=outcome.required,
        version=step.version,
        reason=outcome.reason,
        layer=str(store.layer(step.layer)) if in_layer else None,
        bytes_predicted=step.disk,
        bytes_actual=outcome.actual,
        download=step.download,
        fetched=outcome.fetched,
        payload=step.payload,
        exact=step.exact,
        distributions=tuple(f"{d.name}=={d.version}" for d in step.distributions),
        shadows=step.shadows,
        stand_ins=tuple(
            StandInReport(
                name=each.name,
                version=each.version,
                place=each.place,
                bytes=each.size,
                download=(each.wheel.archive.size or 0) if each.wheel else 0,
                on_platform=each.wheel is None,
            )
            for each in step.stand_ins
        ),
        bytes_spared=step.spared,
        seconds=outcome.seconds,
        trace=outcome.trace,
    )


def _volumes(volumes: Sequence[Volume]) -> tuple[VolumeReport, ...]:
    after = read_volumes({volume.role: volume.path for volume in volumes})
    return tuple(
        VolumeReport(
            role=one.role,
            path=one.path,
            kind=one.kind,
            before=one.free,
            after=two.free,
            quota_known=one.quota_known,
            links=one.links,
        )
        for one, two in zip(volumes, after, strict=True)
    )


def _platform(platform: Platform, protect: tuple[str, ...]) -> PlatformReport:
    interpreter = platform.interpreter
    return PlatformReport(
        python=interpreter.version,
        executable=interpreter.executable,
        abi=interpreter.abi,
        libc=interpreter.libc,
        torch=platform.torch.version if platform.torch else None,
        cuda=platform.torch.cuda if platform.torch else None,
        driver=platform.accelerator.driver,
        gpus=tuple(f"{g.name} ({g.compute_capability})" for g in platform.accelerator.gpus),
        distributions=sum(d.state.present for d in platform.distributions),
        leftovers=tuple(
            f"{left.name}: {left.state.value}" + (f" ({left.missing[0]})" if left.missing else "")
            for left in platform.leftovers
        ),
        protected=protected(platform, protect),
        facts=tuple(
            FactReport(name=name, value=fact.value, source=fact.source)
            for name, fact in platform.cuda.rows()
        ),
    )
