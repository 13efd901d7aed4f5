"""Every filesystem call of a start may fail, or be its last: the store stays whole."""

from __future__ import annotations

import base64
import csv
import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from preheat.edges.cleaning.cleaner import Cleaner
from preheat.edges.disk import deletion
from preheat.edges.disk.atomic import sync_filesystem
from preheat.edges.store.store import Store
from preheat.words.errors import PreheatError, StoreError
from preheat.words.layer import LayerFacts
from tests.support import faults
from tests.support.faults import (
    CHANGES,
    LOOKS,
    Command,
    Do,
    Fault,
    KillAll,
    Refuse,
    Send,
    Strike,
    Traced,
    Watch,
    spread,
    trace,
)
from tests.support.index import Index
from tests.support.mounts import quietly, turn_at_loop_devices
from tests.support.platforms import Platform
from tests.support.starts import Answer, Ground, package, settle_in
from tests.support.wheels import Project, install_tree
from tests.support.workers import Worker, make_host

CODES = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
NAMED = [pytest.param(code, id=errno.errorcode[code]) for code in CODES]
# Every call fails, each with one of the codes; the table has every call fail with every code.
SHARED_OUT = [
    pytest.param(code, slice(number, None, len(CODES)), id=errno.errorcode[code])
    for number, code in enumerate(CODES)
]
TABLE = [
    pytest.param(
        code, slice(None), id=f"{errno.errorcode[code]}-everywhere", marks=pytest.mark.table
    )
    for code in CODES
]
EVERYTHING = {**CHANGES, **LOOKS}
# Of what only looks, that by which a cleaner finds its way.
CLEANING = {n: EVERYTHING[n] for n in (*CHANGES, "getdents64", "newfstatat", "stat", "lstat")}
MANY = os.environ.get("TEST_BIG") == "1"
MB = 1_000_000

PROJECTS = (
    Project(
        name="alpha",
        version="1",
        files={"alpha/__init__.py": "A = 1\n", "alpha/deep/data.bin": bytes(70_000)},
        console_scripts={"alpha": "alpha:main"},
    ),
    Project(name="beta", version="2", files={"beta.py": "import gamma\n"}, requires=("gamma",)),
    Project(name="gamma", version="3", files={"gamma.py": "G = 1\n"}),
)
BY_NAME = {project.name: project for project in PROJECTS}
FACTS_OF_ALPHA = LayerFacts(
    digest="d1",
    package="alpha",
    distributions=(("alpha", "1"),),
    payload=70_006,
    disk=90_112,
    files=6,
    has_pth=False,
    scripts=(("alpha", "alpha:main"),),
)


@pytest.fixture(autouse=True)
def traceable() -> None:
    """Skip where no process may be traced."""
    if reason := faults.unavailable():
        pytest.skip(reason)


# -- what must hold ------------------------------------------------------------------------------


def assert_whole(root: Path) -> set[str]:
    """Check every layer that a reader of the store sees against its wheels; the digests."""
    store = Store(root)
    seen = store.layers()
    for digest in seen:
        layer = store.layer(digest)
        held = [BY_NAME[name] for name, _ in store.facts(digest).distributions]
        assert held
        assert {path.name for path in layer.glob("*.dist-info")} == {p.dist_info for p in held}
        for project in held:
            for name, content in project.files.items():
                data = content.encode() if isinstance(content, str) else content
                assert (layer / name).read_bytes() == data, f"{layer.name}: {name}"
            assert_recorded(layer, project)
    return set(seen)


def assert_recorded(layer: Path, project: Project) -> None:
    """Check every row of a RECORD against its file."""
    with (layer / project.dist_info / "RECORD").open(encoding="utf-8", newline="") as rows:
        recorded = [row for row in csv.reader(rows) if row]
    assert {row[0] for row in recorded} >= set(project.files)
    for name, told, _ in recorded:
        content = (layer / name).read_bytes()
        if told:
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            assert told == f"sha256={digest.decode()}", f"{layer.name}: {name}"


def junk(root: Path) -> list[str]:
    """What starts left in the store's staging, in the engine's cache and among the claims.

    An empty directory that nobody owns yet may be another start's, and is left until it is old.
    """
    places = [each for name in ("staging", "cache", "claims") for each in (root / name).glob("*")]
    left = [each for each in places if not each.is_dir() or any(each.iterdir())]
    return [str(each.relative_to(root)) for each in left]


