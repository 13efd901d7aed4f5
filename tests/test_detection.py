"""What the platform provides is told from what it only seems to provide, without importing it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from preheat.decisions.detect import Finding, Sighting, find
from preheat.edges.platform import inventory
from preheat.edges.platform.probe import probe
from preheat.words.manifest import Package
from preheat.words.platform import Distribution, RecordState
from tests.support.index import Index, offering
from tests.support.platforms import (
    Platform,
    fake_nvidia,
    fake_torch,
    make_platform,
    tree_digest,
)
from tests.support.starts import Answer, Ground, finished, package
from tests.support.wheels import (
    Project,
    install_egg_info,
    install_egg_info_file,
    install_tree,
    leave_renamed,
    lose_files,
    lose_metadata,
    lose_modules,
    lose_record,
)

NUMBERS = Project(
    name="Num.bers",
    version="1.2",
    files={"numbers_/__init__.py": "", "numbers_/deep.py": "A = 1\n"},
    requires=("six>=1",),
)
SPEECH = Project(
    name="google-cloud-speech",
    version="2.30.0",
    files={
        "google/cloud/speech/__init__.py": "VERSION = 2\n",
        "google/cloud/speech_v1/__init__.py": "",
    },
)
AUTH = Project(name="google-auth", version="2.0", files={"google/auth/__init__.py": ""})
STORAGE = Project(
    name="google-cloud-storage", version="3.0", files={"google/cloud/storage/__init__.py": ""}
)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An empty site directory."""
    place = tmp_path / "site-packages"
    place.mkdir()
    return place


index = offering()


def only(site: Path) -> Distribution:
    """The one distribution or leftover of a site directory."""
    (found,) = inventory.read([str(site)])
    return found


# -- the inventory -------------------------------------------------------------------------------


def test_an_installed_distribution_is_whole_with_its_canonical_name(site: Path) -> None:
    info = install_tree(NUMBERS, site)
    assert only(site) == Distribution(
        name="num-bers",
        version="1.2",
        location=str(site),
        metadata=str(info),
        requires=("six>=1",),
    )


def test_files_missing_from_record_make_a_leftover_that_names_them(site: Path) -> None:
    lose_files(install_tree(NUMBERS, site), "*/deep.py")
    found = only(site)
    assert found.state is RecordState.INCOMPLETE
    assert not found.state.present
    assert found.missing == ("numbers_/deep.py",)


def test_all_modules_gone_makes_a_leftover(site: Path) -> None:
    install_tree(NUMBERS, site)
    lose_modules(NUMBERS, site)
    assert only(site).state is RecordState.INCOMPLETE


def test_metadata_gone_makes_a_nameless_leftover_of_no_version(site: Path) -> None:
    lose_metadata(install_tree(NUMBERS, site))
    found = only(site)
    assert (found.name, found.version, found.state) == ("num-bers", None, RecordState.NAMELESS)


def test_what_pip_renamed_and_never_removed_is_a_leftover(site: Path) -> None:
    install_tree(NUMBERS, site)
    leave_renamed(NUMBERS, site)
    found = inventory.read([str(site)])
    assert {each.state for each in found} == {RecordState.TILDE}
    assert all(each.name.startswith("~") and each.version is None for each in found)


def test_no_record_is_unverifiable_and_present(site: Path) -> None:
    lose_record(install_tree(NUMBERS, site))
    found = only(site)
    assert found.state is RecordState.UNVERIFIABLE
    assert found.state.present
    assert found.version == "1.2"


def test_both_kinds_of_egg_info_are_unverifiable_and_present(site: Path) -> None:
    install_egg_info(NUMBERS, site)
    install_egg_info_file(SPEECH, site)
    found = inventory.read([str(site)])
    assert [(each.name, each.version) for each in found] == [
        ("google-cloud-speech", "2.30.0"),
        ("num-bers", "1.2"),
    ]
    assert {each.state for each in found} == {RecordState.UNVERIFIABLE}


def test_a_file_shorter_than_its_record_says_is_told(site: Path) -> None:
    install_tree(NUMBERS, site)
    assert inventory.truncated(only(site)) == ()
    (site / "numbers_/deep.py").write_text("A", encoding="utf-8")
    assert inventory.truncated(only(site)) == ("numbers_/deep.py",)


