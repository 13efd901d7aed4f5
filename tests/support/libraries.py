"""Shared libraries like NVIDIA's, compiled here, and packages that look for them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from tests.support.wheels import Project

GCC = shutil.which("gcc")
NEEDS_COMPILER = pytest.mark.skipif(GCC is None, reason="needs gcc")

_BALLAST = 300_000
_TIMEOUT = 60.0


@cache
def compiled(soname: str, source: str, needs: Sequence[str] = (), runpath: str = "") -> bytes:
    """A library of that soname, which needs others by their sonames and looks in a runpath.

    Noise behind it makes it too large to be read whole where only its name is asked for; a
    loader does not look there.
    """
    with tempfile.TemporaryDirectory() as place:
        for each in needs:
            stub = Path(place, each)
            _gcc("-shared", f"-Wl,-soname,{each}", "-o", str(stub), "-x", "c", "/dev/null")
        code = Path(place, "code.c")
        code.write_text(source, encoding="utf-8")
        made = Path(place, "made.so")
        links = [f"-l:{each}" for each in needs]
        rpath = [f"-Wl,-rpath,{runpath}"] if runpath else []
        options = ["-shared", "-fPIC", "-Wl,--no-as-needed", f"-Wl,-soname,{soname}", *rpath]
        _gcc(*options, "-o", str(made), str(code), f"-L{place}", *links)
        return made.read_bytes() + _noise(soname)


def cublas(version: str, major: int = 13) -> bytes:
    """A cuBLAS that says its version, as NVIDIA's does, and answers with its minor."""
    numbers = ", ".join(version.split(".")[:3])
    source = (
        "int cublasGetProperty(int kind, int *value) {\n"
        f"  int numbers[] = {{{numbers}}};\n"
        "  *value = numbers[kind];\n"
        "  return 0;\n"
        "}\n"
        f"int cublas_answer(void) {{ return {version.split('.')[1]}; }}\n"
    )
    return compiled(f"libcublas.so.{major}", source, ("libcublasLt.so.13",), "$ORIGIN")


def cublas_lt() -> bytes:
    """What cuBLAS loads from beside it."""
    return compiled("libcublasLt.so.13", "int cublasLt_there(void) { return 1; }\n")


def nvidia_cublas(version: str, *more: str) -> Project:
    """NVIDIA's wheel of cuBLAS: libraries and headers; `more` names further libraries of it."""
    lib = "nvidia/cu13/lib"
    extra = {f"{lib}/{name}": compiled(name, "int nothing(void) { return 0; }\n") for name in more}
    return Project(
        name="nvidia-cublas",
        version=version,
        files={
            f"{lib}/libcublas.so.13": cublas(version),
            f"{lib}/libcublasLt.so.13": cublas_lt(),
            "nvidia/cu13/include/cublas.h": "int cublas_answer(void);\n",
            **extra,
        },
        tag="py3-none-manylinux_2_27_x86_64",
    )


def gemm(name: str = "gemm", requires: Sequence[str] = ("nvidia-cublas",)) -> Project:
    """A package that calls cuBLAS and finds it relative to itself, as JAX's plugins do."""
    library = compiled(
        "libgemm.so",
        "extern int cublas_answer(void);\nint gemm(void) { return cublas_answer(); }\n",
        ("libcublas.so.13",),
        "$ORIGIN/../nvidia/cu13/lib",
    )
    module = (
        "import ctypes, os\n"
        "def answer():\n"
        "    library = os.path.join(os.path.dirname(__file__), 'libgemm.so')\n"
        "    return ctypes.CDLL(library).gemm()\n"
    )
    return Project(
        name=name,
        version="1.0",
        files={f"{name}/__init__.py": module, f"{name}/libgemm.so": library},
        requires=tuple(requires),
    )


def _gcc(*arguments: str) -> None:
    command = (str(GCC), *arguments)
    subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT)


def _noise(seed: str) -> bytes:
    """The same bytes for the same seed, and nothing that a wheel's compression makes smaller."""
    blocks = (hashlib.sha512(f"{seed}{n}".encode()).digest() for n in range(_BALLAST // 64))
    return b"".join(blocks)
