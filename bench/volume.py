"""A slow volume: a layer used in place, against one that is packed and unpacked to the local disk.

Every start is a fresh process on a worker that has nothing on its own disk, and the volume is
mounted anew, so that nothing of it is cached. The layer is the same, and so is the platform. The
slow volume is a directory behind FUSE with a delay for each operation; the other one is MooseFS,
served by this machine, a host of its own for every start.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bench import ground
from bench.contenders import Goods
from bench.slowfs import mounted, no_fuse
from bench.survival import fetch
from tests.support.hosts import Host
from tests.support.index import Index
from tests.support.moosefs import moosefs, no_moosefs

ROUNDS = 3
DELAY = 0.005
WANTED: Mapping[str, str] = {"transformers": "transformers"}
FORMS = {
    "packed": "packed, unpacked first",
    "directory": 'used in place, layers = "directory"',
}
"""Packed is what such a volume gets by default; directories must be stated."""
# What a worker imports of it; a plain `import transformers` puts most of its imports off.
USE = "import transformers.pipelines.automatic_speech_recognition, transformers.generation"
START = """
import json, sys, time
begin = time.perf_counter()
import preheat
preheat.warm(sys.argv[1], store=sys.argv[2])
ready = time.perf_counter()
{use}
import transformers
where = transformers.__file__
print(json.dumps([ready - begin, time.perf_counter() - begin, where]))
"""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One form of the layers on one volume, and the seconds of its starts.

    Attributes:
        local: the worker's own disk.
    """

    form: str
    store: Path
    manifest: Path
    local: Path
    ready: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)

    def start(self, python: Path, host: Host | None = None) -> None:
        """One start, with nothing on the local disk."""
        if self.local.exists():
            # Out of the way, and gone in the end: ext4 was seen to take five times as long for new
            # files just after as many had been removed, which no new worker's disk does.
            self.local.rename(self.local.with_name(f"used-{uuid.uuid4().hex}"))
        code = START.format(use=USE)
        command = [str(python), "-c", code, str(self.manifest), str(self.store)]
        output = run(command, host)
        ready, done, where = json.loads(output.splitlines()[-1])
        place = self.local if self.form == "packed" else self.store
        if not where.startswith(str(place)):
            raise SystemExit(f"{where} is not in {place}")
        self.ready.append(ready)
        self.done.append(done)


def measure() -> None:
    """Fill the volumes, run the rounds, print the table and keep the figures."""
    if reason := no_fuse():
        raise SystemExit(f"volume: {reason}")
    home = ground.BUILD / "volume"
    if (home / "local").exists():
        (home / "local").rename(home / f"used-{uuid.uuid4().hex}")
    python = ground.make_venv(home / "platform", "pip", str(ground.PROJECT))
    wheels = fetch(python.parent, home / "wheels", Goods(imports=WANTED, required=(), keep_free=0))
    with Index(wheels) as index:
        found = {f"FUSE, {DELAY * 1000:g} ms an operation": slow(home, python, index.url)}
        if reason := no_moosefs():
            print(f"MooseFS: {reason}")
        else:
            found["MooseFS on this machine"] = network(home, python, index.url)
    for used in home.glob("used-*"):
        shutil.rmtree(used)
    show(found)


def slow(home: Path, python: Path, index: str) -> list[Way]:
    """The rounds on the slow volume; it is filled without the delay."""
    behind, point = home / "behind", home / "volume"
    shutil.rmtree(behind, ignore_errors=True)
    behind.mkdir()
    ways = make_ways(home, point, index)
    with mounted(behind, point, 0):
        fill(ways, python)

    @contextlib.contextmanager
    def anew() -> Iterator[Host | None]:
        with mounted(behind, point, DELAY):
            yield None

    rounds(ways, python, anew)
    return ways


def network(home: Path, python: Path, index: str) -> list[Way]:
    """The rounds on MooseFS; it is filled by the machine that serves it."""
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-volume-"))
        volume = stack.enter_context(moosefs(Path(root), hosts=2 * ROUNDS))
        ways = make_ways(home, volume.path, index)
        # Only there is the index within reach: a start that needed it would say so.
        volume.master.relay(stack, urlsplit(index).port or 0)
        fill(ways, python, volume.master)
        hosts = iter(volume.hosts)
        rounds(ways, python, lambda: contextlib.nullcontext(next(hosts)))
    return ways


def make_ways(home: Path, volume: Path, index: str) -> list[Way]:
    """Both forms, each with a store and a manifest."""
    ways = []
    for form, settings in {"directory": {"layers": "directory"}, "packed": {}}.items():
        local = home / "local"
        tables = ({"name": n, "requires": [n], "imports": [m]} for n, m in WANTED.items())
        manifest = ground.write_manifest(
            home / f"{form}.toml",
            tables,
            **settings,
            local=str(local),
            index={"url": index},
        )
        ways.append(Way(form=form, store=volume / form, manifest=manifest, local=local))
    return ways


def fill(ways: Sequence[Way], python: Path, host: Host | None = None) -> None:
    """A cold start of each."""
    for way in ways:
        print(f"filling {way.store.name}", flush=True)
        options = ("--manifest", str(way.manifest), "--store", str(way.store))
        run([str(python), "-m", "preheat", "warm", *options], host)


def rounds(
    ways: Sequence[Way],
    python: Path,
    anew: Callable[[], contextlib.AbstractContextManager[Host | None]],
) -> None:
    """Starts of both in turn, the order turning too."""
    for number in range(ROUNDS):
        for way in ways[:: 1 if number % 2 else -1]:
            with anew() as host:
                way.start(python, host)
            print(f"{way.form}: {way.done[-1]:.2f} s", flush=True)


def run(command: Sequence[str], host: Host | None) -> str:
    """Run it here, or on a host; what it printed."""
    done = subprocess.run(
        host.command(*command) if host else list(command),
        env=ground.surroundings(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])}: {done.stderr[-3000:]}")
    return done.stdout


def show(found: Mapping[str, Sequence[Way]]) -> None:
    """The table, and the figures."""
    rows = []
    figures: dict[str, object] = {}
    for volume, ways in found.items():
        slowest = statistics.median(ways[0].done)
        for way in ways:
            ready, done = map(statistics.median, (way.ready, way.done))
            times = f"{slowest / done:.1f}"
            rows.append([f"{volume}: {FORMS[way.form]}", f"{ready:.2f}", f"{done:.2f}", times])
        figures[volume] = {way.form: {"ready": way.ready, "imported": way.done} for way in ways}
    ground.show(
        f"a slow volume, seconds; {', '.join(WANTED)}, medians of {ROUNDS} starts",
        ("", "until ready", "until imported", "times faster"),
        rows,
    )
    load = [round(each, 2) for each in os.getloadavg()]
    ground.keep("volume", {"delay": DELAY, "use": USE, "load": load, "seconds": figures})
