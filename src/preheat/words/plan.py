"""What will be done for each package of the manifest, and what it costs on which disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from preheat.words.footprint import Footprint
from preheat.words.lock import Locked
from preheat.words.manifest import Package
from preheat.words.stand_in import Link, StandIn


class Action(str, Enum):
    """What a plan does about a package."""

    PLATFORM = "platform"
    REUSE = "reuse"
    INSTALL = "install"
    SKIP = "skip"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What was proved about a package over ordered layers on one platform.

    Attributes:
        ok: every promised import and the check passed.
        reason: the sentence, where it did not.
        seconds: how long the proof took.
        expires: unix time after which a failure is tried again; 0 for never.
    """

    key: str
    package: str
    ok: bool
    reason: str = ""
    seconds: float = 0.0
    expires: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Shadow:
    """A distribution of the platform that a layer hides, in both versions.

    Attributes:
        needed_by: packages of the manifest that cannot do with the platform's version.
    """

    name: str
    platform_version: str
    layer_version: str
    needed_by: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.name} {self.layer_version} over the platform's {self.platform_version}"
        return f"{text} (needed by {', '.join(self.needed_by)})" if self.needed_by else text


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedLayer:
    """A layer as it is composed for one package, whether it is there already or not.

    Attributes:
        digest: its name; empty where there is no layer.
        distributions: what it holds.
        links: what it holds in place of libraries that the platform has.
        stand_ins: NVIDIA's libraries that the package needs and the layer does not hold.
        shadows: platform distributions that it hides.
        over: digests of the layers beneath it, in order.
        bytecode: which modules' it holds: those ``imported``, ``all`` or ``none``.
    """

    digest: str = ""
    distributions: tuple[Locked, ...] = ()
    links: tuple[Link, ...] = ()
    stand_ins: tuple[StandIn, ...] = ()
    shadows: tuple[Shadow, ...] = ()
    over: tuple[str, ...] = ()
    bytecode: str = "all"


NO_LAYER = PlannedLayer()
NOTHING = Footprint()


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """The plan for one package.

    Attributes:
        reason: why this action, in a sentence.
        version: of the package's first requirement, where it is known.
        content: the layer that the package is imported from, if it is from one.
        footprint: what the step adds to the volume of the layers. Of a layer that is there only
            the payload counts; of one that is to be unpacked, no archives. Of a package that is
            skipped for want of room, what was wanted.
        download: bytes of archives to fetch.
        spared: bytes of files that no layer holds, since the platform has the same libraries; each
            counts once in a plan.
        wanted: False where the package's condition does not hold.
        failed: what its layer would hold, where it is skipped since that failed before.
    """

    package: Package
    action: Action
    reason: str
    version: str | None = None
    content: PlannedLayer = NO_LAYER
    footprint: Footprint = NOTHING
    download: int = 0
    spared: int = 0
    wanted: bool = True
    failed: tuple[Locked, ...] = ()

    @classmethod
    def skip(
        cls, package: Package, reason: str, *, version: str | None = None, wanted: bool = True
    ) -> Step:
        """The package is left out, and nothing is made for it."""
        return cls(
            package=package, action=Action.SKIP, reason=reason, version=version, wanted=wanted
        )

    @classmethod
    def provided(cls, package: Package, reason: str, version: str | None) -> Step:
        """The platform has the package."""
        return cls(package=package, action=Action.PLATFORM, reason=reason, version=version)

    def short_of_room(self, reason: str) -> Step:
        """The package is left out, since what this step takes does not fit."""
        lacking = Footprint(disk=self.disk, exact=self.exact)
        return replace(Step.skip(self.package, reason, version=self.version), footprint=lacking)

    @property
    def short(self) -> bool:
        """Whether it is skipped for want of room."""
        return self.action is Action.SKIP and self.disk > 0

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the stand-ins that could be installed instead."""
        return tuple(each.name for each in self.stand_ins if each.wheel is not None)

    # Of its layer

    @property
    def layer(self) -> str:
        """The layer's digest; empty where there is none."""
        return self.content.digest

    @property
    def distributions(self) -> tuple[Locked, ...]:
        """What the layer holds."""
        return self.content.distributions

    @property
    def links(self) -> tuple[Link, ...]:
        """What it holds in place of the platform's libraries."""
        return self.content.links

    @property
    def stand_ins(self) -> tuple[StandIn, ...]:
        """What the package needs and the layer does not hold."""
        return self.content.stand_ins

    @property
    def shadows(self) -> tuple[Shadow, ...]:
        """Platform distributions that the layer hides."""
        return self.content.shadows

    @property
    def over(self) -> tuple[str, ...]:
        """Digests of the layers beneath, in order."""
        return self.content.over

    @property
    def bytecode(self) -> str:
        """Which modules' the layer holds: those ``imported``, ``all`` or ``none``."""
        return self.content.bytecode

    # Of its footprint

    @property
    def payload(self) -> int:
        """Bytes of files, without bytecode."""
        return self.footprint.payload

    @property
    def disk(self) -> int:
        """Bytes on the volume of the layers, blocks and bytecode included."""
        return self.footprint.disk

    @property
    def exact(self) -> bool:
        """False where an archive's contents had to be estimated."""
        return self.footprint.exact


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """What the plan takes from one volume, against what the volume can give.

    Attributes:
        role: the roles that share it, ``store, cache``.
        bytes, inodes: needed.
        free: bytes free now.
        reserve: bytes that must stay free.
        kind: filesystem type.
        quota_known: False where a quota may cut ``free`` short.
    """

    role: str
    path: str
    bytes: int
    inodes: int
    free: int
    reserve: int
    kind: str
    quota_known: bool

    @property
    def fits(self) -> bool:
        """Whether it can be finished with the reserve untouched."""
        return self.bytes == 0 or self.bytes <= self.free - self.reserve


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """For every package, in order of importance, what will be done; and the room it takes.

    Attributes:
        links: files are linked from the engine's cache into layers; else they are copied.
    """

    steps: tuple[Step, ...]
    needs: tuple[Need, ...]
    links: bool = True

    @property
    def ready(self) -> bool:
        """Whether every required package would be there."""
        return all(
            step.action is not Action.SKIP
            for step in self.steps
            if step.package.required and step.wanted
        )
