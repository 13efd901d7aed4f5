"""The cleaner under attack: it really deletes, and only what is known to be a cache."""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preheat.cli.text import show_estimates
from preheat.decisions.known_caches import UserPlaces, tiers
from preheat.edges.disk import deletion
from preheat.edges.store.store import Store
from preheat.words.cleaning import Estimate, Place, Tier
from tests.support.index import Index
from tests.support.mounts import turn_at_loop_devices
from tests.support.platforms import Platform
from tests.support.starts import Answer, Ground, finished, package
from tests.support.wheels import Project

LATER = time.time() + 10 * 86400  # everything that a test makes is old by then
MB = 1_000_000


def rules(
    *,
    now: float = LATER,
    in_use: frozenset[tuple[int, int]] = frozenset(),
    precious: tuple[Path, ...] = (),
    closed: tuple[Path, ...] = (),
) -> deletion.Rules:
    """Rules under which everything that a test makes may go, but for what is stated."""
    return deletion.Rules(
        user=os.geteuid(),
        now=now,
        in_use=in_use,
        precious=frozenset(map(str, precious)),
        closed=frozenset(map(str, closed)),
    )


def fill(root: Path, *files: str, size: int = 5000) -> Path:
    """A directory with those files."""
    root.mkdir(parents=True, exist_ok=True)
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * size)
    return root


def names(root: Path) -> set[str]:
    """Everything below a directory, links not followed."""
    found = set()
    for parent, directories, files in os.walk(root):
        found |= {os.path.relpath(os.path.join(parent, n), root) for n in directories + files}
    return found


def fingerprint(root: Path, without: Path | None = None) -> dict[bytes, tuple[object, ...]]:
    """Mode, owner, time and content of everything below a directory."""
    found: dict[bytes, tuple[object, ...]] = {}
    pending = [os.fsencode(root)]
    while pending:
        place = pending.pop()
        if without is not None and place == os.fsencode(without):
            continue
        status = os.lstat(place)
        what: object = None
        if stat.S_ISDIR(status.st_mode):
            pending += [os.path.join(place, name) for name in os.listdir(place)]
        elif stat.S_ISLNK(status.st_mode):
            what = os.readlink(place)
        elif stat.S_ISREG(status.st_mode):
            what = Path(os.fsdecode(place)).read_bytes()
        found[place] = (status.st_mode, status.st_uid, status.st_mtime_ns, what)
    return found


def script(code: str, *arguments: str | Path, prefix: tuple[str, ...] = ()) -> Answer:
    """Run Python code in a process of its own."""
    return finished(
        [*prefix, sys.executable, "-c", code, *map(str, arguments)], dict(os.environ), 120
    )


def namespaced(code: str, *arguments: str | Path) -> Answer:
    """Run Python code that may mount what nobody else sees."""
    answer = script(code, *arguments, prefix=("unshare", "-m"))
    if answer.code == 77 or (answer.code == 1 and answer.stderr.startswith("unshare")):
        pytest.skip(f"nothing can be mounted here: {answer.stderr.strip()[-200:]}")
    assert answer.code == 0, answer.stderr
    return answer


# For the scripts that mount.
MOUNT = """
import os, subprocess, sys, time
from preheat.edges.disk import deletion
from preheat.words.cleaning import Place

def mount(*arguments):
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr)
        sys.exit(77)

RULES = deletion.Rules(user=os.geteuid(), now=time.time() + 10**6, in_use=frozenset(),
                       precious=frozenset(), closed=frozenset())
"""


# -- the naive script ----------------------------------------------------------------------------


def habitat(root: Path, **environment: str) -> UserPlaces:
    """A user who lives under that directory."""
    return UserPlaces(
        home=str(root / "home"),
        temp=str(root / "tmp"),
        user="somebody",
        environment=environment,
        system=str(root / "system"),
    )


def test_bug_2_only_what_dead_installers_left_in_tmp_is_deleted(tmp_path: Path) -> None:
    temp = fill(
        tmp_path / "tmp",
        "pip-install-ab12/torch/setup.py",
        "pip-unpack-cd34/wheel.whl",
        "pip-notes.txt",
        "somebody/pip-install-ab12/work.txt",
        "training/checkpoint.pt",
        "socket.lock",
    )
    (tier,) = [t for t in tiers(habitat(tmp_path)) if "installers" in t.name]
    for place in tier.places:
        assert deletion.estimate(place, rules())[0] > 0
        deletion.remove(place, rules())
    assert {name for name in names(temp) if (temp / name).is_file()} == {
        "pip-notes.txt",
        "somebody/pip-install-ab12/work.txt",
        "training/checkpoint.pt",
        "socket.lock",
    }


def test_bug_2_deleting_needs_no_shell_and_no_other_program(tmp_path: Path) -> None:
    cache = fill(tmp_path / "cache", "http/a; touch oops", "http/$(touch oops)", "http/2>null")
    code = """
import os, sys, time
from preheat.edges.disk import deletion
from preheat.words.cleaning import Place
STARTS = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen")
def hook(event, arguments):
    if event.startswith(STARTS):
        os.write(2, f"started {event}".encode())
        os._exit(9)
sys.addaudithook(hook)
deletion.remove(Place(root=sys.argv[1]), deletion.Rules(
    user=os.geteuid(), now=time.time() + 10**6, in_use=deletion.in_use(),
    precious=frozenset(), closed=frozenset()))
"""
    answer = script(code, cache)
    assert answer.code == 0, answer.stderr
    assert names(cache) == set()


# -- deletion under attack -----------------------------------------------------------------------


