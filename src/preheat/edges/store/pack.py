"""A layer as one file, written to a volume and unpacked from it.

Many small files are what a network volume is slow at; one file is what it is fast at. A pack is a
row of zstd frames (RFC 8878), each a whole tar of some megabytes, so that they are compressed and
unpacked side by side; then a skippable frame with an index. So one read at the file's end tells
all of it, and ``zstd -dc PACK | tar -xi`` opens it by hand. The container images of the
zstd:chunked kind are laid out like that too, for reasons of their own.

    frame*                                 zstd, each with one tar
    0x184D2A50, length                     header of the skippable frame, 4 + 4 bytes
    index                                  JSON: the layer's facts, and every frame
    sha256 of the index, its length, magic footer, 32 + 8 + 8 bytes; numbers are little-endian

Directories are in the first frame and links in the last: while files are written there is no link
that could lead one of them out. Links to the platform's libraries are in the facts alone.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import struct
import sys
import tarfile
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from preheat.words.errors import PackDamaged, PackError
from preheat.words.layer import LayerFacts
from preheat.words.pack import Frame, PackIndex

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_SKIPPABLE = 0x184D2A50
_HEADER = struct.Struct("<II")
_FOOTER = struct.Struct("<32sQ8s")
_MAGIC = b"PREHEAT1"
# One read gets the index of all but the largest layers.
_TAIL_BYTES = 64 << 10
# Some megabytes keep every processor busy, and a volume's latency small beside the transfer.
_FRAME_BYTES = 4 << 20
# What is larger is not held in memory unpacked.
_IN_MEMORY_BYTES = 4 * _FRAME_BYTES
# The level that zstd has by itself: 782 MB in 2.4 s, to 27 %.
_ZSTD_LEVEL = 3
# A volume answers several at once; more of them than processors hide its latency.
_THREADS = min(8, 2 * (os.cpu_count() or 1))
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """One name in a layer: its path from there, and what lstat says."""

    path: str
    status: os.stat_result


def write_pack(layer: Path, facts: LayerFacts, file: BinaryIO) -> PackIndex:
    """Packs a layer into a file that is open for writing; the caller syncs it.

    Raises:
        OSError: the disk refuses.
        PackError: something lies there that no layer holds: a socket, a device.
    """
    offset = 0
    frames = []
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="preheat-pack") as pool:
        groups = _groups(layer, frozenset(path for path, _ in facts.links))
        for data, unpacked, entries in _in_order(pool, _compressed(layer), groups):
            file.write(data)
            frames.append(
                Frame(
                    offset=offset,
                    length=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                    unpacked=unpacked,
                    entries=entries,
                )
            )
            offset += len(data)
    document = {"facts": facts.document(), "frames": [astuple(frame) for frame in frames]}
    index = json.dumps(document, separators=(",", ":")).encode()
    digest = hashlib.sha256(index)
    file.write(_HEADER.pack(_SKIPPABLE, len(index) + _FOOTER.size))
    file.write(index + _FOOTER.pack(digest.digest(), len(index), _MAGIC))
    return PackIndex(facts=facts, frames=tuple(frames), sha256=digest.hexdigest())


def read_index(file: Path) -> PackIndex:
    """What a pack holds, by one read at its end.

    Raises:
        PackError: it cannot be read, is no pack, or its end is missing.
    """
    try:
        with file.open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            tail = _last(handle, size, min(size, _TAIL_BYTES))
            if len(tail) < _FOOTER.size:
                raise _damaged(file, "it is too short")
            digest, length, magic = _FOOTER.unpack(tail[-_FOOTER.size :])
            whole = _FOOTER.size + length
            if magic != _MAGIC or whole > size:
                raise _damaged(file, "its end is missing")
            if whole > len(tail):
                tail = _last(handle, size, whole)
    except OSError as error:
        raise _unreadable(file, error) from error
    index = tail[-whole : -_FOOTER.size]
    if hashlib.sha256(index).digest() != digest:
        raise _damaged(file, "its index is not as it was written")
    try:
        document = json.loads(index)
        names = ("offset", "length", "sha256", "unpacked", "entries")
        frames = tuple(Frame(**dict(zip(names, row, strict=True))) for row in document["frames"])
        return PackIndex(facts=LayerFacts.of(document["facts"]), frames=frames, sha256=digest.hex())
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(file, f"its index cannot be read: {error}") from error


def unpack(
    file: Path, index: PackIndex, target: Path, told: Callable[[int], None] = lambda done: None
) -> None:
    """Unpacks into an empty directory; every frame is checked before anything of it is.

    Args:
        file: the pack.
        index: its own.
        target: what it leaves there after an error is for the caller to remove.
        told: called with the bytes that are unpacked so far.

    Raises:
        PackError: it is not as it was written, or holds what would leave the directory.
        OSError: the disk of the target refuses.
    """
    done = itertools.accumulate(frame.unpacked for frame in index.frames)
    links = list(index.facts.links)
    if not all(_stays(path) for path, _ in links):
        raise _damaged(file, "it would make a link outside of the layer")
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(file, error) from error
    unpacking = _Unpacking(file=file, handle=handle, target=target, links=links, modes=[])
    try:
        # The first one holds the directories that the others write to.
        for frames in (index.frames[:1], index.frames[1:]):
            with ThreadPoolExecutor(_THREADS, thread_name_prefix="preheat-unpack") as pool:
                for _ in _in_order(pool, unpacking.frame, frames):
                    told(next(done))
        unpacking.finish()
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise _damaged(file, f"its entries do not fit together: {error.filename}") from error
    finally:
        os.close(handle)


# Writing


def _groups(layer: Path, without: Collection[str]) -> Iterator[Sequence[_Entry]]:
    """What goes into each frame: directories, then files by some megabytes, then links."""
    directories: list[_Entry] = []
    files: list[_Entry] = []
    links: list[_Entry] = []
    for entry in _walk(layer, ""):
        if entry.path in without:
            continue
        kinds = {0o040000: directories, 0o120000: links, 0o100000: files}
        kind = kinds.get(entry.status.st_mode & 0o170000)
        if kind is None:
            raise PackError(f"{layer / entry.path} is no file, directory or link")
        kind.append(entry)
    yield directories
    group: list[_Entry] = []
    size = 0
    for entry in files:
        if group and size + entry.status.st_size > _FRAME_BYTES:
            yield group
            group, size = [], 0
        group.append(entry)
        size += entry.status.st_size
    if group or links:
        yield [*group, *links]


def _walk(layer: Path, below: str) -> Iterator[_Entry]:
    with os.scandir(layer / below) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = f"{below}/{entry.name}" if below else entry.name
        yield _Entry(path=path, status=entry.stat(follow_symlinks=False))
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(layer, path)


def _compressed(layer: Path) -> Callable[[Sequence[_Entry]], tuple[bytes, int, int]]:
    def compressed(entries: Sequence[_Entry]) -> tuple[bytes, int, int]:
        """A frame, the bytes of the tar in it, and how many entries that holds."""
        raw = io.BytesIO()
        with zstd.ZstdFile(raw, "w", level=_ZSTD_LEVEL) as frame:
            # A stream, so that a large file is never in memory unpacked.
            with tarfile.open(
                mode="w|",
                fileobj=cast("BinaryIO", frame),
                format=tarfile.PAX_FORMAT,
                encoding="utf-8",
                errors="surrogateescape",
            ) as tar:
                for entry in entries:
                    _add(tar, layer, entry)
            unpacked = frame.tell()
        return raw.getvalue(), unpacked, len(entries)

    return compressed


def _add(tar: tarfile.TarFile, layer: Path, entry: _Entry) -> None:
    member = tarfile.TarInfo(entry.path)
    member.mode = entry.status.st_mode & 0o777
    member.mtime = int(entry.status.st_mtime)
    kind = entry.status.st_mode & 0o170000
    if kind == 0o040000:
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
    elif kind == 0o120000:
        member.type = tarfile.SYMTYPE
        member.linkname = os.readlink(layer / entry.path)
        if not _leads_inside(entry.path, member.linkname):
            raise PackError(f"the link {layer / entry.path} leads outside of its layer")
        tar.addfile(member)
    else:
        member.size = entry.status.st_size
        with (layer / entry.path).open("rb") as content:
            tar.addfile(member, content)


# Reading


@dataclass(frozen=True, kw_only=True)
class _Unpacking:
    """One pack on its way into a directory, by several threads.

    Attributes:
        links: name and destination of each, to be made when no file is written any more.
        modes: of directories, to be set then too: one that is read-only takes no file.
    """

    file: Path
    handle: int
    target: Path
    links: list[tuple[str, str]]
    modes: list[tuple[str, int]]

    def frame(self, frame: Frame) -> None:
        """Reads, checks and unpacks one."""
        data = self._read(frame)
        if len(data) != frame.length or hashlib.sha256(data).hexdigest() != frame.sha256:
            raise _damaged(self.file, f"the frame at byte {frame.offset} is not as it was written")
        entries = 0
        try:
            with self._tar(data, frame) as tar:
                for member in tar:
                    self._take(tar, member)
                    entries += 1
        except (tarfile.TarError, zstd.ZstdError, EOFError) as error:
            raise _damaged(self.file, f"the frame at byte {frame.offset}: {error}") from error
        if entries != frame.entries:
            raise _damaged(self.file, f"the frame at byte {frame.offset} holds {entries} entries")

    def finish(self) -> None:
        """Makes what must not be there while files are written."""
        for name, destination in self.links:
            os.symlink(destination, self.target / name)
        for name, mode in reversed(self.modes):
            (self.target / name).chmod(mode)

    def _read(self, frame: Frame) -> bytes:
        parts = []
        at, left = frame.offset, frame.length
        while left > 0:
            try:
                part = os.pread(self.handle, min(left, _CHUNK_BYTES), at)
            except OSError as error:
                raise _unreadable(self.file, error) from error
            if not part:
                break
            parts.append(part)
            at, left = at + len(part), left - len(part)
        return b"".join(parts)

    def _tar(self, data: bytes, frame: Frame) -> tarfile.TarFile:
        small = frame.unpacked <= _IN_MEMORY_BYTES
        if small:
            # No more than it was, whatever the frame would grow to.
            content = zstd.ZstdDecompressor().decompress(data, max_length=frame.unpacked)
            raw: BinaryIO = io.BytesIO(content)
        else:
            raw = cast("BinaryIO", zstd.ZstdFile(io.BytesIO(data)))
        return tarfile.open(
            mode="r:" if small else "r|",
            fileobj=raw,
            encoding="utf-8",
            errors="surrogateescape",
        )

    def _take(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = member.name
        if not name or "\0" in name or not _stays(name):
            raise _damaged(self.file, f"it would write outside of the layer: {name!r}")
        if member.isdir():
            (self.target / name).mkdir()
            self.modes.append((name, member.mode & 0o777))
        elif member.issym():
            if not _leads_inside(name, member.linkname):
                raise _damaged(self.file, f"a link leads outside of the layer: {name!r}")
            self.links.append((name, member.linkname))
        elif member.isreg():
            self._write(tar, member)
        else:
            raise _damaged(self.file, f"it holds what no layer does: {name!r}")

    def _write(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        content = tar.extractfile(member)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self.target / member.name, flags, member.mode & 0o777)
        try:
            while content is not None and (part := content.read(_CHUNK_BYTES)):
                while part:
                    part = part[os.write(file, part) :]
            os.utime(file, (member.mtime, member.mtime))
        finally:
            os.close(file)


def _last(handle: BinaryIO, size: int, length: int) -> bytes:
    handle.seek(size - length)
    return handle.read(length)


def _stays(name: str) -> bool:
    """Whether a name is one that writing a pack gives: relative, and straight down."""
    return all(part not in ("", ".", "..") for part in name.split("/"))


def _leads_inside(name: str, destination: str) -> bool:
    """Whether a link's destination is in the layer: first up, no further than its top, then down.

    Up again after down could lead anywhere, where what lies between is a link itself.
    """
    parts = destination.split("/")
    up = len(list(itertools.takewhile(lambda part: part == "..", parts)))
    return up <= name.count("/") and _stays("/".join(parts[up:]) or "down")


def _damaged(file: Path, why: str) -> PackDamaged:
    return PackDamaged(
        f"the packed layer {file} cannot be used: {why}",
        hint="the next start makes it again",
    )


def _unreadable(file: Path, error: OSError) -> PackError:
    return PackError(f"the packed layer {file} cannot be read: {error.strerror or error}")


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Iterator[_Result]:
    """Results in order, with no more of them under way than there are threads."""
    under_way: deque[Future[_Result]] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(work, item))
            if len(under_way) > _THREADS:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()
