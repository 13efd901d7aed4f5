"""Small disks: pip, uv, the naive script and preheat, from 50 to 900 MB free (root only).

Every start has a disk of its own that holds everything it writes: the environment, caches, home
and temporary files. All are served by one index on this machine. What is expected to be kept goes
by the lower reserve, which those rows state that were told of it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from uv import find_uv_bin

from bench import ground
from bench.contenders import CONTENDERS, LOWER, Contender, Ended, Goods, Place, importable
from bench.oracle import Names, Oracle, by_importance, sets_of
from bench.residue import Snapshot, Weight, holding, left_over, weigh, weigh_bare, weight_of
from bench.smalldisk import Disk, Kind, Space, in_memory, keep_mounts_private, mounted, watched
from bench.verdicts import Row, show_rows, show_summary
from tests.support.index import Index

_NO_SPACE = re.compile(r"No space left on device|Errno 28|os error 28|ENOSPC")
_PAGE = 4096
# Of preheat's own directories, those that are not packages and that its next start reads.
_RECORDS = (
    "contents",
    "locks",
    "verdicts",
    "starts",
    "platforms",
    "bootstraps",
    "history.jsonl",
    "cache.lock",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One size of one kind of disk, and who starts on it."""

    kind: Kind
    free: int
    contenders: Sequence[Contender]


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """What is measured.

    Attributes:
        kinds: of disks.
        sizes: bytes free on a disk of each kind.
        inodes: of disks with few of them, which have ``roomy`` bytes.
        around: shares above and below the size at which a set just fits, for preheat with the
            lower reserve alone.
    """

    name: str
    goods: Goods
    kinds: tuple[str, ...]
    sizes: tuple[int, ...]
    inodes: tuple[int, ...] = ()
    roomy: int = 900_000_000
    contenders: tuple[Contender, ...] = CONTENDERS
    around: tuple[float, ...] = (-0.01, 0.01, 0.03, 0.05)


LARGE = Course(
    name="survival",
    goods=Goods(
        imports={
            "transformers": "transformers",
            "google-cloud-speech": "google.cloud.speech",
            "faster-whisper": "faster_whisper",
        },
        required=("transformers",),
        keep_free=20_000_000,
    ),
    kinds=("tmpfs", "ext4"),
    sizes=tuple(range(50_000_000, 900_000_001, 50_000_000)),
    inodes=(2_000, 6_000, 10_000, 14_000, 16_000, 18_000, 20_000, 22_000, 26_000),
)
SMALL = Course(
    name="survival-small",
    goods=Goods(
        imports={"pillow": "PIL.Image", "numpy": "numpy", "regex": "regex"},
        required=("pillow",),
        keep_free=2_000_000,
    ),
    kinds=("tmpfs",),
    sizes=tuple(range(10_000_000, 140_000_001, 26_000_000)),
)


def measure(course: Course = LARGE) -> None:
    """Make what is needed, sweep, print the tables and keep the figures."""
    if os.geteuid() != 0:
        raise SystemExit("survival mounts filesystems of a chosen size: it needs root")
    course = replace(course, contenders=ground.chosen(course.contenders))
    home = ground.BUILD / course.name
    tools = ground.make_venv(home / "tools", "pip").parent
    wheels = fetch(tools, home / "wheels", course.goods)
    keep_mounts_private()
    rows, weights = sweep(course, wheels, Place(root=home / "memory" / "disk", tools=tools))
    show_rows(rows)
    show_summary(rows)
    ground.keep(
        course.name,
        {
            "keep_free": course.goods.keep_free,
            "required": course.goods.required,
            "weights": weights,
            "rows": [asdict(row) for row in rows],
        },
    )


