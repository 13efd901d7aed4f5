"""The F5-TTS worker's packages in 3, 1.5 and 0.7 GB: preheat and the naive script (root, GBs).

As in a container: an image with the index's torch (CUDA) and the worker is the read-only side of an
overlay, and all that is written (packages, home, temporary files) goes to one tmpfs of that size.
Each finds such a disk empty. The naive script is told the same packages in the same order, and its
own thresholds; flash-attn, which needs a GPU, is in neither list. Both fetch from the configured
index. What is told of the result is what a fresh interpreter finds, and what the filesystem says.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w

from bench import ground, naive
from bench.smalldisk import keep_mounts_private
from preheat.edges.process.environment import SYSTEM

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SIZES = (3.0, 1.5, 0.7)  # GB
PREHEAT, IMPORTED = "preheat", 'preheat, compile = "imported"'
CONTENDERS = (PREHEAT, IMPORTED, "naive script")
PROVIDES = ("pip", "torch==2.13.0", "numpy==2.4.6")
WORKER = ground.PROJECT / "worker"
WITHOUT = "flash-attn"
# The naive script's own thresholds, in bytes.
CLEAN_BELOW, SKIP_BELOW = 10**9, 5 * 10**8
FULL = re.compile(r"Errno 28|No space left")
_TIMEOUT = 1800.0
_PERIOD = 0.05
_IMPORT = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
_TORCH = "import importlib.metadata as m; print(m.version('torch'))"


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """What one start came to.

    Attributes:
        seconds: of the start itself.
        used: bytes of the disk once it has ended; peak: the most while it went on.
        full: whether it ran out of space, by its own words or the disk's.
        importable: packages whose promised imports work in a fresh interpreter.
        over: files of the image that were replaced or removed.
        torch: the version that a fresh interpreter finds.
    """

    contender: str
    size: float
    exit: int
    seconds: float
    used: int
    peak: int
    full: bool
    importable: tuple[str, ...]
    over: int
    torch: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """An image that is written to nowhere, and the disk that takes its place."""

    image: Path
    disk: Path

    @property
    def python(self) -> Path:
        """The platform's interpreter."""
        return self.image / "bin" / "python"

    @property
    def environment(self) -> dict[str, str]:
        """What a start is told; nothing of it leads to another disk."""
        path = os.pathsep.join((str(self.python.parent), "/usr/local/bin", "/usr/bin", "/bin"))
        own = {"HOME": "home", "TMPDIR": "tmp", SYSTEM: "system"}
        places = {name: str(self.disk / place) for name, place in own.items()}
        return {**ground.surroundings(), "PATH": path, **places}

    def used(self) -> int:
        """Bytes of the disk."""
        stats = os.statvfs(self.disk)
        return (stats.f_blocks - stats.f_bfree) * stats.f_frsize

    def left(self) -> int:
        """Bytes that are free on it."""
        stats = os.statvfs(self.disk)
        return stats.f_bavail * stats.f_frsize

    def over(self, lower: Path) -> int:
        """Files of the image that are other ones now, or gone; bytecode does not count."""
        changed = 0
        upper = self.disk / "upper"
        for path in upper.rglob("*"):
            if path.suffix != ".pyc" and not path.is_dir():
                changed += (lower / path.relative_to(upper)).exists()
        return changed


def measure() -> None:
    """Start in turn on every size; show a table and keep the figures."""
    keep_mounts_private()
    image = ground.BUILD / "worker" / "platform"
    python = ground.make_venv(image, *PROVIDES)
    install = ("pip", "install", "--quiet", "--compile-bytecode", "--python", str(python))
    again = ("--reinstall-package", "preheat", "--reinstall-package", "preheat-f5-tts-worker")
    ground.uv(*install, *again, str(ground.PROJECT), str(WORKER))
    starts = []
    for size in SIZES:
        for contender in CONTENDERS:
            with container(image, int(size * 1e9)) as (inside, lower):
                starts.append(start(contender, size, inside, lower))
            _say(starts[-1])
    ground.show(
        "the worker's packages on small disks",
        (
            "GB",
            "",
            "exit",
            "seconds",
            "used MB",
            "peak MB",
            "Errno 28",
            "importable",
            "over",
            "torch",
        ),
        map(_row, starts),
    )
    ground.keep("worker-disks", {"starts": [asdict(each) for each in starts]})


