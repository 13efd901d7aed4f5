"""Platforms as detection describes them, made up: values, with nothing behind them."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from preheat.words.cuda import Cuda
from preheat.words.platform import Accelerator, Distribution, Interpreter, Platform, Torch

_NO_ACCELERATOR = Accelerator()
_NO_CUDA = Cuda()


def interpreter(version: str = "3.11.7") -> Interpreter:
    """CPython of that version on Linux, x86-64, with glibc."""
    minor = ".".join(version.split(".")[:2])
    tag = f"cpython-{minor.replace('.', '')}"
    return Interpreter(
        executable=sys.executable,
        base_executable=sys.executable,
        version=version,
        full_version=version,
        abi=f"{tag}-x86_64-linux-gnu",
        cache_tag=tag,
        libc="glibc 2.36",
        machine="x86_64",
        prefix="/opt/platform",
        path=(),
        sites=(),
        markers={
            "implementation_name": "cpython",
            "implementation_version": version,
            "os_name": "posix",
            "platform_machine": "x86_64",
            "platform_python_implementation": "CPython",
            "platform_release": "6.1.0",
            "platform_system": "Linux",
            "platform_version": "#1 SMP",
            "python_full_version": version,
            "python_version": minor,
            "sys_platform": "linux",
        },
    )


def distribution(name: str, version: str, requires: Iterable[str] = ()) -> Distribution:
    """One that the platform provides."""
    return Distribution(
        name=name,
        version=version,
        location="/opt/platform",
        metadata=f"/opt/platform/{name}.dist-info",
        requires=tuple(requires),
    )


def platform(
    *distributions: tuple[str, str] | Distribution,
    torch: Torch | str | None = None,
    accelerator: Accelerator = _NO_ACCELERATOR,
    cuda: Cuda = _NO_CUDA,
) -> Platform:
    """A platform of CPython 3.11 that provides these names and versions.

    Args:
        distributions: what it provides.
        torch: what its torch says of itself; a version alone is that of one without CUDA.
        accelerator: what its computation may run on.
        cuda: what is known of its CUDA.
    """
    return Platform(
        interpreter=interpreter(),
        distributions=tuple(
            each if isinstance(each, Distribution) else distribution(*each)
            for each in distributions
        ),
        accelerator=accelerator,
        torch=Torch(version=torch, cuda=None) if isinstance(torch, str) else torch,
        cuda=cuda,
    )
