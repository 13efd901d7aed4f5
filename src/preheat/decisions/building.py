"""Whether a wheel fits a platform, and whether a build may begin there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from packaging.version import InvalidVersion, Version

from preheat.words.building import DeviceCode, Estimate, Provenance, Target, Workshop
from preheat.words.cuda import Fact
from preheat.words.manifest import BuildLimits
from preheat.words.platform import Platform
from preheat.words.quantities import in_gb

_LIBC = re.compile(r"(\w+) (\d+)\.(\d+)")
_CUDA_LABEL = re.compile(r"cu(\d{3}|\d{2})(?!\d)")
_TORCH_LABEL = re.compile(r"(?:torch|pt)(\d)\.?(\d+)")
_ABI_LABEL = re.compile(r"cxx11abi(true|false)")


def target_of(platform: Platform, limits: BuildLimits) -> Target:
    """What a wheel that is compiled against this platform must match."""
    torch = platform.torch.version if platform.torch else ""
    cuda = platform.cuda
    return Target(
        abi=platform.interpreter.abi,
        libc=platform.interpreter.libc,
        torch=".".join(torch.split("+")[0].split(".")[:2]),
        cuda=_value(cuda.runtime).split(".")[0] if limits.cuda else "",
        cxx11_abi=_value(cuda.cxx11_abi),
        capabilities=tuple(sorted({each.value for each in cuda.compute_capability}))
        if limits.cuda
        else (),
    )


def unfit(provenance: Provenance, target: Target) -> str | None:
    """The sentence that says why a built wheel is not for that target; None where it is."""
    built = provenance.target
    for what, its, wanted in (
        ("Python ABI", built.abi, target.abi),
        ("torch", built.torch, target.torch),
        ("CUDA", built.cuda, target.cuda),
        ("C++11 ABI", built.cxx11_abi, target.cxx11_abi),
    ):
        if its != wanted:
            return f"was built for {what} {its or 'none'}, and {wanted or 'none'} is here"
    if not _libc_runs(built.libc, target.libc):
        return f"was built on {built.libc}, and {target.libc} is here"
    return lacking(provenance.device, target.capabilities)


def lacking(device: DeviceCode, capabilities: Iterable[str]) -> str | None:
    """The sentence that names a GPU that the compiled code does not run on; None if it runs.

    Machine code runs on devices of the same major capability and at least its minor one, PTX on
    any later device (CUDA C++ Programming Guide, "Binary Compatibility" and "PTX Compatibility").
    """
    if not device.cubins and not device.ptx:
        return None
    for capability in capabilities:
        major, minor = (int(part) for part in capability.split(".")[:2])
        wanted = major * 10 + minor
        runs = any(code // 10 == major and code <= wanted for code in device.cubins)
        if not runs and not any(code <= wanted for code in device.ptx):
            have = ", ".join(f"sm_{code}" for code in sorted(device.cubins)) or "PTX of a later one"
            return f"is compiled for {have} alone, and compute capability {capability} is here"
    return None


def label_refusal(version: str, target: Target) -> str | None:
    """Why a ready wheel's local version says that it is for another platform; None if it may do.

    Upstream projects name what a wheel was compiled for in its local version
    (``2.8.3+cu13torch2.11cxx11abiTRUE``, ``0.0.33+pt211cu130``): PyPI's tags cannot say it.
    """
    try:
        label = Version(version).local or ""
    except InvalidVersion:
        return f"{version} is no version"
    cuda, torch, abi = (each.search(label) for each in (_CUDA_LABEL, _TORCH_LABEL, _ABI_LABEL))
    if cuda and cuda[1][:2] != target.cuda:
        return f"is for CUDA {cuda[1][:2]}, and torch brings {target.cuda or 'none'}"
    if torch and f"{torch[1]}.{torch[2]}" != target.torch:
        return f"is for torch {torch[1]}.{torch[2]}, and {target.torch or 'none'} is here"
    if abi and target.cxx11_abi and abi[1] != target.cxx11_abi:
        return f"is for C++11 ABI {abi[1]}, and torch was compiled with {target.cxx11_abi}"
    return None


def wheel_name(name: str, version: str, target: Target, tags: tuple[str, str]) -> str:
    """How upstream would name its ready wheel for this platform.

    Args:
        name: of the distribution.
        version: of the source distribution.
        target: what it has to match.
        tags: interpreter and machine, ``cp312`` and ``x86_64``.
    """
    python, machine = tags
    abi = f"cxx11abi{target.cxx11_abi.upper()}" if target.cxx11_abi else ""
    label = f"cu{target.cuda}torch{target.torch}{abi}"
    stem = name.replace("-", "_")
    return f"{stem}-{version}+{label}-{python}-{python}-linux_{machine}.whl"


def jobs(workshop: Workshop, limits: BuildLimits) -> int:
    """How many compilers may run at once: as many as there is memory for, and processors."""
    return max(1, min(workshop.processors, workshop.memory // max(1, limits.memory)))


def estimate(workshop: Workshop, limits: BuildLimits, target: Target, wheel: str) -> Estimate:
    """What a build will take here."""
    at_once = jobs(workshop, limits)
    return Estimate(
        jobs=at_once,
        memory=at_once * limits.memory,
        disk=limits.disk,
        seconds=_seconds(workshop, limits, target),
        wheel=wheel,
    )


def refusal(
    workshop: Workshop, limits: BuildLimits, target: Target, left: float | None
) -> str | None:
    """The sentence that says what is missing for a build; None where it may begin.

    Args:
        workshop: what this machine has.
        limits: what the manifest allows, and says that it takes.
        target: what is to be built for.
        left: seconds until the start's deadline; None where there is none.
    """
    missing = next(_missing(workshop, limits, target), None)
    if missing:
        return missing
    expected = _seconds(workshop, limits, target)
    budget = limits.time if left is None else min(limits.time, left)
    if expected is not None and expected > budget:
        return (
            f"the build takes about {expected / 60:,.0f} minutes with {jobs(workshop, limits)} "
            f"jobs, and {budget / 60:,.0f} are allowed (build-limits.time, deadline)"
        )
    return None


def _seconds(workshop: Workshop, limits: BuildLimits, target: Target) -> float | None:
    """Of wall time; each architecture is compiled by itself."""
    if limits.cpu_time is None:
        return None
    return limits.cpu_time * max(1, len(target.capabilities)) / jobs(workshop, limits)


def _missing(workshop: Workshop, limits: BuildLimits, target: Target) -> Iterator[str]:
    if not workshop.compiler:
        yield "a build needs a C++ compiler, and none is on PATH"
    if limits.cuda and target.cuda:
        if not workshop.nvcc:
            yield f"a build needs nvcc of CUDA {target.cuda}, and there is no CUDA toolkit"
        elif workshop.toolkit.split(".")[0] != target.cuda:
            yield (
                f"a build needs nvcc of CUDA {target.cuda}, as torch has, and "
                f"{workshop.nvcc} is of {workshop.toolkit or 'an unknown version'}"
            )
        if not target.capabilities:
            yield (
                "a build needs to know which GPU it is for, and none is here: state "
                "cuda.compute-capability"
            )
    if workshop.memory < limits.memory:
        yield (
            f"a build needs {in_gb(limits.memory)} of memory for each job, and "
            f"{in_gb(workshop.memory)} are available"
        )
    if workshop.free < limits.disk:
        yield f"a build needs {in_gb(limits.disk)} of disk, and {in_gb(workshop.free)} can be taken"


def environment(
    target: Target, count: int, cuda_home: str, includes: Iterable[str]
) -> dict[str, str]:
    """What a build is told, in the variables that builds against torch and CUDA read.

    MAX_JOBS and TORCH_CUDA_ARCH_LIST are torch.utils.cpp_extension's, FLASH_ATTN_CUDA_ARCHS and
    FLASH_ATTENTION_FORCE_BUILD flash-attn's: without the last it downloads a wheel from a place
    that is no configured index.
    """
    told = {"MAX_JOBS": str(count), "NVCC_THREADS": "1", "FLASH_ATTENTION_FORCE_BUILD": "TRUE"}
    if target.capabilities:
        told["TORCH_CUDA_ARCH_LIST"] = ";".join(target.capabilities)
        told["FLASH_ATTN_CUDA_ARCHS"] = ";".join(
            each.replace(".", "") for each in target.capabilities
        )
    if cuda_home:
        told["CUDA_HOME"] = cuda_home
    if paths := list(includes):
        told["CPATH"] = ":".join(paths)
    return told


def _libc_runs(built: str, here: str) -> bool:
    one, other = _LIBC.fullmatch(built), _LIBC.fullmatch(here)
    if not one or not other:
        return built == here
    return one[1] == other[1] and (int(one[2]), int(one[3])) <= (int(other[2]), int(other[3]))


def _value(fact: Fact | None) -> str:
    return fact.value if fact else ""
