"""All that was locked is in a layer, whatever could be read of wheels before they were fetched."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tomli_w

from tests.support.index import Index
from tests.support.platforms import Platform
from tests.support.starts import Answer, Ground, package
from tests.support.wheels import Project

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SECRET = "only uv knows"  # noqa: S105  # only this test's index asks for it

# What is needed is imported in use only, so that no proof finds out.
TOP = Project(
    name="top",
    version="1",
    files={"top.py": "def work():\n    import middle\n"},
    requires=["middle"],
)
MIDDLE = Project(
    name="middle", version="1", files={"middle.py": "import deep\n"}, requires=["deep"]
)
DEEP = Project(name="deep", version="1", files={"deep.py": ""})
OTHER = Project(name="other", version="1", files={"other.py": ""}, requires=["deep"])


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "index") as index:
        index.publish(TOP, MIDDLE, DEEP, OTHER)
        yield index


@pytest.fixture
def ground(tmp_path: Path, platform: Platform, index: Index) -> Ground:
    ground = Ground(root=tmp_path / "ground", python=platform.python, environment={})
    ground.write(package("top", required=True), package("other"), index=index, index_timeout=2)
    return ground


def used(ground: Ground, *arguments: str) -> Answer:
    """Start, and use what is needed in use only."""
    return ground.run(
        *("run", "--manifest", str(ground.manifest), "--store", str(ground.store)),
        *("--python", str(ground.python), *arguments, "--"),
        *(str(ground.python), "-c", "import top, other; top.work()"),
    )


def ignore_ranges(index: Index) -> None:
    index.ranges = False


def ignore_ranges_without_metadata_beside_wheels(index: Index) -> None:
    index.ranges = index.core_metadata = False


def refuse_ranges_of_the_end(index: Index) -> None:
    index.suffix_ranges = False


@pytest.mark.parametrize(
    "trouble",
    [
        ignore_ranges,
        ignore_ranges_without_metadata_beside_wheels,
        refuse_ranges_of_the_end,
    ],
)
def test_what_is_needed_in_use_only_is_there_where_no_directory_can_be_read(
    ground: Ground, index: Index, trouble: Callable[[Index], None]
) -> None:
    trouble(index)
    answer = used(ground)
    assert answer.code == 0, answer.stderr
    again = used(ground)
    assert again.code == 0, again.stderr


def test_it_is_there_where_only_the_engine_knows_the_credentials(
    tmp_path: Path, platform: Platform
) -> None:
    """In UV_DEFAULT_INDEX, which is no setting of preheat's."""
    with Index(tmp_path / "private", user="me", password=SECRET) as index:
        index.publish(TOP, MIDDLE, DEEP, OTHER)
        known = {"UV_DEFAULT_INDEX": index.url_with_credentials}
        ground = Ground(root=tmp_path / "ground", python=platform.python, environment=known)
        ground.write(package("top", required=True), package("other"), index_timeout=2)
        answer = used(ground)
    assert answer.code == 0, answer.stderr


def test_sizes_are_estimates_then_and_the_plan_says_so(ground: Ground, index: Index) -> None:
    index.ranges = False
    rows = ground.run("plan", "--json").document["packages"]
    assert [row["exact"] for row in rows] == [False, False]


def test_a_lock_that_was_made_so_gives_the_same_layers(ground: Ground, index: Index) -> None:
    index.ranges = False
    assert ground.run("lock").code == 0
    answer = used(ground, "--locked")
    assert answer.code == 0, answer.stderr


def test_a_lock_of_others_that_says_nothing_of_requirements_leaves_nothing_out(
    ground: Ground, index: Index
) -> None:
    assert ground.run("lock").code == 0
    file = ground.root / "pylock.preheat.toml"
    document = tomllib.loads(file.read_text(encoding="utf-8"))
    for each in document["packages"]:
        each.pop("tool", None)
    file.write_text(tomli_w.dumps(document), encoding="utf-8")
    index.ranges = False
    answer = used(ground, "--locked")
    assert answer.code == 0, answer.stderr