@contextlib.contextmanager
def container(image: Path, size: int) -> Iterator[tuple[Container, Path]]:
    """The image as the lower side of an overlay at its own place; with it comes that lower side."""
    with tempfile.TemporaryDirectory(prefix="bench-container-") as place:
        disk, lower = Path(place, "disk"), Path(place, "lower")
        disk.mkdir()
        lower.mkdir()
        _mount("-t", "tmpfs", "-o", f"size={size},mode=755", "none", str(disk))
        try:
            for name in ("upper", "work", "home", "tmp"):
                (disk / name).mkdir()
            _mount("--bind", str(image), str(lower))
            sides = f"lowerdir={lower},upperdir={disk / 'upper'},workdir={disk / 'work'}"
            _mount("-t", "overlay", "-o", sides, "overlay", str(image))
            try:
                yield Container(image=image, disk=disk), lower
            finally:
                _unmount(image)
                _unmount(lower)
        finally:
            _unmount(disk)


def start(contender: str, size: float, inside: Container, lower: Path) -> Start:
    """Start once, then look what is there."""
    packages = _packages()
    if contender in (PREHEAT, IMPORTED):
        manifest = _manifest(inside, {"compile": "imported"} if contender == IMPORTED else {})
        named = ("--manifest", str(manifest), "--store", str(inside.disk / "store"))
        preheat = (str(inside.python), "-m", "preheat")
        command: Sequence[str] = (*preheat, "warm", *named)
        enter: Sequence[str] = (*preheat, "run", *named, "--")
    else:
        task = {
            "root": str(inside.disk),
            "clean_below": CLEAN_BELOW,
            "skip_below": SKIP_BELOW,
            # It looks at the first import that is promised, as it was written for one.
            "packages": {name: imports[-1] for name, imports in packages.items()},
            "required": ["transformers", "f5-tts"],
        }
        command = (str(inside.python), naive.__file__, json.dumps(task))
        enter = ()
    with _peak(inside) as peak:
        begin = time.monotonic()
        done = subprocess.run(
            command,
            env=inside.environment,
            cwd=inside.disk,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        seconds = time.monotonic() - begin
    used = inside.used()
    # Importing may write, too: what was used and replaced is known by then.
    over = inside.over(lower)
    can_enter = not enter or done.returncode == 0
    importable = tuple(
        name
        for name, imports in packages.items()
        if can_enter and _works(inside, (*enter, str(inside.python), "-B", "-c", _IMPORT, *imports))
    )
    version = (str(inside.python), "-B", "-c", _TORCH)
    torch = subprocess.run(
        version, env=inside.environment, capture_output=True, text=True, check=False
    ).stdout.strip()
    return Start(
        contender=contender,
        size=size,
        exit=done.returncode,
        seconds=round(seconds, 1),
        used=used,
        peak=max(peak[0], used),
        full=FULL.search(done.stdout) is not None or peak[1] == 0,
        importable=importable,
        over=over,
        torch=torch or "none",
    )


def _packages() -> dict[str, tuple[str, ...]]:
    """The worker's own, with what each promises to import."""
    return {each["name"]: tuple(each["imports"]) for each in _document()["package"]}


def _document() -> dict[str, Any]:
    document = tomllib.loads((WORKER / "preheat.toml").read_text(encoding="utf-8"))
    document["package"] = [each for each in document["package"] if each["name"] != WITHOUT]
    del document["capabilities"]
    return document


def _manifest(inside: Container, settings: Mapping[str, object]) -> Path:
    """The worker's manifest, with those settings."""
    file = inside.disk / "preheat.toml"
    file.write_text(tomli_w.dumps({**settings, **_document()}), encoding="utf-8")
    return file


@contextlib.contextmanager
def _peak(inside: Container) -> Iterator[list[int]]:
    """The most that was used while it went on, and the least that was free."""
    seen = [inside.used(), inside.left()]
    over = threading.Event()

    def look() -> None:
        while not over.wait(_PERIOD):
            seen[0], seen[1] = max(seen[0], inside.used()), min(seen[1], inside.left())

    thread = threading.Thread(target=look, name="statvfs")
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _works(inside: Container, command: Sequence[str]) -> bool:
    done = subprocess.run(
        command, env=inside.environment, cwd=inside.disk, capture_output=True, check=False
    )
    return done.returncode == 0


def _row(each: Start) -> tuple[str, ...]:
    return (
        f"{each.size:.1f}",
        each.contender,
        str(each.exit),
        f"{each.seconds:.0f}",
        f"{each.used / 1e6:,.0f}",
        f"{each.peak / 1e6:,.0f}",
        "yes" if each.full else "no",
        ", ".join(each.importable) or "none",
        f"{each.over:,}",
        each.torch,
    )


def _say(each: Start) -> None:
    print("  ".join(_row(each)), flush=True)


def _mount(*arguments: str) -> None:
    program = shutil.which("mount") or "/bin/mount"
    subprocess.run((program, *arguments), check=True)


def _unmount(place: Path) -> None:
    """What somebody still holds open is let go of; the namespace ends it in the end."""
    program = shutil.which("umount") or "/bin/umount"
    subprocess.run((program, "--lazy", str(place)), check=True)