def test_symlinks_in_a_cache_go_and_what_they_lead_to_stays(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", "data/model.bin", "file")
    cache = fill(tmp_path / "cache", "http/a")
    (cache / "file").symlink_to(outside / "file")
    (cache / "directory").symlink_to(outside)
    (cache / "http" / "directory").symlink_to(outside / "data")
    (cache / "dangling").symlink_to(tmp_path / "nowhere")
    (cache / "loop").symlink_to("loop")
    (cache / "http" / "above").symlink_to("..")
    (cache / "far").symlink_to(tmp_path)  # never to /: the day this fails must cost nothing
    before = fingerprint(outside)
    size, _ = deletion.estimate(Place(root=str(cache)), rules())
    assert size < 4 * 8192
    deletion.remove(Place(root=str(cache)), rules())
    assert names(cache) == set()
    assert fingerprint(outside) == before


SWAPS = """
import os, shutil, sys, time
from pathlib import Path
from preheat.edges.disk import deletion
from preheat.words.cleaning import Place

base, target, whole = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "True"
FILES = ("pip/http/a/f", "pip/http/a/g", "pip/http/b/f", "pip/wheels/f")

def build(root):
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())

def swap():
    # The mirror outside has the same names, so that whoever follows the link finds files.
    os.rename(base / "cache" / target, base / "aside")
    os.symlink(base / "outside" / target, base / "cache" / target)

state = {"left": -1}
EVENTS = ("open", "os.listdir", "os.remove", "os.rmdir")

def hook(event, arguments):
    if event in EVENTS and state["left"] >= 0:
        state["left"] -= 1
        if state["left"] < 0:
            try:
                swap()
            except FileNotFoundError:
                state["late"] = True

sys.addaudithook(hook)
build(base / "outside")
for moment in range(200):
    shutil.rmtree(base / "cache", ignore_errors=True)
    for leftover in ("cache", "aside"):
        path = base / leftover
        if path.is_symlink() or path.is_file():
            path.unlink()
        shutil.rmtree(path, ignore_errors=True)
    build(base / "cache")
    place = Place(root=str(base / "cache/pip"), whole=whole)
    rules = deletion.Rules(user=os.geteuid(), now=time.time() + 10**6, in_use=frozenset(),
                           precious=frozenset(), closed=frozenset())
    state["left"] = moment
    deletion.remove(place, rules)
    over, state["left"] = state["left"] >= 0, -1
    for name in FILES:
        assert (base / "outside" / name).read_bytes() == name.encode(), (moment, name)
    if over:
        break
print(moment)
"""


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    "target", ["pip/http/a/f", "pip/http/a", "pip/http", "pip/wheels", "pip", ""]
)
def test_what_becomes_a_symlink_between_look_and_deletion_leads_nowhere(
    tmp_path: Path, target: str, whole: bool
) -> None:
    (tmp_path / "base").mkdir()
    answer = script(SWAPS, tmp_path / "base", target, str(whole))
    assert answer.code == 0, answer.stderr
    assert 10 < int(answer.stdout) < 199  # it was swapped at every one of these moments


def test_a_thread_that_swaps_a_directory_for_a_symlink_gains_nothing(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", "a/f", "f")
    before = fingerprint(outside)
    cache = tmp_path / "cache"
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError):
                os.rename(cache / "http", tmp_path / "aside")
                os.symlink(outside, cache / "http")
                os.unlink(cache / "http")
                os.rename(tmp_path / "aside", cache / "http")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(2000):
            with contextlib.suppress(OSError):
                fill(cache, "http/a/f", "http/f", size=10)
                (tmp_path / "aside").rmdir()
            if (cache / "http").is_symlink():
                # `fill` may have written through the link: only what is deleted counts here.
                fill(outside, "a/f", "f")
            deletion.remove(Place(root=str(cache)), rules())
            assert (outside / "a" / "f").exists()
            assert (outside / "f").exists()
    finally:
        done.set()
        thread.join()
    assert fingerprint(outside).keys() == before.keys()


def test_a_root_reached_by_a_symlink_is_refused(tmp_path: Path) -> None:
    real = fill(tmp_path / "real" / "cache", "http/a")
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "above").symlink_to(tmp_path / "real")
    for root in ("link", "link/", "above/cache", "link/../cache", "above/../real/cache"):
        place = Place(root=f"{tmp_path}/{root}")
        if os.path.realpath(place.root) != os.path.normpath(place.root):
            deletion.remove(place, rules())
    assert names(real) == {"http", "http/a"}


def test_two_dots_after_a_symlink_do_not_lead_out(tmp_path: Path) -> None:
    """As text, home/link/../cache is home/cache; to the kernel it is elsewhere/cache."""
    fill(tmp_path / "home" / "cache", "http/ours")
    fill(tmp_path / "elsewhere" / "cache", "http/theirs")
    (tmp_path / "elsewhere" / "inner").mkdir()
    (tmp_path / "home" / "link").symlink_to(tmp_path / "elsewhere" / "inner")
    deletion.remove(Place(root=f"{tmp_path}/home/link/../cache"), rules())
    assert (tmp_path / "elsewhere" / "cache" / "http" / "theirs").exists()
    assert (tmp_path / "home" / "cache" / "http" / "ours").exists()


