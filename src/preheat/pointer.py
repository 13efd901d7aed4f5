"""The pointer that the last start left: what it is valid for, and whether that still holds.

Part of the warm path: it starts no process, asks no network, and imports nothing that a bare
interpreter has not loaded.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

FORMAT = 4
UNPACK = "its layers are packed, and not unpacked on this machine yet"
"""The reason of a start that is not warm only because its layers have to be unpacked."""
PENDING_REMOVAL = "pending_removal"
"""The file in a store that names a collector's lease and the layers that it is about to remove."""

# They say where things are, which the pointer itself says of its layers.
_NOT_COMPARED = (
    "PREHEAT_MANIFEST",
    "PREHEAT_PYTHON",
    "PREHEAT_LOG",
    "PREHEAT_STORE",
    "PREHEAT_IMAGE",
)
_DRIVER = "/proc/driver/nvidia/version"
_GPUS = "/proc/driver/nvidia/gpus"


def running() -> tuple[str, str, str | None]:
    """What names the running interpreter to a pointer: version, prefix and cache tag."""
    return sys.version, sys.prefix, sys.implementation.cache_tag


def examine(
    manifest: str, store: str | None = None, interpreter: tuple[str, str, str | None] | None = None
) -> tuple[dict[str, Any] | None, str]:
    """The pointer, and the reason why the next start is not warm; an empty reason if it is.

    Args:
        manifest: absolute path.
        store: a store that was named, or None.
        interpreter: whose start it is, as ``running`` spells it; by default the running one's.

    Returns:
        No pointer if the start is cold; one if its layers only have to be unpacked.
    """
    version, prefix, cache_tag = interpreter or running()
    try:
        with open(manifest, "rb") as file:
            text = file.read()
    except OSError as error:
        return None, f"the manifest {manifest} cannot be read: {error.strerror}"
    places = _stores(manifest, text, store)
    reason = f"no start has left a pointer in {' or '.join(places)}"
    for root in places:
        facts = read_pointer(pointer_file(root, manifest, prefix, cache_tag))
        if facts is None:
            continue
        if facts["python"] != version or facts["prefix"] != prefix:
            reason = "the interpreter is another one"
            continue
        reason = next(_differences(facts, text), "")
        if reason in ("", UNPACK):
            return facts, reason
    return None, reason


def pointer_file(store: str, manifest: str, prefix: str, cache_tag: str | None) -> str:
    """Where the pointer of a manifest and an interpreter is kept in a store.

    A checksum is name enough: the pointer holds the whole of what it is valid for.
    """
    import binascii

    key = binascii.crc32(os.fsencode(f"{manifest}\0{prefix}"))
    return os.path.join(store, "starts", f"{key:08x}-{cache_tag}")


def read_pointer(file: str) -> dict[str, Any] | None:
    """A pointer's facts, or None where it is absent or damaged."""
    import binascii
    import marshal

    try:
        with open(file, "rb") as handle:
            data = handle.read()
        if int.from_bytes(data[:4], "big") != binascii.crc32(data[4:]):
            return None
        # Whoever can write the store can write the code in it.
        facts: dict[str, Any] = marshal.loads(data[4:])  # noqa: S302
    except (OSError, ValueError, EOFError, TypeError):
        return None
    return facts if facts.get("format") == FORMAT else None


def pack_pointer(facts: Mapping[str, Any]) -> bytes:
    """A pointer as bytes: a checksum, then marshal, which loads in microseconds."""
    import binascii
    import marshal

    data = marshal.dumps(dict(facts))
    return binascii.crc32(data).to_bytes(4, "big") + data


def note(facts: Mapping[str, Any], *, warm: bool = True) -> None:
    """Adds a start to the store's history, and stamps the pointer with its last use."""
    was = "true" if warm else "false"
    line = f'{{"started":{time.time():.3f},"warm":{was},{facts["history"]}\n'
    try:
        with open(os.path.join(facts["store"], "history.jsonl"), "a", encoding="utf-8") as file:
            file.write(line)
        os.utime(facts["report"].removesuffix(".json"))
    except OSError:
        # A store that cannot be written can still be started from.
        return


def settings_in(environment: Mapping[str, str]) -> dict[str, int]:
    """Hashes of the ``PREHEAT_*`` variables that a start depends on; not of those for places."""
    return {
        name: hash_of(os.fsencode(value))
        for name, value in environment.items()
        if name.startswith("PREHEAT_")
        and name not in _NOT_COMPARED
        and not name.startswith("PREHEAT_INTERNAL_")
    }


