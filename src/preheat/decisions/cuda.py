"""What is known of the platform's CUDA, with the settings that overrule it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from preheat.words.cuda import Cuda, Fact
from preheat.words.manifest import StatedCuda


def overridden(cuda: Cuda, stated: StatedCuda, sources: Mapping[str, object]) -> Cuda:
    """The facts, with what is stated in place of what was read.

    Args:
        cuda: as the platform's files tell it.
        stated: the settings below `cuda`; their toolkit is a place and was read there.
        sources: where each setting was stated, by its key.
    """

    def fact(key: str, value: str) -> Fact:
        return Fact(value=value, source=str(sources[f"cuda.{key}"]))

    if stated.driver:
        cuda = replace(cuda, driver=fact("driver", stated.driver))
    if stated.runtime:
        cuda = replace(cuda, runtime=fact("runtime", stated.runtime))
    if stated.cudnn:
        cuda = replace(cuda, cudnn=fact("cudnn", stated.cudnn))
    if stated.nccl:
        cuda = replace(cuda, nccl=fact("nccl", stated.nccl))
    if stated.cxx11_abi is not None:
        cuda = replace(cuda, cxx11_abi=fact("cxx11-abi", str(stated.cxx11_abi).lower()))
    if stated.compute_capability:
        each = tuple(fact("compute-capability", value) for value in stated.compute_capability)
        cuda = replace(cuda, compute_capability=each)
    return cuda