@pytest.mark.parametrize("spelling", ["cache", "cache/", "x/../cache", "./cache", "x//../cache"])
def test_what_is_precious_or_closed_is_so_however_the_root_is_spelled(
    tmp_path: Path, spelling: str
) -> None:
    (tmp_path / "x").mkdir()
    cache = fill(tmp_path / "cache", "pip-install-1/store/layer", "pip-install-2/home", "b/f")
    spared = rules(precious=(cache / "pip-install-2",), closed=(cache / "pip-install-1/store",))
    place = Place(root=f"{tmp_path}/{spelling}", patterns=("pip-*", "b"))
    assert deletion.estimate(place, spared)[1] == (os.path.join(place.root, "b"),)
    deletion.remove(place, spared)
    assert (cache / "pip-install-1" / "store" / "layer").exists()
    assert (cache / "pip-install-2" / "home").exists()
    assert not (cache / "b").exists()


@pytest.mark.parametrize("relation", ["itself", "above it"])
@pytest.mark.parametrize("kind", ["precious", "closed"])
def test_a_root_that_is_or_holds_something_precious_is_refused(
    tmp_path: Path, relation: str, kind: str
) -> None:
    home = fill(tmp_path / "root" / "home", "work/thesis.txt")
    root = home if relation == "itself" else home.parent
    spared = rules(precious=(home,)) if kind == "precious" else rules(closed=(home,))
    place = Place(root=str(root))
    assert deletion.estimate(place, spared) == (0, ())
    deletion.remove(place, spared)
    assert (home / "work" / "thesis.txt").exists()


def test_nothing_in_a_closed_directory_goes_whatever_the_patterns(tmp_path: Path) -> None:
    site = fill(tmp_path / "site-packages", "torch/__init__.py", "pip-install-1/x")
    for root in (site, site / "torch"):
        for patterns in (("*",), ("pip-*", "__init__.py")):
            deletion.remove(Place(root=str(root), patterns=patterns), rules(closed=(site,)))
    assert (site / "torch" / "__init__.py").exists()
    assert (site / "pip-install-1" / "x").exists()


def test_a_directory_whose_name_only_begins_alike_is_not_spared(tmp_path: Path) -> None:
    cache = fill(tmp_path / "cache", "store-old/f", "store/f")
    deletion.remove(Place(root=str(cache)), rules())
    fill(cache, "store-old/f")
    deletion.remove(Place(root=str(cache), patterns=("store-*",)), rules(closed=(cache / "store",)))
    assert names(cache) == set()


def test_a_relative_root_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "cache", "http/a")
    monkeypatch.chdir(tmp_path)
    for root in ("cache", "./cache", ".", ""):
        deletion.remove(Place(root=root, patterns=("http", "cache")), rules())
    assert (tmp_path / "cache" / "http" / "a").exists()


@pytest.mark.root
def test_the_root_of_the_filesystem_is_refused(tmp_path: Path) -> None:
    """In a jail, where a mistake would cost nothing."""
    fill(tmp_path, "keep", "cache/http/a")
    (tmp_path / "proc").mkdir()
    code = (
        MOUNT
        + """
mount("-t", "proc", "proc", sys.argv[1] + "/proc")
os.chroot(sys.argv[1])
os.chdir("/")
for root in ("/", "//", "/.", "/cache/..", "/../", "///"):
    assert deletion.estimate(Place(root=root), RULES) == (0, ()), root
    deletion.remove(Place(root=root), RULES)
assert sorted(os.listdir("/")) == ["cache", "keep", "proc"]
deletion.remove(Place(root="/cache"), RULES)
assert os.listdir("/cache") == []
"""
    )
    namespaced(code, tmp_path)


