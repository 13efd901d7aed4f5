"""Wheels that are built for a platform: what they must match, and how they came to be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a compiled wheel must match.

    Attributes:
        abi: of the interpreter, ``cpython-311-x86_64-linux-gnu``.
        libc: ``glibc 2.36``: what was built on an older one runs on a newer one.
        torch: its major and minor version, ``2.13``; empty where the platform has none.
        cuda: the major version of the CUDA that torch brings, ``13``; empty for none.
        cxx11_abi: ``true`` or ``false``; empty where it is not known.
        capabilities: compute capabilities to compile for, ``9.0``.
    """

    abi: str
    libc: str
    torch: str = ""
    cuda: str = ""
    cxx11_abi: str = ""
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceCode:
    """What a library holds for GPUs, by compute capability times ten: 90 is 9.0.

    Attributes:
        cubins: machine code, which runs on later devices of the same major capability.
        ptx: code that the driver compiles for any later device.
    """

    cubins: frozenset[int] = frozenset()
    ptx: frozenset[int] = frozenset()

    def __or__(self, other: DeviceCode) -> DeviceCode:
        return DeviceCode(cubins=self.cubins | other.cubins, ptx=self.ptx | other.ptx)


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """How a wheel in the store was built.

    Attributes:
        source: sha256 of the source distribution.
        filename, sha256, size: of the wheel.
        device: what was found compiled in.
        seconds: of wall time.
        jobs: how many compilers at once it was told to run.
        memory: most bytes that were resident at once.
        nvcc: the toolkit's CUDA; empty where none was needed.
        when: ISO 8601, UTC.
    """

    name: str
    version: str
    source: str
    filename: str
    sha256: str
    size: int
    target: Target
    device: DeviceCode
    seconds: float
    jobs: int
    memory: int
    nvcc: str
    when: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Workshop:
    """What this machine has to build with.

    Attributes:
        processors: that this process may use.
        memory: bytes that may still be taken, by what the kernel and the container allow.
        free: bytes that may be taken on the disk where builds go on, the reserve left out.
        compiler: path of the C++ compiler; empty where there is none.
        nvcc: path of CUDA's; empty where there is none.
        toolkit: the CUDA that it is of, ``13.0``; empty where it is not known.
    """

    processors: int
    memory: int
    free: int
    compiler: str
    nvcc: str
    toolkit: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a build will take, before it begins.

    Attributes:
        jobs: compilers at once.
        memory: bytes that they take together.
        disk: bytes.
        seconds: of wall time; None where the manifest does not say what it takes.
        wheel: name of the wheel that upstream would have for this platform.
    """

    jobs: int
    memory: int
    disk: int
    seconds: float | None
    wheel: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What became of one wheel that was to be built ahead of the startup.

    Attributes:
        package: of the manifest.
        status: ``kept`` (the store had it), ``built``, ``refused`` or ``failed``.
        reason: why, where it is not there.
        expected: what was expected of the build.
        provenance: of the wheel, where it is there.
    """

    package: str
    name: str
    version: str
    status: str
    expected: Estimate
    reason: str = ""
    provenance: Provenance | None = None

    @property
    def ready(self) -> bool:
        """Whether the store has the wheel."""
        return self.provenance is not None
