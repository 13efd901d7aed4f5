"""What the platform has of CUDA, each fact with the place that it was read from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """A value, and where it was read: a file, a distribution, the driver, or a setting."""

    value: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cuda:
    """NVIDIA's software on this platform; None where nothing tells.

    Attributes:
        driver: its version, ``580.159.04``.
        driver_cuda: the newest CUDA that the driver can do, ``13.0``.
        runtime: the CUDA that torch was built for and brings, ``13.0``.
        toolkit: the CUDA of the toolkit that would compile, ``13.0``.
        nvcc: path of its compiler.
        cudnn: version of the cuDNN that torch loads, ``9.19.0.56``.
        nccl: version of the NCCL that torch loads, ``2.28.9``.
        cxx11_abi: ``true`` where torch was compiled with libstdc++'s newer strings, else
            ``false``: extensions have to be compiled alike.
        compute_capability: of each GPU, ``9.0``.
    """

    driver: Fact | None = None
    driver_cuda: Fact | None = None
    runtime: Fact | None = None
    toolkit: Fact | None = None
    nvcc: Fact | None = None
    cudnn: Fact | None = None
    nccl: Fact | None = None
    cxx11_abi: Fact | None = None
    compute_capability: tuple[Fact, ...] = ()

    def rows(self) -> tuple[tuple[str, Fact], ...]:
        """Every fact that is known, by name."""
        known = [
            ("driver", self.driver),
            ("driver-cuda", self.driver_cuda),
            ("runtime", self.runtime),
            ("toolkit", self.toolkit),
            ("nvcc", self.nvcc),
            ("cudnn", self.cudnn),
            ("nccl", self.nccl),
            ("cxx11-abi", self.cxx11_abi),
            *(("compute-capability", each) for each in self.compute_capability),
        ]
        return tuple((name, fact) for name, fact in known if fact is not None)