@pytest.mark.root
def test_mount_points_in_a_cache_are_not_entered(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", "data/model.bin", "file")
    cache = fill(tmp_path / "cache", "http/a", "http/bound-file")
    for name in ("tmpfs", "bind", "nested"):
        (cache / "http" / name).mkdir()
    before = fingerprint(outside)
    code = (
        MOUNT
        + """
cache, outside = sys.argv[1:]
mount("-t", "tmpfs", "none", f"{cache}/http/tmpfs")
open(f"{cache}/http/tmpfs/f", "w").close()
mount("--bind", outside, f"{cache}/http/bind")
mount("--bind", f"{cache}/http/tmpfs", f"{cache}/http/nested")
mount("--bind", f"{outside}/file", f"{cache}/http/bound-file")
place = Place(root=cache)
deletion.estimate(place, RULES)
deletion.remove(place, RULES)
assert os.listdir(f"{cache}/http/tmpfs") == ["f"]
assert sorted(os.listdir(f"{cache}/http/bind")) == ["data", "file"]
assert os.path.exists(f"{cache}/http/bound-file")
assert not os.path.exists(f"{cache}/http/a")
deletion.remove(Place(root=cache, whole=True), RULES)
deletion.remove(Place(root=f"{cache}/http/tmpfs"), RULES)
# A cache that is itself a volume is one.
assert os.listdir(f"{cache}/http/tmpfs") == []
"""
    )
    namespaced(code, cache, outside)
    assert fingerprint(outside) == before


@contextlib.contextmanager
def holding(code: str, *arguments: Path, cwd: Path | None = None) -> Iterator[None]:
    """A process that holds something until the end."""
    wait = "\nprint('ready', flush=True)\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", f"import mmap, os, sys\n{code}{wait}", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=cwd,
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            child.stdin.close()


OPENED = "f = open(sys.argv[1])"
MAPPED = (
    "f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ); f.close()"
)


@pytest.mark.parametrize("code", [OPENED, MAPPED], ids=["opened", "mapped"])
@pytest.mark.parametrize("name", ["http/a/held", "http/a/he ld", "http/a/he\nld", "held"])
def test_what_a_process_holds_stays_and_the_rest_goes(tmp_path: Path, code: str, name: str) -> None:
    cache = fill(tmp_path / "cache", name, "http/a/free", "wheels/w")
    with holding(code, cache / name):
        held = rules(in_use=deletion.in_use())
        deletion.remove(Place(root=str(cache)), held)
        assert {n for n in names(cache) if (cache / n).is_file()} == {name}
    deletion.remove(Place(root=str(cache)), rules(in_use=deletion.in_use()))
    assert names(cache) == set()


@pytest.mark.root
def test_a_mapped_file_of_a_layered_filesystem_is_known_by_what_stat_says(tmp_path: Path) -> None:
    code = (
        MOUNT
        + """
import mmap
base = sys.argv[1]
mount("-t", "tmpfs", "none", base)
for name in ("lower", "upper", "work", "merged"):
    os.mkdir(f"{base}/{name}")
with open(f"{base}/lower/f", "wb") as file:
    file.write(b"x" * 5000)
mount("-t", "overlay", "none", "-o",
      f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work", f"{base}/merged")
with open(f"{base}/merged/f", "rb") as file:
    held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
status = os.stat(f"{base}/merged/f")
assert (status.st_dev, status.st_ino) in deletion.in_use()
"""
    )
    namespaced(code, tmp_path)


def test_a_directory_that_a_process_works_in_stays(tmp_path: Path) -> None:
    cache = fill(tmp_path / "cache", "http/a/f", "http/b/f")
    with holding("", cwd=cache / "http" / "a"):
        deletion.remove(Place(root=str(cache)), rules(in_use=deletion.in_use()))
    assert names(cache) == {"http", "http/a", "http/a/f"}


def test_an_entry_that_goes_whole_stays_whole_when_one_file_is_open(tmp_path: Path) -> None:
    temp = fill(tmp_path / "tmp", "pip-install-1/a", "pip-install-1/b/c", "pip-install-2/a")
    place = Place(root=str(temp), patterns=("pip-install-*",), whole=True)
    with holding(OPENED, temp / "pip-install-1" / "b" / "c"):
        held = rules(in_use=deletion.in_use())
        assert deletion.estimate(place, held)[1] == (str(temp / "pip-install-2"),)
        deletion.remove(place, held)
    assert names(temp) == {"pip-install-1", *(f"pip-install-1/{n}" for n in ("a", "b", "b/c"))}


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_young_stays_with_the_directories_above_it(tmp_path: Path, whole: bool) -> None:
    cache = fill(tmp_path / "cache", "http/a/f", "wheels/w")
    os.utime(cache / "http" / "a" / "f", (0, 0))  # whoever sets mtime back does not make it old
    before = names(cache)
    place = Place(root=str(cache), age=600, whole=whole)
    assert deletion.estimate(place, rules(now=time.time())) == (0, ())
    deletion.remove(place, rules(now=time.time()))
    assert names(cache) == before


def test_a_young_directory_stays_when_it_is_empty(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "http").mkdir(parents=True)
    deletion.remove(Place(root=str(cache), age=600), rules(now=time.time()))
    assert names(cache) == {"http"}
    deletion.remove(Place(root=str(cache), age=600), rules())
    assert names(cache) == set()


@pytest.mark.root
def test_files_of_another_user_stay_and_so_does_what_lies_in_their_directories(
    tmp_path: Path,
) -> None:
    cache = fill(tmp_path / "cache", "http/theirs", "http/ours", "dir/ours", "whole/a/f", "whole/b")
    for name in ("http/theirs", "dir", "whole/a"):
        os.chown(cache / name, 65534, 65534)
    deletion.remove(Place(root=str(cache), patterns=("whole",), whole=True), rules())
    assert {"whole/a/f", "whole/b"} <= names(cache)
    place = Place(root=str(cache), patterns=("http", "dir"))
    deletion.remove(place, rules())
    assert names(cache) >= {"http/theirs", "dir", "dir/ours"}
    assert not (cache / "http" / "ours").exists()
    assert deletion.estimate(place, rules()) == (0, ())


ODD = (b"a\nb", b"\xff\xfe", b" ", b"-rf", b"*", b"[a]", b"\x1b[31m", b"..x", b"\\", b"n" * 255)


@pytest.mark.parametrize("patterns", [("*",), ("h*", "?*")])
def test_odd_names_are_names(tmp_path: Path, patterns: tuple[str, ...]) -> None:
    cache = os.fsencode(tmp_path / "cache")
    for name in ODD:
        os.makedirs(os.path.join(cache, name))
        for inner in ODD:
            Path(os.fsdecode(os.path.join(cache, name, inner))).write_bytes(b"x")
    fill(tmp_path / "beside", "a\nb", "rf")
    before = fingerprint(tmp_path / "beside")
    _, paths = deletion.estimate(Place(root=str(tmp_path / "cache"), patterns=patterns), rules())
    assert sorted(map(os.fsencode, paths)) == sorted(os.path.join(cache, n) for n in ODD)
    json.dumps(paths).encode()
    deletion.remove(Place(root=str(tmp_path / "cache"), patterns=patterns), rules())
    assert os.listdir(cache) == []
    assert fingerprint(tmp_path / "beside") == before


def test_odd_names_can_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "utf-8", write_through=True))
    paths = ("/c/[/red]", "/c/[bold]x", "/c/a\nb", os.fsdecode(b"/c/\xff"))
    tier = Tier(name="t", loss="l", places=())
    for path in paths:
        show_estimates([Estimate(tier=tier, bytes=1, paths=(path,))])
    shown = written.getvalue().decode()
    assert "[/red]" in shown
    assert "[bold]x" in shown
    assert "a\\nb" in shown