def assert_ended_clearly(done: Traced, *codes: int) -> None:
    """One of these exit statuses, in time, and no traceback."""
    assert not done.overtime, done
    assert "Traceback" not in done.stderr, f"{done.struck}\n{done.stderr}"
    assert done.code in codes, done


def clearly(work: Callable[[], object]) -> Callable[[], None]:
    """The work as the command line does it: an error of preheat's own is an exit status."""

    def run() -> None:
        try:
            work()
        except PreheatError as error:
            os.write(2, f"preheat: {error.message}\n".encode())
            sys.exit(error.exit_status)

    return run


def every(strike: Strike, run: Callable[[Fault], Traced], chosen: slice = slice(None)) -> int:
    """Runs with the fault at each call, until there is no further one; the last that there is.

    Args:
        strike: what happens at the call.
        run: what is disturbed.
        chosen: which calls are; all of them, unless stated.
    """
    nth = 1 + (chosen.start or 0)
    step = chosen.step or 1
    while run(Fault(nth=nth, strike=strike)).struck:
        nth += step
    return nth - step


# -- the tracer ----------------------------------------------------------------------------------


def test_a_refused_call_is_not_made_and_the_others_are(tmp_path: Path) -> None:
    def work() -> None:
        for name in "abc":
            try:
                (tmp_path / name).mkdir()
            except OSError as error:
                (tmp_path / "said").write_text(str(error.errno), encoding="utf-8")

    done = trace(work, Watch(root=tmp_path), Fault(nth=2, strike=Refuse(code=errno.EDQUOT)))
    assert (done.code, done.struck, done.calls) == (0, f"mkdir {tmp_path}/b", 5)
    assert sorted(os.listdir(tmp_path)) == ["a", "c", "said"]
    assert (tmp_path / "said").read_text(encoding="utf-8") == str(errno.EDQUOT)


