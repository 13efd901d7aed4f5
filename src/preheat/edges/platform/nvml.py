"""Driver and devices from NVML, which comes with the driver; no CUDA context is made.

Called as NVIDIA's reference describes it (https://docs.nvidia.com/deploy/nvml-api/), for a handful
of facts: loading the binding that NVIDIA publishes takes half as long as all the rest of a probe.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from preheat.words.platform import Accelerator, Gpu

_LIBRARY = "libnvidia-ml.so.1"
# NVML_DEVICE_NAME_V2_BUFFER_SIZE, the longest of its texts.
_TEXT_BYTES = 96


class _RefusedError(Exception):
    """A call did not return NVML_SUCCESS."""


class _Memory(ctypes.Structure):
    """``nvmlMemory_t``, in bytes."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


def read_accelerator() -> Accelerator:
    """The driver and every device that it shows; empty where there is none, or it is broken."""
    try:
        library = ctypes.CDLL(_LIBRARY)
        _call(library, "nvmlInit_v2")
    except (OSError, _RefusedError):
        return Accelerator()
    try:
        cuda = ctypes.c_int()
        _call(library, "nvmlSystemGetCudaDriverVersion", ctypes.byref(cuda))
        return Accelerator(
            driver=_text(library, "nvmlSystemGetDriverVersion"),
            cuda=f"{cuda.value // 1000}.{cuda.value % 1000 // 10}",
            gpus=tuple(_gpus(library)),
        )
    except _RefusedError:
        return Accelerator()
    finally:
        library.nvmlShutdown()


def _gpus(library: ctypes.CDLL) -> Iterator[Gpu]:
    count = ctypes.c_uint()
    _call(library, "nvmlDeviceGetCount_v2", ctypes.byref(count))
    for index in range(count.value):
        device = ctypes.c_void_p()
        major, minor = ctypes.c_int(), ctypes.c_int()
        _call(library, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(device))
        capability = (ctypes.byref(major), ctypes.byref(minor))
        _call(library, "nvmlDeviceGetCudaComputeCapability", device, *capability)
        yield Gpu(
            name=_text(library, "nvmlDeviceGetName", device),
            compute_capability=f"{major.value}.{minor.value}",
            memory=_memory(library, device),
        )


def _memory(library: ctypes.CDLL, device: ctypes.c_void_p) -> int:
    memory = _Memory()
    try:
        _call(library, "nvmlDeviceGetMemoryInfo", device, ctypes.byref(memory))
    except _RefusedError:
        # Devices that share the processor's memory have none of their own to tell.
        return 0
    return int(memory.total)


def _text(library: ctypes.CDLL, function: str, *subject: ctypes.c_void_p) -> str:
    buffer = ctypes.create_string_buffer(_TEXT_BYTES)
    _call(library, function, *subject, buffer, ctypes.c_uint(_TEXT_BYTES))
    return buffer.value.decode(errors="replace")


def _call(library: ctypes.CDLL, function: str, *arguments: object) -> None:
    try:
        code = getattr(library, function)(*arguments)
    except AttributeError as error:
        raise _RefusedError(function) from error
    if code != 0:
        raise _RefusedError(function, code)