def deep(root: Path, levels: int) -> None:
    """A tree of that depth, beyond what a path can name, with a file at the bottom."""
    root.mkdir()
    descriptor = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)


@pytest.mark.parametrize("whole", [False, True])
def test_a_tree_too_deep_for_any_cache_does_no_harm(tmp_path: Path, whole: bool) -> None:
    cache = fill(tmp_path / "cache", "http/f")
    deep(cache / "fair", 90)
    deep(cache / "deep", 3000)
    place = Place(root=str(cache), whole=whole)
    try:
        assert len(deletion.estimate(place, rules())[1]) == 2
        deletion.remove(place, rules())
        assert os.listdir(cache) == ["deep"]
    finally:
        subprocess.run(["rm", "-rf", str(cache)], check=True)  # noqa: S607 - Python's own is not deep enough


def test_without_free_descriptors_nothing_is_raised_or_leaked(tmp_path: Path) -> None:
    cache = fill(tmp_path / "cache", "a/f", "z/f")
    deep(cache / "deep", 60)
    code = """
import os, resource, sys, time
from preheat.edges.disk import deletion
from preheat.words.cleaning import Place
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), 4096))
rules = deletion.Rules(user=os.geteuid(), now=time.time() + 10**6, in_use=frozenset(),
                       precious=frozenset(), closed=frozenset())
place = Place(root=sys.argv[1])
deletion.estimate(place, rules)
deletion.remove(place, rules)
print(sorted(os.listdir(sys.argv[1])), len(os.listdir("/proc/self/fd")))
"""
    few = script(code, cache, "30")
    assert few.stdout == "['deep'] 4\n", few.stderr
    assert script(code, cache, "100").stdout == "[] 4\n"


def test_bytes_that_a_hardlink_elsewhere_keeps_alive_are_not_counted(tmp_path: Path) -> None:
    cache = fill(tmp_path / "cache", "a/alone", "a/twice", "a/outside", size=100_000)
    os.link(cache / "a" / "twice", cache / "a" / "again")
    os.link(cache / "a" / "outside", tmp_path / "layer")
    os.link(cache / "a" / "alone", cache / "b")
    each = os.stat(cache / "b").st_blocks * 512
    place = Place(root=str(cache), patterns=("a",))
    assert deletion.estimate(place, rules())[0] == each  # "twice"; a name of "alone" stays
    assert deletion.estimate(Place(root=str(cache)), rules())[0] == 2 * each
    deletion.remove(Place(root=str(cache)), rules())
    assert (tmp_path / "layer").read_bytes() == b"x" * 100_000


def test_where_only_some_files_may_go_directories_and_other_files_stay(tmp_path: Path) -> None:
    hub = fill(tmp_path / "hub", "m/blobs/1.incomplete", "m/blobs/2", "m/refs/main", "x.incomplete")
    (hub / "m" / "y.incomplete").mkdir()
    deletion.remove(Place(root=str(hub), within="*.incomplete"), rules())
    left = {"m", "m/blobs", "m/blobs/2", "m/refs", "m/refs/main", "m/y.incomplete"}
    assert names(hub) == left


def test_the_root_stays_and_an_absent_one_is_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "cache", "a")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for root in ("cache", "absent", "file"):
        deletion.remove(Place(root=str(tmp_path / root)), rules())
        assert deletion.estimate(Place(root=str(tmp_path / root)), rules()) == (0, ())
    assert names(tmp_path) == {"cache", "file"}


def test_pipes_and_sockets_in_a_cache_do_not_hang_the_cleaner(tmp_path: Path) -> None:
    cache = fill(tmp_path / "cache", "a")
    os.mkfifo(cache / "pipe")
    deletion.remove(Place(root=str(cache)), rules())
    assert names(cache) == set()


def test_staging_that_is_a_link_leads_nowhere(tmp_path: Path) -> None:
    theirs = fill(tmp_path / "theirs", "f")
    store = Store(tmp_path / "store")
    store.prepare()
    (store.root / "staging" / "0123456789ab-01234567-1-2").symlink_to(theirs)
    dead = fill(store.root / "staging" / "0123456789ab-01234567-1-1", "owner", "layer/f")
    (dead / "layer" / "out").symlink_to(theirs)
    store.drop_staging()
    assert not dead.exists()
    assert (theirs / "f").exists()


# -- any tree ------------------------------------------------------------------------------------

NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"x.incomplete", b"pip-install-1", b"\xff", b"a\nb"]),
    st.binary(min_size=1, max_size=8).filter(
        lambda name: not {0, 47} & set(name) and name not in (b".", b"..")
    ),
)
KINDS = st.sampled_from(["directory", "file", "symlink", "hardlink", "pipe"])
STEPS = st.lists(
    st.tuples(KINDS, NAMES, st.integers(0, 30), st.integers(0, 30), st.integers(0, 9000)),
    max_size=40,
)
PLACES: st.SearchStrategy[dict[str, object]] = st.builds(
    dict,
    patterns=st.sampled_from([("*",), ("a*",), ("pip-install-*", "?")]),
    within=st.sampled_from(["", "", "*.incomplete"]),
    whole=st.booleans(),
)


