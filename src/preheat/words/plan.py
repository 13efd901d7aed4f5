"""What will be done for each package of the manifest, and what it costs on which disk."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

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
class Step:
    """The plan for one package.

    Attributes:
        reason: why this action, in a sentence.
        version: of the package's first requirement, where it is known.
        layer: digest of the layer that holds it; empty where none does.
        distributions: what the layer holds.
        download: bytes of archives to fetch.
        payload: bytes of files, without bytecode.
        disk: bytes on the volume of the layers, blocks and every module's bytecode included; 0
            where the layer is there already, and not packed.
        inodes: files and directories.
        files, directories: those that the archives bring.
        exact: False where an archive's contents had to be estimated.
        bytecode: which modules' the layer holds: those ``imported``, ``all`` or ``none``.
        shadows: platform distributions that the layer hides.
        over: digests of the layers beneath, in order.
        wanted: False where the package's condition does not hold.
        stand_ins: NVIDIA's libraries that the package needs and the layer does not hold.
        links: what the layer holds in their places.
        spared: bytes of files that no layer holds because of that, each counted once in a plan.
        failed: what its layer would hold, where it is skipped since that failed before.
    """

    package: Package
    action: Action
    reason: str
    version: str | None = None
    layer: str = ""
    distributions: tuple[Locked, ...] = ()
    download: int = 0
    payload: int = 0
    disk: int = 0
    inodes: int = 0
    files: int = 0
    directories: int = 0
    exact: bool = True
    bytecode: str = "all"
    shadows: tuple[Shadow, ...] = ()
    over: tuple[str, ...] = ()
    wanted: bool = True
    stand_ins: tuple[StandIn, ...] = ()
    links: tuple[Link, ...] = ()
    spared: int = 0
    failed: tuple[Locked, ...] = ()

    @classmethod
    def skip(cls, package: Package, reason: str, *, wanted: bool = True) -> Step:
        """The package is left out, and nothing is looked up or made for it."""
        return cls(package=package, action=Action.SKIP, reason=reason, wanted=wanted)

    @classmethod
    def provided(cls, package: Package, reason: str, version: str | None) -> Step:
        """The platform has the package."""
        return cls(package=package, action=Action.PLATFORM, reason=reason, version=version)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the stand-ins that could be installed instead."""
        return tuple(each.name for each in self.stand_ins if each.wheel is not None)

    @property
    def short(self) -> bool:
        """Whether it is skipped for want of room."""
        return self.action is Action.SKIP and self.disk > 0


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
