"""The distributions on a path, told from their own metadata and their files against RECORD.

Our own because importlib.metadata takes a half-removed directory for a distribution, and the
engine does not see system site-packages behind a venv.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from preheat.decisions.identity import digest
from preheat.edges.disk.atomic import write_if_possible
from preheat.edges.platform import records
from preheat.edges.platform.records_pool import compared
from preheat.words.platform import Distribution, RecordState

_MISSING_SHOWN = 5
_DPKG_SITE = "/usr/lib/python3/dist-packages"


def read(path: Iterable[str], memory: Memory | None = None) -> tuple[Distribution, ...]:
    """Every distribution and every leftover on the path; the first of a name is what imports."""
    return visible([at(location, memory) for location in path])


def at(location: str, memory: Memory | None = None) -> tuple[Distribution, ...]:
    """Every distribution and every leftover in one directory.

    Args:
        location: an entry of ``sys.path``.
        memory: what was seen before. Comparing every RECORD with its files costs a microsecond
            a file; an image's files are counted once, and again when an installer was there.
    """
    known = memory.recall(location) if memory else None
    if known is not None:
        return known
    found = tuple(_in_directory(location))
    if memory and found:
        memory.keep(location, found)
    return found


def visible(directories: Iterable[Iterable[Distribution]]) -> tuple[Distribution, ...]:
    """What an import would see of the directories, in the order of the path."""
    found: list[Distribution] = []
    seen: set[str] = set()
    for here in directories:
        for distribution in here:
            key = distribution.name if distribution.state.present else distribution.metadata
            if key not in seen:
                seen.add(key)
                found.append(distribution)
    return tuple(sorted(found, key=lambda d: (d.name, d.location)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Inventories of directories that were read before, one file for each.

    An entry holds as long as the directory's own time, and name, time and size of every RECORD in
    it, are what they were: whatever installs or removes changes one of them.

    Attributes:
        place: directory of the files.
        keeps: whether new ones are written.
    """

    place: Path
    keeps: bool

    def recall(self, location: str) -> tuple[Distribution, ...] | None:
        """What is known of that directory; None where it is new, or changed."""
        try:
            stored = json.loads(self._file(location).read_text(encoding="utf-8"))
            if stored["stamp"] != _stamp(location):
                return None
            return tuple(
                Distribution(
                    **{
                        **row,
                        "state": RecordState(row["state"]),
                        "requires": tuple(row["requires"]),
                        "extras": tuple(row["extras"]),
                        "missing": tuple(row["missing"]),
                    }
                )
                for row in stored["distributions"]
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, location: str, distributions: Iterable[Distribution]) -> None:
        """Writes it down; a disk that refuses costs time only."""
        if not self.keeps:
            return
        document = {"stamp": _stamp(location), "distributions": list(map(asdict, distributions))}
        write_if_possible(self._file(location), json.dumps(document))

    def _file(self, location: str) -> Path:
        return self.place / f"{digest(location)[:16]}.json"


def _stamp(location: str) -> list[object]:
    stamp: list[object] = [os.stat(location).st_mtime_ns]
    for entry in sorted(os.listdir(location)):
        if entry.endswith((".dist-info", ".egg-info")) or entry.startswith("~"):
            try:
                status = os.stat(os.path.join(location, entry, "RECORD"))
                stamp.append([entry, status.st_mtime_ns, status.st_size])
            except OSError:
                stamp.append([entry])
    return stamp


def files(distribution: Distribution) -> tuple[str, ...]:
    """Paths below the distribution's location that its RECORD lists; empty without one."""
    record = _read_record(os.path.join(distribution.metadata, "RECORD"))
    return tuple(row for row, _ in record or ())


def truncated(distribution: Distribution) -> tuple[str, ...]:
    """Files whose size is not what RECORD says: a killed install was taken for a whole one.

    Costs a stat for each file, so it is asked of the distributions that a package relies on.
    Files under ``bin`` are left out: installers rewrite their first line. conda writes its prefix
    into any text file, so there only what is missing or empty counts.
    """
    if distribution.location.endswith(_DPKG_SITE):
        # Debian strips symbols after RECORD is made: dpkg's database is the truth there.
        return ()
    wrong = []
    rewritten = installer(distribution) == "conda"
    for row, size in _read_record(os.path.join(distribution.metadata, "RECORD")) or ():
        if size is None or row.startswith(".."):
            continue
        try:
            actual = os.stat(os.path.join(distribution.location, row)).st_size
        except OSError:
            actual = -1
        if actual != size and not (rewritten and actual > 0):
            wrong.append(row)
    return tuple(wrong[:_MISSING_SHOWN])


def installer(distribution: Distribution) -> str:
    """Who installed it, by the file of that name (PEP 376); empty where nobody says."""
    file = os.path.join(distribution.metadata, "INSTALLER")
    try:
        with open(file, encoding="utf-8", errors="replace") as handle:
            return handle.readline().strip()
    except OSError:
        return ""