def grow(base: bytes, steps: list[tuple[str, bytes, int, int, int]]) -> None:
    """A tree in `root`, another beside it, and links between them."""
    directories = [os.path.join(base, b"root"), os.path.join(base, b"beside")]
    files = [os.path.join(base, b"beside.txt")]
    for directory in directories:
        os.mkdir(directory)
    Path(os.fsdecode(files[0])).write_bytes(b"beside")
    for kind, name, parent, other, size in steps:
        path = os.path.join(directories[parent % len(directories)], name)
        with contextlib.suppress(FileExistsError):
            if kind == "directory":
                os.mkdir(path)
                directories.append(path)
            elif kind == "symlink":
                goals = [*directories, *files, b"..", b"/nowhere", name]
                os.symlink(goals[other % len(goals)], path)
            elif kind == "hardlink":
                os.link(files[other % len(files)], path, follow_symlinks=False)
            elif kind == "pipe":
                os.mkfifo(path)
            else:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                os.write(descriptor, b"x" * size)
                os.close(descriptor)
                files.append(path)


def blocks(root: Path) -> dict[int, int]:
    """Bytes on disk of everything but directories, by inode."""
    found = {}
    for parent, directories, files in os.walk(os.fsencode(root)):
        for name in directories + files:
            status = os.lstat(os.path.join(parent, name))
            if not stat.S_ISDIR(status.st_mode):
                found[status.st_ino] = status.st_blocks * 512
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, options=PLACES)
def test_whatever_the_tree_nothing_outside_the_root_changes_and_estimates_are_exact(
    steps: list[tuple[str, bytes, int, int, int]], options: dict[str, object]
) -> None:
    with TemporaryDirectory() as directory:
        base = Path(os.path.realpath(directory))
        grow(os.fsencode(base), steps)
        root = base / "root"
        place = Place(root=str(root), **options)  # type: ignore[arg-type]
        outside, before = fingerprint(base, without=root), blocks(base)
        inside = fingerprint(root)
        predicted, _ = deletion.estimate(place, rules())
        assert fingerprint(root) == inside  # a look changes nothing
        deletion.remove(place, rules())
        assert fingerprint(base, without=root) == outside
        after = blocks(base)
        assert predicted == sum(size for inode, size in before.items() if inode not in after)
        if place.patterns == ("*",) and not place.within:
            assert os.listdir(root) == []


# -- tiers ---------------------------------------------------------------------------------------


def roots(found: tuple[Tier, ...]) -> dict[str, list[str]]:
    """Where each tier lies."""
    return {tier.name: [place.root for place in tier.places] for tier in found}


def test_caches_are_where_programs_keep_them(tmp_path: Path) -> None:
    found = roots(tiers(habitat(Path("/u"))))
    assert found["temporary directories of installers that died"] == ["/u/tmp"]
    assert found["pip's cache"] == ["/u/home/.cache/pip"]
    assert found["uv's cache"] == ["/u/home/.cache/uv"]
    assert found["conda's archives"] == ["/u/system/opt/conda/pkgs", "/u/home/miniconda3/pkgs"]
    assert found["incomplete model downloads"] == ["/u/home/.cache/huggingface/hub"]
    compiled = ["/u/home/.triton/cache", "/u/tmp/torchinductor_somebody"]
    assert found["compiler caches"] == compiled
    assert all(root.startswith("/u/") for places in found.values() for root in places)


@pytest.mark.parametrize(
    ("tier", "environment", "expected"),
    [
        ("pip's cache", {"PIP_CACHE_DIR": "/v/pip"}, ["/v/pip"]),
        ("pip's cache", {"XDG_CACHE_HOME": "/v"}, ["/v/pip"]),
        ("pip's cache", {"XDG_CACHE_HOME": "/v", "PIP_CACHE_DIR": "/w"}, ["/w"]),
        ("pip's cache", {"PIP_CACHE_DIR": ""}, ["/u/home/.cache/pip"]),
        ("uv's cache", {"UV_CACHE_DIR": "/v/uv"}, ["/v/uv"]),
        ("uv's cache", {"XDG_CACHE_HOME": "/v"}, ["/v/uv"]),
        ("conda's archives", {"CONDA_PKGS_DIRS": "/v/a,/v/b"}, ["/v/a", "/v/b"]),
        (
            "conda's archives",
            {"CONDA_PREFIX": "/v"},
            ["/v/pkgs", "/u/system/opt/conda/pkgs", "/u/home/miniconda3/pkgs"],
        ),
        ("incomplete model downloads", {"HF_HOME": "/v/hf"}, ["/v/hf/hub"]),
        ("incomplete model downloads", {"HF_HUB_CACHE": "/v", "HF_HOME": "/w"}, ["/v"]),
        ("incomplete model downloads", {"XDG_CACHE_HOME": "/v"}, ["/v/huggingface/hub"]),
        (
            "compiler caches",
            {"TRITON_CACHE_DIR": "/v/t", "TORCHINDUCTOR_CACHE_DIR": "/v/i"},
            ["/v/t", "/v/i"],
        ),
    ],
)
def test_caches_move_with_the_variables_of_their_programs(
    tier: str, environment: dict[str, str], expected: list[str]
) -> None:
    assert roots(tiers(habitat(Path("/u"), **environment)))[tier] == expected


def test_the_cheapest_loss_comes_first_and_what_the_manifest_adds_last() -> None:
    assert [tier.name for tier in tiers(habitat(Path("/u")))] == [
        "temporary directories of installers that died",
        "pip's cache",
        "uv's cache",
        "conda's archives",
        "conda's unused packages",
        "apt's archives and lists",
        "incomplete model downloads",
        "compiler caches",
        "what the manifest adds",
    ]


