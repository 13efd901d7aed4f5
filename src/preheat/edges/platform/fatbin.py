"""For which GPUs a library was compiled, read from its fat binaries.

nvcc puts device code into an ELF section ``.nv_fatbin``: containers, each with a magic number, a
header and entries, one for each architecture. The layout is what nvcc 13.0 writes and cuobjdump
lists; it is the same since CUDA 4, and NVIDIA publishes none.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from preheat.words.building import DeviceCode
from preheat.words.errors import InstallError

_MAGIC = struct.pack("<I", 0xBA55ED50)
# magic, version, bytes of this header, bytes of the entries that follow.
_CONTAINER = struct.Struct("<IHHQ")
# kind, attributes, bytes of this header, bytes of the code, compressed bytes, options, minor and
# major version, architecture.
_ENTRY = struct.Struct("<HHIQIIHHI")
_PTX, _CUBIN = 1, 2


def device_code(libraries: Iterable[Path]) -> DeviceCode:
    """What those shared libraries hold for GPUs, together; what is no library holds nothing."""
    found = DeviceCode()
    for library in libraries:
        try:
            with (
                library.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            ):
                found |= _code_in(data)
        except (OSError, ValueError):
            continue
    return found


def device_code_of_wheel(wheel: Path) -> DeviceCode:
    """What the shared libraries in a wheel hold for GPUs, together.

    Raises:
        InstallError: it is no wheel.
    """
    found = DeviceCode()
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(".so"):
                    found |= _code_in(archive.read(name))
    except (OSError, zipfile.BadZipFile) as error:
        raise InstallError(f"{wheel.name} is not a whole wheel: {error}") from error
    return found


def _code_in(data: bytes | mmap.mmap) -> DeviceCode:
    entries = list(_entries(data))
    return DeviceCode(
        cubins=frozenset(code for kind, code in entries if kind == _CUBIN),
        ptx=frozenset(code for kind, code in entries if kind == _PTX),
    )


def _entries(data: bytes | mmap.mmap) -> Iterator[tuple[int, int]]:
    """Kind and architecture of each entry of each container."""
    start = data.find(_MAGIC)
    while start >= 0:
        place = start
        if start + _CONTAINER.size <= len(data):
            _, _, header, size = _CONTAINER.unpack_from(data, start)
            place = start + header
            end = min(place + size, len(data) - _ENTRY.size)
            while place < end:
                kind, _, own, length, _, _, _, _, code = _ENTRY.unpack_from(data, place)
                if own < _ENTRY.size:
                    # The magic number by chance, in other data.
                    break
                yield kind, code
                place += own + length
        start = data.find(_MAGIC, max(place, start + 4))