def test_children_are_followed_and_calls_elsewhere_do_not_count(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for place in (inside, outside):
        place.mkdir()
    script = "echo x >../outside/f; mkdir ../outside/../inside/d; cd d; echo y >f; rmdir ../d"
    command = Command(
        arguments=["/bin/sh", "-c", f"cd {inside} && (sh -c '{script}'; cat d/f)"],
        environment=dict(os.environ),
    )
    done = trace(command, Watch(root=inside))
    assert done.stdout == "y\n"
    assert done.calls == 4  # mkdir, open, write, rmdir


def test_every_kind_of_death_reaches_whom_it_should(tmp_path: Path) -> None:
    script = f"echo x >{tmp_path}/f; (sleep 0.3; echo late >{tmp_path}/late) & mkdir {tmp_path}/d"
    for strike, ended, late in (
        (KillAll(), -signal.SIGKILL, False),
        (Send(signal=signal.SIGKILL), -signal.SIGKILL, True),
        (Send(signal=signal.SIGTERM), -signal.SIGTERM, True),
    ):
        for name in ("late", "d"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
            (tmp_path / name).unlink(missing_ok=True)
        command = Command(arguments=["/bin/sh", "-c", script], environment=dict(os.environ))
        done = trace(command, Watch(root=tmp_path), Fault(nth=3, strike=strike))
        assert done.code == ended, strike
        assert (tmp_path / "late").exists() is late, strike


def test_a_program_that_does_not_end_is_ended(tmp_path: Path) -> None:
    done = trace(lambda: time.sleep(60), Watch(root=tmp_path), timeout=0.3)
    assert done.overtime


# -- publish -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Before:
    """What is at a layer's place when it is published."""

    name: str
    make: Callable[[Path], object]


def damaged(layer: Path) -> None:
    """A layer whose files somebody removed, but for one."""
    layer.mkdir()
    (layer / "left.py").touch()


def whole(layer: Path) -> None:
    """The same layer, as another start published it."""
    install_tree(BY_NAME["alpha"], layer)
    with Store(layer.parent.parent).stage() as place:
        shutil.copytree(layer, place / "copy")
        shutil.rmtree(layer)
        Store(layer.parent.parent).publish(place / "copy", FACTS_OF_ALPHA)


BEFORE = (
    Before(name="nothing", make=lambda layer: None),
    Before(name="damaged", make=damaged),
    Before(name="whole", make=whole),
)


@pytest.mark.parametrize("before", BEFORE, ids=lambda before: before.name)
@pytest.mark.parametrize("code", NAMED)
def test_publish_leaves_the_store_whole_whichever_call_fails(
    tmp_path: Path, code: int, before: Before
) -> None:
    def run(fault: Fault) -> Traced:
        root = tmp_path / f"store-{fault.nth}"
        store = Store(root)
        store.prepare()
        before.make(store.layer("d1"))
        with store.stage() as place:
            install_tree(BY_NAME["alpha"], place / "layer")
            publish = clearly(lambda: store.publish(place / "layer", FACTS_OF_ALPHA))
            done = trace(publish, Watch(root=root), fault)
        assert_ended_clearly(done, 0, StoreError.exit_status)
        seen = assert_whole(root)
        assert seen <= {"d1"}
        if done.code == 0:
            assert seen == {"d1"}
        # And once more, on a disk that works.
        with store.stage() as place:
            install_tree(BY_NAME["alpha"], place / "layer")
            store.publish(place / "layer", FACTS_OF_ALPHA)
        assert assert_whole(root) == {"d1"}
        assert junk(root) == []
        return done

    assert every(Refuse(code=code), run) >= 4


@pytest.mark.parametrize("code", NAMED)
def test_staging_that_cannot_be_made_is_said_clearly_whichever_call_fails(
    tmp_path: Path, code: int
) -> None:
    def stage(store: Store) -> None:
        store.prepare()
        with store.stage() as place:
            assert place.is_dir()

    def run(fault: Fault) -> Traced:
        root = tmp_path / f"store-{fault.nth}"
        done = trace(clearly(lambda: stage(Store(root))), Watch(root=root), fault)
        assert_ended_clearly(done, 0, StoreError.exit_status)
        stage(Store(root))
        assert junk(root) == []
        return done

    assert every(Refuse(code=code), run) >= 10


# -- clean ---------------------------------------------------------------------------------------


def make_habitat(root: Path) -> None:
    """A user with a store, caches, leftovers and a thesis."""
    store = Store(root / "store")
    store.prepare()
    with store.stage() as place:
        install_tree(BY_NAME["alpha"], place / "layer")
        store.publish(place / "layer", FACTS_OF_ALPHA)
    for name in (
        "store/staging/0123456789ab-01234567-1-1/owner",
        "store/staging/0123456789ab-01234567-1-1/layer/half.py",
        "store/staging/0123456789ab-01234567-1-1/cache/archive-v0/part",
        "home/.cache/pip/http-v2/a/b",
        "home/.cache/uv/archive-v0/c",
        "home/thesis.txt",
        "tmp/work/notes.txt",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, encoding="utf-8")


def clean_in(root: Path) -> Callable[[], None]:
    """Clean as that user."""

    def work() -> None:
        settle_in(root, os.environ)
        Cleaner(store=Store(root / "store")).clean()

    return clearly(work)


@pytest.mark.parametrize(("code", "calls"), [*SHARED_OUT, *TABLE])
def test_clean_harms_nothing_and_says_it_clearly_whichever_call_fails(
    tmp_path: Path, code: int, calls: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a test has just made is as old as can be.
    monkeypatch.setattr(deletion._Walk, "_is_young", lambda walk, status: False)
    make_habitat(tmp_path / "habitat")

    def run(fault: Fault) -> Traced:
        root = tmp_path / f"root-{fault.nth}"
        shutil.copytree(tmp_path / "habitat", root)
        store = root / "store"
        done = trace(clean_in(root), Watch(root=root, calls=CLEANING), fault)
        assert_ended_clearly(done, 0, StoreError.exit_status)
        for name in ("home/thesis.txt", "tmp/work/notes.txt"):
            assert (root / name).read_text(encoding="utf-8") == name
        assert assert_whole(store) == {"d1"}
        again = trace(clean_in(root), Watch(root=root, calls={}))
        assert again.code == 0, again.stderr
        assert junk(store) == []
        assert not (root / "home/.cache/pip/http-v2").exists()
        assert assert_whole(store) == {"d1"}
        shutil.rmtree(root)
        return done

    assert every(Refuse(code=code), run, calls) >= 30


# -- warm ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Cold:
    """A cold start that a fault may meet, again and again."""

    ground: Ground
    calls: int

    def start(self, fault: Fault | None = None) -> Traced:
        """Begin with an empty store, and let the fault happen."""
        for place in (self.ground.store, self.ground.temp):
            shutil.rmtree(place, ignore_errors=True)
        return trace(self.command, Watch(root=self.ground.root), fault)

    @property
    def command(self) -> Command:
        """`preheat warm`."""
        return warming(self.ground)


def warming(ground: Ground) -> Command:
    """`preheat warm`."""
    return Command(arguments=ground.command("warm", "--json"), environment=ground.surroundings())


def furnish(ground: Ground, index: Index) -> Ground:
    """With a manifest of two packages in three distributions; one is required."""
    ground.write(package("alpha", required=True), package("beta"), index=index)
    return ground


@pytest.fixture(scope="module")
def cold(
    tmp_path_factory: pytest.TempPathFactory, index: Index, platform: Platform
) -> Iterator[Cold]:
    """A start that takes the same calls every time, nearly."""
    root = tmp_path_factory.mktemp("ground").resolve()
    ground = furnish(Ground(root=root, python=platform.python), index)
    if faults.unavailable() is None:
        done = trace(warming(ground), Watch(root=ground.root))
        assert done.code == 0, done.stderr
        yield Cold(ground=ground, calls=done.calls)


def assert_next_start_mends(ground: Ground) -> None:
    """The next start makes everything ready, and the next cold one leaves nothing else."""
    answer = ground.warm()
    assert_ready(answer)
    if answer.document["warm"]:
        # It followed a pointer, touched nothing else, and said so.
        assert_ready(ground.warm("--cold"))
    assert assert_whole(ground.store)
    assert junk(ground.store) == []


def assert_ready(answer: Answer) -> None:
    """Every package, not the required one only."""
    assert answer.code == 0, answer.stderr
    bad = {n: row["reason"] for n, row in answer.packages.items() if row["layer"] is None}
    assert bad == {}


def at(total: int, few: int, many: int) -> list[int]:
    """The calls that are tried: a few, or many where TEST_BIG=1."""
    return spread(total, many if MANY else few)


def test_a_start_ends_clearly_and_leaves_the_store_whole_whichever_call_fails(cold: Cold) -> None:
    struck = 0
    for number, nth in enumerate(at(cold.calls, 10, 220)):
        done = cold.start(Fault(nth=nth, strike=Refuse(code=CODES[number % 3])))
        struck += bool(done.struck)
        assert_ended_clearly(done, 0, 3, 4, 7, 8)
        assert_whole(cold.ground.store)
        assert_next_start_mends(cold.ground)
    assert struck >= 7


@pytest.mark.parametrize(
    "strike",
    [KillAll(), Send(signal=signal.SIGKILL), Send(signal=signal.SIGTERM)],
    ids=["container", "SIGKILL", "SIGTERM"],
)
def test_a_start_that_is_killed_at_any_call_is_made_good_by_the_next(
    cold: Cold, strike: Strike
) -> None:
    struck = 0
    for nth in at(cold.calls, 5, 90):
        done = cold.start(Fault(nth=nth, strike=strike))
        struck += bool(done.struck)
        # Hit at its last calls it may end well; SIGTERM before preheat listens just ends it.
        assert_ended_clearly(done, 0, 130, -signal.SIGTERM, -signal.SIGKILL)
        assert_whole(cold.ground.store)
        assert_ready(cold.ground.warm())
        # Also where that one was warm, and followed what a start left that had not ended.
        assert junk(cold.ground.store) == []
        assert assert_whole(cold.ground.store)
    assert struck >= 3


# -- activate ------------------------------------------------------------------------------------

ACTIVATE = """
import sys, preheat
try:
    ready = preheat.warm(sys.argv[1], store=sys.argv[2])
except preheat.PreheatError as error:
    sys.exit(f"preheat: {error}")
print("warm" if ready.warm else "cold", len(ready.paths))
"""


def test_a_worker_is_activated_or_told_clearly_whichever_call_fails(
    tmp_path: Path, index: Index
) -> None:
    worker = Worker(place=tmp_path / "worker", platform=make_host(tmp_path), index=index)
    worker.write([package("alpha", required=True), package("beta")])
    assert worker.warm_inside().code == 0
    command = Command(
        arguments=[
            *(str(worker.platform.python), "-B", "-c", ACTIVATE),
            *(str(worker.manifest), str(worker.store)),
        ],
        environment=worker.ground.surroundings(),
    )
    watch = Watch(root=worker.store, calls=EVERYTHING)
    undisturbed = trace(command, watch)
    assert undisturbed.stdout == "warm 2\n", undisturbed.stderr
    for number, nth in enumerate(at(undisturbed.calls, 10, 1000)):
        done = trace(command, watch, Fault(nth=nth, strike=Refuse(code=CODES[::-1][number % 3])))
        assert done.struck
        assert_ended_clearly(done, 0, 1)
        assert done.code == 0 or done.stderr.startswith("preheat: "), done.stderr
        assert_whole(worker.store)
        # Whatever it was told, the next one is as good as the first.
        assert trace(command, watch).stdout in ("warm 2\n", "cold 2\n")
        assert junk(worker.store) == []


# -- a disk that gives up, and one that loses its power ------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Disk:
    """An ext4 filesystem in a file, mounted."""

    image: Path
    place: Path

    def mount(self) -> None:
        """Mount it; an error of the filesystem makes it read-only, as distributions set it up."""
        with turn_at_loop_devices():
            quietly("mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.place))

    def unmount(self) -> None:
        """Unmount it, if it is."""
        if self.place.is_mount():
            quietly("umount", str(self.place))

    def mend(self) -> None:
        """Replay its journal and take the mark of the error away."""
        check = ("e2fsck", "-fy", str(self.image))
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stdout  # 1: errors were corrected

    @property
    def device(self) -> str:
        """The loop device's name."""
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        (found,) = (line.split()[0] for line in mounts if line.split()[1] == str(self.place))
        name = Path(found).name
        # The switch below is pulled for no other filesystem of this machine.
        assert name.startswith("loop"), found
        return name

    def rest(self) -> None:
        """Let two minutes pass, as before a machine is up again: claims and leases are old then.

        A start that comes at once waits a minute for a claim whose text was lost.
        """
        then = time.time() - 120
        for name in ("claims", "leases"):
            for file in self.place.glob(f"*/store/{name}/*"):
                os.utime(file, (then, then), follow_symlinks=False)

    def give_up(self) -> None:
        """Have the kernel find an error: at once nothing can be written, open files included."""
        Path(f"/sys/fs/ext4/{self.device}/trigger_fs_error").write_text("1", encoding="utf-8")


@pytest.fixture
def disk(tmp_path: Path, own_mounts: None) -> Iterator[Disk]:
    disk = Disk(image=tmp_path / "image", place=tmp_path / "disk")
    with disk.image.open("wb") as file:
        file.truncate(64 * MB)
    quietly("mkfs.ext4", "-q", "-m", "0", str(disk.image))
    disk.place.mkdir()
    disk.mount()
    try:
        yield disk
    finally:
        disk.unmount()


@pytest.mark.root
def test_a_disk_that_turns_read_only_at_any_instant_keeps_every_layer_whole(
    disk: Disk, index: Index, platform: Platform
) -> None:
    ground = furnish(Ground(root=disk.place / "ground", python=platform.python), index)
    watch = Watch(root=ground.root)
    total = trace(warming(ground), watch).calls
    struck = 0
    for nth in at(total, 4, 60):
        shutil.rmtree(ground.store)
        sync_filesystem(disk.place)
        done = trace(warming(ground), watch, Fault(nth=nth, strike=Do(action=disk.give_up)))
        struck += bool(done.struck)
        assert_ended_clearly(done, 0, 3, 4, 7, 8)
        before = assert_whole(ground.store)
        disk.unmount()
        disk.mend()
        disk.mount()
        assert assert_whole(ground.store) == before
        if not MANY:
            disk.rest()
        assert_next_start_mends(ground)
    assert struck >= 3


@pytest.mark.root
def test_what_a_power_loss_leaves_of_the_disk_is_whole_at_any_instant(
    disk: Disk, index: Index, platform: Platform, tmp_path: Path
) -> None:
    ground = furnish(Ground(root=disk.place / "ground", python=platform.python), index)
    watch = Watch(root=ground.root)
    total = trace(warming(ground), watch).calls
    kept = tmp_path / "kept"
    struck = 0
    for nth in at(total, 4, 60):
        shutil.rmtree(ground.store)
        sync_filesystem(disk.place)
        loss = Do(action=lambda: shutil.copyfile(disk.image, kept))
        done = trace(warming(ground), watch, Fault(nth=nth, strike=loss))
        assert done.code == 0, done.stderr
        if not done.struck:
            continue  # some starts need a few calls less
        struck += 1
        disk.unmount()
        # What had reached the disk then is all there is.
        kept.replace(disk.image)
        disk.mend()
        disk.mount()
        assert_whole(ground.store)
        if not MANY:
            disk.rest()
        assert_next_start_mends(ground)
    assert struck >= 3
