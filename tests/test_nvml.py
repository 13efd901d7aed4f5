"""The driver's own library, asked for what it shows: a stand-in built here, and the real one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from preheat.edges.platform.nvml import read_accelerator
from preheat.words.platform import Accelerator, Gpu

COMPILER = shutil.which("cc")

# Two devices behind the functions of nvml.h that are asked; a macro takes what a test is about.
LIBRARY = r"""
#include <stdio.h>
#ifndef INIT
#define INIT 0
#endif
#ifndef CAPABILITY
#define CAPABILITY 0
#endif
#ifndef MEMORY
#define MEMORY 0
#endif
typedef struct { unsigned long long total, free, used; } memory_t;
int nvmlInit_v2(void) { return INIT; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    snprintf(text, size, "580.65.06"); return 0;
}
int nvmlSystemGetCudaDriverVersion(int *version) { *version = 13010; return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = (void *)(0x7f0000000000 + index); return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size) {
    snprintf(text, size, (long)device & 1 ? "NVIDIA B200" : "NVIDIA H100 80GB HBM3"); return 0;
}
#ifndef OLD
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    *major = (long)device & 1 ? 10 : 9; *minor = 0; return CAPABILITY;
}
#endif
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    memory->total = 85520809984ull; return MEMORY;
}
"""


def shown(place: Path, *macros: str) -> str:
    """What a fresh process is told by such a library."""
    if COMPILER is None:
        pytest.skip("needs a C compiler")
    source = place / "nvml.c"
    source.write_text(LIBRARY)
    library = place / "libnvidia-ml.so.1"
    build = [COMPILER, "-shared", "-fPIC", "-w", *macros, "-o", str(library), str(source)]
    subprocess.run(build, check=True, timeout=60)
    ask = (
        "from preheat.edges.platform.nvml import read_accelerator; print(repr(read_accelerator()))"
    )
    return subprocess.run(
        [sys.executable, "-c", ask],
        env={**os.environ, "LD_LIBRARY_PATH": str(place)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()


def accelerator(memory: int) -> str:
    """The stand-in's two devices."""
    hopper = Gpu(name="NVIDIA H100 80GB HBM3", compute_capability="9.0", memory=memory)
    blackwell = Gpu(name="NVIDIA B200", compute_capability="10.0", memory=memory)
    return repr(Accelerator(driver="580.65.06", cuda="13.1", gpus=(hopper, blackwell)))


def test_driver_and_devices_are_told_as_the_library_tells_them(tmp_path: Path) -> None:
    assert shown(tmp_path) == accelerator(85520809984)


def test_a_device_without_memory_of_its_own_is_told_all_the_same(tmp_path: Path) -> None:
    assert shown(tmp_path, "-DMEMORY=3") == accelerator(0)


@pytest.mark.parametrize("macro", ["-DINIT=9", "-DCAPABILITY=15", "-DOLD"])
def test_a_driver_that_refuses_is_no_accelerator(tmp_path: Path, macro: str) -> None:
    assert shown(tmp_path, macro) == repr(Accelerator())


@pytest.mark.gpu
def test_the_real_driver_and_its_devices_are_told_as_nvidia_smi_tells_them() -> None:
    query = ["nvidia-smi", "--query-gpu=driver_version,name,compute_cap", "--format=csv,noheader"]
    told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
    found = read_accelerator()
    assert told.splitlines() == [
        f"{found.driver}, {gpu.name}, {gpu.compute_capability}" for gpu in found.gpus
    ]
    assert all(gpu.memory > 10**9 for gpu in found.gpus)
