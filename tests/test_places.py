"""Where preheat runs: ordinary users, read-only roots, layered filesystems, network volumes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uv

import preheat
from preheat.edges.disk.volumes import read_volumes
from tests.support.hosts import NOBODY, Host, missing_tools, no_hosts, start_host
from tests.support.index import Index
from tests.support.moosefs import CHUNK, Volume, moosefs, no_moosefs
from tests.support.mounts import turn_at_loop_devices
from tests.support.platforms import make_platform, tree_digest
from tests.support.starts import Answer, Ground, finished, package
from tests.support.wheels import Project

# An image is open to all of its users.
pytestmark = [pytest.mark.root, pytest.mark.usefixtures("usual_umask")]

SOURCE = Path(__file__).parents[1] / "src"
SMALL = ("small", "little")
BIG_FILES = 40
USE = "import small, little, os; print(os.path.dirname(os.path.dirname(small.__file__)))"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A ground on a host; starts run there, and their index is at the same address."""

    host: Host
    ground: Ground
    index: Index

    @property
    def environment(self) -> dict[str, str]:
        """What a start finds set."""
        return self.ground.surroundings()

    def run(
        self,
        *arguments: str,
        store: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Answer:
        """Run `preheat ARGUMENTS` on the host."""
        command = self.host.command(*self.ground.command(*arguments, store=store))
        return finished(command, environment or self.environment)

    def warm(
        self, store: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> Answer:
        """Run `preheat warm --json` there."""
        return self.run("warm", "--json", store=store, environment=environment)

    def must_become_warm(
        self, store: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> Answer:
        """A first start installs everything, a second one is warm and asks nobody; its answer."""
        first = self.warm(store, environment)
        assert first.code == 0, first.stderr
        assert {name: first.status(name) for name in SMALL} == dict.fromkeys(SMALL, "installed")
        staging = self.host.path((store or self.ground.store) / "staging")
        assert list(staging.iterdir()) == []
        self.must_be_warm(store, environment)
        return first

    def must_be_warm(
        self, store: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        """The next start is warm, asks nobody, and what it promised is imported from layers."""
        self.index.forget_requests()
        second = self.warm(store, environment)
        assert second.code == 0, second.stderr
        assert second.document["warm"]
        assert self.index.requests == ()
        layers = str((store or self.ground.store) / "layers")
        command = self.ground.command("run", store=store)
        used = [*command, "--", str(self.ground.python), "-c", USE]
        answer = finished(self.host.command(*used), environment or self.environment)
        assert answer.code == 0, answer.stderr
        assert os.path.dirname(answer.stdout.strip()) == layers


def port_of(index: Index) -> int:
    """Where it listens."""
    return urlsplit(index.url).port or 80


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """An index with two small packages, and a big one of bytes that do not compress."""
    with Index(tmp_path_factory.mktemp("index")) as index:
        for name in SMALL:
            index.publish(
                Project(name=name, version="1.0", files={f"{name}/__init__.py": "A = 1\n"})
            )
        noise = random.Random(1)  # noqa: S311  # the same bytes at every run
        files: dict[str, str | bytes] = {"big/__init__.py": "A = 1\n"}
        files |= {f"big/{n}.bin": noise.randbytes(1_000_000) for n in range(BIG_FILES)}
        index.publish(Project(name="big", version="1.0", files=files))
        yield index


@pytest.fixture
def place(tmp_path: Path, shelf: Index) -> Iterator[Place]:
    """A ground of root's on a host, with a platform; nothing is mounted yet."""
    if reason := no_hosts():
        pytest.skip(reason)
    platform = make_platform(tmp_path / "ground" / "platform")
    ground = Ground(root=tmp_path / "ground", python=platform.python)
    ground.write(*(package(name, required=True) for name in SMALL), index=shelf)
    before = tree_digest(tmp_path / "ground" / "platform")
    shelf.forget_requests()
    with contextlib.ExitStack() as stack:
        host = start_host(stack, "host", tmp_path / "host.log")
        host.relay(stack, port_of(shelf))
        yield Place(host=host, ground=ground, index=shelf)
    assert tree_digest(tmp_path / "ground" / "platform") == before


@pytest.fixture
def ordinary(place: Place) -> Place:
    """The same, run by a user who may write to nothing but their own home, temp and `theirs`."""
    for file in (preheat.__file__, uv.__file__):
        if not os.stat(file).st_mode & 0o004:
            pytest.skip(f"{file} is closed to other users")
    root = place.ground.root
    python = Path(sys.base_prefix)
    place.host.open_up(root, python, Path(sys.prefix), SOURCE)
    place.ground.surroundings()
    for own in (root / "home", root / "tmp", root / "theirs"):
        own.mkdir(exist_ok=True)
        os.chown(own, NOBODY, NOBODY)
    return dataclasses.replace(place, host=dataclasses.replace(place.host, user=NOBODY))


# -- an ordinary user


def test_an_ordinary_user_gets_ready_around_a_platform_that_only_root_may_write(
    ordinary: Place,
) -> None:
    refused = ordinary.host.run("touch", ordinary.ground.root / "platform" / "x")
    assert "Permission denied" in refused.stderr
    store = ordinary.ground.root / "theirs" / "store"
    ordinary.must_become_warm(store)
    owners = {path.lstat().st_uid for path in store.rglob("*")}
    assert owners == {NOBODY}


def test_an_ordinary_user_without_a_store_of_their_own_is_given_one_in_their_cache(
    ordinary: Place,
) -> None:
    command = ordinary.ground.command("warm", "--json")
    at = command.index("--store")
    del command[at : at + 2]
    answer = finished(ordinary.host.command(*command), ordinary.environment)
    assert answer.code == 0, answer.stderr
    assert (ordinary.ground.root / "home" / ".cache" / "preheat" / "layers").is_dir()


@pytest.mark.parametrize("exists", [False, True], ids=["absent", "roots"])
def test_a_store_that_the_user_may_not_write_is_refused_with_what_to_do(
    ordinary: Place, exists: bool
) -> None:
    if exists:
        as_root = dataclasses.replace(ordinary, host=dataclasses.replace(ordinary.host, user=None))
        as_root.must_become_warm()
        ordinary.ground.write(package("small"), package("big"), index=ordinary.index)
    answer = ordinary.run("warm")
    assert answer.code == 4
    assert (
        f"the store {ordinary.ground.store} cannot be written: Permission denied" in answer.stderr
    )
    assert "name a --store that this user may write to" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_store_that_root_made_ready_serves_the_warm_starts_of_users(ordinary: Place) -> None:
    as_root = dataclasses.replace(ordinary, host=dataclasses.replace(ordinary.host, user=None))
    as_root.must_become_warm()
    before = tree_digest(ordinary.ground.store)
    ordinary.must_be_warm()
    assert tree_digest(ordinary.ground.store) == before


# -- a read-only root


@pytest.fixture
def read_only(place: Place) -> Place:
    """Nothing can be written but `volume`, and what a test mounts itself."""
    volume = place.ground.root / "volume"
    volume.mkdir()
    place.ground.surroundings()
    place.host.must("mount", "--bind", volume, volume)
    for mounted in place.host.must("findmnt", "--raw", "--noheadings", "-o", "TARGET").split():
        if mounted == str(volume) or mounted.startswith(("/proc", "/sys", "/dev")):
            continue
        place.host.run("mount", "-o", "remount,bind,ro", mounted)
    refused = place.host.run("touch", place.ground.root / "x")
    assert "Read-only file system" in refused.stderr
    return place


@pytest.mark.skipif(bool(missing_tools(["findmnt"])), reason="needs findmnt")
@pytest.mark.parametrize("home", ["read-only", "absent", "unset"])
def test_a_read_only_root_needs_no_more_than_a_writable_volume_with_temp_on_it(
    read_only: Place, home: str
) -> None:
    volume = read_only.ground.root / "volume"
    (volume / "tmp").mkdir()
    environment = {**read_only.environment, "TMPDIR": str(volume / "tmp")}
    if home == "absent":
        environment["HOME"] = str(read_only.ground.root / "nowhere")
    elif home == "unset":
        del environment["HOME"]
    read_only.must_become_warm(volume / "store", environment)
    assert list((volume / "tmp").iterdir()) == []


@pytest.mark.skipif(bool(missing_tools(["findmnt"])), reason="needs findmnt")
def test_a_read_only_root_with_a_tmpfs_for_temp_gets_ready(read_only: Place) -> None:
    read_only.host.must("mount", "-t", "tmpfs", "none", read_only.ground.temp)
    read_only.must_become_warm(read_only.ground.root / "volume" / "store")


@pytest.mark.skipif(bool(missing_tools(["findmnt"])), reason="needs findmnt")
def test_where_no_temp_can_be_written_a_start_is_ready_or_refused_with_what_to_do(
    read_only: Place,
) -> None:
    environment = {**read_only.environment, "TMPDIR": str(read_only.ground.root / "nowhere")}
    answer = read_only.warm(read_only.ground.root / "volume" / "store", environment)
    assert "Traceback" not in answer.stderr
    assert answer.code == 0 or "temporary directory" in answer.stderr


@pytest.mark.skipif(bool(missing_tools(["findmnt"])), reason="needs findmnt")
def test_a_store_on_a_read_only_root_is_refused_with_what_to_do(read_only: Place) -> None:
    read_only.host.must("mount", "-t", "tmpfs", "none", read_only.ground.temp)
    answer = read_only.run("warm")
    assert answer.code == 4
    assert "Read-only file system" in answer.stderr
    assert "name a --store on a writable volume" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.skipif(bool(missing_tools(["findmnt"])), reason="needs findmnt")
def test_a_store_that_became_read_only_still_serves_warm_starts(read_only: Place) -> None:
    volume = read_only.ground.root / "volume"
    read_only.host.must("mount", "-t", "tmpfs", "none", read_only.ground.temp)
    read_only.must_become_warm(volume / "store")
    read_only.host.must("mount", "-o", "remount,bind,ro", volume)
    read_only.must_be_warm(volume / "store")


# -- filesystems of other kinds


def mounted(place: Place, kind: str, where: Path) -> None:
    """Mount a filesystem of that kind, from a file beside it, at that new directory."""
    if kind != "tmpfs" and (missing := missing_tools([f"mkfs.{kind}"])):
        pytest.skip(f"needs {', '.join(missing)}")
    where.mkdir(parents=True)
    if kind == "tmpfs":
        place.host.must("mount", "-t", "tmpfs", "none", where)
        return
    image = where.with_name(f"{where.name}.{kind}")
    with image.open("wb") as file:
        file.truncate(512 << 20)
    place.host.must(f"mkfs.{kind}", "-q", image)
    with turn_at_loop_devices():
        done = place.host.run("mount", "-o", "loop", image, where)
    if done.returncode:
        pytest.skip(f"cannot mount {kind} here: {done.stderr.strip()}")


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_store_on_any_local_filesystem_gets_ready_in_what_was_predicted(
    place: Place, kind: str
) -> None:
    disk = place.ground.root / "disk"
    mounted(place, kind, disk)
    place.ground.write(
        *(package(name, required=True) for name in SMALL), package("big"), index=place.index
    )
    answer = place.must_become_warm(disk / "store")
    big = answer.packages["big"]
    assert big["status"] == "installed"
    assert big["bytes_actual"] == pytest.approx(big["bytes_predicted"], rel=0.05)


def test_a_plan_says_whether_files_are_linked_and_counts_them_twice_where_not(
    place: Place,
) -> None:
    place.ground.write(package("big"), index=place.index)
    linked = place.run("plan", "--json").document
    assert "linked from the engine's cache" in place.run("plan").stdout
    staging = place.ground.store / "staging"
    place.host.must("mkdir", "-p", staging)
    place.host.must("mount", "-t", "tmpfs", "none", staging)
    copied = place.run("plan", "--json").document
    assert "copied from the engine's cache" in place.run("plan").stdout
    assert not place.host.path(place.ground.store / "layers").exists()
    for document, links in ((linked, True), (copied, False)):
        assert {v["role"]: v["links"] for v in document["volumes"]}["store"] is links
    needed = [
        sum(need["bytes"] for need in document["needs"] if "cache" in need["role"])
        for document in (linked, copied)
    ]
    (disk,) = [row["bytes_predicted"] for row in copied["packages"]]
    # Linked, the one filesystem holds the layer; copied, the cache's own holds another.
    assert needed[0] >= disk
    assert needed[1] >= disk
    assert sum(need["bytes"] for need in copied["needs"]) >= 2 * disk


def overlaid(place: Place, kind: str, directory: Path) -> None:
    """Make that directory the lower layer of a container, whose upper one is of that kind."""
    disk = place.ground.root / "disk"
    mounted(place, kind, disk)
    place.host.must("mkdir", disk / "upper", disk / "work")
    options = f"lowerdir={directory},upperdir={disk}/upper,workdir={disk}/work"
    done = place.host.run("mount", "-t", "overlay", "none", "-o", options, directory)
    if done.returncode:
        pytest.skip(f"cannot mount overlayfs here: {done.stderr.strip()}")


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_container_whose_platform_and_store_are_on_overlayfs_gets_ready(
    place: Place, kind: str
) -> None:
    image = place.ground.root / "image"
    (image / "platform").mkdir(parents=True)
    inside = make_platform(image / "platform")
    before = tree_digest(image / "platform")
    overlaid(place, kind, image)
    there = dataclasses.replace(
        place, ground=dataclasses.replace(place.ground, python=inside.python)
    )
    there.must_become_warm(image / "store")
    upper = place.host.path(place.ground.root / "disk" / "upper")
    assert sorted(os.listdir(upper)) == ["store"]
    assert tree_digest(place.host.path(image / "platform")) == before


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_store_baked_into_an_image_serves_containers_and_grows_in_their_upper_layer(
    place: Place, kind: str
) -> None:
    image = place.ground.root / "image"
    image.mkdir()
    place.must_become_warm(image / "store")
    overlaid(place, kind, image)
    baked = tree_digest(place.host.path(image / "store" / "layers"))
    place.must_be_warm(image / "store")
    place.ground.write(
        *(package(name, required=True) for name in SMALL), package("big"), index=place.index
    )
    answer = place.warm(image / "store")
    assert answer.code == 0, answer.stderr
    statuses = [answer.status(name) for name in (*SMALL, "big")]
    assert statuses == ["reused", "reused", "installed"]
    layers = place.host.path(place.ground.root / "disk" / "upper" / "store" / "layers")
    assert [each.name for each in layers.iterdir()] == [Path(answer.packages["big"]["layer"]).name]
    place.must_be_warm(image / "store")
    assert tree_digest(place.host.path(image / "store" / "layers")) != baked


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_damaged_layer_of_an_image_is_made_anew_over_it(place: Place, kind: str) -> None:
    image = place.ground.root / "image"
    image.mkdir()
    first = place.must_become_warm(image / "store")
    layer = Path(first.packages["small"]["layer"])
    for file in layer.iterdir():
        if file.is_file():
            file.unlink()
    overlaid(place, kind, image)
    answer = place.warm(image / "store")
    assert answer.code == 0, answer.stderr
    place.must_be_warm(image / "store")


# -- a network volume with a quota


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volume]:
    """A MooseFS volume that two hosts have mounted whole, so that statvfs shows the pool."""
    if reason := no_moosefs():
        pytest.skip(reason)
    with moosefs(tmp_path_factory.mktemp("moosefs"), hosts=2) as made:
        yield made


@pytest.fixture
def rented(volume: Volume) -> Path:
    """A directory of the test's own on the volume."""
    return Path(volume.hosts[0].must("mktemp", "--directory", volume.path / "XXXXXX").strip())


@contextlib.contextmanager
def moved(place: Place, host: Host) -> Iterator[Place]:
    """The place on that host; platform and manifest are where they were."""
    with contextlib.ExitStack() as stack:
        host.relay(stack, port_of(place.index))
        yield dataclasses.replace(place, host=host)


@pytest.fixture
def tenant(place: Place, volume: Volume) -> Iterator[Place]:
    """A place on the first of the volume's hosts, which keeps layers as directories there."""
    with moved(place, volume.hosts[0]) as there:
        yield in_directories(there)


def in_directories(place: Place) -> Place:
    """The same place; a network volume would have its layers packed."""
    ground = dataclasses.replace(place.ground, environment={"PREHEAT_LAYERS": "directory"})
    return dataclasses.replace(place, ground=ground)


def test_a_network_volume_has_layers_packed_and_another_host_unpacks_them_without_an_index(
    place: Place, volume: Volume, rented: Path
) -> None:
    volume.limit(rented, 400_000_000)
    store = rented / "store"
    first, second = volume.hosts[:2]
    local = place.ground.root / "home" / ".cache" / "preheat-layers"
    with moved(place, first) as here:
        made = here.warm(store)
        assert made.code == 0, made.stderr
        assert [made.status(name) for name in SMALL] == ["installed", "installed"]
        assert all(path.startswith(f"{local}/") for path in made.document["paths"])
        assert len(list(first.path(store / "packs").iterdir())) == len(SMALL)
        assert not first.path(store / "layers").exists()
    # A disk of its own, on which nothing is.
    second.cover(local)
    place.index.forget_requests()
    there = dataclasses.replace(place, host=second)
    found = there.warm(store)
    assert found.code == 0, found.stderr
    assert (found.document["ready"], found.document["warm"]) == (True, False)
    assert [found.status(name) for name in SMALL] == ["reused", "reused"]
    assert there.warm(store).document["warm"]
    assert place.index.requests == ()


def test_a_pack_never_takes_the_last_of_a_quota_from_the_start_that_made_it(
    place: Place, volume: Volume, rented: Path
) -> None:
    store = rented / "store"
    packages = [package(name, required=True) for name in (*SMALL, "big")]
    place.ground.write(*packages, index=place.index)
    volume.limit(rented, CHUNK + 30_000_000)
    with moved(place, volume.hosts[0]) as here:
        answer = here.warm(store)
        assert answer.code == 0, answer.stderr
        assert "not-packed package=big" in answer.stderr
        assert len(list(here.host.path(store / "packs").iterdir())) == len(SMALL)
        assert here.warm(store).document["warm"]


def test_what_one_host_made_ready_on_a_network_volume_is_warm_on_another(
    tenant: Place, volume: Volume, rented: Path
) -> None:
    volume.limit(rented, 400_000_000)
    tenant.must_become_warm(rented / "store")
    with moved(tenant, volume.hosts[1]) as other:
        other.must_be_warm(rented / "store")


def test_what_the_quota_of_a_volume_does_not_hold_is_left_out_and_the_reason_names_the_quota(
    tenant: Place, volume: Volume, rented: Path
) -> None:
    store = rented / "store"
    packages = [package(name, required=True) for name in SMALL]
    tenant.ground.write(*packages, package("big"), index=tenant.index)
    # The pool has gigabytes, and statvfs says so.
    volume.limit(rented, CHUNK + 30_000_000)
    answer = tenant.warm(store)
    assert answer.code == 0, answer.stderr
    assert [answer.status(name) for name in SMALL] == ["installed", "installed"]
    assert answer.status("big") in ("failed", "skipped")
    assert "quota" in answer.reason("big")
    assert list(tenant.host.path(store / "staging").iterdir()) == []
    assert len(list(tenant.host.path(store / "layers").iterdir())) == len(SMALL)
    tenant.must_be_warm(store)


@pytest.mark.parametrize("size", [1_000_000, CHUNK + 1_000_000], ids=["nothing", "little"])
def test_a_required_package_beyond_the_quota_ends_the_start_with_that_reason(
    tenant: Place, volume: Volume, rented: Path, size: int
) -> None:
    store = rented / "store"
    tenant.ground.write(package("big", required=True), index=tenant.index)
    volume.limit(rented, size)
    answer = tenant.run("warm", store=store)
    assert answer.code in (3, 4), answer.stderr
    assert "quota" in answer.stderr
    assert "Traceback" not in answer.stderr
    for name in ("staging", "layers"):
        there = tenant.host.path(store / name)
        assert not there.exists() or list(there.iterdir()) == []


def test_a_quota_that_statvfs_shows_is_planned_for_before_anything_is_fetched(
    place: Place, tmp_path: Path
) -> None:
    if reason := no_moosefs():
        pytest.skip(reason)
    packages = [package(name, required=True) for name in SMALL]
    # MooseFS begins no file in the last chunk of a quota.
    space = {"keep-free": CHUNK + 5_000_000, "clean-below": 0}
    place.ground.write(*packages, package("big"), index=place.index, space=space)
    with (
        moosefs(tmp_path / "moosefs", subfolder="tenant") as own,
        moved(place, own.hosts[0]) as there,
    ):
        own.limit(own.path / "tenant", CHUNK + 30_000_000)
        answer = in_directories(there).warm(own.path / "store")
        assert answer.code == 0, answer.stderr
        assert [answer.status(name) for name in SMALL] == ["installed", "installed"]
        assert "does not fit" in answer.reason("big")
        assert not place.index.downloaded("big")


def test_roles_that_share_a_filesystem_are_measured_at_one_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others write to it meanwhile, and a report must not take it for two."""
    real, calls = os.statvfs, iter(range(100))

    def shrinking(path: str) -> os.statvfs_result:
        fields = list(real(path))
        # f_bavail
        fields[4] -= next(calls)
        return os.statvfs_result(fields)

    monkeypatch.setattr(os, "statvfs", shrinking)
    places = {"store": tmp_path, "cache": tmp_path / "cache", "temp": tmp_path.parent}
    assert len({volume.free for volume in read_volumes(places)}) == 1