def resolvable(name: str, path: Iterable[str]) -> bool:
    """Whether a dotted import finds something on the path, told without importing its parents.

    PEP 420: a regular package or module in one entry wins over namespace portions in all.
    """
    places = [entry for entry in path if os.path.isdir(entry)]
    parts = name.split(".")
    for depth, part in enumerate(parts):
        portions: list[str] = []
        regular: str | None = None
        module = False
        for place in places:
            candidate = os.path.join(place, part)
            if os.path.isdir(candidate):
                if _has_module(candidate, "__init__"):
                    regular = candidate
                    break
                portions.append(candidate)
            if _has_module(place, part):
                module = True
                break
        if regular:
            places = [regular]
        elif module:
            return depth == len(parts) - 1
        elif portions:
            places = portions
        else:
            return False
    return True


def _has_module(directory: str, name: str) -> bool:
    try:
        entries = os.listdir(directory)
    except OSError:
        return False
    plain = {f"{name}.py", f"{name}.pyc", f"{name}.so"}
    return any(
        entry in plain or (entry.startswith(f"{name}.") and entry.endswith(".so"))
        for entry in entries
    )


def _in_directory(location: str) -> Iterator[Distribution]:
    try:
        entries = sorted(os.listdir(location))
    except OSError:
        return
    infos = [entry for entry in entries if entry.endswith(".dist-info")]
    with compared(location, infos) as answer:
        metadata = {name: core_metadata(os.path.join(location, name, "METADATA")) for name in infos}
        missing = answer()
    for entry in entries:
        place = os.path.join(location, entry)
        if entry.startswith("~"):
            yield Distribution(
                name=entry,
                version=None,
                location=location,
                metadata=place,
                state=RecordState.TILDE,
            )
        elif entry in missing:
            yield _dist_info(place, metadata[entry], missing[entry])
        elif entry.endswith(".egg-info"):
            egg = _egg_info(place, location)
            if egg:
                yield egg


def _dist_info(
    place: str,
    metadata: CoreMetadata,
    missing: Sequence[str] | None,
) -> Distribution:
    name, version = metadata.name, metadata.version
    location = os.path.dirname(place)
    if not name or not version:
        stem = os.path.basename(place).removesuffix(".dist-info")
        return Distribution(
            name=canonicalize_name(stem.split("-")[0]),
            version=None,
            location=location,
            metadata=place,
            state=RecordState.NAMELESS,
        )
    if missing is None or (missing and location.endswith(_DPKG_SITE)):
        # Debian ships RECORD rows of its build directory; dpkg's database is the truth there.
        state, missing = RecordState.UNVERIFIABLE, ()
    elif missing:
        state = RecordState.INCOMPLETE
    else:
        state = RecordState.WHOLE
    return Distribution(
        name=canonicalize_name(name),
        version=version,
        location=location,
        metadata=place,
        requires=metadata.requires,
        extras=metadata.extras,
        state=state,
        missing=tuple(missing[:_MISSING_SHOWN]),
    )


def _egg_info(place: str, location: str) -> Distribution | None:
    """Setuptools' older form, which Debian uses: a directory or one file, never with a RECORD."""
    source = os.path.join(place, "PKG-INFO") if os.path.isdir(place) else place
    metadata = core_metadata(source)
    name, version = metadata.name, metadata.version
    if not name or not version:
        return None
    return Distribution(
        name=canonicalize_name(name),
        version=version,
        location=location,
        metadata=place,
        requires=metadata.requires,
        extras=metadata.extras,
        state=RecordState.UNVERIFIABLE,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class CoreMetadata:
    """What a core metadata file says; no name and no version where it cannot be read."""

    name: str | None = None
    version: str | None = None
    requires: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()


def core_metadata(file: str) -> CoreMetadata:
    """Name, version, ``Requires-Dist`` and ``Provides-Extra`` of a core metadata file.

    Read line by line: an e-mail parser takes a third of a millisecond for each of hundreds.
    """
    name = version = None
    requires: list[str] = []
    extras: list[str] = []
    try:
        with open(file, encoding="utf-8", errors="replace") as handle:
            for line in handle:
                if line == "\n":
                    break
                key, _, value = line.partition(":")
                match key.lower():
                    case "name":
                        name = value.strip()
                    case "version":
                        version = value.strip()
                    case "requires-dist":
                        requires.append(value.strip())
                    case "provides-extra":
                        extras.append(canonicalize_name(value.strip()))
    except OSError:
        return CoreMetadata()
    return CoreMetadata(name=name, version=version, requires=tuple(requires), extras=tuple(extras))


def _read_record(file: str) -> tuple[tuple[str, int | None], ...] | None:
    """Rows of a RECORD as path and size (PEP 376, PEP 627); None where there is none."""
    lines = records.lines(file)
    if lines is None:
        return None
    rows: list[tuple[str, int | None]] = []
    for line in lines:
        path, size = os.fsdecode(records.path_of(line)), line.rpartition(b",")[2]
        if path:
            rows.append((path, int(size) if size.isdigit() else None))
    return tuple(rows)