def test_text_that_conda_put_its_prefix_into_is_not_truncated_but_what_is_empty_is(
    site: Path,
) -> None:
    install_tree(NUMBERS, site)
    (site / NUMBERS.dist_info / "INSTALLER").write_text("conda\n", encoding="utf-8")
    deep = site / "numbers_" / "deep.py"
    deep.write_text("A = '/opt/conda/envs/long'\n", encoding="utf-8")
    assert inventory.truncated(only(site)) == ()
    deep.write_bytes(b"")
    assert inventory.truncated(only(site)) == ("numbers_/deep.py",)


def test_of_two_of_one_name_the_first_on_the_path_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    install_tree(Project(name="twice", version="1.0", files={"twice.py": ""}), first)
    install_tree(Project(name="twice", version="2.0", files={"twice.py": ""}), second)
    assert [d.version for d in inventory.read([str(first), str(second)])] == ["1.0"]
    assert [d.version for d in inventory.read([str(second), str(first)])] == ["2.0"]


def test_a_leftover_in_front_does_not_hide_a_whole_one_behind(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    lose_metadata(install_tree(NUMBERS, first))
    install_tree(NUMBERS, second)
    found = inventory.read([str(first), str(second)])
    assert [(d.version, d.state.present) for d in found] == [(None, False), ("1.2", True)]


def test_a_directory_that_is_not_there_or_is_a_file_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "python311.zip").write_bytes(b"")
    assert inventory.read([str(tmp_path / "absent"), str(tmp_path / "python311.zip")]) == ()


# -- imports, without importing ------------------------------------------------------------------


def test_a_dotted_import_is_found_without_importing_its_parents(site: Path) -> None:
    files = {
        "parent/__init__.py": "raise SystemError('the parent was imported')\n",
        "parent/child/__init__.py": "raise SystemError('the child was imported')\n",
        "parent/child/leaf.py": "",
    }
    install_tree(Project(name="parent", version="1.0", files=files), site)
    for name in ("parent", "parent.child", "parent.child.leaf"):
        assert inventory.resolvable(name, [str(site)])
    for name in ("parent.other", "parent.child.leaf.more", "child"):
        assert not inventory.resolvable(name, [str(site)])
    assert "parent" not in sys.modules