def sweep(course: Course, wheels: Path, place: Place) -> tuple[list[Row], dict[str, object]]:
    """Every start of the course, and what the oracle went by; mounts must be private.

    Args:
        course: what is measured.
        wheels: all that the index is to offer.
        place: where the small disk is to be; its parent becomes a directory in memory.
    """
    with in_memory(place.root.parent), Index(wheels) as index:
        run = Sweep(course, replace(place, index=index.url))
        rows = []
        try:
            for row in run.rows():
                print(row.told(), file=sys.stderr, flush=True)
                rows.append(row)
        except KeyboardInterrupt:
            # A sweep takes long: what was measured is shown.
            print("interrupted: the figures are those so far", file=sys.stderr, flush=True)
    return rows, run.weights()


def fetch(tools: Path, wheels: Path, goods: Goods) -> Path:
    """The wheels of everything, in the versions of the day or of an earlier run."""
    wanted = "\n".join(goods.imports)
    stamp = wheels / "wanted"
    if stamp.exists() and stamp.read_text() == wanted:
        return wheels
    print(f"fetching {', '.join(goods.imports)}", file=sys.stderr, flush=True)
    shutil.rmtree(wheels, ignore_errors=True)
    command = (str(tools / "pip"), "download", "--quiet", "--only-binary", ":all:")
    subprocess.run((*command, "--dest", str(wheels), *goods.imports), check=True)
    stamp.write_text(wanted)
    return wheels


