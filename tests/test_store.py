"""The store: whole or absent, whoever races, dies or fills the disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from preheat import pointer, start
from preheat.edges.disk import atomic
from preheat.edges.disk.atomic import rename_new, write_atomically
from preheat.edges.store.shelf import FACTS
from preheat.edges.store.store import Store
from preheat.words.errors import StoreError
from preheat.words.layer import LayerFacts
from preheat.words.plan import Verdict
from preheat.words.store import Directory


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that is prepared."""
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def facts(digest: str = "d1", package: str = "p") -> LayerFacts:
    """What a layer of one module says of itself."""
    return LayerFacts(
        digest=digest,
        package=package,
        distributions=(("p", "1.0"),),
        payload=3,
        disk=4096,
        files=1,
        has_pth=False,
        scripts=(("run", "p:main"),),
    )


def staged(place: Path, text: str = "A=1") -> Path:
    """A staged layer of one module."""
    layer = place / "layer"
    layer.mkdir()
    (layer / "p.py").write_text(text, encoding="utf-8")
    return layer


def without_renameat2(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filesystem that has no RENAME_NOREPLACE, as FUSE ones answer."""
    monkeypatch.setattr(atomic, "_rename_noreplace", lambda source, target: errno.EINVAL)


@pytest.fixture(params=["syscall", "fallback"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of renaming."""
    if request.param == "fallback":
        without_renameat2(monkeypatch)
    return str(request.param)


# -- layers --------------------------------------------------------------------------------------


def test_nothing_is_created_before_the_first_write(tmp_path: Path) -> None:
    empty = Store(tmp_path / "store")
    assert empty.layers() == frozenset()
    assert empty.verdicts.standing(0) == {}
    assert empty.history.starts() == ()
    assert empty.unreferenced_staging() == ()
    assert not empty.root.exists()


def test_a_published_layer_is_there_whole_with_what_it_says_of_itself(
    store: Store, way: str
) -> None:
    with store.stage() as place:
        layer = store.publish(staged(place), facts())
        assert list(place.iterdir()) == []
    assert way
    assert store.layers() == {"d1"}
    assert (layer / "p.py").read_text(encoding="utf-8") == "A=1"
    assert store.facts("d1") == facts()
    assert list((store.root / "staging").iterdir()) == []


def test_a_layer_that_is_there_already_stays_and_the_second_one_goes(
    store: Store, way: str
) -> None:
    assert way
    with store.stage() as one, store.stage() as two:
        store.publish(staged(one, "first"), facts())
        layer = store.publish(staged(two, "second"), facts(package="q"))
    assert (layer / "p.py").read_text(encoding="utf-8") == "first"
    assert store.facts("d1").package == "p"


def test_of_many_that_race_for_one_name_one_wins_and_none_is_damaged(
    store: Store, way: str
) -> None:
    assert way
    barrier = threading.Barrier(8)

    def publish(number: int) -> Path:
        with store.stage() as place:
            layer = staged(place, str(number))
            (layer / "q.py").write_text(str(number), encoding="utf-8")
            barrier.wait()
            return store.publish(layer, facts(package=f"p{number}"))

    with ThreadPoolExecutor(8) as pool:
        (layer,) = set(pool.map(publish, range(8)))
    number = (layer / "p.py").read_text(encoding="utf-8")
    assert (layer / "q.py").read_text(encoding="utf-8") == number
    assert store.facts("d1").package == f"p{number}"
    assert store.layers() == {"d1"}
    assert list((store.root / "staging").iterdir()) == []


def test_a_layer_that_cannot_be_written_does_not_appear(store: Store) -> None:
    with store.stage() as place, pytest.raises(StoreError):
        store.publish(place / "never-made", facts())
    assert store.layers() == frozenset()


def test_a_layer_that_somebody_emptied_by_hand_is_published_anew(store: Store, way: str) -> None:
    assert way
    with store.stage() as place:
        layer = store.publish(staged(place), facts())
    for file in layer.iterdir():
        file.unlink()
    with store.stage() as place:
        assert store.publish(staged(place, "again"), facts()) == layer
    assert (layer / "p.py").read_text(encoding="utf-8") == "again"
    assert store.facts("d1") == facts()


def test_the_facts_of_a_layer_are_on_disk_as_stores_from_before_have_them(store: Store) -> None:
    with store.stage() as place:
        layer = store.publish(staged(place), facts())
    document = json.loads((layer / FACTS).read_text(encoding="utf-8"))
    assert document == {
        "digest": "d1",
        "package": "p",
        "distributions": [["p", "1.0"]],
        "payload": 3,
        "disk": 4096,
        "files": 1,
        "hooked": False,
        "scripts": [["run", "p:main"]],
        "links": [],
    }


@pytest.mark.parametrize("text", ["", "{", "[]", '{"digest": "d1"}'])
def test_a_layer_damaged_from_outside_is_refused_with_its_place(store: Store, text: str) -> None:
    with store.stage() as place:
        layer = store.publish(staged(place), facts())
    (layer / FACTS).write_text(text, encoding="utf-8")
    with pytest.raises(StoreError) as caught:
        store.facts("d1")
    assert str(layer) in caught.value.message


# -- renaming ------------------------------------------------------------------------------------


def test_a_new_name_is_taken(tmp_path: Path, way: str) -> None:
    assert way
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    assert rename_new(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "file").exists()
    assert not (tmp_path / "a").exists()


def test_a_directory_with_files_is_never_replaced(tmp_path: Path, way: str) -> None:
    assert way
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert not rename_new(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "b").exists()
    assert (tmp_path / "a" / "a").exists()


def test_an_empty_directory_is_never_replaced(tmp_path: Path, way: str) -> None:
    assert way
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    (tmp_path / "b").mkdir()
    assert not rename_new(tmp_path / "a", tmp_path / "b")
    assert list((tmp_path / "b").iterdir()) == []
    assert (tmp_path / "a" / "file").exists()


def test_a_source_that_is_gone_is_an_error_and_no_lost_race(tmp_path: Path, way: str) -> None:
    assert way
    with pytest.raises(FileNotFoundError):
        rename_new(tmp_path / "absent", tmp_path / "b")


# -- small files ---------------------------------------------------------------------------------


def test_a_small_file_is_replaced_whole_whoever_reads_meanwhile(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "file"
    sizes = [10, 100_000]
    write_atomically(file, b"0" * sizes[0])
    stop = threading.Event()
    seen: set[tuple[int, int]] = set()

    def look() -> None:
        while not stop.is_set():
            data = file.read_bytes()
            seen.add((len(data), len(set(data))))

    watcher = threading.Thread(target=look)
    watcher.start()
    for number in range(60):
        write_atomically(file, str(number % 10).encode() * sizes[number % 2])
    stop.set()
    watcher.join()
    assert seen <= {(size, 1) for size in sizes}
    assert list(file.parent.iterdir()) == [file]


def test_a_small_file_that_cannot_be_written_leaves_the_old_one_and_no_other(
    tmp_path: Path,
) -> None:
    target = tmp_path / "directory"
    target.mkdir()
    (target / "inside").touch()
    with pytest.raises(StoreError) as caught:
        write_atomically(target, b"data")
    assert str(tmp_path) in caught.value.message
    assert list(tmp_path.iterdir()) == [target]


# -- staging -------------------------------------------------------------------------------------

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom preheat.edges.store.store import Store\n"
    "with Store(Path(sys.argv[1])).stage() as place:\n"
    "    (place / 'half-made').touch()\n"
    "    print(place, flush=True)\n"
    "    time.sleep(60)\n"
)


@contextlib.contextmanager
def holder(store: Store) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that stages something, and what it stages."""
    command = [sys.executable, "-c", HOLD, str(store.root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


def test_staging_is_gone_at_the_end_whatever_happened(store: Store) -> None:
    def interrupted() -> None:
        with store.stage() as place:
            staged(place)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list((store.root / "staging").iterdir()) == []


def test_staging_is_unreferenced_only_when_its_owner_was_killed(store: Store) -> None:
    with holder(store) as (process, place):
        assert place.is_dir()
        assert store.unreferenced_staging() == ()
        store.drop_staging()  # what the next start does first
        assert (place / "half-made").exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (place / "half-made").exists()
        assert store.unreferenced_staging() == (place,)
        store.drop_staging()
        assert not place.exists()
        assert names(store.root / "leases") == set()


def test_our_own_staging_is_not_taken_for_a_dead_ones(store: Store) -> None:
    with store.stage() as place:
        store.drop_staging()
        assert place.is_dir()
        assert store.unreferenced_staging() == ()


def test_staging_without_a_lease_is_a_dead_ones(store: Store) -> None:
    place = store.root / "staging" / "0123456789ab-01234567-1-1"
    place.mkdir()
    assert store.unreferenced_staging() == (place,)


def test_what_is_not_named_as_a_lease_is_nobodys_staging_and_stays(store: Store) -> None:
    for part in ("staging/mydata", "staging/0123456789ab-notes", "leases/notes.txt"):
        (store.root / part).mkdir()
    assert store.unreferenced_staging() == ()
    store.drop_staging()
    assert names(store.root / "staging") == {"mydata", "0123456789ab-notes"}
    assert names(store.root / "leases") == {"notes.txt"}


def test_a_directory_with_something_else_in_it_does_not_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "staging-of-mine").mkdir()
    with pytest.raises(StoreError, match="no store of preheat"):
        Store(tmp_path).prepare()
    assert names(tmp_path) == {"staging-of-mine"}
    volume = tmp_path / "volume"
    (volume / "lost+found").mkdir(parents=True)
    (volume / ".trash").mkdir()
    Store(volume).prepare()
    Store(volume).prepare()


# -- the engine's cache --------------------------------------------------------------------------


def test_each_start_has_a_cache_of_its_own_that_goes_with_it(store: Store) -> None:
    with store.begin() as one, store.begin() as two:
        for staging in (one, two):
            staging.cache.mkdir()
            (staging.cache / "archive").touch()
        assert one.cache != two.cache
    assert not one.cache.exists()
    assert names(store.root / "staging") == set()


def test_what_a_killed_start_had_fetched_is_taken_over_by_one_start(store: Store) -> None:
    with holder(store) as (process, dead):
        (dead / "cache").mkdir()
        (dead / "cache" / "archive").touch()
        process.send_signal(signal.SIGKILL)
        process.wait()
        with store.begin() as one, store.begin() as two:
            assert [staging.adopt_cache(dead) for staging in (one, two)] == [True, False]
            assert names(one.cache) == {"archive"}
            store.drop_staging()
            assert not dead.exists()
            assert names(one.cache) == {"archive"}


def test_a_cache_that_is_a_link_or_empty_is_not_taken_over(store: Store, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").touch()
    dead = store.root / "staging" / "0123456789ab-01234567-1-1"
    dead.mkdir()
    with store.begin() as staging:
        assert not staging.adopt_cache(dead)
        (dead / "cache").mkdir()
        assert not staging.adopt_cache(dead)
        (dead / "cache").rmdir()
        (dead / "cache").symlink_to(theirs)
        assert not staging.adopt_cache(dead)
    assert names(theirs) == {"file"}


def names(place: Path) -> set[str]:
    """What lies in a directory."""
    return {entry.name for entry in place.iterdir()}


# -- verdicts ------------------------------------------------------------------------------------


def verdict(key: str, *, ok: bool, expires: float = 0.0) -> Verdict:
    """A verdict of that key."""
    return Verdict(key=key, package="p", ok=ok, reason="" if ok else "no", expires=expires)


def test_failures_expire_and_successes_do_not(store: Store) -> None:
    good, bad = verdict("good", ok=True), verdict("bad", ok=False, expires=100.0)
    store.verdicts.keep(good)
    store.verdicts.keep(bad)
    assert store.verdicts.standing(99.0) == {"good": good, "bad": bad}
    assert store.verdicts.standing(100.0) == {"good": good}


def test_the_newer_verdict_of_a_key_counts(store: Store) -> None:
    store.verdicts.keep(verdict("key", ok=False, expires=1e12))
    store.verdicts.keep(verdict("key", ok=True))
    assert store.verdicts.standing(0.0) == {"key": verdict("key", ok=True)}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": "x"}', '{"unknown": 1}', "\x00"])
def test_a_damaged_verdict_counts_for_nothing(store: Store, text: str) -> None:
    (store.root / "verdicts" / "x.json").write_text(text, encoding="utf-8")
    store.verdicts.keep(verdict("key", ok=True))
    assert set(store.verdicts.standing(0.0)) == {"key"}


# -- history -------------------------------------------------------------------------------------


def test_history_survives_a_torn_line_at_its_end_and_in_between(store: Store) -> None:
    file = store.root / "history.jsonl"
    store.history.append({"n": 1})
    with file.open("a", encoding="utf-8") as handle:
        handle.write('{"n": 2, "torn\n[2]\n\n')
    store.history.append({"n": 3})
    with file.open("ab") as handle:
        handle.write(b'{"n": 4, "pack\xff')
    assert [line["n"] for line in store.history.starts()] == [1, 3]


def test_a_line_after_a_torn_one_is_not_lost_with_it(store: Store) -> None:
    (store.root / "history.jsonl").write_bytes(b'{"n": 1}\n{"n": 2, "torn')
    store.history.append({"n": 3})
    assert [line["n"] for line in store.history.starts()] == [1, 3]


def test_only_the_last_thousand_starts_are_kept(store: Store) -> None:
    lines = "".join(json.dumps({"n": n}) + "\n" for n in range(2000))
    (store.root / "history.jsonl").write_text(lines, encoding="utf-8")
    store.history.append({"n": 2000})
    kept = store.history.starts()
    assert len(kept) == 1000
    assert kept[-1] == {"n": 2000}


# -- what cannot be written ----------------------------------------------------------------------


def test_a_store_that_is_a_file_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "store").prepare()
    assert "Not a directory" in caught.value.message or "File exists" in caught.value.message
    assert caught.value.hint


@pytest.mark.root
def test_a_full_disk_publishes_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom preheat.edges.store.store import *\n"
        "from preheat.words.errors import StoreError\n"
        "from tests.test_store import facts\n"
        "store = Store(Path(sys.argv[1]))\nstore.prepare()\n"
        "with store.stage() as place:\n"
        "    layer = place / 'layer'\n    layer.mkdir()\n    (layer / 'p.py').touch()\n"
        "    try:\n"
        "        with open(place / 'fill', 'wb') as file:\n"
        "            while True:\n                file.write(bytes(4096)); file.flush()\n"
        "    except OSError:\n        pass\n"
        "    try:\n        store.publish(layer, facts())\n"
        "    except StoreError as error:\n        print(error.message, '|', error.hint)\n"
        "print(sorted(store.layers()), os.listdir(store.root / 'staging'))\n"
    )
    place = tmp_path / "small"
    place.mkdir()
    mount = f'mount -t tmpfs -o size=256k none {place} || exit 77; exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", script]
    root = Path(__file__).parents[1]
    answer = subprocess.run(
        [*command, str(place / "store")],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        timeout=60,
    )
    if answer.returncode and ("mount" in answer.stderr or "unshare" in answer.stderr):
        pytest.skip(f"nothing can be mounted here: {answer.stderr.strip()}")
    said, left = answer.stdout.splitlines()
    assert "No space left on device" in said
    assert "free some space" in said
    assert left == "[] []"


def test_the_warm_path_spells_the_directories_of_a_store_as_the_store_does(
    tmp_path: Path,
) -> None:
    file = pointer.pointer_file(str(tmp_path), "preheat.toml", sys.prefix, "cpython")
    assert Path(file).parent == Store(tmp_path).starts
    facts = {"store": str(tmp_path), "local": "", "layers": [], "shared": False}
    held = start.hold(facts)
    assert held is not None
    assert Path(held.file).parent == Directory.LEASES.under(tmp_path)
    held.release()
