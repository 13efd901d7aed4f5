"""The start of a worker: warm in milliseconds, or cold in a child process.

A warm start follows the pointer that the last start left: same manifest, same interpreter, same
platform, same driver, layers still there; then the layers go on the path. It starts no process,
asks no network, and imports nothing that a bare interpreter has not loaded, which is why values
are slotted classes written by hand here and not dataclasses.

A cold start runs in a child, so that the worker's own process never holds a module, of preheat's
dependencies or a platform's, that a layer is about to shadow.
"""

from __future__ import annotations

import os
import sys
import time

from preheat.activation import activate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from preheat.words.errors import RequiredPackageError

FORMAT = 1
_BOOTSTRAP = "PREHEAT_INTERNAL_BOOTSTRAP"
_NOT_COMPARED = ("PREHEAT_MANIFEST", "PREHEAT_PYTHON", "PREHEAT_LOG", "PREHEAT_STORE")
_DRIVER = "/proc/driver/nvidia/version"
_GPUS = "/proc/driver/nvidia/gpus"


class PackageState:
    """What became of one package of the manifest.

    Attributes:
        name: as in the manifest.
        status: ``platform``, ``reused``, ``installed``, ``skipped`` or ``failed``.
        reason: why, in a sentence.
        version: of its first requirement, or None.
        layer: directory that it is imported from, or None.
        required: whether the worker cannot live without it.
    """

    __slots__ = ("layer", "name", "reason", "required", "status", "version")

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.name: str = row["name"]
        self.status: str = row["status"]
        self.reason: str = row["reason"]
        self.version: str | None = row["version"]
        self.layer: str | None = row["layer"]
        self.required: bool = row["required"]

    @property
    def ok(self) -> bool:
        """Whether its imports work in this process."""
        return self.status in ("platform", "reused", "installed")

    def __repr__(self) -> str:
        return f"<{self.name} {self.version or '-'}: {self.status}>"


class Ready:
    """What a start made ready, by package name.

    Attributes:
        report: file of the last cold start's report.
        warm: the short path was taken.
        seconds: what the start took in this process, activation included.
        paths: directories that were put on the path.
        conflicts: modules imported before the start that a layer would have shadowed; this
            process keeps the platform's, and mixes versions if it goes on.
    """

    __slots__ = ("_capabilities", "_packages", "conflicts", "paths", "report", "seconds", "warm")

    def __init__(self, facts: Mapping[str, Any], *, warm: bool) -> None:
        self._packages = {row["name"]: PackageState(row) for row in facts["packages"]}
        self._capabilities: dict[str, str | None] = facts["capabilities"]
        self.report: str = facts["report"]
        self.warm = warm
        self.seconds = 0.0
        self.paths: tuple[str, ...] = ()
        self.conflicts: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> PackageState:
        return self._packages[name]

    def __iter__(self) -> Iterator[PackageState]:
        return iter(self._packages.values())

    def __contains__(self, name: object) -> bool:
        return name in self._packages

    def __len__(self) -> int:
        return len(self._packages)

    @property
    def ok(self) -> bool:
        """Whether everything required is ready."""
        return all(package.ok for package in self if package.required)

    def choose(self, capability: str) -> str | None:
        """The first package of that capability that works here, or None.

        Raises:
            KeyError: the manifest has no such capability.
        """
        return self._capabilities[capability]

    def __repr__(self) -> str:
        return f"<preheat {'warm' if self.warm else 'cold'}: {list(self)}>"


def warm(
    manifest: str | os.PathLike[str] | None = None,
    *,
    store: str | os.PathLike[str] | None = None,
    deadline: float | None = None,
    retry: bool = False,
) -> Ready:
    """Makes what the manifest names importable in this process and in its children.

    Args:
        manifest: ``preheat.toml``, or a ``pyproject.toml`` with ``[tool.preheat]``; by default
            the one in the working directory.
        store: where layers are kept; by default what the settings say.
        deadline: seconds after which optional packages are no longer waited for.
        retry: try packages again that failed before.

    Raises:
        preheat.PreheatError: the manifest is wrong, the store unusable; or, as
            RequiredPackageError, a required package could not be made ready.
    """
    begin = time.perf_counter()
    file = os.path.abspath(manifest or _find_manifest())
    named = None if store is None else os.path.abspath(store)
    facts = None if retry else follow(file, named)
    if facts is None:
        facts = _go_cold(file, named, deadline, retry)
        ready = Ready(facts, warm=False)
    else:
        note(facts)
        ready = Ready(facts, warm=True)
    _enter(ready, facts)
    ready.seconds = time.perf_counter() - begin
    if not ready.ok:
        raise required_error(facts["packages"], hint=f"the whole report: {ready.report}")
    return ready


def running() -> tuple[str, str, str | None]:
    """What names the running interpreter to a pointer: version, prefix and cache tag."""
    return sys.version, sys.prefix, sys.implementation.cache_tag


def follow(
    manifest: str, store: str | None = None, interpreter: tuple[str, str, str | None] | None = None
) -> dict[str, Any] | None:
    """The facts that a valid pointer for this manifest holds; None where the start is cold.

    Args:
        manifest: absolute path.
        store: a store that was named, or None.
        interpreter: whose start it is, as ``running`` spells it; by default the running one's.
    """
    facts, reason = examine(manifest, store, interpreter)
    return None if reason else facts


