"""Races: many starts at once on one volume, on one host and on several, with locks and without.

Every start has the same manifest and finds an empty store. A lock that does nothing is one that
some network filesystems give: `flock` and `lockf` say yes to everyone. In the end every start must
be ready, every layer whole by its RECORD and by an import, and nothing half-made left; where locks
work, the index should have served what one start alone takes.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench import ground
from tests.support.hosts import Host
from tests.support.index import Index
from tests.support.moosefs import moosefs, no_moosefs
from tests.support.platforms import make_platform
from tests.support.starts import Answer, Ground, finished, package
from tests.support.wheels import Project

PROCESSES = 32  # on one host
HOSTS = 3
EACH = 8  # processes on each of the hosts
PACKAGES = tuple(f"race{number}" for number in range(1, 6))
SHARED = "raceshared"  # what all of them require
FILES, FILE_BYTES = 10, 333_333  # of each of the six: 20 MB together
GOOD = ("platform", "reused", "installed")
PATIENCE = 540.0  # seconds for the slowest start

# Python runs this before everything else, in preheat and in what it starts; uv is not concerned.
NO_LOCKS = """
import fcntl
fcntl.flock = lambda descriptor, operation: None
fcntl.lockf = lambda *arguments: None
"""
TRIAL = """
import fcntl, sys
held = [open(sys.argv[1], "w") for _ in range(2)]
for each in held:
    fcntl.flock(each, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""


@dataclass(frozen=True, kw_only=True)
class Lane:
    """Where some of the starts run: a ground, and the host where it is not this one."""

    ground: Ground
    host: Host | None = None

    def command(self, *arguments: str) -> list[str]:
        """The command line of those arguments there."""
        return list(arguments) if self.host is None else self.host.command(*arguments)


@dataclass(frozen=True, kw_only=True)
class Race:
    """One race: how many starts in each lane, over one store; and what came of it.

    Attributes:
        served: bytes of all bodies that the index sent.
        ends: exit statuses, in no order.
        unready: what was not ready, and why, for each start that was not.
        broken: what is wrong with layers.
        left: what lies in staging and in the engine's cache afterwards.
    """

    name: str
    starts: int
    seconds: float
    served: int
    ends: tuple[int, ...]
    unready: tuple[str, ...]
    layers: int
    broken: tuple[str, ...]
    left: tuple[str, ...]


def measure() -> None:
    """Run the races, print the table and keep the figures."""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-race-")))
        index = stack.enter_context(Index(root / "index"))
        publish(index)
        lane = Lane(ground=prepare(root / "ground", index))
        alone = race("one start alone", [lane], 1, root / "alone", index)
        hooks = no_locks(root / "hooks", lane)
        races = [alone]
        for name, lanes in (
            (f"{PROCESSES} on one host", [lane]),
            (f"{PROCESSES} on one host, locks do nothing", [_with(lane, PYTHONPATH=hooks)]),
        ):
            store = root / name.replace(" ", "-")
            races.append(race(name, lanes, PROCESSES, store, index))
        races += shared_races(stack, root, index, hooks)
    show(races, alone.served)


def shared_races(
    stack: contextlib.ExitStack, root: Path, index: Index, hooks: str
) -> Iterator[Race]:
    """The races of several hosts for one network volume; none where there can be no such volume."""
    if reason := no_moosefs():
        print(f"no races between hosts: {reason}", flush=True)
        return
    volume = stack.enter_context(moosefs(root / "moosefs", hosts=HOSTS))
    port = urlsplit(index.url).port or 80
    # What is looked at afterwards is a directory; by default such a volume has it packed.
    base = prepare(root / "shared", index, layers="directory")
    lanes = []
    for host in volume.hosts:
        host.relay(stack, port)
        own = {"HOME": str(root / host.name / "home"), "TMPDIR": str(root / host.name / "tmp")}
        for place in own.values():
            Path(place).mkdir(parents=True)
        lanes.append(Lane(ground=replace(base, environment=own), host=host))
    name = f'{EACH} on each of {HOSTS} hosts, MooseFS, layers = "directory"'
    yield race(name, lanes, EACH, volume.path / "locks", index)
    free = [_with(lane, PYTHONPATH=hooks) for lane in lanes]
    yield race(f"{name}, locks do nothing", free, EACH, volume.path / "no-locks", index)


def publish(index: Index) -> None:
    """Five wheels and a sixth that all of them require, of bytes that do not compress."""
    noise = random.Random(1)  # noqa: S311  # the same bytes at every run
    for name in (SHARED, *PACKAGES):
        files: dict[str, str | bytes] = {f"{name}/__init__.py": f"NAME = {name!r}\n"}
        files |= {f"{name}/{n}.bin": noise.randbytes(FILE_BYTES) for n in range(FILES)}
        requires = () if name == SHARED else (SHARED,)
        index.publish(Project(name=name, version="1.0", files=files, requires=requires))


def prepare(root: Path, index: Index, **settings: object) -> Ground:
    """A platform and the manifest with those settings; the store is each race's own."""
    platform = make_platform(root / "platform")
    found = Ground(root=root, python=platform.python)
    wanted = (package(name, required=True) for name in PACKAGES)
    # An empty table: the reserves are those of every user, and not those of the tests.
    found.write(*wanted, index=index, space={}, **settings)
    found.surroundings()
    return found


def no_locks(place: Path, lane: Lane) -> str:
    """A directory for PYTHONPATH whose locks do nothing; that it works is tried."""
    place.mkdir()
    (place / "sitecustomize.py").write_text(NO_LOCKS, encoding="utf-8")
    command = [lane.ground.command()[0], "-c", TRIAL, str(place / "trial")]
    free = _with(lane, PYTHONPATH=str(place)).ground.surroundings()
    if finished(command, lane.ground.surroundings()).code == 0 or finished(command, free).code:
        raise SystemExit("locks cannot be switched off here")
    return str(place)


def race(name: str, lanes: Sequence[Lane], each: int, store: Path, index: Index) -> Race:
    """So many starts in every lane, all at once; then look at what they left."""
    print(f"racing: {name}", flush=True)
    index.forget_requests()
    begin = time.monotonic()
    many = [lane for lane in lanes for _ in range(each)]
    with ThreadPoolExecutor(len(many)) as threads:
        answers = list(threads.map(lambda lane: _started(lane, store), many))
    seconds = time.monotonic() - begin
    served = index.bytes_sent
    at = lanes[0]
    seen = store if at.host is None else at.host.path(store)
    layers = sorted((seen / "layers").iterdir())
    broken = [f"{layer.name}: {fault}" for layer in layers for fault in faults(layer)]
    broken += unimportable(at, answers)
    return Race(
        name=name,
        starts=len(answers),
        seconds=seconds,
        served=served,
        ends=tuple(answer.code for answer in answers),
        unready=tuple(reason for answer in answers if (reason := _unready(answer))),
        layers=len(layers),
        broken=tuple(broken),
        left=tuple(_left(seen)),
    )


def _started(lane: Lane, store: Path) -> Answer:
    command = lane.command(*lane.ground.command("warm", "--json", store=store))
    return finished(command, lane.ground.surroundings(), PATIENCE)


def faults(layer: Path) -> Iterator[str]:
    """What RECORD says of a layer's files and is not so; scripts are made anew elsewhere."""
    records = list(layer.glob("*.dist-info/RECORD"))
    if not records:
        yield "holds no distribution"
    for record in records:
        for path, digest, size in csv.reader(record.read_text(encoding="utf-8").splitlines()):
            file = layer / path
            if not file.is_file():
                yield f"{path} is missing"
            elif size and file.stat().st_size != int(size):
                yield f"{path} has {file.stat().st_size} bytes, not {size}"
            elif digest and digest != _digest(file):
                yield f"{path} has other bytes"


def _digest(file: Path) -> str:
    raw = hashlib.sha256(file.read_bytes()).digest()
    return f"sha256={base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"


def unimportable(lane: Lane, answers: Sequence[Answer]) -> Iterator[str]:
    """What the starts promised and a child of theirs cannot import."""
    code = f"import {', '.join((*PACKAGES, SHARED))}"
    for bootstrap in sorted(
        {bootstrap for each in answers if (bootstrap := _report(each).get("bootstrap"))}
    ):
        environment = {**lane.ground.surroundings(), "PYTHONPATH": bootstrap}
        answer = finished(
            lane.command(str(lane.ground.python), "-B", "-c", code), environment, PATIENCE
        )
        if answer.code:
            yield f"{bootstrap}: {answer.stderr.strip().splitlines()[-1]}"


def _report(answer: Answer) -> dict[str, Any]:
    """What a start reported; nothing where it did not come to that."""
    try:
        return answer.document
    except ValueError:
        return {}


def _unready(answer: Answer) -> str:
    """Why a start was not ready; empty where it was."""
    rows = _report(answer).get("packages", [])
    bad = [f"{row['name']}: {row['reason']}" for row in rows if row["status"] not in GOOD]
    if answer.code == 0 and len(rows) == len(PACKAGES) and not bad:
        return ""
    return "; ".join(bad) or f"exit {answer.code}: {answer.stderr[-400:]}"


def _left(store: Path) -> Iterator[str]:
    for place in ("staging", "cache"):
        if (store / place).is_dir():
            yield from (f"{place}/{entry.name}" for entry in (store / place).iterdir())


def _with(lane: Lane, **environment: str) -> Lane:
    return replace(
        lane,
        ground=replace(lane.ground, environment={**lane.ground.environment, **environment}),
    )


def show(races: Sequence[Race], alone: int) -> None:
    """The table, the mishaps by name, and the figures as JSON."""
    columns = (
        "",
        "starts",
        "ready",
        "layers",
        "not whole",
        "left",
        "MB served",
        "of one",
        "seconds",
    )
    ground.show(
        "starts at once on one empty store",
        columns,
        (
            [
                each.name,
                str(each.starts),
                str(each.starts - len(each.unready)),
                str(each.layers),
                str(len(each.broken)),
                str(len(each.left)),
                f"{each.served / 1e6:.1f}",
                f"{each.served / alone:.2f}",
                f"{each.seconds:.1f}",
            ]
            for each in races
        ),
    )
    for each in races:
        for mishap in (*sorted(set(each.unready)), *each.broken, *each.left):
            print(f"{each.name}: {mishap}")
    rows = [
        {
            "name": each.name,
            "starts": each.starts,
            "ready": each.starts - len(each.unready),
            "exits": {str(code): each.ends.count(code) for code in sorted(set(each.ends))},
            "layers": each.layers,
            "not_whole": list(each.broken),
            "left": list(each.left),
            "unready": sorted(set(each.unready)),
            "bytes_served": each.served,
            "of_one": round(each.served / alone, 3),
            "seconds": round(each.seconds, 1),
        }
        for each in races
    ]
    mishaps = any(each.unready or each.broken or each.left for each in races)
    ground.keep("race", {"packages": PACKAGES, "processors": os.cpu_count(), "races": rows})
    if mishaps:
        raise SystemExit("not every start ended ready with whole layers and nothing left behind")
