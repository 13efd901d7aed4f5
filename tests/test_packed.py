"""Layers as one file on a volume: made on the local disk, and unpacked there by whoever comes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from preheat.decisions.packing import Site, hydrating_is_faster
from preheat.edges.store.open import open_store
from preheat.edges.store.shelf import FACTS
from preheat.edges.store.store import Store
from preheat.words.manifest import Manifest
from preheat.words.platform import Volume
from preheat.words.settings import resolve_settings
from tests.support.index import Index, offering
from tests.support.mounts import mount_tmpfs
from tests.support.platforms import Platform
from tests.support.starts import package
from tests.support.wheels import Project
from tests.support.workers import Worker

MB = 1_000_000
PROJECTS = (
    Project(name="shared", version="1.0", files={"shared/__init__.py": "VALUE = 7\n"}),
    Project(
        name="tone",
        version="1.0",
        requires=["shared"],
        files={"tone/__init__.py": "import shared\nVALUE = shared.VALUE\n"},
        console_scripts={"tone": "tone:main"},
    ),
    Project(
        name="noise",
        version="1.0",
        requires=["shared"],
        files={"noise.py": "import shared\n", "noise.bin": os.urandom(4 * MB)},
    ),
)
WHERE = "import os, tone; print(os.path.dirname(os.path.dirname(tone.__file__)))"


index = offering(*PROJECTS)


@pytest.fixture
def worker(tmp_path: Path, host: Platform, index: Index) -> Worker:
    """A worker whose store keeps layers packed."""
    made = Worker(place=tmp_path / "worker", platform=host, index=index)
    describe(made)
    return made


def describe(worker: Worker, **tables: object) -> None:
    """The manifest: two packages over a distribution that both need."""
    packages = [package("tone", required=True), package("noise")]
    stated = {"layers": "packed", "local": str(worker.place / "disk")}
    space = {"keep-free": 0, "clean-below": 0}
    worker.write(packages, **{"space": space, **stated, **tables})


def packs(worker: Worker) -> list[Path]:
    return sorted((worker.store / "packs").iterdir())


def unpacked(worker: Worker) -> list[Path]:
    return sorted((worker.place / "disk").glob("*/layers/*"))


def staged(worker: Worker) -> list[Path]:
    return [path for base in (worker.store, worker.place) for path in base.glob("**/staging/*")]


def empty_disk(worker: Worker) -> None:
    """Another worker on the same volume: its own disk has nothing yet."""
    shutil.rmtree(worker.place / "disk")


def packed_store(worker: Worker) -> Store:
    settings = resolve_settings(
        Manifest(),
        {},
        {"store": worker.store, "layers": "packed", "local": worker.place / "disk"},
        None,
        worker.place,
    )
    return open_store(settings)


def test_a_cold_start_makes_layers_on_the_local_disk_and_leaves_one_file_each_on_the_volume(
    worker: Worker,
) -> None:
    result = worker.warm()
    assert (result.code, result.bad) == (0, {})
    assert len(packs(worker)) == len(unpacked(worker)) == 2
    assert {path.name.removesuffix(".tar.zst") for path in packs(worker)} == {
        path.name for path in unpacked(worker)
    }
    assert not (worker.store / "layers").exists()
    assert not (worker.store / "staging").exists()
    assert not (worker.store / "bootstraps").exists()
    assert staged(worker) == []
    assert all(path.startswith(f"{worker.place}/disk/") for path in result.document["paths"])
    assert {volume["role"] for volume in result.document["volumes"]} == {
        "local",
        "cache",
        "temp",
        "store",
    }
    assert worker.warm().document["warm"] is True


def test_a_plan_counts_layers_on_the_local_disk_and_packs_on_the_volume(worker: Worker) -> None:
    plan = worker.preheat(
        worker.platform.python, "plan", "--python", str(worker.platform.python)
    ).document
    needs = {role: need for need in plan["needs"] for role in need["role"].split(", ")}
    layers = sum(row["bytes_predicted"] for row in plan["packages"])
    assert needs["local"]["bytes"] > layers > 4 * MB
    assert needs["store"]["bytes"] > 0.3 * layers
    assert not worker.store.exists()


def test_a_second_worker_with_an_empty_disk_asks_no_index_and_proves_nothing_again(
    worker: Worker, index: Index
) -> None:
    worker.warm()
    index.close()
    empty_disk(worker)
    result = worker.warm()
    assert (result.code, result.bad) == (0, {})
    assert result.document["ready"] is True
    assert result.document["warm"] is False
    assert {row["status"] for row in result.document["packages"]} == {"reused"}
    assert "unpacked" in result.stderr
    assert "prove" not in result.stderr
    assert len(unpacked(worker)) == 2
    assert staged(worker) == []
    assert worker.after(result, WHERE) in map(str, unpacked(worker))
    assert worker.warm().document["warm"] is True


def test_a_process_and_its_children_import_from_the_local_disk(worker: Worker) -> None:
    worker.warm_inside()
    empty_disk(worker)
    code = (
        f"{WHERE}\nprint(ready.warm)\nimport subprocess, sys\n"
        f"print(subprocess.check_output([sys.executable, '-c', {WHERE!r}], text=True).strip())"
    )
    here, warm, child = worker.inside(code).stdout.split("\n")[:3]
    assert warm == "False"
    assert here == child
    assert here in map(str, unpacked(worker))
    assert worker.inside("print(ready.warm)").stdout.strip() == "True"


def test_run_unpacks_first_and_finds_console_scripts(worker: Worker) -> None:
    worker.warm()
    empty_disk(worker)
    python = str(worker.platform.python)
    command = [python, "-m", "preheat", "run", *worker.options, "--", "sh", "-c", "command -v tone"]
    done = worker.run(command)
    assert done.code == 0, done.stderr
    assert done.stdout.startswith(f"{worker.place}/disk/")


def test_status_says_that_the_next_start_unpacks(worker: Worker) -> None:
    worker.warm_inside()
    empty_disk(worker)
    python = worker.platform.python
    said = worker.preheat(python, "status").document
    assert said["warm"] is False
    assert "not unpacked on this machine yet" in said["why_cold"]
    rows = {row["key"]: (row["value"], row["source"]) for row in said["settings"]}
    assert rows["layers"] == ("packed", f"manifest {worker.manifest}")
    assert rows["local"] == (str(worker.place / "disk"), f"manifest {worker.manifest}")


def test_a_cold_start_unpacks_what_the_volume_has_and_fetches_nothing(
    worker: Worker, index: Index
) -> None:
    worker.warm()
    empty_disk(worker)
    index.forget_requests()
    result = worker.warm("--cold")
    assert (result.code, result.bad) == (0, {})
    assert {row["status"] for row in result.document["packages"]} == {"reused"}
    assert sum(request.bytes_sent for request in index.requests_for("noise")) == 0
    assert len(unpacked(worker)) == 2


def test_a_damaged_pack_costs_its_layer_made_again_and_nothing_is_left_behind(
    worker: Worker,
) -> None:
    worker.warm()
    before = {path.name for path in packs(worker)}
    for path in packs(worker):
        with path.open("r+b") as file:
            file.seek(40)
            file.write(b"\0\0\0\0\0\0\0\0")
    empty_disk(worker)
    result = worker.warm()
    assert (result.code, result.bad) == (0, {})
    assert {row["status"] for row in result.document["packages"]} == {"installed"}
    assert "is not as it was written" in result.stderr
    assert {path.name for path in packs(worker)} == before
    assert staged(worker) == []
    empty_disk(worker)
    assert {row["status"] for row in worker.warm().document["packages"]} == {"reused"}


def test_a_pack_that_is_cut_short_or_gone_is_made_again(worker: Worker) -> None:
    worker.warm()
    first, second = packs(worker)
    os.truncate(first, first.stat().st_size // 2)
    second.unlink()
    empty_disk(worker)
    result = worker.warm()
    assert (result.code, result.bad) == (0, {})
    assert packs(worker) == [first, second]


def test_a_pack_that_cannot_be_read_costs_its_package_and_stays(worker: Worker) -> None:
    worker.warm()
    shutil.rmtree(worker.place / "disk")
    for path in packs(worker):
        path.unlink()
        # Opening it is refused, whoever asks.
        path.mkdir()
    result = worker.warm()
    assert result.code == 3
    # What it shared is in the other one's layer now.
    assert (result.status("tone"), result.status("noise")) == ("failed", "installed")
    assert "cannot be read" in result.reason("tone")
    assert staged(worker) == []
    unreadable = [path for path in packs(worker) if path.is_dir()]
    assert len(unreadable) == 2
    for path in unreadable:
        path.rmdir()
    assert worker.warm().bad == {}


def test_two_workers_that_unpack_at_once_are_both_ready(worker: Worker) -> None:
    worker.warm()
    empty_disk(worker)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: worker.warm(), range(4)))
    assert [result.bad for result in results] == [{}] * 4
    assert len(unpacked(worker)) == 2
    assert all((layer / FACTS).is_file() for layer in unpacked(worker))
    assert staged(worker) == []


def test_kills_in_the_middle_of_unpacking_leave_no_half_layer(worker: Worker) -> None:
    worker.warm()
    empty_disk(worker)
    command = [str(worker.platform.python), "-m", "preheat", "warm", *worker.options]
    whole = {path.name.removesuffix(".tar.zst") for path in packs(worker)}
    caught = 0
    for number in range(12):
        start = subprocess.Popen(
            command,
            env=worker.ground.surroundings(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + 30
        while not staged(worker) and start.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(number * 0.01)
        caught += start.poll() is None
        os.killpg(start.pid, signal.SIGKILL)
        start.wait()
        for layer in unpacked(worker):
            assert (layer / FACTS).is_file()
            assert layer.name in whole
        if (worker.place / "disk").exists():
            # The next one begins with an empty disk, but for what this one left in staging.
            for layer in unpacked(worker):
                shutil.rmtree(layer)
    assert caught
    result = worker.warm()
    assert (result.code, result.bad) == (0, {})
    assert staged(worker) == []
    assert len(unpacked(worker)) == 2


def test_only_the_layers_of_one_machine_are_stale_there_and_packs_go_as_layers_do(
    worker: Worker,
) -> None:
    worker.warm()
    long_ago = time.time() - 86400
    for path in (*packs(worker), *(layer / FACTS for layer in unpacked(worker))):
        os.utime(path, (long_ago, long_ago))
    shutil.rmtree(worker.store / "starts")
    python = str(worker.platform.python)
    options = ("--python", python)
    shown = worker.preheat(python, "clean", "--dry-run", *options).document["tiers"]
    paths = {tier["name"]: tier["paths"] for tier in shown}
    assert paths["unpacked layers that nobody uses here"] == list(map(str, unpacked(worker)))
    assert paths["packed layers that nobody uses"] == list(map(str, packs(worker)))
    store = packed_store(worker)
    held = packs(worker)[0].name.removesuffix(".tar.zst")
    with store.leases.held([held]):
        worker.preheat(python, "clean", *options)
        assert [path.name for path in unpacked(worker)] == [held]
        assert [path.name for path in packs(worker)] == [f"{held}.tar.zst"]
    worker.preheat(python, "clean", *options)
    assert packs(worker) == unpacked(worker) == []


def test_doctor_finds_nothing_wrong_with_packed_layers_and_names_a_damaged_one(
    worker: Worker,
) -> None:
    worker.warm()
    python = str(worker.platform.python)
    sound = worker.preheat(python, "doctor", "--python", python).document
    assert sound["store"]["packs"] == sound["store"]["layers"] == 2
    assert not any("layer" in finding["what"] for finding in sound["findings"])
    os.truncate(packs(worker)[0], 100)
    found = worker.preheat(python, "doctor", "--python", python).document["findings"]
    assert any(str(packs(worker)[0]) in finding["what"] for finding in found)


def test_slim_looks_into_packed_layers(worker: Worker) -> None:
    worker.warm()
    empty_disk(worker)
    python = str(worker.platform.python)
    done = worker.preheat(python, "slim", "--python", python)
    assert done.code == 0, done.stderr
    assert len(unpacked(worker)) == 2


def test_a_store_on_the_same_filesystem_as_the_local_disk_keeps_directories(
    worker: Worker,
) -> None:
    describe(worker, layers="auto")
    worker.warm()
    assert len(list((worker.store / "layers").iterdir())) == 2
    assert not (worker.store / "packs").exists()
    assert not (worker.place / "disk").exists()


def test_a_store_that_has_packs_goes_on_with_them(worker: Worker) -> None:
    worker.warm()
    describe(worker, layers="auto")
    result = worker.warm()
    assert {row["status"] for row in result.document["packages"]} == {"reused"}
    assert not (worker.store / "layers").exists()


def site(kind: str, look: float, *, device: int, network: bool = False) -> Site:
    volume = Volume(
        role="store",
        path="/s",
        device=device,
        kind=kind,
        block=4096,
        directory=0,
        free=10**12,
        inodes=None,
        quota_known=not network,
    )
    return Site(volume=volume, look=look)


@pytest.mark.parametrize(
    ("store", "local", "packed"),
    [
        (site("fuse.mfs", 1e-4, device=1, network=True), site("ext4", 1e-6, device=2), True),
        (site("nfs4", 1e-6, device=1, network=True), site("overlay", 1e-6, device=2), True),
        (site("ext4", 5e-3, device=1), site("overlay", 1e-6, device=2), True),
        (site("ext4", 2e-6, device=1), site("overlay", 1e-6, device=2), False),
        # Both are slow: a machine that is busy, not a volume that is far.
        (site("ext4", 5e-4, device=1), site("ext4", 4e-4, device=2), False),
        (site("fuse.overlayfs", 5e-3, device=1, network=True), site("ext4", 1e-6, device=1), False),
        (
            site("nfs4", 5e-3, device=1, network=True),
            site("nfs4", 5e-3, device=2, network=True),
            False,
        ),
    ],
)
def test_layers_are_packed_where_unpacking_them_is_faster_than_importing_over_the_volume(
    store: Site, local: Site, packed: bool
) -> None:
    assert hydrating_is_faster(store, local) is packed


# On filesystems of a chosen size


@pytest.fixture
def small(worker: Worker, own_mounts: None) -> Worker:
    """Both the local disk and the volume are filesystems of their own."""
    for place in (worker.place / "disk", worker.store):
        mount_tmpfs(place, "64m")
    return worker


def fill(place: Path, left: int) -> Path:
    stats = os.statvfs(place)
    file = place / "somebody-elses"
    with file.open("wb") as handle:
        os.posix_fallocate(handle.fileno(), 0, stats.f_bavail * stats.f_frsize - left)
    return file


@pytest.mark.root
def test_a_volume_that_cannot_take_the_packs_costs_only_the_next_worker(small: Worker) -> None:
    (small.store / "packs").mkdir()
    fill(small.store, 1 * MB)
    result = small.warm()
    assert (result.code, result.bad) == (0, {})
    assert "not-packed" in result.stderr
    assert "noise" not in {path.name for path in packs(small)}
    assert len(unpacked(small)) == 2
    assert not list((small.store / "packs").glob(".*"))
    assert small.warm().document["warm"] is True


@pytest.mark.root
def test_a_volume_that_has_room_again_gets_the_packs_that_it_could_not_take(small: Worker) -> None:
    (small.store / "packs").mkdir()
    other = fill(small.store, 1 * MB)
    small.warm()
    before = len(packs(small))
    other.unlink()
    result = small.warm("--cold")
    assert {row["status"] for row in result.document["packages"]} == {"reused"}
    assert before < len(packs(small)) == 2


@pytest.mark.root
def test_a_local_disk_without_room_is_a_skip_with_its_reason_and_nothing_is_left(
    small: Worker,
) -> None:
    small.warm()
    for base in (small.place / "disk").iterdir():
        shutil.rmtree(base)
    other = fill(small.place / "disk", 4 * MB)
    result = small.warm()
    assert result.code == 0
    assert result.status("tone") == "reused"
    assert result.status("noise") == "skipped"
    assert "does not fit" in result.reason("noise")
    assert staged(small) == []
    other.unlink()
    assert small.warm("--cold").bad == {}


@pytest.mark.root
def test_stale_layers_on_the_local_disk_make_room_for_what_is_unpacked(small: Worker) -> None:
    small.warm()
    old = unpacked(small)[0].parent / ("0" * 64)
    for base in (small.place / "disk").glob("*/layers/*"):
        shutil.rmtree(base)
    old.mkdir()
    (old / FACTS).write_text(json.dumps({}))
    (old / "ballast").write_bytes(bytes(30 * MB))
    os.utime(old / FACTS, (0, time.time() - 86400))
    fill(small.place / "disk", 3 * MB)
    result = small.warm()
    assert (result.code, result.bad) == (0, {})
    assert "not-unpacked" not in result.stderr
    assert not old.exists()
    assert len(unpacked(small)) == 2


@pytest.mark.root
def test_a_local_disk_that_is_full_in_the_middle_of_unpacking_keeps_nothing_of_it(
    small: Worker,
) -> None:
    small.warm()
    for base in (small.place / "disk").iterdir():
        shutil.rmtree(base)
    before = packs(small)
    store = packed_store(small)
    store.prepare()
    other = fill(small.place / "disk", 3 * MB)
    large = max(before, key=lambda path: path.stat().st_size)
    digest = large.name.removesuffix(".tar.zst")
    # As if something else had taken the room after it was planned.
    with store.begin() as staging:
        with pytest.raises(OSError, match="No space left"):
            store.unpack(digest, staging)
        assert list(staging.place.iterdir()) == []
        assert store.layers() == frozenset()
        other.unlink()
        assert store.unpack(digest, staging).digest == digest
    assert packs(small) == before
