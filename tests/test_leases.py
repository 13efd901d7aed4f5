"""Leases, claims and collecting: who lives is told rightly, and nobody loses what it uses."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from preheat import lease, pointer, start
from preheat.edges.cleaning.cleaner import Cleaner
from preheat.edges.cleaning.layers import available, collect, drop_void_mark, stale
from preheat.edges.store import leases as store_leases
from preheat.edges.store.claims import Claims
from preheat.edges.store.leases import EVERYTHING, Leases, locks_work
from preheat.edges.store.shelf import FACTS
from preheat.edges.store.store import Store
from preheat.words.layer import LayerFacts
from tests.support.starts import settle_in

HOUR = 3600.0
# Named as leases are; of another machine.
FAR = "0123456789ab-01234567-7-77"
YOUNG = "0123456789ab-01234567-1-1"
HOLD = """
import sys, time
from pathlib import Path
from preheat.edges.store.leases import Leases
from tests.support.starts import settle_in
with Leases(Path(sys.argv[1])).held(sys.argv[3:], lasts=float(sys.argv[2])) as own:
    print(own.name, flush=True)
    time.sleep(120)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that is prepared."""
    made = Store(tmp_path / "store")
    made.prepare()
    return made


@contextlib.contextmanager
def holder(
    place: Path, *names: str, lasts: float = 60.0, within: tuple[str, ...] = ()
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds a lease on those names, and the lease's own name."""
    command = [*within, sys.executable, "-c", HOLD, str(place), str(lasts), *names]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def publish(store: Store, digest: str, *, age: float = HOUR) -> Path:
    """A layer of one module that was made that long ago."""
    facts = LayerFacts(
        digest=digest,
        package="p",
        distributions=(("p", "1.0"),),
        payload=3,
        disk=4096,
        files=1,
        has_pth=False,
        scripts=(),
    )
    with store.stage() as place:
        made = place / "layer"
        made.mkdir()
        (made / "p.py").write_text("A=1", encoding="utf-8")
        layer = store.publish(made, facts)
    then = time.time() - age
    os.utime(layer / FACTS, (then, then))
    return layer


def point_at(store: Store, *digests: str, name: str = "pointer", age: float = 0.0) -> None:
    """A pointer that names those layers and was followed that long ago."""
    facts = {
        "format": pointer.FORMAT,
        "layers": [str(store.layer(digest)) for digest in digests],
    }
    file = store.starts / name
    file.write_bytes(pointer.pack_pointer(facts))
    then = time.time() - age
    os.utime(file, (then, then))


def using(store: Store, *digests: str) -> dict[str, object]:
    """What a start knows of the layers that it is about to use."""
    layers = [str(store.layer(digest)) for digest in digests]
    facts = {"store": str(store.root), "local": "", "bootstrap": ""}
    return {**facts, "layers": layers, "shared": False}


# -- who lives -----------------------------------------------------------------------------------


def test_a_lease_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    found = Leases(tmp_path)
    with holder(tmp_path, "a", "b") as (process, name):
        assert found.lives(name)
        assert found.is_renewing(name)
        assert found.names() == {"a", "b"}
        assert found.names(besides=name) == frozenset()
        process.kill()
        process.wait()
        assert not found.lives(name)
        assert found.names() == frozenset()
        found.prune()
        assert os.listdir(tmp_path) == []


def test_a_process_that_nobody_has_waited_for_yet_is_dead(tmp_path: Path) -> None:
    with holder(tmp_path, "a") as (process, name):
        os.kill(process.pid, signal.SIGKILL)
        until = time.monotonic() + 10
        while Leases(tmp_path).lives(name):
            assert time.monotonic() < until
            time.sleep(0.01)


def test_another_process_with_the_same_number_is_not_the_holder(tmp_path: Path) -> None:
    own = lease.take(str(tmp_path), ["a"], 60)
    machine, process = lease.identity()
    assert Leases(tmp_path).lives(own.name)
    text = Path(own.file).read_text(encoding="utf-8")
    Path(own.file).write_text(text.replace(process, f"{os.getpid()}:1"), encoding="utf-8")
    assert machine in text
    assert not Leases(tmp_path).lives(own.name)
    own.release()


def test_a_holder_on_another_machine_lives_as_long_as_it_renews(tmp_path: Path) -> None:
    file = tmp_path / FAR
    file.write_text("another-boot/pid:[1]\n7:77\n60.0\na", encoding="utf-8")
    found = Leases(tmp_path)
    assert found.lives(FAR)
    assert found.names() == {"a"}
    old = time.time() - 61
    os.utime(file, (old, old))
    assert not found.lives(FAR)
    assert found.names() == frozenset()


