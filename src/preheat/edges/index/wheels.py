"""What is inside an archive, read before it is fetched.

A wheel is a zip: its directory stands at the end and holds the unpacked size of every member. One
or two HTTP range requests read it, with the metadata that usually lies just before it. Nobody
publishes unpacked sizes, so preheat reads them itself.
"""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.parser import HeaderParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from preheat.decisions.entry_points import scripts_in
from preheat.edges.disk.atomic import write_if_possible
from preheat.words.lock import Archive, Contents, Locked

if TYPE_CHECKING:
    from preheat.edges.index.ranges import Ranges

# Measured over 185 distributions: 835 MB of archives hold 2,679 MB in 27,638 files.
_UNPACKED_PER_BYTE = 3.2
_BYTES_PER_FILE = 97_000
_READS_AT_ONCE = 16
_FORMAT = 1
# Where the directories of ``.data`` go under one target directory.
_SCHEMES = {"purelib": "", "platlib": "", "scripts": "bin/", "data": "", "headers": "include/"}


def load_http() -> None:
    """Imports the HTTP client ahead of its first use, since that takes a while."""
    from preheat.edges.index import ranges  # noqa: F401  # to be loaded


class Reader:
    """Reads the contents of archives, many at a time, remembering them by sha256.

    Args:
        memory: directories of remembered contents; all are read, and the first is written if
            ``remember``.
        indexes: addresses that may carry credentials; they are used for their own origins only.
        timeout: seconds for each request; None where no index may be asked.
    """

    def __init__(
        self,
        memory: Sequence[Path],
        *,
        indexes: Iterable[str],
        timeout: float | None,
        remember: bool,
    ) -> None:
        self._memory = memory
        self._remember = remember
        self._timeout = timeout
        self._indexes = tuple(indexes)

    def read(
        self, distributions: Iterable[Locked], done: Callable[[int], None] = lambda count: None
    ) -> dict[str, Contents]:
        """The contents of each distribution by name; estimated where they cannot be read.

        Args:
            distributions: what to read.
            done: told how many are read so far.
        """
        found: dict[str, Contents] = {}
        unknown: list[Locked] = []
        for each in distributions:
            known = self._recall(each.archive)
            if known is None:
                unknown.append(each)
            else:
                found[each.name] = known
        for each, contents in self._read_all(unknown):
            found[each.name] = contents
            if contents.exact and not contents.escapes:
                self._keep(each.archive, contents)
            done(len(found))
        return found

    def _read_all(self, unknown: Iterable[Locked]) -> Iterator[tuple[Locked, Contents]]:
        remote = []
        for each in unknown:
            if urlsplit(each.archive.url).scheme == "file":
                yield each, _from_file(each.archive)
            elif each.archive.is_wheel and self._timeout is not None:
                remote.append(each)
            else:
                yield each, estimate(each.archive)
        if not remote or self._timeout is None:
            return
        # Imported here: the HTTP client takes longer to load than a plan from a lock takes.
        from preheat.edges.index.ranges import Ranges

        with (
            Ranges(self._indexes, self._timeout) as ranges,
            ThreadPoolExecutor(_READS_AT_ONCE) as pool,
        ):
            reads = pool.map(lambda each: _from_index(ranges, each.archive), remote)
            yield from zip(remote, reads, strict=True)

    def _recall(self, archive: Archive) -> Contents | None:
        return next(filter(None, (_remembered(place, archive) for place in self._memory)), None)

    def _keep(self, archive: Archive, contents: Contents) -> None:
        if not self._remember:
            return
        document = {
            "format": _FORMAT,
            "files": contents.files,
            "requires": contents.requires,
            "scripts": contents.scripts,
        }
        target = self._memory[0] / f"{archive.sha256}.json"
        # Where the disk refuses, the archive is read again another time.
        write_if_possible(target, json.dumps(document, separators=(",", ":")))


def _from_file(archive: Archive) -> Contents:
    try:
        return _read_local(Path(unquote(urlsplit(archive.url).path)), archive)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError):
        return estimate(archive)


def _from_index(ranges: Ranges, archive: Archive) -> Contents:
    try:
        with zipfile.ZipFile(ranges.open(archive.url, archive.size)) as wheel:
            return contents_of(wheel)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError):
        # The engine will ask for the same archive and report what is wrong with it.
        return estimate(archive)


def contents_of(wheel: zipfile.ZipFile) -> Contents:
    """Where each member of a wheel lands (PEP 427), its size, and what the metadata requires."""
    files: list[tuple[str, int]] = []
    info = ""
    for member in wheel.infolist():
        if member.is_dir():
            continue
        top, _, rest = member.filename.partition("/")
        if top.endswith(".dist-info"):
            info = top
        if top.endswith(".data"):
            kind, _, inner = rest.partition("/")
            files.append((_SCHEMES.get(kind, f"{kind}/") + inner, member.file_size))
        else:
            files.append((member.filename, member.file_size))
    if not info:
        raise zipfile.BadZipFile("no .dist-info directory")
    requires = requires_of(wheel.read(f"{info}/METADATA"))
    try:
        declared = wheel.read(f"{info}/entry_points.txt").decode()
        scripts = tuple(name for name, _ in scripts_in(declared))
    except KeyError:
        scripts = ()
    # What an installer adds: INSTALLER and REQUESTED.
    files += [(f"{info}/INSTALLER", 2), (f"{info}/REQUESTED", 0)]
    escapes = next((path for path, _ in files if _leads_out(path)), "")
    return Contents(files=tuple(files), requires=requires, scripts=scripts, escapes=escapes)


def _leads_out(path: str) -> bool:
    return path.startswith("/") or ".." in path.split("/")


def requires_of(metadata: bytes) -> tuple[str, ...]:
    """``Requires-Dist`` of a core metadata file."""
    head = metadata.decode("utf-8", "replace").split("\n\n", 1)[0]
    return tuple(HeaderParser().parsestr(head).get_all("Requires-Dist") or ())


def estimate(archive: Archive, requires: tuple[str, ...] = ()) -> Contents:
    """What an archive probably unpacks to, where its directory cannot be read; marked as such."""
    total = int((archive.size or 1_000_000) * _UNPACKED_PER_BYTE)
    count = max(8, total // _BYTES_PER_FILE)
    stem = archive.filename.split("-")[0]
    files = tuple((f"{stem}/estimated-{n}", total // count) for n in range(count))
    return Contents(files=files, requires=requires, exact=False)


def _remembered(place: Path, archive: Archive) -> Contents | None:
    try:
        with open(place / f"{archive.sha256}.json", encoding="utf-8") as file:
            stored = json.load(file)
        if stored["format"] != _FORMAT:
            return None
        return Contents(
            files=tuple((path, size) for path, size in stored["files"]),
            requires=tuple(stored["requires"]),
            scripts=tuple(stored["scripts"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_local(file: Path, archive: Archive) -> Contents:
    if archive.is_wheel:
        with zipfile.ZipFile(file) as wheel:
            return contents_of(wheel)
    if file.name.endswith((".tar.gz", ".tgz")):
        with tarfile.open(file) as source:
            for member in source:
                if member.name.count("/") == 1 and member.name.endswith("/PKG-INFO"):
                    handle = source.extractfile(member)
                    return estimate(archive, requires_of(handle.read() if handle else b""))
    return estimate(archive)
