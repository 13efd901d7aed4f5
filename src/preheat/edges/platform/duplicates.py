"""Every copy of every distribution on a path, with the state of its files, for the doctor."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from packaging.utils import canonicalize_name

from preheat.edges.disk.files import bytes_of_blocks, names_in
from preheat.edges.platform import inventory
from preheat.edges.platform.version_file import constants_in
from preheat.words.examination import Companion, Copies, Installed, LayerFiles, Twins
from preheat.words.platform import Distribution, RecordState

_EXTENSIONS = (".so", ".pyd")
_CUDA_TAG = re.compile(r"cu(\d+)(\d)")


def copies(path: Iterable[str]) -> tuple[Installed, ...]:
    """What lies in each entry of the path, in path order; the first of a name is visible."""
    seen: set[str] = set()
    found: list[Installed] = []
    for depth, location in enumerate(distinct(path)):
        here = inventory.read([location])
        owners = _owners(here)
        for each in here:
            present = each.state.present
            name = each.name
            visible = name not in seen and each.state is not RecordState.TILDE
            if present:
                seen.add(name)
            found.append(_examined(each, depth, visible, owners))
    return tuple(found)


def distinct(path: Iterable[str]) -> tuple[str, ...]:
    """The entries without those that another spelling named before: lib64 is a link to lib."""
    places: dict[str, str] = {}
    for entry in path:
        places.setdefault(os.path.realpath(entry), entry)
    return tuple(places.values())


def twins(path: Iterable[str]) -> tuple[Twins, ...]:
    """Names with several ``.dist-info`` in one directory."""
    found = []
    for location in distinct(path):
        by_name: dict[str, list[str]] = {}
        for entry in names_in(location):
            if entry.endswith(".dist-info") and not entry.startswith("~"):
                name = canonicalize_name(entry.partition("-")[0])
                by_name.setdefault(name, []).append(os.path.join(location, entry))
        found += [
            Twins(name=name, location=location, metadata=tuple(places))
            for name, places in sorted(by_name.items())
            if len(places) > 1
        ]
    return tuple(found)


def companions(installed: Iterable[Installed]) -> tuple[Companion, ...]:
    """Builds that tell their CUDA by a local version, in ``version.py`` or in their metadata."""
    found = []
    for each in installed:
        one = each.distribution
        if not each.visible or not one.state.present or not each.compiled or one.name == "torch":
            continue
        module = one.name.replace("-", "_")
        written = constants_in(os.path.join(one.location, module, "version.py"))
        version = str(written.get("__version__") or one.version or "")
        local = version.partition("+")[2]
        tag = _CUDA_TAG.match(local)
        if tag or local == "cpu":
            cuda = ".".join(tag.groups()) if tag else None
            found.append(Companion(name=one.name, version=version, cuda=cuda))
    return tuple(found)


def several(installed: Iterable[Installed], layers: Iterable[LayerFiles]) -> tuple[Copies, ...]:
    """Distributions that lie in two layers, or in a layer and the platform, in one version."""
    places: dict[tuple[str, str], list[Distribution]] = {}
    for each in installed:
        if each.visible and each.distribution.state.present and each.distribution.version:
            key = each.distribution.name, each.distribution.version
            places.setdefault(key, []).append(each.distribution)
    # Those in use come first: the first copy is the one to keep.
    for layer in sorted(layers, key=lambda each: (not each.in_use, each.path)):
        for one in inventory.read([layer.path]) if layer.package else ():
            if one.state.present and one.version:
                places.setdefault((one.name, one.version), []).append(one)
    return tuple(
        Copies(
            name=name,
            version=version,
            places=tuple(one.location for one in found),
            size=_bytes_beyond_first(found),
        )
        for (name, version), found in sorted(places.items())
        if len(found) > 1
    )


def _bytes_beyond_first(found: Iterable[Distribution]) -> int:
    """Bytes beyond the first copy; a file that is hardlinked into several costs once."""
    total = 0
    met: set[tuple[int, int]] = set()
    for place, one in enumerate(found):
        for status in _statuses(one):
            inode = status.st_dev, status.st_ino
            if inode not in met:
                met.add(inode)
                total += bytes_of_blocks(status) if place else 0
    return total


def _examined(
    each: Distribution, depth: int, visible: bool, owners: dict[str, list[str]]
) -> Installed:
    whole = each.state is RecordState.WHOLE
    truncated = inventory.truncated(each) if whole else ()
    rows = inventory.files(each)
    contested = rows if each.name.startswith("nvidia-") else truncated
    shared = {name for row in contested for name in owners.get(row, ()) if name != each.name}
    return Installed(
        distribution=each,
        depth=depth,
        visible=visible,
        installer=inventory.installer(each),
        size=_bytes_below(each.metadata)
        if each.state is RecordState.TILDE
        else sum(bytes_of_blocks(status) for status in _statuses(each)),
        compiled=any(row.endswith(_EXTENSIONS) for row in rows)
        or (not rows and _has_extensions(each)),
        truncated=truncated,
        shared=tuple(sorted(shared)),
        was=_name_before_removal(each) if each.state is RecordState.TILDE else None,
    )


def _owners(here: Iterable[Distribution]) -> dict[str, list[str]]:
    """Which distributions of one directory list a file; ``__init__.py`` is nobody's alone."""
    owners: dict[str, list[str]] = {}
    for each in here:
        for row in inventory.files(each):
            if not row.endswith(("__init__.py", ".pyc")) and not row.startswith(".."):
                owners.setdefault(row, []).append(each.name)
    return owners


def _statuses(each: Distribution) -> Iterator[os.stat_result]:
    for row in inventory.files(each):
        try:
            yield os.lstat(os.path.join(each.location, row))
        except OSError:
            continue


def _bytes_below(place: str) -> int:
    """Bytes of blocks below a path, or of the file that it is."""
    try:
        total = bytes_of_blocks(os.lstat(place))
    except OSError:
        return 0
    for parent, directories, files in os.walk(place):
        for name in (*directories, *files):
            try:
                total += bytes_of_blocks(os.lstat(os.path.join(parent, name)))
            except OSError:
                continue
    return total


def _has_extensions(each: Distribution) -> bool:
    """Whether a distribution without RECORD has extension modules, by its own name's directory."""
    names = {each.name.replace("-", "_"), each.name}
    for name in names:
        for _, _, files in os.walk(os.path.join(each.location, name)):
            if any(file.endswith(_EXTENSIONS) for file in files):
                return True
    return False


def _name_before_removal(left: Distribution) -> tuple[str, str] | None:
    """Name and version in the metadata of a ``~name-1.0.dist-info``."""
    metadata = inventory.core_metadata(os.path.join(left.metadata, "METADATA"))
    name, version = metadata.name, metadata.version
    return (canonicalize_name(name), version) if name and version else None