def examine(
    manifest: str, store: str | None = None, interpreter: tuple[str, str, str | None] | None = None
) -> tuple[dict[str, Any] | None, str]:
    """The pointer that was found, and why the next start is cold all the same; empty if warm."""
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
        if not reason:
            return facts, ""
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


def note(facts: Mapping[str, Any]) -> None:
    """Adds a warm start to the store's history: one short line, in one write."""
    line = f'{{"started":{time.time():.3f},"warm":true,{facts["history"]}\n'
    try:
        with open(os.path.join(facts["store"], "history.jsonl"), "a", encoding="utf-8") as file:
            file.write(line)
    except OSError:
        # A store that cannot be written can still be started from.
        return


def settings_in(environment: Mapping[str, str]) -> dict[str, int]:
    """The ``PREHEAT_*`` variables that a start depends on, sealed; not where the store is."""
    return {
        name: seal(os.fsencode(value))
        for name, value in environment.items()
        if name.startswith("PREHEAT_")
        and name not in _NOT_COMPARED
        and not name.startswith("PREHEAT_INTERNAL_")
    }


def seal(data: bytes) -> int:
    """Tells values apart without keeping them: an index address may hold credentials.

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
    """What is not as the pointer's start left it, the cheapest look first."""
    if facts["manifest"] != seal(text):
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
    for layer in facts["layers"]:
        if not os.path.isdir(layer):
            yield f"the layer {layer} is gone"


def _same_site(row: list[Any]) -> bool:
    site, modified, names = row
    try:
        if os.stat(site).st_mtime_ns == modified:
            return True
    except OSError:
        return False
    # A __pycache__ or a container's copy changes the time, an installation changes the names.
    return bool(site_state(site)[1] == names)


def _find_manifest() -> str:
    named = os.environ.get("PREHEAT_MANIFEST")
    if named:
        return named
    return "preheat.toml" if os.path.exists("preheat.toml") else "pyproject.toml"


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


def _enter(ready: Ready, facts: Mapping[str, Any]) -> None:
    """Activates in this process, and makes its children do the same."""
    layers = facts["layers"]
    bootstrap = facts["bootstrap"]
    old = os.environ.get(_BOOTSTRAP)
    left = _leave(old, layers) if old and old != bootstrap else []
    shadowed = [name for name in facts["shadowed"] if _is_elsewhere(name, layers)]
    ready.conflicts = tuple(dict.fromkeys([*shadowed, *left]))
    if ready.conflicts:
        names = ", ".join(ready.conflicts)
        sys.stderr.write(
            f"preheat: imported before the start, so this process keeps what it has: {names}; "
            "call preheat.warm() before importing them\n"
        )
    sites = [row[0] for row in facts["sites"]]
    ready.paths = tuple(activate(layers, sites, facts["hooked"]))
    if bootstrap and old != bootstrap:
        rest = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
        rest = [place for place in rest if place != old]
        os.environ["PYTHONPATH"] = os.pathsep.join([bootstrap, *rest])
        os.environ[_BOOTSTRAP] = bootstrap


def _leave(bootstrap: str, staying: Sequence[str]) -> list[str]:
    """Takes off the path what an earlier activation, here or in a parent, put on it.

    Returns:
        Modules that were imported from layers that do not come back.
    """
    try:
        with open(os.path.join(bootstrap, "path"), encoding="utf-8") as file:
            lines = file.read().split("\n")
    except OSError:
        return []
    layers = [line[len("layer ") :] for line in lines if line.startswith("layer ")]
    sys.path[:] = [place for place in sys.path if not _is_below(place, layers)]
    gone = [layer for layer in layers if layer not in staying]
    tops = sorted(name for name in sys.modules if "." not in name)
    return [name for name in tops if _is_below(_origin(name), gone)]


def _is_elsewhere(name: str, layers: Sequence[str]) -> bool:
    """Whether a module is imported already, and not from these layers."""
    return name in sys.modules and not _is_below(_origin(name), layers)


def _origin(name: str) -> str:
    """The file of an imported module, or the first directory of a namespace."""
    module = sys.modules[name]
    places = getattr(module, "__path__", None) or ("",)
    return getattr(module, "__file__", None) or str(next(iter(places), ""))


def _is_below(place: str, layers: Sequence[str]) -> bool:
    return any(place == layer or place.startswith(layer + os.sep) for layer in layers)


def _go_cold(
    manifest: str, store: str | None, deadline: float | None, retry: bool
) -> dict[str, Any]:
    from preheat.edges import child
    from preheat.words.errors import PreheatError

    report = child.provision(manifest, store, deadline, retry=retry)
    pointer = pointer_file(report["store"], manifest, sys.prefix, sys.implementation.cache_tag)
    facts = read_pointer(pointer)
    if facts is None:
        raise PreheatError(f"the start left no pointer at {pointer}")
    # This start's own words: the pointer speaks of the next one.
    return {**facts, "packages": report["packages"]}


def required_error(packages: Iterable[Mapping[str, Any]], *, hint: str) -> RequiredPackageError:
    """The error for a start in which a required package is not ready."""
    from preheat.words.errors import RequiredPackageError

    missing = [PackageState(row) for row in packages]
    missing = [package for package in missing if package.required and not package.ok]
    return RequiredPackageError(
        "required and not ready: " + "; ".join(f"{p.name}: {p.reason}" for p in missing),
        hint=hint,
        packages=tuple(package.name for package in missing),
    )