def test_finished_models_and_settings_of_caches_are_never_named(tmp_path: Path) -> None:
    kept = (
        "home/.cache/huggingface/hub/models--a/blobs/1",
        "home/.cache/huggingface/token",
        "home/.cache/uv/credentials",
        "home/.cache/pip/mine.txt",
        "home/.cache/torch/hub/checkpoints/model.pt",
        "home/.config/pip/pip.conf",
        "home/miniconda3/pkgs/numpy-1.26/lib/libx.so",
        "system/var/lib/apt/lists/lock",
        "tmp/notebook.ipynb",
    )
    gone = (
        "home/.cache/huggingface/hub/models--a/blobs/2.incomplete",
        "home/.cache/uv/archive-v0/abc/f",
        "home/.cache/pip/http-v2/a/b",
        "home/miniconda3/pkgs/numpy-1.26.conda",
        "system/var/cache/apt/archives/gcc.deb",
        "system/var/lib/apt/lists/deb.debian.org_Packages.lz4",
        "home/.triton/cache/abc/kernel.cubin",
        "tmp/torchinductor_somebody/a/b.py",
        "tmp/pip-build-env-x/overlay/f",
    )
    root = fill(tmp_path / "u", *kept, *gone)
    for tier in tiers(habitat(root)):
        for place in tier.places:
            deletion.remove(place, rules())
    assert {name for name in names(root) if (root / name).is_file()} == set(kept)


