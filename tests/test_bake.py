"""A worker's two parts, made ahead of time: some layers in its image, the others on its volume."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.index import Index, offering
from tests.support.platforms import Platform
from tests.support.starts import Answer, package
from tests.support.wheels import Project
from tests.support.workers import Worker

MB = 1_000_000
SHARED = Project(name="shared", version="1.0", files={"shared/__init__.py": "VALUE = 7\n"})


def speaking(name: str, size: int, version: str = "1.0") -> Project:
    """A project over the shared one, of about so many bytes."""
    files: dict[str, str | bytes] = {f"{name}.py": "import shared\nVALUE = shared.VALUE\n"}
    return Project(
        name=name,
        version=version,
        requires=["shared"],
        files={**files, f"{name}.bin": os.urandom(size)},
    )


index = offering(
    SHARED, speaking("tone", MB), speaking("noise", 5 * MB), speaking("chime", MB // 2)
)


@pytest.fixture
def worker(tmp_path: Path, host: Platform, index: Index) -> Worker:
    """One that needs tone, and can do with noise, which is large, and with chime."""
    made = Worker(place=tmp_path / "worker", platform=host, index=index)
    describe(made)
    return made


def describe(worker: Worker, *more: Mapping[str, object], **tables: object) -> None:
    """The manifest; what is stated about a package goes over what it says by itself."""
    packages = {
        "tone": package("tone", required=True),
        "noise": package("noise"),
        "chime": package("chime"),
    }
    for each in more:
        name = str(each["name"])
        packages[name] = {**packages[name], **each}
    space = {"keep-free": 0, "clean-below": 0}
    worker.write([*packages.values()], **{"space": space, "layers": "directory", **tables})


def image(worker: Worker) -> Path:
    return worker.place / "image"


def bake(worker: Worker, *arguments: str, volume: bool = True) -> Answer:
    """Run `preheat bake` with 3 MB for the image, unless the arguments say otherwise."""
    parts = ["--image", str(image(worker)), "--image-budget", "3MB"]
    parts += ["--volume", str(worker.store)] if volume else []
    ended = worker.run(
        [
            *(str(worker.platform.python), "-m", "preheat", "bake", "--json"),
            *("--manifest", str(worker.manifest), *parts, *arguments),
        ]
    )
    assert ended.stdout, ended.stderr
    return ended


def start(worker: Worker, *arguments: str, **environment: str) -> Answer:
    """What a worker with that image does at its start."""
    return worker.warm_inside(*arguments, **{"PREHEAT_IMAGE": str(image(worker)), **environment})


def places(result: Answer) -> dict[str, str]:
    return {row["package"]: row["place"] for row in result.document["packages"]}


def reason(result: Answer, name: str) -> str:
    rows = {row["package"]: row["reason"] for row in result.document["packages"]}
    return str(rows[name])


def tree(directory: Path) -> dict[str, tuple[int, int]]:
    """Every file and directory below, with size and time."""
    found = {}
    for path in directory.rglob("*"):
        status = path.lstat()
        found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def proved(result: Answer) -> bool:
    """Whether anything was imported to prove it."""
    stages = {stage["name"] for stage in result.document["stages"]}
    return bool(stages & {"prove", "prove together"})


def test_what_is_required_and_what_is_small_goes_into_the_image_and_the_rest_on_the_volume(
    worker: Worker,
) -> None:
    baked = bake(worker)
    assert (baked.code, baked.document["ready"]) == (0, True), baked.stderr
    assert places(baked) == {"tone": "image", "chime": "image", "noise": "volume"}
    assert "required" in reason(baked, "tone")
    assert "the smallest" in reason(baked, "chime")
    assert "over the budget of 3 MB" in reason(baked, "noise")
    assert MB < baked.document["image"]["bytes"] < 3 * MB
    assert baked.document["volume"]["bytes"] > 5 * MB
    assert len(list((image(worker) / "layers").iterdir())) == 2
    assert len(worker.published()) == 1
    assert baked.document["dockerfile"][1] == f"ENV PREHEAT_IMAGE={image(worker)}"


def test_the_bytes_that_bake_tells_are_those_on_the_disk(worker: Worker) -> None:
    baked = bake(worker)
    blocks = sum(p.lstat().st_blocks * 512 for p in (image(worker) / "layers").rglob("*"))
    assert baked.document["image"]["bytes"] == pytest.approx(blocks, rel=0.05)


def test_a_worker_with_both_parts_is_warm_at_its_first_start_and_asks_no_index(
    worker: Worker, index: Index
) -> None:
    assert bake(worker).code == 0
    index.close()
    before = tree(image(worker))
    started = start(worker)
    assert (started.code, started.document["warm"], started.bad) == (0, True, {}), started.stderr
    assert started.layer("tone").parent == image(worker) / "layers"
    assert started.layer("noise").parent == worker.store / "layers"
    every = "import tone, noise, chime; print(tone.VALUE, noise.VALUE, chime.VALUE)"
    assert worker.after(started, every) == "7 7 7"
    ended = worker.inside("import chime; print(ready.warm)", PREHEAT_IMAGE=str(image(worker)))
    assert ended.stdout.strip() == "True"
    assert tree(image(worker)) == before


def test_without_its_volume_a_worker_has_what_is_in_the_image_and_says_why_it_lacks_the_rest(
    worker: Worker, index: Index
) -> None:
    assert bake(worker).code == 0
    shutil.rmtree(worker.store)
    index.forget_requests()
    before = tree(image(worker))
    started = start(worker, "--offline")
    assert (started.code, started.document["ready"]) == (0, True), started.stderr
    assert set(started.bad) == {"noise"}
    assert started.reason("noise") == "offline, and neither the store nor the image has its layer"
    assert started.reason("tone") == "the image has its layer"
    assert worker.after(started, "import tone, chime; print(chime.VALUE)") == "7"
    assert not proved(started)
    assert index.requests == ()
    assert tree(image(worker)) == before
    assert start(worker, "--offline").document["warm"]


def test_on_a_new_volume_only_what_the_image_lacks_is_fetched(worker: Worker, index: Index) -> None:
    assert bake(worker, volume=False).code == 0
    index.forget_requests()
    started = start(worker)
    assert (started.code, started.bad) == (0, {}), started.stderr
    assert started.status("noise") == "installed"
    assert {started.status("tone"), started.status("chime")} == {"reused"}
    fetched = {Path(each.path).name for each in index.requests if each.path.endswith(".whl")}
    assert fetched == {"noise-1.0-py3-none-any.whl"}
    assert len(worker.published()) == 1
    assert start(worker).document["warm"]


def test_on_a_volume_that_packs_its_layers_those_of_the_image_are_not_packed(
    worker: Worker, index: Index
) -> None:
    describe(worker, layers="packed", local=str(worker.place / "disk"))
    assert bake(worker).code == 0
    packs = [file.name for file in (worker.store / "packs").iterdir()]
    assert len(packs) == 1
    index.close()
    assert start(worker).document["warm"]
    shutil.rmtree(worker.place / "disk")
    again = start(worker)
    assert (again.code, again.bad, again.document["warm"]) == (0, {}, False), again.stderr
    assert again.layer("noise").name == packs[0].removesuffix(".tar.zst")
    assert again.layer("tone").parent == image(worker) / "layers"


def test_parts_that_were_carried_elsewhere_serve_a_cold_start_that_fetches_and_proves_nothing(
    worker: Worker, index: Index, tmp_path: Path
) -> None:
    assert bake(worker).code == 0
    shutil.copytree(image(worker), tmp_path / "elsewhere", symlinks=True)
    shutil.move(worker.store, tmp_path / "volume")
    shutil.rmtree(image(worker))
    index.close()
    there = {
        "PREHEAT_IMAGE": str(tmp_path / "elsewhere"),
        "PREHEAT_STORE": str(tmp_path / "volume"),
    }

    def elsewhere() -> Answer:
        run = (str(worker.platform.python), "-m", "preheat", "warm", "--json")
        return worker.run([*run, "--manifest", str(worker.manifest)], **there)

    started = elsewhere()
    assert (started.code, started.bad, started.document["warm"]) == (0, {}, False), started.stderr
    assert not proved(started)
    assert started.layer("tone").parent == tmp_path / "elsewhere" / "layers"
    assert elsewhere().document["warm"]


def test_the_manifest_says_what_goes_where_whatever_the_budget_is(worker: Worker) -> None:
    describe(worker, {"name": "noise", "bake": "image"}, {"name": "tone", "bake": "volume"})
    baked = bake(worker, "--dry-run")
    assert places(baked) == {"noise": "image", "tone": "volume", "chime": "volume"}
    assert reason(baked, "noise") == reason(baked, "tone") == "the manifest says so"
    assert "over the budget" in reason(baked, "chime")


def test_a_dry_run_writes_nothing(worker: Worker) -> None:
    baked = bake(worker, "--dry-run")
    assert places(baked)["noise"] == "volume"
    assert baked.document["volume"]["bytes"] > 5 * MB
    assert not image(worker).exists()
    assert not worker.store.exists()


def test_a_required_package_beyond_the_budget_does_not_change_what_the_image_holds(
    worker: Worker, index: Index
) -> None:
    describe(worker, {"name": "noise", "required": True})
    baked = bake(worker)
    assert places(baked) == {"tone": "image", "noise": "volume", "chime": "image"}
    index.close()
    started = start(worker, "--cold")
    assert (started.code, started.bad) == (0, {}), started.stderr
    shutil.rmtree(worker.store)
    lacking = start(worker, "--offline")
    assert lacking.code == 3
    assert set(lacking.bad) == {"noise"}


def test_a_layer_of_the_image_that_the_manifest_has_outgrown_is_made_anew_in_the_store(
    worker: Worker, index: Index
) -> None:
    assert bake(worker, volume=False).code == 0
    index.publish(speaking("chime", MB // 2, version="2.0"))
    describe(worker, {"name": "chime", "requires": ["chime>=2"]})
    started = start(worker)
    assert (started.code, started.bad) == (0, {}), started.stderr
    assert started.layer("tone").parent == image(worker) / "layers"
    assert started.layer("chime").parent == worker.store / "layers"
    # It is an optional one like the others now, in the manifest's order.
    assert [row["name"] for row in started.document["packages"]] == ["tone", "noise", "chime"]


def test_a_distribution_that_shares_a_regular_package_with_the_image_is_in_the_image_too(
    worker: Worker, index: Index
) -> None:
    index.publish(
        Project(name="joint-a", version="1.0", files={"joint/__init__.py": "", "joint/a.py": ""}),
        Project(name="joint-b", version="1.0", files={"joint/b.py": "VALUE = 2\n"}),
    )
    both = ["joint-a", "joint-b"]
    describe(
        worker,
        {"name": "tone", "requires": ["tone", "joint-a"], "imports": ["tone", "joint.a"]},
        {"name": "noise", "requires": ["noise", *both], "imports": ["noise", "joint.b"]},
    )
    baked = bake(worker)
    assert places(baked)["noise"] == "volume"
    started = start(worker, "--cold")
    assert (started.code, started.bad) == (0, {}), started.stderr
    assert worker.after(started, "import joint.a, joint.b; print(joint.b.VALUE)") == "2"
    assert started.layer("tone").parent == image(worker) / "layers"


def test_what_was_baked_is_used_however_old_it_is_although_a_package_could_not_be_had(
    worker: Worker, index: Index
) -> None:
    packages = [package("tone", required=True), package("not-on-the-index")]
    worker.write(packages, layers="directory")
    assert places(bake(worker, volume=False)) == {"tone": "image", "not-on-the-index": "neither"}
    index.publish(speaking("tone", MB, version="2.0"))
    for lock in (image(worker) / "locks").iterdir():
        os.utime(lock, (1.7e9, 1.7e9))
    started = start(worker)
    assert (started.code, set(started.bad)) == (0, {"not-on-the-index"}), started.stderr
    assert started.layer("tone").parent == image(worker) / "layers"


def test_bake_refuses_to_leave_layers_in_the_image_that_nobody_uses(worker: Worker) -> None:
    assert bake(worker).code == 0
    describe(worker, {"name": "chime", "bake": "volume"})
    again = bake(worker)
    assert again.code == 4
    assert "1 layers that this manifest does not put in the image" in str(again.document["error"])
    describe(worker)
    assert bake(worker).code == 0


def test_a_package_that_does_not_import_is_in_neither_part(worker: Worker, index: Index) -> None:
    index.publish(Project(name="broken", version="1.0", files={"broken.py": "1 / 0\n"}))
    worker.write([package("tone", required=True), package("broken")], layers="directory")
    baked = bake(worker)
    assert (baked.code, places(baked)) == (0, {"tone": "image", "broken": "neither"})
    assert "ZeroDivisionError" in reason(baked, "broken")
    worker.write([package("tone"), package("broken", required=True)], layers="directory")
    shutil.rmtree(image(worker))
    assert bake(worker).code == 3


def test_what_the_platform_has_or_does_not_want_is_in_neither_part(
    worker: Worker, index: Index
) -> None:
    unwanted = {**package("noise", required=True), "when": {"marker": "python_version < '3'"}}
    own = {**package("click"), "requires": ["click"]}
    worker.write([package("tone"), unwanted, own], layers="directory")
    baked = bake(worker, "--dry-run")
    assert baked.code == 0
    assert places(baked)["noise"] == "neither"


def test_cleaning_takes_no_layer_of_the_image(worker: Worker) -> None:
    assert bake(worker).code == 0
    before = tree(image(worker))
    place = {"PREHEAT_IMAGE": str(image(worker))}
    cleaned = worker.preheat(worker.platform.python, "clean", "--need", "900TB", **place)
    assert cleaned.code == 4
    assert tree(image(worker)) == before


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--store", "elsewhere"), "--volume names the one"),
        (("--volume", "image/volume"), "one in the other"),
        (("--image-budget", "much"), "a size such as 3GB"),
        (("--set", "layers=neatly"), '"auto", "packed" or "directory"'),
    ],
)
def test_bake_refuses_what_makes_no_sense(
    worker: Worker, arguments: tuple[str, ...], why: str
) -> None:
    command = (str(worker.platform.python), "-m", "preheat", "bake", "--image", "image")
    ended = worker.run((*command, "--manifest", str(worker.manifest), *arguments))
    assert ended.code == 2
    assert why in ended.stderr


def test_what_bake_prints_for_people_names_every_package_with_its_place_and_the_lines_to_add(
    worker: Worker,
) -> None:
    command = (str(worker.platform.python), "-m", "preheat", "bake", "--manifest")
    ended = worker.run((*command, str(worker.manifest), "--image", "image", "--dry-run"))
    assert ended.code == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert any(line.startswith("tone *") and " image " in line for line in lines)
    assert f"ENV PREHEAT_IMAGE={worker.place / 'image'}" in lines
    assert any("the first start makes" in line for line in lines)
