"""What lies in which layer, and what a failure costs: whole starts over tiny real wheels."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.index import Index
from tests.support.platforms import (
    Platform,
    fake_nvidia,
    fake_torch,
    make_platform,
    tree_digest,
)
from tests.support.starts import Answer, package
from tests.support.wheels import Project
from tests.support.workers import Worker, distributions_in

TORCH = "2.13.0+cpu"


def project(
    name: str,
    version: str = "1",
    requires: Sequence[str] = (),
    files: Mapping[str, str | bytes] | None = None,
) -> Project:
    """A release whose one module knows its version, unless files are given."""
    module = {f"{name.replace('-', '_')}.py": f"VERSION = {version!r}\n"}
    return Project(name=name, version=version, files=files or module, requires=tuple(requires))


# -- one image, and a start with many packages around it -------------------------------------

ON_PLATFORM = (
    fake_torch(TORCH, requires=["nvidia-cublas-cu13"]),
    fake_nvidia("nvidia-cublas-cu13", "13.0.1"),
    # Imported under every proof of `user`, and never compiled: importing it would write a .pyc.
    project("uncompiled"),
    project("image-tools", files={"image_tools/__init__.py": ""}),
    project("vendor-lib", files={"vendor/lib/__init__.py": ""}),
    project("old", "1"),
)

PROJECTS = (
    # shared dependencies
    project("common"),
    project("alpha", requires=["common"]),
    project("bravo", requires=["common", "alpha"]),
    project("lone"),
    project("broken", requires=["lone"], files={"broken.py": "raise OSError('no such library')\n"}),
    project("heir", requires=["lone"]),
    # PEP 420 namespaces
    project("space-one", files={"space/one/__init__.py": "", "space/one/a.py": ""}),
    project("space-two", files={"space/two/__init__.py": ""}),
    project("space-three", files={"space/three.py": ""}),
    # regular packages in several distributions
    project("split-base", files={"split/__init__.py": ""}),
    project("split-extra", files={"split/extra.py": ""}),
    project("deep-core", files={"deep/core/__init__.py": ""}),
    project("deep-more", files={"deep/core/more.py": ""}),
    project("deep-side", files={"deep/side/__init__.py": ""}),
    # the platform's own regular packages
    project("intruder", files={"image_tools/more.py": ""}),
    project("deep-intruder", files={"vendor/lib/more.py": ""}),
    project("neighbour", files={"vendor/other/__init__.py": ""}),
    # around torch
    project("fussy", "1.5", requires=["torch>=2"]),
    project("fussy", "2.0", requires=["torch>=3"]),
    project("never", requires=["torch>=9"]),
    project("cuda-user", requires=["nvidia-cublas-cu13>=13", "torch"]),
    fake_torch("3.0.0"),
    fake_nvidia("nvidia-cublas-cu13", "14.0.0"),
    project("spoiler", files={"spoiler.py": "import sys\nsys.modules['torch'] = None\n"}),
    project(
        "jealous",
        files={"jealous.py": "import sys\nassert 'alpha' not in sys.modules, 'not alone'\n"},
    ),
    # what the manifest says of dependencies
    project("demo-page"),
    project("frugal", requires=["demo-page", "common"]),
    project("site-builder", requires=["demo-page"]),
    project("strict", requires=["pinned==1"]),
    project("pinned", "1"),
    project("pinned", "2"),
    project("speedup"),
    Project(
        name="fast-app",
        version="1",
        files={"fast_app.py": "import speedup\n"},
        extras={"fast": ["speedup"], "huge": ["not-on-the-index"]},
        requires=("not-on-the-index; python_version < '3'", "common; python_version >= '3'"),
    ),
    project("user", requires=["uncompiled"], files={"user.py": "import uncompiled\n"}),
    project("old", "2"),
    project("modern", requires=["old>=2"]),
    project("traditional", requires=["old"]),
    project("torchaudio", "2.13.0", requires=["torch==2.13.0"]),
    project("torchaudio", "3.0.0", requires=["torch==3.0.0"]),
    fake_nvidia("nvidia-for-others", "1"),
    project("speech", requires=["torchaudio", "nvidia-for-others"]),
)

PACKAGES = (
    package("alpha"),
    package("bravo"),
    package("broken"),
    package("heir"),
    package("space-one", imports=["space.one"]),
    package("space-two", imports=["space.two", "space.one.a"]),
    package("space-three", imports=["space.three", "space.one", "space.two"]),
    package("split-base", imports=["split"]),
    package("split-extra", imports=["split.extra"]),
    package("deep-core", imports=["deep.core"]),
    package("deep-side", imports=["deep.side"]),
    package("deep-more", imports=["deep.core.more"]),
    package("intruder", imports=["image_tools.more"]),
    package("deep-intruder", imports=["vendor.lib.more"]),
    package("neighbour", imports=["vendor.other", "vendor.lib"]),
    package("fussy"),
    package("never"),
    package("cuda-user"),
    package("frugal", exclude=["demo-page"]),
    package("site-builder"),
    package("strict", override=["pinned==2"]),
    package("fast-app", requires=["fast-app[fast]"]),
    package("user"),
    package("modern"),
    package("ancient", requires=["common"], when={"marker": "python_version < '3'"}),
    package("newer-cuda", requires=["common"], when={"cuda": ">=99"}),
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    return make_platform(tmp_path_factory.mktemp("image") / "venv", projects=ON_PLATFORM)


@pytest.fixture(scope="module")
def untouched(image: Platform) -> str:
    """The platform's digest before anything was started around it."""
    return tree_digest(image.python.parents[1])


