"""What the image provides: interpreter, distributions, accelerator, and the disks beneath."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from preheat.words.cuda import Cuda


class RecordState(str, Enum):
    """What the files of an installed distribution say against its RECORD.

    All but the first two count as absent: an installer died there, or its import says so.
    """

    WHOLE = "whole"
    UNVERIFIABLE = "no RECORD"
    INCOMPLETE = "files of RECORD are missing"
    NAMELESS = "no metadata"
    TILDE = "left behind by an interrupted uninstall"
    TRUNCATED = "files differ in size from its RECORD"
    BROKEN = "it does not import"

    @property
    def present(self) -> bool:
        """Whether the distribution counts as installed."""
        return self in (RecordState.WHOLE, RecordState.UNVERIFIABLE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """An installed project as its own metadata tells it.

    Attributes:
        name: canonical (PEP 503).
        version: as written; None where a killed install left no metadata.
        location: directory of the path it was found in.
        metadata: its ``.dist-info`` or ``.egg-info``.
        requires: its ``Requires-Dist``, verbatim.
        extras: canonical names of those that it says it has (``Provides-Extra``).
        state: its files against its RECORD.
        missing: up to five missing files, relative to ``location``.
    """

    name: str
    version: str | None
    location: str
    metadata: str
    requires: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    state: RecordState = RecordState.WHOLE
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpreter:
    """The Python that will import the packages.

    Attributes:
        executable: as given; never resolved through a venv's symlink.
        base_executable: the interpreter that a venv of it would start.
        version: ``3.11.7``.
        full_version: ``sys.version``, compiler and build included.
        abi: ``SOABI``, ``cpython-311-x86_64-linux-gnu``.
        cache_tag: ``cpython-311``.
        libc: ``glibc 2.36`` or ``musl 1.2``.
        path: ``sys.path`` of a fresh start, without the script's own directory.
        sites: those entries that are site directories, in path order.
        markers: the PEP 508 environment of this interpreter.
    """

    executable: str
    base_executable: str
    version: str
    full_version: str
    abi: str
    cache_tag: str
    libc: str
    machine: str
    prefix: str
    path: tuple[str, ...]
    sites: tuple[str, ...]
    markers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One CUDA device. ``compute_capability`` as NVIDIA writes it, ``9.0``; memory in bytes.

    Memory is 0 where a device has none of its own.
    """

    name: str
    compute_capability: str
    memory: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """NVIDIA's driver and the devices it shows. No driver: ``driver`` is None and ``gpus`` empty.

    The warm path (`preheat.pointer`) looks at the same driver by itself, without this value.
    """

    driver: str | None = None
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Torch:
    """The platform's torch: version with its local part, and the CUDA it was built for."""

    version: str
    cuda: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """A filesystem that the work touches.

    Attributes:
        role: ``store``, ``cache`` or ``temp``.
        path: where the role lives, or its nearest existing parent.
        device: ``st_dev``: two roles with one device share one budget.
        kind: filesystem type, ``ext4``, ``tmpfs``, ``fuse.mfsmount``.
        block: allocation unit in bytes.
        directory: bytes that an empty directory occupies.
        free, inodes: what an unprivileged writer may still take; ``inodes`` is None where the
            filesystem has no fixed number.
        quota_known: False where free may be a pool that a quota cuts short (network volumes).
        links: a file of the engine's cache can have a second name there (a hardlink).
    """

    role: str
    path: str
    device: int
    kind: str
    block: int
    directory: int
    free: int
    inodes: int | None
    quota_known: bool = True
    links: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Platform:
    """Everything the image provides, read without importing any of it."""

    interpreter: Interpreter
    distributions: tuple[Distribution, ...]
    accelerator: Accelerator
    torch: Torch | None
    cuda: Cuda = field(default_factory=Cuda)

    def find(self, name: str) -> Distribution | None:
        """The distribution of that canonical name that an import would see, if it is present."""
        for distribution in self.distributions:
            if distribution.name == name and distribution.state.present:
                return distribution
        return None

    def without(self, names: Iterable[str], state: RecordState) -> Platform:
        """A platform on which those distributions are marked as not present."""
        marked = frozenset(names)
        return replace(
            self,
            distributions=tuple(
                replace(each, state=state) if each.name in marked and each.state.present else each
                for each in self.distributions
            ),
        )

    @property
    def leftovers(self) -> tuple[Distribution, ...]:
        """What killed installs left: named in the report, counted as absent."""
        return tuple(d for d in self.distributions if not d.state.present)
