"""What a startup found, decided, did and proved, as data. Text for people is made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from preheat.words.plan import Shadow

SCHEMA = 1
"""Version of the report's shape; it changes when a key changes its meaning or goes away."""

Status = Literal["platform", "reused", "installed", "skipped", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StandInReport:
    """One distribution of NVIDIA's libraries that no layer holds: the platform's libraries do.

    Attributes:
        version: of the wheel that was left out, or of the platform's distribution.
        place: directory of the platform's libraries, to which links in the layer lead.
        bytes: of the files that are not held once more.
        download: bytes of the archive that is not fetched; 0 where the platform has it installed.
        on_platform: the platform has a distribution of that name; else it was a wheel of the lock.
    """

    name: str
    version: str
    place: str
    bytes: int
    download: int
    on_platform: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageReport:
    """One package: what became of it and why.

    Attributes:
        version: of its first requirement.
        layer: directory that it is imported from.
        bytes_predicted, bytes_actual: on the store's disk, blocks and bytecode included;
            0 where nothing was installed.
        download: bytes of archives that were to be fetched.
        fetched: bytes of those that really came, each whole and by its sha256: less where a killed
            start had left some.
        payload: bytes of its layer's files, without bytecode.
        exact: False where the prediction had to estimate a part.
        stand_ins: what the platform's CUDA libraries stand in for.
        bytes_spared: of all these, what no package before it spares already.
        seconds: by stage: install, compile, prove.
        trace: traceback or the engine's own words, where something failed.
    """

    name: str
    status: Status
    required: bool
    version: str | None = None
    reason: str = ""
    layer: str | None = None
    bytes_predicted: int = 0
    bytes_actual: int = 0
    download: int = 0
    fetched: int = 0
    payload: int = 0
    exact: bool = True
    distributions: tuple[str, ...] = ()
    shadows: tuple[Shadow, ...] = ()
    stand_ins: tuple[StandInReport, ...] = ()
    bytes_spared: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    trace: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class VolumeReport:
    """A filesystem that the start touched: bytes free before and after.

    Attributes:
        kind: filesystem type; empty in a warm start, which does not look.
        quota_known: False where a quota may leave less than is free.
        links: a file of the engine's cache can have a second name there: nothing is copied. None
            in a warm start.
    """

    role: str
    path: str
    before: int
    after: int
    kind: str = ""
    quota_known: bool = True
    links: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StageReport:
    """A stage of the start and what it took.

    What is done for one package after the other (build, install, compile, prove) is summed up over
    the packages; stages overlap, so that their sum may be more than the start took.

    Attributes:
        bytes_predicted, bytes_actual: on the store's disk, where the stage writes layers.
        download, fetched: bytes of archives, planned and come, where the stage fetches them.
    """

    name: str
    seconds: float
    bytes_predicted: int = 0
    bytes_actual: int = 0
    download: int = 0
    fetched: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class FactReport:
    """One fact about the platform's CUDA, and where it was read."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformReport:
    """The platform as it was found.

    Attributes:
        distributions: how many are present.
        leftovers: what killed installs left there, each in a few words.
        protected: name and version of what nothing may replace.
        facts: what is known of its CUDA, each with where it was read.
    """

    python: str
    executable: str
    abi: str
    libc: str
    torch: str | None
    cuda: str | None
    driver: str | None
    gpus: tuple[str, ...]
    distributions: int
    leftovers: tuple[str, ...]
    protected: dict[str, str]
    facts: tuple[FactReport, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One start.

    Attributes:
        schema: version of this shape.
        ready: everything required is ready.
        warm: the short path was taken.
        seconds: of wall time.
        capabilities: name to the package that serves it, or None.
        paths: directories that go on the path, in order.
        started: ISO 8601, UTC.
        store: directory of the layers.
        local: where they are on this machine's own disk, if the store keeps them packed.
        bootstrap: directory that children start with.
        shared: the store's filesystem is one that other machines use too.
    """

    schema: int = SCHEMA
    ready: bool
    warm: bool
    seconds: float
    packages: tuple[PackageReport, ...]
    capabilities: dict[str, str | None]
    paths: tuple[str, ...]
    volumes: tuple[VolumeReport, ...]
    stages: tuple[StageReport, ...] = ()
    platform: PlatformReport | None = None
    started: str = ""
    store: str = ""
    local: str = ""
    bootstrap: str = ""
    shared: bool = False