class Sweep:
    """All starts of a course, one after the other."""

    def __init__(self, course: Course, place: Place) -> None:
        self._course = course
        self._place = place
        self._home = place.root.parent
        self._scratch = self._home / "scratch"
        self._oracles: dict[str, Oracle] = {}

    def rows(self) -> Iterator[Row]:
        """Every start's row, as it is made."""
        for step in self._steps():
            for contender in step.contenders:
                yield self.start(contender, step)

    def weights(self) -> dict[str, object]:
        """What the oracle goes by, for each kind of disk."""
        return {
            kind: {
                " + ".join(names): {
                    "installed": asdict(each),
                    "without bytecode": asdict(oracle.bare[names]),
                    "beside": asdict(oracle.working[names]),
                }
                for names, each in oracle.weights.items()
            }
            for kind, oracle in self._oracles.items()
        }

    def start(self, contender: Contender, step: Step) -> Row:
        """One start on a disk of its own."""
        oracle = self._oracle(step.kind.name)
        with mounted(step.kind, self._home) as disk:
            self._place.furnish()
            disk.cut(step.free)
            before = Snapshot.of(disk.root)
            free = disk.settled()
            begin = time.perf_counter()
            with watched(disk) as lowest:
                ended = contender.start(self._place, self._course.goods)
            seconds = time.perf_counter() - begin
            at_end = disk.space()
            sound = self._importable(ended)
            kept = holding([*ended.paths, self._place.site], sound)
            left = left_over(disk.root, kept, before)
            records = {path for path in left if self._is_record(path)}
            junk = weight_of({path: each for path, each in left.items() if path not in records})
            noted = weight_of({path: each for path, each in left.items() if path in records})
            changed = before.changed(self._place.root / "venv")
        expected = oracle.expected(free)
        missed = tuple(name for name in expected.names if name not in sound)
        return Row(
            kind=str(step.kind),
            contender=contender.name,
            free=free.bytes,
            free_inodes=free.inodes,
            status=ended.status,
            ready=all(name in sound for name in self._course.goods.required),
            refusal=ended.refusal,
            importable=sound,
            broken=len(kept.missing),
            no_space=bool(_NO_SPACE.search(ended.output)),
            ran_out=lowest.bytes < _PAGE or lowest.inodes == 0,
            junk=junk.bytes,
            junk_entries=junk.inodes,
            junk_examples=tuple(sorted(path for path in left if path not in records)[:5]),
            records=noted.bytes,
            peak=free.bytes - lowest.bytes,
            peak_inodes=free.inodes - lowest.inodes,
            lowest=lowest.bytes,
            lowest_inodes=lowest.inodes,
            end=at_end.bytes,
            reserve=self._course.goods.keep_free,
            platform_changed=len(changed),
            fitting=expected.names,
            missed=missed,
            to_spare=expected.left.bytes if missed else 0,
            to_spare_inodes=expected.left.inodes if missed else 0,
            seconds=round(seconds, 2),
            output=ended.output[-4000:],
        )

    def _steps(self) -> Iterator[Step]:
        """Sizes of every kind of disk; then few inodes; then, for preheat, what just fits."""
        course = self._course
        for name in course.kinds:
            for size in course.sizes:
                yield Step(kind=Kind(name=name), free=size, contenders=course.contenders)
        for count in course.inodes:
            kind = Kind(name="ext4", inodes=count)
            yield Step(kind=kind, free=course.roomy, contenders=course.contenders)
        ours = [each for each in course.contenders if each.name.startswith(LOWER)]
        for name in course.kinds:
            oracle = self._oracle(name)
            for names in self._prefixes():
                edge = -oracle.left(names, Space(bytes=0, inodes=0)).bytes
                for share in course.around:
                    free = int(edge * (1 + share)) // _PAGE * _PAGE
                    yield Step(kind=Kind(name=name), free=free, contenders=ours)

    def _prefixes(self) -> list[tuple[str, ...]]:
        names = by_importance(self._course.goods)
        return [names[: count + 1] for count in range(len(names))]

    def _importable(self, ended: Ended) -> tuple[str, ...]:
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        return importable(self._place, self._course.goods, ended.paths, self._scratch)

    def _is_record(self, path: str) -> bool:
        """Whether preheat keeps notes there: files that its next start reads, or no files."""
        parts = Path(path).relative_to(self._place.root).parts
        if parts[0] != self._place.store.name:
            return False
        if len(parts) <= 2 and Path(path).is_dir():
            return True
        layer = parts[1] == "layers" and parts[-1] == ".preheat.json"
        return len(parts) > 1 and (parts[1] in _RECORDS or layer)

    def _oracle(self, kind: str) -> Oracle:
        """What lies on a disk of that kind where nothing is short, weighed set by set."""
        if kind not in self._oracles:
            print(f"weighing everything on {kind}", file=sys.stderr, flush=True)
            with mounted(Kind(name=kind), self._home) as disk:
                self._oracles[kind] = self._weighed(disk)
        return self._oracles[kind]

    def _weighed(self, disk: Disk) -> Oracle:
        self._place.furnish()
        every = disk.root / "all"
        self._install(self._course.goods.imports, every, self._home / "cache", "--compile-bytecode")
        disk.settled()
        nothing: dict[Names, Weight] = {(): Weight()}
        weights, bare, working = dict(nothing), dict(nothing), dict(nothing)
        for names in filter(None, sets_of(self._course.goods)):
            held = holding([every], names)
            weights[names], bare[names] = weigh(every, held), weigh_bare(every, held)
            working[names] = self._beside(disk, names)
        return Oracle(goods=self._course.goods, weights=weights, bare=bare, working=working)

    def _beside(self, disk: Disk, names: Names) -> Weight:
        """What goes with the cache, when a cache on the same disk goes."""
        target, cache = disk.root / "some", disk.root / "cache"
        self._install(names, target, cache)
        before = disk.settled()
        shutil.rmtree(cache)
        after = disk.settled()
        shutil.rmtree(target)
        return Weight(bytes=after.bytes - before.bytes, inodes=after.inodes - before.inodes)

    def _install(self, names: Iterable[str], target: Path, cache: Path, *more: str) -> None:
        command = (find_uv_bin(), "pip", "install", "--no-config", "--quiet", *more)
        where = ("--default-index", self._place.index, "--python", str(self._place.python))
        how = ("--cache-dir", str(cache), "--target", str(target))
        environment = self._place.environment()
        subprocess.run((*command, *where, *how, *names), env=environment, check=True)