@pytest.fixture(scope="module")
def worker(
    tmp_path_factory: pytest.TempPathFactory, index: Index, image: Platform, untouched: str
) -> Worker:
    assert untouched
    worker = Worker(place=tmp_path_factory.mktemp("worker"), platform=image, index=index)
    worker.write(PACKAGES)
    return worker


@pytest.fixture(scope="module")
def started(worker: Worker) -> Answer:
    return worker.warm()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform with nothing on it."""
    return make_platform(tmp_path_factory.mktemp("bare") / "venv")


def layers_with(started: Answer, distribution: str) -> list[str]:
    """The packages in whose own layers a distribution lies."""
    rows = started.document["packages"]
    return [
        row["name"]
        for row in rows
        if row["status"] == "installed" and distribution in distributions_in(Path(row["layer"]))
    ]


# -- composition -----------------------------------------------------------------------------


def test_only_the_packages_that_cannot_be_had_are_not_ready(started: Answer) -> None:
    expected = {"broken", "intruder", "deep-intruder", "never", "ancient", "newer-cuda"}
    assert set(started.bad) == expected, started.bad


def test_a_start_with_only_optional_failures_exits_with_zero(started: Answer) -> None:
    assert (started.code, started.document["ready"]) == (0, True)


def test_each_package_has_a_layer_of_its_own(started: Answer) -> None:
    layers = [started.layer(name) for name in ("alpha", "bravo", "heir", "frugal", "strict")]
    assert len(set(layers)) == len(layers)


def test_a_dependency_of_several_packages_is_stored_once_with_the_first(started: Answer) -> None:
    assert layers_with(started, "common-1") == ["alpha"]


def test_a_package_that_another_one_needs_is_stored_once(started: Answer) -> None:
    assert layers_with(started, "alpha-1") == ["alpha"]


def test_no_distribution_lies_in_two_layers(worker: Worker, started: Answer) -> None:
    held = [distributions_in(Path(layer)) for layer in started.document["paths"]]
    assert sum(map(len, held)) == len(set().union(*held))


def test_layers_are_on_the_path_in_the_order_of_the_manifest(started: Answer) -> None:
    rows = [row["layer"] for row in started.document["packages"] if row["status"] == "installed"]
    assert [path for path in started.document["paths"] if path in rows] == list(
        dict.fromkeys(row for row in rows if row in started.document["paths"])
    )


def test_what_a_failed_package_shared_moves_to_the_next_that_needs_it(started: Answer) -> None:
    assert layers_with(started, "lone-1") == ["heir"]


def test_a_package_whose_import_raises_is_failed_with_its_own_words(started: Answer) -> None:
    assert started.status("broken") == "failed"
    assert "no such library" in started.reason("broken")


def test_a_failed_package_is_not_published(worker: Worker, started: Answer) -> None:
    held = [distributions_in(worker.store / "layers" / name) for name in worker.published()]
    assert "broken-1" not in set().union(*held)
    assert started.package("broken")["layer"] is None


def test_every_published_layer_is_on_the_path(worker: Worker, started: Answer) -> None:
    assert worker.published() == {Path(path).name for path in started.document["paths"]}


def test_nothing_is_left_of_what_a_start_needs_while_it_goes_on(
    worker: Worker, started: Answer
) -> None:
    assert started.code == 0
    for name in ("staging", "leases", "claims"):
        assert list((worker.store / name).iterdir()) == []


def test_packages_that_share_a_namespace_import_together_from_layers_of_their_own(
    worker: Worker, started: Answer
) -> None:
    names = ("space-one", "space-two", "space-three")
    assert len({started.layer(name) for name in names}) == len(names)
    found = worker.after(started, "import space.one, space.two, space.three; print('together')")
    assert found == "together"


def test_a_regular_package_of_two_distributions_stays_in_one_layer(started: Answer) -> None:
    held = distributions_in(started.layer("split-base"))
    assert {"split_base-1", "split_extra-1"} <= held
    assert started.layer("split-extra") == started.layer("split-base")


def test_a_regular_package_inside_a_namespace_stays_in_one_layer(started: Answer) -> None:
    held = distributions_in(started.layer("deep-core"))
    assert {"deep_core-1", "deep_more-1"} <= held


def test_beside_a_regular_package_the_namespace_is_still_shared(
    worker: Worker, started: Answer
) -> None:
    assert started.layer("deep-side") != started.layer("deep-core")
    assert worker.after(started, "import deep.core.more, deep.side; print('together')")


@pytest.mark.parametrize(
    ("name", "owner", "where"),
    [
        ("intruder", "image-tools", "image_tools"),
        ("deep-intruder", "vendor-lib", "vendor.lib"),
    ],
)
def test_what_would_split_a_regular_package_of_the_platform_is_refused_naming_both_owners(
    started: Answer, name: str, owner: str, where: str
) -> None:
    reason = started.reason(name)
    assert started.status(name) == "skipped"
    assert all(word in reason for word in (name, owner, where)), reason


def test_a_namespace_of_the_platform_takes_a_neighbour_from_a_layer(
    worker: Worker, started: Answer
) -> None:
    found = worker.after(started, "import vendor.lib, vendor.other; print(vendor.lib.__file__)")
    assert found.startswith(str(worker.platform.site))


# -- the platform ----------------------------------------------------------------------------


def test_every_file_of_the_platform_is_as_before(
    started: Answer, image: Platform, untouched: str
) -> None:
    assert started.status("user") == "installed"
    assert tree_digest(image.python.parents[1]) == untouched


def test_no_layer_holds_a_protected_distribution(started: Answer) -> None:
    held = set().union(*(distributions_in(Path(layer)) for layer in started.document["paths"]))
    assert not [name for name in held if name.startswith(("torch", "nvidia", "triton"))]


def test_protected_distributions_are_not_downloaded(index: Index, started: Answer) -> None:
    assert started.code == 0
    assert not index.downloaded("torch")
    assert not index.downloaded("nvidia-cublas-cu13")


def test_torch_is_imported_from_the_platform(worker: Worker, started: Answer) -> None:
    found = worker.after(started, "import fussy, torch; print(torch.__version__, torch.__file__)")
    version, file = found.split()
    assert version == TORCH
    assert file.startswith(str(worker.platform.site))


def test_the_newest_version_that_accepts_the_platforms_torch_is_taken(started: Answer) -> None:
    assert started.package("fussy")["version"] == "1.5"


def test_a_package_that_accepts_no_torch_of_the_platform_is_skipped_with_that_reason(
    started: Answer,
) -> None:
    assert started.status("never") == "skipped"
    reason = started.reason("never")
    assert all(word in reason for word in ("never", "torch>=9", TORCH, "protected")), reason


def test_what_needs_a_protected_library_uses_the_platforms(started: Answer) -> None:
    assert distributions_in(started.layer("cuda-user")) == {"cuda_user-1"}


def test_a_distribution_that_a_layer_shadows_is_listed_with_both_versions(
    started: Answer,
) -> None:
    hidden = {"name": "old", "platform_version": "1", "layer_version": "2", "needed_by": ["modern"]}
    assert started.package("modern")["shadows"] == [hidden]


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, index: Index, image: Platform) -> Answer:
    """Another start around the same image, with what would disturb the first one."""
    worker = Worker(place=tmp_path_factory.mktemp("second"), platform=image, index=index)
    worker.write(
        [
            package("traditional"),
            package("speech"),
            package("torch"),
            package("newer-torch", requires=["torch>=3"], imports=["torch"]),
        ]
    )
    return worker.warm()


def test_the_platforms_version_of_a_dependency_is_kept_where_it_does(second: Answer) -> None:
    assert distributions_in(second.layer("traditional")) == {"traditional-1"}
    assert second.package("traditional")["shadows"] == []


def test_a_coupled_distribution_that_the_platform_lacks_comes_in_the_version_for_its_torch(
    second: Answer,
) -> None:
    assert "torchaudio-2.13.0" in distributions_in(second.layer("speech"))


def test_a_library_of_nvidia_that_the_platforms_torch_does_not_require_is_not_protected(
    second: Answer,
) -> None:
    assert "nvidia_for_others-1" in distributions_in(second.layer("speech"))


def test_torch_itself_is_the_platforms_or_refused_in_a_sentence(second: Answer) -> None:
    assert second.status("torch") == "platform"
    assert second.status("newer-torch") == "skipped"
    expected = f"newer-torch needs torch>=3; the platform's torch {TORCH} is protected"
    assert second.reason("newer-torch") == expected


def test_an_override_of_the_manifest_lets_a_package_accept_the_platforms_torch(
    tmp_path: Path, index: Index, image: Platform
) -> None:
    worker = Worker(place=tmp_path, platform=image, index=index)
    worker.write([package("never", override=["torch>=2"])])
    assert distributions_in(worker.warm().layer("never")) == {"never-1"}


def test_an_override_reaches_nobody_elses_packages(
    tmp_path: Path, index: Index, image: Platform
) -> None:
    worker = Worker(place=tmp_path, platform=image, index=index)
    newer = package("newer-torch", requires=["torch>=3"], imports=["torch"])
    worker.write([package("never", override=["torch>=2"]), newer, package("speech")])
    result = worker.warm()
    assert result.status("never") == "installed"
    assert result.status("newer-torch") == "skipped"
    assert f"torchaudio-{TORCH.partition('+')[0]}" in distributions_in(result.layer("speech"))


# -- what the manifest says of dependencies ---------------------------------------------------


def test_what_a_package_excludes_is_not_in_its_layer(started: Answer) -> None:
    assert distributions_in(started.layer("frugal")) == {"frugal-1"}


def test_what_one_package_excludes_another_still_gets(worker: Worker, started: Answer) -> None:
    assert distributions_in(started.layer("site-builder")) == {"demo_page-1", "site_builder-1"}


def test_an_override_replaces_what_a_dependency_declares(started: Answer) -> None:
    assert distributions_in(started.layer("strict")) == {"pinned-2", "strict-1"}


def test_extras_and_markers_decide_what_is_installed(started: Answer) -> None:
    assert distributions_in(started.layer("fast-app")) == {"fast_app-1", "speedup-1"}


@pytest.mark.parametrize(("name", "words"), [("ancient", "marker"), ("newer-cuda", "CUDA")])
def test_a_package_whose_condition_does_not_hold_is_skipped_with_the_condition(
    started: Answer, name: str, words: str
) -> None:
    assert started.status(name) == "skipped"
    assert words in started.reason(name)


# -- bytes -----------------------------------------------------------------------------------


def used(place: Path) -> int:
    """Bytes of blocks below a directory, as du counts them."""
    return sum(path.lstat().st_blocks * 512 for path in place.rglob("*"))


def real_sources(directory: str) -> Mapping[str, str | bytes]:
    """Modules of the standard library, as people write them, put below `directory`."""
    library = Path(os.__file__).parent
    return {
        f"{directory}/{file.relative_to(library).as_posix()}": file.read_bytes()
        for part in ("asyncio", "concurrent", "email", "json", "logging", "multiprocessing")
        for file in sorted((library / part).rglob("*.py"))
    }


# Bytes of bytecode are fitted on what workers install; source alone is the hardest case.
HEAVY = {"heavy-data": 0.02, "heavy-code": 0.03, "heavy-both": 0.02}


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory, index: Index, bare: Platform) -> Answer:
    """A start with packages of a few megabytes: data, source, and both as in real packages."""
    dice = random.Random(7)  # noqa: S311  # not a secret
    data: dict[str, str | bytes] = {
        f"heavy_data/blob{number}.bin": dice.randbytes(150_000 + 7_777 * number)
        for number in range(20)
    }
    code = real_sources("heavy_code")
    both = {path.replace("heavy_data", "heavy_both"): blob for path, blob in data.items()}
    both |= {"heavy_both/__init__.py": "", **real_sources("heavy_both")}
    index.publish(
        project("heavy-data", files={"heavy_data/__init__.py": "", **data}),
        project("heavy-code", files={"heavy_code/__init__.py": "", **code}),
        project("heavy-both", files=both),
    )
    worker = Worker(place=tmp_path_factory.mktemp("weighed"), platform=bare, index=index)
    worker.write([package(name) for name in HEAVY])
    return worker.warm()


@pytest.mark.parametrize(("name", "off"), HEAVY.items())
def test_predicted_bytes_are_what_the_layer_occupies(
    weighed: Answer, name: str, off: float
) -> None:
    row = weighed.package(name)
    assert row["exact"]
    assert row["bytes_predicted"] == pytest.approx(used(weighed.layer(name)), rel=off)


def test_reported_bytes_are_what_the_disk_says(weighed: Answer) -> None:
    for name in HEAVY:
        row = weighed.package(name)
        assert row["bytes_actual"] == pytest.approx(used(weighed.layer(name)), rel=0.01)


def test_predicted_bytes_without_bytecode_are_within_two_percent_of_the_disk(
    tmp_path: Path, index: Index, bare: Platform, weighed: Answer
) -> None:
    assert weighed.code == 0
    worker = Worker(place=tmp_path, platform=bare, index=index)
    worker.write([package("heavy-code")], compile="none")
    started = worker.warm()
    layer = started.layer("heavy-code")
    assert list(layer.rglob("*.pyc")) == []
    assert started.package("heavy-code")["bytes_predicted"] == pytest.approx(used(layer), rel=0.02)


def test_bytecode_in_a_layer_is_valid_wherever_the_files_are_copied(weighed: Answer) -> None:
    flags = {
        int.from_bytes(file.read_bytes()[4:8], "little")
        for file in weighed.layer("heavy-code").rglob("*.pyc")
    }
    assert flags == {1}  # PEP 552: a hash that is not checked


def test_only_what_a_proof_imports_has_bytecode_and_it_names_the_final_place(
    tmp_path: Path, index: Index, bare: Platform, weighed: Answer
) -> None:
    assert weighed.code == 0
    worker = Worker(place=tmp_path, platform=bare, index=index)
    worker.write([package("heavy-code", imports=["heavy_code.json"])], compile="imported")
    started = worker.warm()
    layer = started.layer("heavy-code")
    found = {file.relative_to(layer): file for file in layer.rglob("*.pyc")}
    tag = f"cpython-{bare.version[0]}{bare.version[1]}.pyc"
    assert Path(f"heavy_code/__pycache__/__init__.{tag}") in found
    assert Path(f"heavy_code/json/__pycache__/decoder.{tag}") in found
    assert not any("email" in path.parts or "asyncio" in path.parts for path in found)
    assert all(file.name.endswith(tag) for file in found.values())
    for path, file in found.items():
        data = file.read_bytes()
        assert int.from_bytes(data[4:8], "little") == 1  # PEP 552: a hash that is not checked
        source = layer / path.parent.parent / f"{path.name.partition('.')[0]}.py"
        assert str(source).encode() in data
        assert b"staging" not in data
    # It is what the import takes: with the source gone wrong nobody notices.
    (layer / "heavy_code/json/decoder.py").write_text("raise OSError('source was read')\n")
    assert worker.after(started, "import heavy_code.json; print('loaded')") == "loaded"


# -- required packages, and a platform without torch -----------------------------------------


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory, index: Index, bare: Platform) -> Answer:
    """A start on a bare platform, one of whose required packages cannot work."""
    worker = Worker(place=tmp_path_factory.mktemp("refused"), platform=bare, index=index)
    worker.write([package("alpha"), package("cuda-user"), package("broken", required=True)])
    return worker.warm()


def test_a_required_package_that_fails_is_exit_3_and_not_ready(refused: Answer) -> None:
    assert (refused.code, refused.document["ready"]) == (3, False)
    assert "no such library" in refused.reason("broken")


def test_the_others_are_installed_although_a_required_one_failed(refused: Answer) -> None:
    assert refused.status("alpha") == "installed"


def test_what_needs_torch_is_skipped_where_the_platform_has_none(
    refused: Answer, index: Index
) -> None:
    assert refused.status("cuda-user") == "skipped"
    reason = refused.reason("cuda-user")
    assert "torch" in reason, reason
    assert "does not provide" in reason, reason
    assert not index.downloaded("torch")


def test_a_second_start_with_a_failed_required_package_tries_it_again(
    tmp_path: Path, index: Index, bare: Platform
) -> None:
    worker = Worker(place=tmp_path, platform=bare, index=index)
    worker.write([package("broken", required=True)])
    first, second = worker.warm(), worker.warm()
    assert (first.code, second.code) == (3, 3)
    assert (first.status("broken"), second.status("broken")) == ("failed", "failed")


def test_required_packages_are_composed_before_optional_ones(
    tmp_path: Path, index: Index, bare: Platform
) -> None:
    worker = Worker(place=tmp_path, platform=bare, index=index)
    worker.write([package("alpha"), package("frugal", required=True, exclude=["demo-page"])])
    started = worker.warm()
    assert distributions_in(started.layer("frugal")) == {"common-1", "frugal-1"}
    assert distributions_in(started.layer("alpha")) == {"alpha-1"}


def test_the_same_wheels_are_the_same_layer_for_another_manifest(
    tmp_path: Path, index: Index, bare: Platform
) -> None:
    worker = Worker(place=tmp_path, platform=bare, index=index)
    worker.write([package("alpha")])
    first = worker.warm()
    worker.write([package("other", requires=["alpha"], imports=["alpha", "common"])])
    second = worker.warm()
    assert second.status("other") == "reused"
    assert second.layer("other") == first.layer("alpha")


def test_a_package_that_the_platform_provides_gets_no_layer(
    tmp_path: Path, index: Index, image: Platform, untouched: str
) -> None:
    worker = Worker(place=tmp_path, platform=image, index=index)
    worker.write([package("old"), package("image-tools"), package("uncompiled")])
    started = worker.warm()
    assert {row["status"] for row in started.document["packages"]} == {"platform"}
    assert worker.published() == set()
    assert tree_digest(image.python.parents[1]) == untouched


def test_a_package_alone_is_proved_together_with_torch_in_its_own_proof(
    tmp_path: Path, index: Index, image: Platform, untouched: str
) -> None:
    assert untouched
    worker = Worker(place=tmp_path, platform=image, index=index)
    worker.write([package("alpha")])
    started = worker.warm()
    assert started.status("alpha") == "installed"
    assert "prove together" not in [stage["name"] for stage in started.document["stages"]]
    worker.write([package("alpha"), package("heir")])
    stages = [stage["name"] for stage in worker.warm().document["stages"]]
    assert "prove together" in stages


def test_a_package_alone_that_breaks_the_platforms_torch_is_taken_off(
    tmp_path: Path, index: Index, image: Platform, untouched: str
) -> None:
    assert untouched
    worker = Worker(place=tmp_path, platform=image, index=index)
    worker.write([package("spoiler")])
    started = worker.warm()
    assert started.status("spoiler") == "failed"
    assert "works alone, not with the others" in started.reason("spoiler")
    assert started.document["paths"] == []


def test_the_last_package_is_proved_alone_and_after_the_others(
    tmp_path: Path, index: Index, bare: Platform
) -> None:
    worker = Worker(place=tmp_path, platform=bare, index=index)
    worker.write([package("alpha"), package("jealous")])
    started = worker.warm()
    assert started.status("alpha") == "installed"
    assert started.reason("jealous").startswith("works alone, not with the others")