def hash_of(data: bytes) -> int:
    """A hash that tells values apart without keeping them: an index address may hold credentials.

    Integers hash alike in every process, and a tuple of them costs no import.
    """
    return hash(tuple(data))


def driver() -> list[bytes]:
    """The NVIDIA driver's version and each device's model, as the kernel tells them."""
    found: list[bytes] = []
    try:
        with open(_DRIVER, "rb") as file:
            found.append(file.readline())
        for device in sorted(os.listdir(_GPUS)):
            with open(os.path.join(_GPUS, device, "information"), "rb") as file:
                found.append(file.readline())
    except OSError:
        # No driver, or one that hides a part of itself: what was read counts.
        return found
    return found


def site_state(site: str) -> tuple[int, list[str]]:
    """A site directory's mtime, and the names in it that an installation changes."""
    try:
        modified = os.stat(site).st_mtime_ns
        names = [
            name
            for name in os.listdir(site)
            if name.endswith(("-info", ".pth", ".egg-link")) or name.startswith("~")
        ]
    except OSError:
        return 0, []
    return modified, sorted(names)


def _differences(facts: Mapping[str, Any], text: bytes) -> Iterator[str]:
    """What has changed since the pointer's start, what is found out most cheaply first."""
    if facts["manifest"] != hash_of(text):
        yield "the manifest has changed"
    if facts["expires"] < time.time():
        yield "the last start did not get everything, and it is time to try again"
    stated, now = facts["environment"], settings_in(os.environ)
    if stated != now:
        names = sorted(name for name in {*stated, *now} if stated.get(name) != now.get(name))
        yield f"{', '.join(names)} changed"
    if facts["driver"] != driver():
        yield "the NVIDIA driver or the devices changed"
    for row in facts["sites"]:
        if not _same_site(row):
            yield f"the distributions in {row[0]} changed"
    for library in facts["libraries"]:
        if not os.path.exists(library):
            yield f"the platform's library {library} is gone"
    gone = first_gone(facts)
    if gone:
        yield UNPACK if facts["local"] else f"the layer {gone} is gone"


def _same_site(row: list[Any]) -> bool:
    site, modified, names = row
    try:
        if os.stat(site).st_mtime_ns == modified:
            return True
    except OSError:
        return False
    # A __pycache__ or a container's copy changes the time, an installation changes the names.
    return bool(site_state(site)[1] == names)


def _stores(manifest: str, text: bytes, named: str | None) -> list[str]:
    """Where the pointer may be, the most particular first; a wrong guess costs one open."""
    home = os.path.expanduser("~")
    outside = named or os.environ.get("PREHEAT_STORE")
    stated = None if outside else _stated_store(text)
    for place, base in ((outside, os.getcwd()), (stated, os.path.dirname(manifest))):
        if place:
            return [os.path.join(base, home + place[1:] if place.startswith("~/") else place)]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    # Elsewhere /workspace is anybody's, and a pointer in it would be followed.
    pod = ["/workspace"] if os.environ.get("RUNPOD_POD_ID") else []
    return [os.path.join(place, "preheat") for place in ("/runpod-volume", *pod, cache)]


def _stated_store(text: bytes) -> str | None:
    """The store that a manifest states, read without a TOML parser; only to find the pointer.

    In a pyproject.toml it stands in the table of preheat, in preheat.toml before the first table.
    """
    if b"store" not in text:
        return None
    lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines()]
    begin = lines.index("[tool.preheat]") + 1 if "[tool.preheat]" in lines else 0
    for line in lines[begin:]:
        if line.startswith("["):
            return None
        key, _, value = line.partition("=")
        value = value.strip()
        if key.strip().strip("\"'") == "store" and value[:1] in ("'", '"'):
            return value[1:].partition(value[0])[0]
    return None


def pending_removal(store: str) -> list[str]:
    """Digests of layers that a collector is about to remove."""
    try:
        with open(os.path.join(store, PENDING_REMOVAL), encoding="utf-8") as file:
            return file.read().split("\n")[1:]
    except OSError:
        return []


def first_gone(facts: Mapping[str, Any]) -> str:
    """The first of a start's layers that is not there; empty where all are.

    Where layers are packed, what children start with counts too: it is on the local disk as well.
    """
    places = [*facts["layers"], facts["bootstrap"]] if facts["local"] else facts["layers"]
    return next((place for place in places if place and not os.path.isdir(place)), "")