# -- the whole command, on small filesystems -----------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A filesystem of its own that HOME, temp, the system's directories and the store lie on.

    Attributes:
        before: bytes free when the command began, as stat(1) tells.
        after: and when it had ended.
        files: what was left on it.
    """

    answer: Answer
    before: int
    after: int
    files: frozenset[str]


def on_a_disk(ground: Ground, mount: str, *arguments: str) -> Disk:
    """Run preheat with everything that may be cleaned on a filesystem that ends with it."""
    disk = ground.root / "disk"
    disk.mkdir(parents=True, exist_ok=True)
    out = ground.root / "out"
    out.mkdir(exist_ok=True)
    places = f"{disk / 'home'} {disk / 'tmp'}"
    measure = f"stat -f -c '%a %S' {disk}"
    steps = (
        f"{mount} {disk} || exit 77; mkdir -p {places}; {measure} >{out}/before",
        f'"$@"; code=$?; {measure} >{out}/after',
        f"cd {disk}; find . -type f >{out}/files; exit $code",
    )
    moves = {
        "HOME": str(disk / "home"),
        "TMPDIR": str(disk / "tmp"),
        "XDG_CACHE_HOME": str(disk / "home" / ".cache"),
        "PREHEAT_INTERNAL_SYSTEM": str(disk / "system"),
    }
    command = ground.command(*arguments, store=disk / "store")
    within = ["unshare", "-m", "sh", "-c", "\n".join(steps), "sh"]
    with turn_at_loop_devices():
        answer = finished([*within, *command], ground.surroundings(**moves))
    if not (out / "before").exists() or answer.code == 77:
        pytest.skip(f"nothing can be mounted here: {answer.stderr.strip()[-200:]}")

    def free(name: str) -> int:
        blocks, size = (out / name).read_text(encoding="utf-8").split()
        return int(blocks) * int(size)

    files = (out / "files").read_text(encoding="utf-8").splitlines()
    left = frozenset(name.removeprefix("./") for name in files)
    return Disk(answer=answer, before=free("before"), after=free("after"), files=left)


def aged_image(place: Path, files: Mapping[str, int], *, young: frozenset[str], size: int) -> str:
    """A filesystem whose files changed years ago, which no call can do; how it is mounted."""
    tree = place / "tree"
    for name, length in files.items():
        fill(tree, name, size=length)
    image = place / "image"
    with image.open("wb") as file:
        file.truncate(size)
    make = ["mkfs.ext4", "-q", "-m", "0", "-d", str(tree), str(image)]
    lines = [
        f'sif "/{name}" {field} @1500000000'
        for name in sorted(names(tree))
        for field in ("ctime", "mtime", "atime")
        if name not in young
    ]
    (place / "times").write_text("\n".join(lines), encoding="utf-8")
    age = ["debugfs", "-w", "-f", str(place / "times"), str(image)]
    try:
        for command in (make, age):
            subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError as error:
        pytest.skip(f"needs e2fsprogs: {error}")
    return f"mount -o loop,noatime {image}"


CACHES = {
    "tmp/pip-unpack-x/wheel": 2 * MB,
    "home/.cache/pip/http-v2/a/b": 20 * MB,
    "home/.cache/pip/http-v2/a/young": MB,
    "home/.cache/pip/mine": 1000,
    "home/.cache/uv/archive-v0/c/d": 10 * MB,
    "home/thesis.txt": 1000,
    "system/var/cache/apt/archives/gcc.deb": 5 * MB,
    "store/staging/0123456789ab-01234567-1-1/layer/part": 3 * MB,
    "store/staging/0123456789ab-01234567-1-1/cache/archive-v0/part": 4 * MB,
    "store/layers/abc/.preheat.json": 10,
    "store/verdicts/abc.json": 10,
    "extra/junk": MB,
}
YOUNG = frozenset({"home/.cache/pip/http-v2/a/young"})


@pytest.fixture
def ground(tmp_path: Path, platform: Platform) -> Ground:
    ground = Ground(root=tmp_path / "ground", python=platform.python)
    ground.write(space={"keep-free": 0, "clean-below": 0})
    return ground


@pytest.mark.root
def test_bug_3_freed_bytes_are_those_that_the_filesystem_gave_back(ground: Ground) -> None:
    disk = ground.root / "disk"
    junk = f"{disk}/store/staging/0123456789ab-01234567-1-1/cache/archive-v0"
    size = 5_000_000
    make = f"mkdir -p {junk} && head -c {size} /dev/zero >{junk}/f && ln {junk}/f {disk}/layer"
    more = f"{make} && head -c {size} /dev/zero >{junk}/g && chmod 755"
    done = on_a_disk(ground, f"mount -t tmpfs -o size=32m none {disk} && {more}", "clean", "--json")
    document = done.answer.document
    assert done.before == document["before"]
    assert done.after == document["after"]
    assert document["freed"] == done.after - done.before
    # One of the two lives on under a name outside; the lock's inode costs tmpfs nothing.
    assert size <= document["freed"] < size + 100_000
    assert document["tiers"]["staging of starts that ended"] == document["freed"]


@pytest.mark.root
def test_a_dry_run_tells_what_would_be_freed_and_frees_nothing(
    ground: Ground, tmp_path: Path
) -> None:
    extra = str(ground.root / "disk" / "extra")
    ground.write(space={"keep-free": 0, "clean-below": 0, "clean": [extra]})
    mount = aged_image(tmp_path, CACHES, young=YOUNG, size=100 * MB)
    done = on_a_disk(ground, mount, "clean", "--dry-run", "--json")
    found = {tier["name"]: tier for tier in done.answer.document["tiers"]}
    disk = ground.root / "disk"
    assert found["pip's cache"]["paths"] == [str(disk / "home/.cache/pip/http-v2")]
    for name, size in (
        ("staging of starts that ended", 7),
        ("temporary directories of installers that died", 2),
        ("pip's cache", 20),
        ("uv's cache", 10),
        ("apt's archives and lists", 5),
        ("what the manifest adds", 1),
    ):
        assert size * MB <= found[name]["bytes"] < size * MB + 100_000, name
    assert done.files >= CACHES.keys()


@pytest.mark.root
@pytest.mark.parametrize("need", ["1MB", "10MB", "35MB", "900TB"])
def test_cleaning_stops_as_soon_as_enough_is_free(
    ground: Ground, tmp_path: Path, need: str
) -> None:
    mount = aged_image(tmp_path, CACHES, young=YOUNG, size=64 * MB)
    done = on_a_disk(ground, mount, "clean", "--need", need, "--json")
    document = done.answer.document
    gone = {name for name in CACHES if name not in done.files}
    staging = {name for name in CACHES if name.startswith("store/staging")}
    cheap = staging | {name for name in CACHES if name.startswith("tmp/")}
    some = cheap | {"home/.cache/pip/http-v2/a/b"}
    everything = some | {name for name in CACHES if "uv/" in name or name.endswith(".deb")}
    # Nobody uses that layer, and no pointer names it.
    everything |= {"store/layers/abc/.preheat.json"}
    expected = {"1MB": set(), "10MB": staging, "35MB": some, "900TB": everything}
    assert gone == expected[need], document
    assert done.after - done.before == document["freed"] == document["after"] - document["before"]
    # What cannot be met is no success, and says by how much.
    assert done.answer.code == (4 if need == "900TB" else 0)
    assert (document["lacking"] > 0) == (need == "900TB")
    if need == "35MB":
        assert document["after"] >= 35 * MB
        assert list(document["tiers"])[-1] == "pip's cache"


@pytest.mark.root
def test_what_must_stay_stays_even_where_the_manifest_names_it(
    ground: Ground, tmp_path: Path
) -> None:
    disk = ground.root / "disk"
    named = [disk, disk / "home", disk / "store", disk / "store" / "layers", disk / "extra"]
    space = {"keep-free": 0, "clean-below": 0, "clean": [str(path) for path in named]}
    ground.write(space=space)
    mount = aged_image(tmp_path, CACHES, young=YOUNG, size=64 * MB)
    done = on_a_disk(ground, mount, "clean", "--json")
    assert done.answer.code == 0, done.answer.stderr
    assert done.files >= {"home/thesis.txt", "store/verdicts/abc.json", *YOUNG}
    assert "extra/junk" not in done.files


@pytest.mark.root
@pytest.mark.parametrize(
    "cache", ["home/.cache/pip/http-v2/a/b", "store/staging/0123456789ab-01234567-1-1/cache/a/part"]
)
def test_a_start_that_fits_only_after_cleaning_installs_everything(
    ground: Ground, tmp_path: Path, cache: str
) -> None:
    with Index(tmp_path / "index") as index:
        fat: dict[str, str | bytes] = {"fat.py": "", "fat.bin": os.urandom(15 * MB)}
        index.publish(
            Project(name="fat", version="1.0", files=fat),
            Project(name="small", version="1.0", files={"small.py": ""}),
        )
        space = {"keep-free": MB, "clean-below": 0}
        ground.write(package("fat"), package("small"), index=index, space=space)
        kept = {"home/thesis.txt": 1000, "home/.cache/uv/archive-v0/c": MB}
        full = aged_image(tmp_path, {cache: 60 * MB, **kept}, young=frozenset(), size=82 * MB)
        done = on_a_disk(ground, full, "warm", "--json")
    assert done.answer.code == 0, done.answer.stderr
    assert done.answer.status("fat") == "installed", done.answer.reason("fat")
    assert done.answer.status("small") == "installed"
    assert cache not in done.files
    assert done.files >= kept.keys()
    assert "cleaned" in done.answer.stderr
