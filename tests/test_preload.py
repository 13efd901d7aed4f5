"""The platform's torch imported ahead: when the proof of all together goes on from there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from preheat.decisions.preload import in_any_order, missed, same_over
from preheat.edges.platform.probe import probe
from preheat.edges.proof.provided_names import brought
from preheat.edges.proof.runner import Limits, Preloaded, Stack, prove
from preheat.words.manifest import Package
from preheat.words.proof import EVERYTHING, Brought, Looked
from tests.support.index import Index
from tests.support.platforms import Platform, make_platform
from tests.support.starts import package
from tests.support.wheels import Project
from tests.support.workers import Worker

TORCH = """
import importlib.metadata
import os

import needed

try:
    import bar
except ImportError:
    bar = None
list(importlib.metadata.entry_points(group="torch.backends"))
with open(os.environ["TORCH_IMPORTS"], "a") as file:
    file.write("with bar\\n" if bar else "without\\n")
"""


def project(name: str, code: str = "", **more: object) -> Project:
    files: Mapping[str, str | bytes] = {f"{name.replace('-', '_')}.py": code}
    return Project(name=name, version="1", files=files, **more)  # type: ignore[arg-type]


ON_PLATFORM = (
    Project(
        name="torch",
        version="2.13.0",
        requires=("needed",),
        files={"torch/__init__.py": TORCH, "torch/version.py": "__version__ = '2.13.0'\n"},
    ),
    project("needed"),
)
PROJECTS = (
    project("alpha"),
    project("heir"),
    project("bar"),
    project("bar-user", "import bar\n", requires=("bar",)),
    project("bad-bar-user", requires=("bad-bar",)),
    Project(name="bad-bar", version="1", files={"bar.py": "raise OSError('no library')\n"}),
    Project(name="needed", version="2", files={"needed.py": ""}),
    project("modern", requires=("needed>=2",)),
    project("shy", "import sys\nassert 'torch' not in sys.modules, 'after torch'\n"),
    Project(
        name="backend",
        version="1",
        files={
            "backend.py": "",
            "backend-1.dist-info/entry_points.txt": "[torch.backends]\nown = backend:start\n",
        },
    ),
    Project(name="hooked", version="1", files={"hooked.py": "", "hooked.pth": "import sys\n"}),
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    return make_platform(tmp_path_factory.mktemp("image") / "venv", projects=ON_PLATFORM)


def imports_of_torch(place: Path, index: Index, image: Platform, *names: str) -> list[str]:
    """What each import of torch wrote down during a start with those packages, all of them good."""
    noted = place / "imports"
    worker = Worker(place=place, platform=image, index=index)
    worker.write([package(name) for name in names])
    started = worker.warm(TORCH_IMPORTS=str(noted))
    assert started.bad == {}
    return noted.read_text().splitlines()


# -- whole starts ----------------------------------------------------------------------------


def test_torch_is_imported_once_where_no_layer_has_a_say_in_it(
    tmp_path: Path, index: Index, image: Platform
) -> None:
    assert imports_of_torch(tmp_path, index, image, "alpha", "heir") == ["without"]


def test_torch_is_imported_over_the_layers_where_one_hides_what_it_needs(
    tmp_path: Path, index: Index, image: Platform
) -> None:
    assert len(imports_of_torch(tmp_path, index, image, "alpha", "modern")) == 2


def test_torch_is_imported_over_the_layers_where_one_is_a_backend_of_it(
    tmp_path: Path, index: Index, image: Platform
) -> None:
    assert len(imports_of_torch(tmp_path, index, image, "alpha", "backend")) == 2


def test_torch_is_imported_over_the_layers_where_one_has_a_pth_file(
    tmp_path: Path, index: Index, image: Platform
) -> None:
    assert len(imports_of_torch(tmp_path, index, image, "alpha", "hooked")) == 2


def test_what_torch_looked_for_in_vain_is_imported_before_the_packages(
    tmp_path: Path, index: Index, image: Platform
) -> None:
    assert imports_of_torch(tmp_path, index, image, "alpha", "bar-user") == ["without"]


def test_what_torch_would_fail_on_is_found_out_over_the_layers(
    tmp_path: Path, index: Index, image: Platform
) -> None:
    worker = Worker(place=tmp_path, platform=image, index=index)
    worker.write([package("alpha"), package("bad-bar-user")])
    started = worker.warm(TORCH_IMPORTS=str(tmp_path / "imports"))
    assert started.status("alpha") == "installed"
    assert "works alone, not with the others" in started.reason("bad-bar-user")


def test_a_package_that_fails_after_torch_alone_is_proved_before_it_too(
    tmp_path: Path, index: Index, image: Platform
) -> None:
    assert len(imports_of_torch(tmp_path, index, image, "alpha", "shy")) == 2


def test_a_start_that_makes_nothing_ends_what_it_had_begun_to_import(
    tmp_path: Path, index: Index, image: Platform
) -> None:
    imports_of_torch(tmp_path, index, image, "alpha", "heir")
    worker = Worker(place=tmp_path, platform=image, index=index)
    again = worker.warm("--cold")
    assert {row["status"] for row in again.document["packages"]} == {"reused"}
    staging = tmp_path / "store" / "staging"
    assert not list(staging.iterdir())
    # Whatever it begins works in staging.
    places = map(place_of, Path("/proc").glob("[0-9]*/cwd"))
    assert not [place for place in places if place.startswith(str(staging))]


def place_of(link: Path) -> str:
    """Where that process works; nowhere, once it has ended."""
    try:
        return os.readlink(link)
    except OSError:
        return ""


# -- the parts -------------------------------------------------------------------------------


def looked(**more: object) -> Looked:
    nothing: dict[str, object] = dict.fromkeys(
        ("modules", "found", "distributions", "groups"), frozenset()
    )
    return Looked(**{**nothing, "libraries": {}, **more})  # type: ignore[arg-type]


def bringing(**more: object) -> Brought:
    nothing: dict[str, object] = dict.fromkeys(("modules", "distributions", "groups"), frozenset())
    return Brought(**{**nothing, "has_pth": False, **more})  # type: ignore[arg-type]


def test_an_import_is_the_same_over_layers_that_hide_and_tell_it_nothing() -> None:
    seen = looked(
        modules=frozenset({"numpy", "tqdm"}),
        found=frozenset({"numpy", "sys"}),
        distributions=frozenset({"optree"}),
        groups=frozenset({"torch.backends"}),
    )
    there = frozenset({"tqdm", "requests"})
    assert same_over(seen, bringing(modules=there, groups=frozenset({"console_scripts"})))
    assert not same_over(seen, bringing(modules=there | {"numpy"}))
    assert not same_over(seen, bringing(modules=there | {"sys"}))
    assert not same_over(seen, bringing(distributions=frozenset({"optree"})))
    assert not same_over(seen, bringing(groups=frozenset({"torch.backends"})))
    assert not same_over(seen, bringing(has_pth=True))
    assert not same_over(looked(groups=frozenset({EVERYTHING})), bringing())
    assert missed(seen, bringing(modules=there)) == ("tqdm",)


def test_libraries_load_in_any_order_where_each_name_is_one_file() -> None:
    torchs = {"libcudart": ("/torch/libcudart.so.13",), "libc": ("/lib/libc.so.6",)}
    assert in_any_order(torchs, [{"libc": ("/lib/libc.so.6",), "libav": ("/layer/libav.so",)}, {}])
    assert not in_any_order(torchs, [{}, {"libcudart": ("/usr/local/cuda/libcudart.so.13.0",)}])


def test_what_layers_bring_is_read_from_their_directories(tmp_path: Path) -> None:
    for name in ("package/__init__.py", "one.py", "fast.abi3.so", "One_Two-1.0.dist-info/METADATA"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "One_Two-1.0.dist-info" / "entry_points.txt").write_text(
        "[torch.backends]\nown = one:start\n\n[ console ]\n"
    )
    there = brought([str(tmp_path)], has_pth=False)
    assert there.modules == {"package", "one", "fast"}
    assert there.distributions == {"one-two"}
    assert "torch.backends" in there.groups


def test_what_an_import_looked_for_is_noted(image: Platform, tmp_path: Path) -> None:
    interpreter = probe(str(image.python)).interpreter
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_IMPORTS", str(tmp_path / "imports"))
        limits = Limits(seconds=60, place=tmp_path)
        with closing(Preloaded(interpreter.executable, ["torch"], limits)) as ahead:
            seen = ahead.looked()
    assert seen is not None
    assert {"torch", "needed", "bar"} <= seen.modules
    assert {"torch", "needed", "sys"} <= seen.found
    assert "bar" not in seen.found
    assert seen.groups == {"torch.backends"}
    assert seen.libraries["libc"][0].startswith("/")


def test_an_import_ahead_that_fails_says_nothing(image: Platform, tmp_path: Path) -> None:
    interpreter = probe(str(image.python)).interpreter
    limits = Limits(seconds=60, place=tmp_path)
    with closing(Preloaded(interpreter.executable, ["not_there"], limits)) as ahead:
        assert ahead.looked() is None
    assert list(tmp_path.iterdir()) == []


def test_a_proof_names_the_libraries_that_are_mapped_after_it(image: Platform) -> None:
    interpreter = probe(str(image.python)).interpreter
    package = Package(name="zip", requires=("zip",), imports=("zlib", "ctypes"))
    (proof,) = prove([package], Stack(interpreter=interpreter, layers=()), Limits(seconds=60))
    assert proof.ok
    assert all(Path(file).exists() for file in proof.libraries["libc"])