def test_a_namespace_is_looked_through_over_all_of_the_path(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    install_tree(AUTH, first)
    install_tree(SPEECH, second)
    path = [str(first), str(second)]
    assert inventory.resolvable("google.auth", path)
    assert inventory.resolvable("google.cloud.speech", path)
    assert not inventory.resolvable("google.cloud.speech", path[:1])


def test_a_regular_package_hides_the_namespace_portions_of_other_entries(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    install_tree(SPEECH, first)
    (second / "google").mkdir(parents=True)
    (second / "google" / "__init__.py").touch()
    assert not inventory.resolvable("google.cloud.speech", [str(first), str(second)])


def test_extension_modules_and_lone_bytecode_count_as_modules(site: Path) -> None:
    for name in ("fast.cpython-311-x86_64-linux-gnu.so", "stable.abi3.so", "old.pyc"):
        (site / name).touch()
    for name in ("fast", "stable", "old"):
        assert inventory.resolvable(name, [str(site)])
    assert not inventory.resolvable("fas", [str(site)])


def test_reading_a_platform_of_200_distributions_imports_none_of_it(tmp_path: Path) -> None:
    trap = "raise SystemError('imported by the probe')\n"
    projects = [
        Project(name=f"trapped-{n}", version="1.0", files={f"trapped_{n}/__init__.py": trap})
        for n in range(200)
    ]
    platform = make_platform(tmp_path / "venv", projects=[*projects, fake_torch("2.13.0+cu130")])
    before = tree_digest(platform.site)
    found = probe(str(platform.python))
    path = found.interpreter.path
    assert all(inventory.resolvable(f"trapped_{n}", path) for n in range(200))
    assert len(found.distributions) == 201
    assert found.torch is not None
    assert (found.torch.version, found.torch.cuda) == ("2.13.0+cu130", "13.0")
    assert not any(name.startswith(("trapped_", "torch")) for name in sys.modules)
    assert tree_digest(platform.site) == before


# -- present or absent ---------------------------------------------------------------------------


def finding(wanted: Package, platform: Platform) -> Finding:
    """What detection says of a package on that platform, as a start asks it."""
    found = probe(str(platform.python))
    own = [found.find(name) for name in wanted.names]
    sighting = Sighting(
        resolvable={n: inventory.resolvable(n, found.interpreter.path) for n in wanted.imports},
        truncated={d.name: inventory.truncated(d) for d in own if d is not None},
    )
    return find(wanted, found, sighting)


WANTED = Package(name="n", requires=("num.bers>=1",), imports=("numbers_.deep",))


@pytest.fixture
def bare(tmp_path: Path) -> Platform:
    """A venv with nothing in it."""
    return make_platform(tmp_path / "venv")


def test_a_package_counts_as_present_with_version_files_and_imports(bare: Platform) -> None:
    install_tree(NUMBERS, bare.site)
    assert finding(WANTED, bare) == Finding(
        present=True, reason="the platform provides it", version="1.2"
    )


def test_another_version_counts_as_absent_and_is_told(bare: Platform) -> None:
    install_tree(NUMBERS, bare.site)
    newer = Package(name="n", requires=("num.bers>=2",), imports=("numbers_",))
    assert finding(newer, bare).reason == "the platform has num-bers 1.2, which is not >=2"


def test_a_local_version_satisfies_its_public_one(tmp_path: Path) -> None:
    platform = make_platform(tmp_path / "venv", projects=[fake_torch("2.13.0+cpu")])
    wanted = Package(name="torch", requires=("torch==2.13.0",), imports=("torch.cuda",))
    assert finding(wanted, platform).present


def test_files_without_a_distribution_count_as_absent(bare: Platform) -> None:
    (bare.site / "numbers_").mkdir()
    (bare.site / "numbers_" / "__init__.py").touch()
    assert finding(WANTED, bare).reason == "the platform has no num-bers"


def test_leftovers_count_as_absent_and_are_named(bare: Platform) -> None:
    lose_files(install_tree(NUMBERS, bare.site), "*/deep.py")
    reason = finding(WANTED, bare).reason
    assert reason.startswith("num-bers is half-installed on the platform")
    assert "numbers_/deep.py" in reason


def test_a_truncated_file_counts_as_absent_and_is_named(bare: Platform) -> None:
    install_tree(NUMBERS, bare.site)
    (bare.site / "numbers_/deep.py").write_text("A", encoding="utf-8")
    reason = finding(WANTED, bare).reason
    assert "num-bers 1.2 is half-installed: numbers_/deep.py" in reason


def test_a_distribution_without_the_promised_import_counts_as_absent(bare: Platform) -> None:
    install_tree(NUMBERS, bare.site)
    wanted = Package(name="n", requires=("num.bers",), imports=("numbers_.wide",))
    assert finding(wanted, bare).reason == ("nothing on the platform provides import numbers_.wide")


def test_what_is_present_and_does_not_import_is_put_into_a_layer_instead(
    tmp_path: Path, index: Index
) -> None:
    broken = Project(name="fragile", version="1.0", files={"fragile.py": "raise OSError('abi')\n"})
    platform = make_platform(tmp_path / "venv", projects=[broken])
    index.publish(Project(name="fragile", version="1.0", files={"fragile.py": ""}))
    ground = Ground(root=tmp_path / "ground", python=platform.python)
    ground.write(package("fragile"), index=index)
    answer = ground.warm()
    assert "OSError: abi" in answer.stderr  # why the platform's own was not enough
    assert answer.status("fragile") == "installed"
    assert ground.warm().document["warm"]


def test_a_truncated_package_of_the_platform_is_put_into_a_layer_instead(
    tmp_path: Path, index: Index
) -> None:
    lonely = Project(name="lonely", version="1.0", files={"lonely/__init__.py": "A = 1\n"})
    platform = make_platform(tmp_path / "venv", projects=[lonely])
    (platform.site / "lonely/__init__.py").write_text("", encoding="utf-8")
    index.publish(lonely)
    ground = Ground(root=tmp_path / "ground", python=platform.python)
    ground.write(package("lonely", check="import lonely; assert lonely.A == 1"), index=index)
    answer = ground.warm()
    assert answer.status("lonely") == "installed"
    assert "lonely: files differ in size" in str(answer.document["platform"]["leftovers"])


def test_a_half_installed_package_is_installed_whole_and_the_leftover_is_reported(
    tmp_path: Path, index: Index
) -> None:
    platform = make_platform(tmp_path / "venv")
    lonely = Project(name="lonely", version="1.0", files={"lonely/__init__.py": "A = 1\n"})
    lose_files(install_tree(lonely, platform.site), "lonely/*")
    before = tree_digest(platform.site)
    index.publish(lonely)
    ground = Ground(root=tmp_path / "ground", python=platform.python)
    ground.write(package("lonely"), index=index)
    answer = ground.warm()
    assert answer.status("lonely") == "installed"
    assert answer.document["platform"]["leftovers"] == [
        "lonely: files of RECORD are missing (lonely/__init__.py)"
    ]
    assert tree_digest(platform.site) == before


# -- bugs of the naive script, by their numbers in FACTS.md --------------------------------------


def speech(ground: Ground, index: Index) -> Answer:
    """A start that wants google-cloud-speech."""
    wanted = package("google-cloud-speech", "google.cloud.speech", required=True)
    ground.write(wanted, index=index)
    return ground.warm()


def test_bug_1_google_cloud_speech_that_is_present_is_not_reported_missing(
    tmp_path: Path, index: Index
) -> None:
    platform = make_platform(tmp_path / "venv", projects=[AUTH, STORAGE, SPEECH])
    index.publish(SPEECH)
    answer = speech(Ground(root=tmp_path / "ground", python=platform.python), index)
    assert answer.status("google-cloud-speech") == "platform"
    assert answer.packages["google-cloud-speech"]["version"] == "2.30.0"
    assert index.requests == ()
    assert answer.document["paths"] == []


@pytest.mark.parametrize("others", [[AUTH], [AUTH, STORAGE]], ids=["google", "google.cloud"])
def test_bug_1_google_cloud_speech_that_is_absent_under_another_google_is_installed(
    tmp_path: Path, index: Index, others: list[Project]
) -> None:
    platform = make_platform(tmp_path / "venv", projects=others)
    index.publish(SPEECH)
    answer = speech(Ground(root=tmp_path / "ground", python=platform.python), index)
    assert answer.status("google-cloud-speech") == "installed"
    assert answer.reason("google-cloud-speech") == "the platform has no google-cloud-speech"
    (layer,) = answer.document["paths"]
    assert Path(layer, "google/cloud/speech/__init__.py").is_file()


def on_a_tmpfs(ground: Ground, options: str, *arguments: str) -> Answer:
    """Run preheat with its store on a new tmpfs, which ends with it."""
    ground.store.mkdir(exist_ok=True)
    mount = f'mount -t tmpfs -o {options} none {ground.store} || exit 77; exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh", *ground.command(*arguments)]
    answer = finished(command, ground.surroundings())
    if not answer.stdout and ("unshare" in answer.stderr or "mount" in answer.stderr):
        pytest.skip(f"nothing can be mounted here: {answer.stderr.strip()}")
    return answer


@pytest.fixture
def crowded(tmp_path: Path, index: Index) -> Ground:
    """A manifest of a package of 30 MB, one of 3,000 files, and one that is small."""
    many = {f"many/part_{n}.txt": "x" for n in range(3000)}
    index.publish(
        Project(name="fat", version="1.0", files={"fat.py": "", "fat.bin": bytes(30_000_000)}),
        Project(name="many", version="1.0", files={"many/__init__.py": "", **many}),
        Project(name="small", version="1.0", files={"small.py": ""}),
    )
    platform = make_platform(tmp_path / "venv")
    ground = Ground(root=tmp_path / "ground", python=platform.python)
    ground.write(package("fat"), package("many"), package("small"), index=index)
    return ground


@pytest.mark.root
@pytest.mark.parametrize("command", ["plan", "warm"])
def test_bug_4_what_does_not_fit_on_the_stores_own_filesystem_is_skipped(
    crowded: Ground, index: Index, command: str
) -> None:
    answer = on_a_tmpfs(crowded, "size=24m,nr_inodes=20000", command, "--json")
    assert answer.code == 0
    assert answer.status("fat") == "skipped"
    assert answer.reason("fat").startswith("does not fit")
    assert str(crowded.store) in answer.reason("fat")
    assert answer.status("small") == "installed"
    assert answer.status("many") == "installed"
    assert all(request.range for request in index.requests_for("fat"))  # it was not fetched


@pytest.mark.root
@pytest.mark.parametrize("command", ["plan", "warm"])
def test_bug_4_files_that_the_filesystem_has_no_inodes_for_are_skipped(
    crowded: Ground, index: Index, command: str
) -> None:
    answer = on_a_tmpfs(crowded, "size=200m,nr_inodes=1000", command, "--json")
    assert answer.code == 0
    assert answer.status("many") == "skipped"
    assert "inodes" in answer.reason("many")
    assert str(crowded.store) in answer.reason("many")
    assert answer.status("fat") == "installed"
    assert answer.status("small") == "installed"
    assert all(request.range for request in index.requests_for("many"))


@pytest.mark.root
def test_bug_4_every_filesystem_that_is_touched_is_in_the_report(crowded: Ground) -> None:
    answer = on_a_tmpfs(crowded, "size=24m,nr_inodes=20000", "warm", "--json")
    volumes = {volume["role"]: volume for volume in answer.document["volumes"]}
    assert set(volumes) == {"store", "cache", "temp"}
    assert volumes["store"]["kind"] == "tmpfs"
    assert volumes["store"]["before"] <= 24 * 1024 * 1024
    assert volumes["store"]["after"] < volumes["store"]["before"]


def speaker(version: str, torch: str) -> Project:
    """A release that needs that torch, and a library that others need too."""
    return Project(
        name="speaker",
        version=version,
        files={"speaker.py": f"import torch, shared\nVERSION = {version!r}\n"},
        requires=(f"torch{torch}", "shared"),
    )


@pytest.fixture
def with_torch(tmp_path: Path, index: Index) -> tuple[Platform, Ground]:
    """A platform with torch, an index with another one, and packages that would replace it."""
    nvidia = fake_nvidia("nvidia-cublas", "13.1.0")
    torch = fake_torch("2.13.0+cu130", requires=["nvidia-cublas==13.1.0"])
    platform = make_platform(tmp_path / "venv", projects=[torch, nvidia])
    index.publish(
        fake_torch("2.8.0", requires=["nvidia-cublas==12.0.0"]),
        fake_nvidia("nvidia-cublas", "12.0.0"),
        speaker("3.0", "==2.8.0"),
        speaker("2.0", ">=2"),
        Project(
            name="stubborn",
            version="1.0",
            files={"stubborn.py": "import torch\n"},
            requires=("torch==2.8.0",),
        ),
        Project(
            name="hollow",
            version="1.0",
            files={"hollow.py": "import shared, torchmissing\n"},
            requires=("shared",),
        ),
        Project(name="listener", version="1.0", files={"listener.py": ""}, requires=("shared",)),
        Project(name="shared", version="1.0", files={"shared.py": ""}),
    )
    ground = Ground(root=tmp_path / "ground", python=platform.python)
    names = ("stubborn", "hollow", "speaker", "listener")
    ground.write(*(package(name) for name in names), index=index)
    return platform, ground


def test_bug_5_what_would_replace_torch_backtracks_or_is_skipped_and_torch_is_as_it_was(
    with_torch: tuple[Platform, Ground], index: Index
) -> None:
    platform, ground = with_torch
    before = tree_digest(platform.site)
    answer = ground.warm()
    assert tree_digest(platform.site) == before
    assert answer.status("speaker") == "installed"
    assert answer.packages["speaker"]["version"] == "2.0"
    assert answer.status("stubborn") == "skipped"
    assert "torch" in answer.reason("stubborn")
    assert "2.13.0+cu130" in answer.reason("stubborn")
    assert not index.downloaded("torch")
    assert not index.downloaded("nvidia-cublas")
    held = [name for layer in ground.layers() for name in os.listdir(layer)]
    assert not [name for name in held if name.startswith(("torch", "nvidia"))]


def test_bug_5_what_was_installed_is_verified_by_its_import(
    with_torch: tuple[Platform, Ground],
) -> None:
    _, ground = with_torch
    answer = ground.warm()
    assert answer.status("hollow") == "failed"
    assert "torchmissing" in answer.reason("hollow")
    assert not [layer for layer in ground.layers() if (layer / "hollow.py").exists()]


def test_bug_5_nothing_is_kept_twice_and_the_second_start_uses_what_is_kept(
    with_torch: tuple[Platform, Ground], index: Index
) -> None:
    _, ground = with_torch
    first = ground.warm()
    holders = [layer for layer in ground.layers() if (layer / "shared.py").exists()]
    assert len(holders) == 1
    assert first.packages["speaker"]["layer"] == str(holders[0])
    assert ground.staged() == []
    index.forget_requests()
    for second in (ground.warm(), ground.warm("--cold")):
        assert second.code == 0
        assert second.status("hollow") in ("failed", "skipped")
        assert second.packages["speaker"]["layer"] == str(holders[0])
        assert second.document["paths"] == first.document["paths"]
    assert second.status("speaker") == second.status("listener") == "reused"
    assert index.requests == ()


# -- Debian --------------------------------------------------------------------------------------

DEBIAN = Path("/usr/bin/python3")
DEBIAN_SITE = Path("/usr/lib/python3/dist-packages")
CANDIDATES = (("pyyaml", "yaml"), ("six", "six"), ("pygments", "pygments"), ("chardet", "chardet"))


def debian() -> tuple[str, str]:
    """A distribution of Debian's own Python and its module; skips where there is none."""
    if not DEBIAN.exists() or not DEBIAN_SITE.is_dir():
        pytest.skip("there is no Debian Python here")
    version = subprocess.run(
        (DEBIAN, "-c", "import sys; print(sys.version_info >= (3, 10))"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if version.strip() != "True":
        pytest.skip("Debian's Python is older than 3.10")
    here = probe(str(DEBIAN))
    for name, module in CANDIDATES:
        if here.find(name) is not None and inventory.resolvable(module, here.interpreter.path):
            return name, module
    pytest.skip("Debian's Python has none of " + ", ".join(name for name, _ in CANDIDATES))


def warm_over_debian(ground: Ground, index: Index) -> Answer:
    """A start that wants something of Debian's, and something that Debian lacks."""
    name, module = debian()
    index.publish(
        Project(name=name, version="99.0", files={f"{module}.py": ""}),
        Project(
            name="extra",
            version="1.0",
            files={"extra.py": f"import {module}\n"},
            requires=(name,),
        ),
    )
    ground.write(package(name, module), package("extra"), index=index)
    answer = ground.warm()
    assert answer.code == 0, answer.stderr
    assert answer.status(name) == "platform"
    assert answer.status("extra") == "installed"
    assert answer.packages["extra"]["distributions"] == ["extra==1.0"]
    assert not index.downloaded(name)
    return answer


def test_debians_own_externally_managed_python_is_warmed_for_and_left_alone(
    tmp_path: Path, index: Index
) -> None:
    debian()
    before = tree_digest(DEBIAN_SITE)
    found = probe(str(DEBIAN))
    answer = warm_over_debian(Ground(root=tmp_path / "ground", python=DEBIAN), index)
    assert answer.document["platform"]["distributions"] == len(
        [d for d in found.distributions if d.state.present]
    )
    assert tree_digest(DEBIAN_SITE) == before


def test_debians_packages_are_seen_and_kept_behind_a_venv_with_system_site_packages(
    tmp_path: Path, index: Index
) -> None:
    debian()
    try:
        platform = make_platform(tmp_path / "venv", DEBIAN, system_site_packages=True)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"Debian's Python makes no venv: {error.stderr!r}")
    before = tree_digest(DEBIAN_SITE)
    outside = {d.name for d in probe(str(DEBIAN)).distributions if d.state.present}
    inside = {d.name for d in probe(str(platform.python)).distributions if d.state.present}
    assert outside <= inside
    warm_over_debian(Ground(root=tmp_path / "ground", python=platform.python), index)
    assert tree_digest(DEBIAN_SITE) == before
    assert os.listdir(platform.site) == []


# -- what is remembered of a platform ------------------------------------------------------------


def test_an_inventory_is_remembered_until_an_installer_was_there(
    tmp_path: Path, bare: Platform
) -> None:
    path = [str(bare.site)]
    memory = inventory.Memory(place=tmp_path / "memory", keeps=True)
    install_tree(NUMBERS, bare.site)
    first = inventory.read(path, memory)
    assert memory.recall(path[0]) == inventory.read(path) == first
    install_tree(Project(name="other", version="2", files={"other.py": ""}), bare.site)
    assert memory.recall(path[0]) is None
    assert {d.name for d in inventory.read(path, memory)} == {"num-bers", "other"}


def test_a_plan_remembers_no_inventory(tmp_path: Path, bare: Platform) -> None:
    install_tree(NUMBERS, bare.site)
    memory = inventory.Memory(place=tmp_path / "memory", keeps=False)
    assert inventory.read([str(bare.site)], memory)
    assert not (tmp_path / "memory").exists()


def test_a_damaged_memory_is_no_memory(tmp_path: Path, bare: Platform) -> None:
    install_tree(NUMBERS, bare.site)
    memory = inventory.Memory(place=tmp_path / "memory", keeps=True)
    first = inventory.read([str(bare.site)], memory)
    (kept,) = memory.place.iterdir()
    for text in ("", "{", "[]", '{"stamp": [], "distributions": [{}]}'):
        kept.write_text(text, encoding="utf-8")
        assert inventory.read([str(bare.site)], memory) == first