@pytest.mark.root
def test_a_holder_in_another_container_is_told_by_its_lock(tmp_path: Path) -> None:
    within = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    with holder(tmp_path, "a", within=within) as (process, name):
        found = Leases(tmp_path)
        assert (tmp_path / name).read_text(encoding="utf-8").split("\n")[1].startswith("1:")
        assert found.lives(name)
        old = time.time() - HOUR
        os.utime(tmp_path / name, (old, old))
        assert found.lives(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        until = time.monotonic() + 10
        while found.lives(name):
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.mark.root
def test_where_locks_do_nothing_another_containers_holder_is_told_by_renewals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    assert not locks_work(tmp_path)
    within = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    with holder(tmp_path, "a", within=within) as (_, name):
        assert Leases(tmp_path).lives(name)
        with monkeypatch.context() as frozen:
            frozen.setattr(store_leases, "filesystem_time", lambda _: time.time() + 61)
            assert not Leases(tmp_path).lives(name)


def test_who_hangs_lives_and_does_not_go_on(tmp_path: Path) -> None:
    found = Leases(tmp_path)
    with holder(tmp_path, "a", lasts=0.4) as (process, name):
        time.sleep(1.2)
        assert found.is_renewing(name)
        process.send_signal(signal.SIGSTOP)
        until = time.monotonic() + 10
        while found.is_renewing(name):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert found.lives(name)
        process.send_signal(signal.SIGCONT)
        until = time.monotonic() + 10
        while not found.is_renewing(name):
            assert time.monotonic() < until
            time.sleep(0.05)


def test_a_lease_that_is_just_being_written_holds_everything(tmp_path: Path) -> None:
    (tmp_path / YOUNG).touch()
    assert Leases(tmp_path).names() == {EVERYTHING}
    old = time.time() - 2 * HOUR
    os.utime(tmp_path / YOUNG, (old, old))
    assert Leases(tmp_path).names() == frozenset()


def test_a_lease_that_lost_its_lines_to_a_power_loss_still_tells_its_holder(
    tmp_path: Path,
) -> None:
    with holder(tmp_path, "a") as (process, name):
        os.truncate(tmp_path / name, 0)
        assert Leases(tmp_path).lives(name)
        process.kill()
        process.wait()
        assert not Leases(tmp_path).lives(name)


def test_a_lease_can_hold_other_names_than_at_first(tmp_path: Path) -> None:
    own = lease.take(str(tmp_path), [EVERYTHING], 60)
    own.hold(["a" * 200, "b"])
    assert Leases(tmp_path).names() == {"a" * 200, "b"}
    own.add("c")
    assert Leases(tmp_path).names() == {"a" * 200, "b", "c"}
    own.hold([])
    assert Leases(tmp_path).names() == frozenset()
    own.release()
    own.release()
    assert os.listdir(tmp_path) == []


def test_what_a_process_becomes_holds_its_lease_on(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom preheat import lease\n"
        "own = lease.take(sys.argv[1], ['a'], 60)\nown.outlive_exec()\n"
        "os.execvp('sh', ['sh', '-c', 'echo ready; read line; true'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert Leases(tmp_path).names() == {"a"}
    finally:
        process.kill()
        process.communicate()
    assert Leases(tmp_path).names() == frozenset()


def test_locks_that_work_are_told_from_none(tmp_path: Path) -> None:
    assert locks_work(tmp_path)
    assert os.listdir(tmp_path) == []
    assert not locks_work(tmp_path / "absent")


# -- claims --------------------------------------------------------------------------------------


def claims(store: Store, own: lease.Lease) -> Claims:
    """The claims of that lease's holder."""
    return Claims(directory=store.root / "claims", leases=store.leases, own=own)


def give_up(seconds: float) -> bool:
    return seconds < 0.3


def test_what_one_claims_another_waits_for_until_it_is_given_back(store: Store) -> None:
    with store.leases.held(()) as one, store.leases.held(()) as two:
        with claims(store, one).claimed("layer", give_up) as ours:
            assert ours
            with claims(store, two).claimed("layer", give_up) as theirs:
                assert not theirs
            with claims(store, two).claimed("another", give_up) as theirs:
                assert theirs
        with claims(store, two).claimed("layer", give_up) as theirs:
            assert theirs
    assert os.listdir(store.root / "claims") == []


def claimed_by(store: Store, name: str, key: str = "layer") -> Path:
    """A claim as the holder of that lease makes it."""
    file = store.root / "claims" / key
    file.write_text(name, encoding="utf-8")
    return file


def test_the_claim_of_the_dead_is_overtaken_at_once(store: Store) -> None:
    with holder(store.root / "leases") as (process, name), store.leases.held(()) as own:
        claimed_by(store, name)
        with claims(store, own).claimed("layer", give_up) as ours:
            assert not ours
        process.kill()
        process.wait()
        with claims(store, own).claimed("layer", give_up) as ours:
            assert ours
    assert os.listdir(store.root / "claims") == []


def test_the_claim_of_who_hangs_is_overtaken_after_its_lease(store: Store) -> None:
    with (
        holder(store.root / "leases", lasts=0.5) as (process, name),
        store.leases.held(()) as own,
    ):
        claimed_by(store, name)
        process.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        with claims(store, own).claimed("layer", lambda seconds: seconds < 20) as ours:
            assert ours
            assert time.monotonic() - begin > 0.2
        process.send_signal(signal.SIGCONT)


def test_claims_of_the_dead_are_pruned_and_those_of_the_living_stay(store: Store) -> None:
    with holder(store.root / "leases") as (_, name), store.leases.held(()) as own:
        claimed_by(store, name, "living")
        claimed_by(store, "gone", "dead")
        claims(store, own).prune()
        assert os.listdir(store.root / "claims") == ["living"]


def test_a_volume_that_takes_no_claims_gets_the_work_done(store: Store) -> None:
    (store.root / "claims").rmdir()
    with store.leases.held(()) as own, claims(store, own).claimed("layer", give_up) as ours:
        assert ours


# -- collecting ----------------------------------------------------------------------------------


def test_layers_without_a_pointer_go_first_then_the_least_recently_used(store: Store) -> None:
    for digest, age in (("new", 2 * HOUR), ("old", 9 * HOUR), ("used", 9 * HOUR), ("lone", HOUR)):
        publish(store, digest, age=age)
    point_at(store, "new", "old", name="one", age=8 * HOUR)
    point_at(store, "used", name="two", age=HOUR)
    found = stale(store, ())
    assert [each.digest for each in found] == ["lone", "old", "new", "used"]
    assert [each.current for each in found] == [False, True, True, True]


def test_what_is_spared_held_or_young_is_not_stale(store: Store) -> None:
    for digest in ("spared", "held", "loose"):
        publish(store, digest)
    publish(store, "young", age=0)
    with holder(store.root / "leases", "held"):
        assert [each.digest for each in stale(store, {"spared"})] == ["loose"]
    with holder(store.root / "leases", EVERYTHING):
        assert stale(store, ()) == ()


def test_a_layer_that_came_to_be_held_meanwhile_stays(store: Store) -> None:
    for digest in ("a", "b"):
        publish(store, digest)
    with store.begin() as staging:
        staging.lease.hold(())
        taking = collect(store.ready, staging, ["a", "b"])
        assert next(taking) == "a"
        with holder(store.root / "leases", "b"):
            assert list(taking) == []
    assert store.layers() == {"b"}
    assert not (store.root / pointer.PENDING_REMOVAL).exists()


def test_a_start_that_sees_its_layer_marked_does_not_use_it(store: Store) -> None:
    publish(store, "a")
    publish(store, "b")
    with store.begin() as staging:
        staging.lease.hold(())
        taking = collect(store.ready, staging, ["b"])
        next(taking)
        assert start.hold(using(store, "b")) is None
        held = start.hold(using(store, "a"))
        assert held is not None
        held.release()
        taking.close()
    assert start.hold(using(store, "b")) is None
    assert os.listdir(store.root / "leases") == []


def test_the_mark_of_a_collector_that_was_killed_holds_nobody_up(store: Store) -> None:
    publish(store, "a")
    (store.root / pointer.PENDING_REMOVAL).write_text("gone\na", encoding="utf-8")
    assert available(store) == frozenset()
    drop_void_mark(store)
    assert available(store) == {"a"}
    assert not (store.root / pointer.PENDING_REMOVAL).exists()


def test_two_collectors_do_not_get_into_each_others_way(store: Store) -> None:
    for digest in ("a", "b"):
        publish(store, digest)
    with store.begin() as one, store.begin() as two:
        one.lease.hold(())
        two.lease.hold(())
        first = collect(store.ready, one, ["a"])
        assert next(first) == "a"
        assert list(collect(store.ready, two, ["b"])) == []
        first.close()
        assert list(collect(store.ready, two, ["b"])) == ["b"]


def test_cleaning_without_a_need_leaves_what_a_start_would_use(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is put back afterwards; the rest of the environment stays as it is.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    (tmp_path / "user" / "tmp").mkdir(parents=True)
    settle_in(tmp_path / "user", os.environ)
    for digest in ("pointed", "lone"):
        publish(store, digest)
    point_at(store, "pointed")
    Cleaner(store=store).clean()
    assert store.layers() == {"pointed"}
    Cleaner(store=store).until_free(2**62)
    assert store.layers() == frozenset()


USE = """
import os, sys, time
from preheat import start
facts = {"store": sys.argv[1], "layers": [sys.argv[2]], "shared": False}
facts |= {"local": "", "bootstrap": ""}
facts |= {"local": "", "bootstrap": ""}
until = time.monotonic() + float(sys.argv[3])
used = lost = 0
while time.monotonic() < until:
    held = start.hold(facts)
    if held is None:
        continue
    used += 1
    for _ in range(20):
        lost += not os.path.exists(sys.argv[2] + "/p.py")
    held.release()
print(used, lost)
"""


def test_a_layer_in_use_is_never_collected_however_they_race(store: Store) -> None:
    layer = publish(store, "a")
    command = [sys.executable, "-c", USE, str(store.root), str(layer), "6"]
    users = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    collected = 0
    while any(user.poll() is None for user in users):
        with store.begin() as staging:
            staging.lease.hold(())
            collected += len(list(collect(store.ready, staging, ["a"])))
        publish(store, "a")
    found = [tuple(map(int, user.communicate()[0].split())) for user in users]
    assert sum(lost for _, lost in found) == 0
    assert all(used for used, _ in found)
    assert collected
