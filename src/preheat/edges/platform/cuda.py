"""CUDA as the platform's files tell it: torch's, the wheels', and the toolkit's.

Nothing is imported, and no process is started. The toolkit is looked for where torch's own builds
look for it (torch.utils.cpp_extension): CUDA_HOME, CUDA_PATH, the nvcc on PATH, /usr/local/cuda.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from preheat.words.cuda import Cuda, Fact
from preheat.words.platform import Platform

NVML = "the driver (NVML)"

_USUAL_TOOLKIT = Path("/usr/local/cuda")
_INCLUDES = ("/usr/include", "/usr/include/x86_64-linux-gnu", "/usr/include/aarch64-linux-gnu")
# c10::Error's constructor takes a std::string: its mangled name tells which one
# (https://gcc.gnu.org/onlinedocs/libstdc++/manual/using_dual_abi.html).
_TAKES_A_STRING = rb"_ZN3c105ErrorC[12]ENS_14SourceLocationE(NSt7__cxx11|Ss)"


def read_cuda(platform: Platform, environ: Mapping[str, str], toolkit: str | None = None) -> Cuda:
    """Everything that is told without torch being imported.

    Args:
        platform: with its driver, torch and distributions.
        environ: whose CUDA_HOME, CUDA_PATH and PATH count.
        toolkit: a toolkit's directory that was stated; the others are not looked for then.
    """
    home, nvcc = _toolkit(environ, toolkit)
    includes = [*([home / "include"] if home else []), *map(Path, _INCLUDES)]
    torch = next(filter(Path.is_dir, (Path(p, "torch") for p in platform.interpreter.path)), None)
    return Cuda(
        driver=_told(platform.accelerator.driver, NVML),
        driver_cuda=_told(platform.accelerator.cuda, NVML),
        runtime=_told(
            platform.torch.cuda if platform.torch else None, str(Path(torch or "", "version.py"))
        ),
        toolkit=_version_of(home) if home else None,
        nvcc=nvcc,
        cudnn=_wheel(platform, "cudnn")
        or _header(includes, "cudnn_version.h", ("CUDNN_MAJOR", "CUDNN_MINOR", "CUDNN_PATCHLEVEL")),
        nccl=_wheel(platform, "nccl")
        or _header(includes, "nccl.h", ("NCCL_MAJOR", "NCCL_MINOR", "NCCL_PATCH")),
        cxx11_abi=_abi(torch) if torch else None,
        compute_capability=tuple(
            Fact(value=gpu.compute_capability, source=f"{NVML}: {gpu.name}")
            for gpu in platform.accelerator.gpus
        ),
    )


def _told(value: str | None, source: str) -> Fact | None:
    return Fact(value=value, source=source) if value else None


def _wheel(platform: Platform, library: str) -> Fact | None:
    """The version of NVIDIA's wheel of that library, torch's own if there are several."""
    named = re.compile(rf"nvidia-{library}(-cu\d+)?")
    torch = platform.find("torch")
    wanted = " ".join(torch.requires).lower() if torch else ""
    found = [d for d in platform.distributions if d.state.present and named.fullmatch(d.name)]
    found.sort(key=lambda each: each.name not in wanted)
    return next((_told(d.version, f"{d.name} in {d.location}") for d in found), None)


def _toolkit(environ: Mapping[str, str], stated: str | None) -> tuple[Path | None, Fact | None]:
    """The toolkit's directory, and its compiler."""
    for home, source in _homes(environ, stated):
        nvcc = home / "bin" / "nvcc"
        if os.access(nvcc, os.X_OK):
            return home, Fact(value=str(nvcc), source=source)
    return None, None


def _homes(environ: Mapping[str, str], stated: str | None) -> Iterator[tuple[Path, str]]:
    if stated:
        yield Path(stated), "cuda.toolkit"
        return
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if environ.get(variable):
            yield Path(environ[variable]), variable
    on_path = shutil.which("nvcc", path=environ.get("PATH", os.defpath))
    # A script that stands for nvcc lies in no toolkit: there are no headers beside it.
    if on_path and _has_headers(Path(on_path).resolve().parents[1]):
        yield Path(on_path).resolve().parents[1], "PATH"
    yield _USUAL_TOOLKIT, str(_USUAL_TOOLKIT)


def _has_headers(home: Path) -> bool:
    return (home / "include" / "cuda_runtime_api.h").is_file()


def _version_of(home: Path) -> Fact | None:
    """Of a toolkit, by the file that its installer writes, or by its headers."""
    listing = home / "version.json"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        version = json.loads(listing.read_text(encoding="utf-8"))["cuda"]["version"]
        return Fact(value=str(version), source=str(listing))
    header = home / "include" / "cuda.h"
    number = _definitions(header, ["CUDA_VERSION"]).get("CUDA_VERSION")
    if number is None:
        return None
    # CUDA_VERSION is 1000 times the major and 10 times the minor number (cuda.h).
    return Fact(value=f"{int(number) // 1000}.{int(number) % 1000 // 10}", source=str(header))


def _header(includes: Iterable[Path], name: str, numbers: tuple[str, ...]) -> Fact | None:
    for include in includes:
        found = _definitions(include / name, numbers)
        if len(found) == len(numbers):
            value = ".".join(found[number] for number in numbers)
            return Fact(value=value, source=str(include / name))
    return None


def _definitions(header: Path, names: Iterable[str]) -> dict[str, str]:
    """The whole numbers that a C header defines under these names."""
    try:
        text = header.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    found = {name: re.search(rf"^#define\s+{name}\s+(\d+)\b", text, re.M) for name in names}
    return {name: match[1] for name, match in found.items() if match}


def _abi(torch: Path) -> Fact | None:
    """Which of libstdc++'s two kinds of string torch was compiled with.

    Builds up to 2.6 say so in their CMake file; of the others the library itself is asked.
    """
    cmake = torch / "share" / "cmake" / "Torch" / "TorchConfig.cmake"
    with contextlib.suppress(OSError):
        stated = re.search(rb"_GLIBCXX_USE_CXX11_ABI=([01])", cmake.read_bytes())
        if stated:
            return Fact(value="true" if stated[1] == b"1" else "false", source=str(cmake))
    library = torch / "lib" / "libc10.so"
    with contextlib.suppress(OSError):
        mangled = re.search(_TAKES_A_STRING, library.read_bytes())
        if mangled:
            return Fact(value="false" if mangled[1] == b"Ss" else "true", source=str(library))
    return None
