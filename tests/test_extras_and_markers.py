"""Requirements with extras and markers, beside a platform that has some of what they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.index import Index, offering
from tests.support.platforms import make_platform
from tests.support.starts import Answer, Ground, package
from tests.support.wheels import Project


def module(name: str, version: str = "1") -> Project:
    return Project(name=name, version=version, files={f"{name}.py": f"VERSION = {version!r}\n"})


WEB = Project(
    name="web",
    version="1",
    files={"web.py": "HERE = __file__\n"},
    extras={"standard": ["fast>=2"], "all": ["web[standard]", "more"]},
)
FAST, OLD_FAST, MORE = module("fast", "2"), module("fast", "1"), module("more")
PROJECTS = (WEB, FAST, MORE)
index = offering(*PROJECTS)


def started(
    tmp_path: Path, index: Index, provided: Sequence[Project], *packages: dict[str, object]
) -> tuple[Ground, Answer]:
    """A start on a platform that provides those."""
    platform = make_platform(tmp_path / "venv", projects=provided)
    ground = Ground(root=tmp_path / "ground", python=platform.python, environment={})
    ground.write(*packages, index=index)
    return ground, ground.warm()


def imported(ground: Ground, code: str) -> str:
    """What a program prints that `preheat run` becomes."""
    answer = ground.run(
        *("run", "--manifest", str(ground.manifest), "--store", str(ground.store)),
        *("--python", str(ground.python), "--", str(ground.python), "-c", code),
    )
    assert answer.code == 0, answer.stderr
    return answer.stdout.strip()


@pytest.mark.parametrize(
    ("extra", "provided", "brings"),
    [
        ("standard", [WEB], "fast==2"),
        ("standard", [WEB, OLD_FAST], "fast==2"),
        ("all", [WEB], "fast==2 more==1"),
        ("all", [WEB, MORE], "fast==2"),
        ("Standard,all", [WEB, FAST], "more==1"),
    ],
)
def test_what_an_extra_adds_is_installed_beside_the_platforms_own(
    tmp_path: Path, index: Index, extra: str, provided: list[Project], brings: str
) -> None:
    ground, answer = started(
        tmp_path, index, provided, package("web", requires=[f"web[{extra}]"], required=True)
    )
    row = answer.package("web")
    assert (row["status"], " ".join(row["distributions"])) == ("installed", brings), answer.stderr
    said = imported(ground, "import web, fast; print(fast.VERSION, 'venv' in web.HERE)")
    assert said == "2 True"


def test_an_extra_whose_requirements_are_all_there_needs_no_layer(
    tmp_path: Path, index: Index
) -> None:
    wanted = package("web", requires=["web[all]"])
    _, answer = started(tmp_path, index, [WEB, FAST, MORE], wanted)
    assert answer.status("web") == "platform"


def test_an_extra_that_does_not_exist_is_named(tmp_path: Path, index: Index) -> None:
    wanted = package("web", requires=["web[standrad]"])
    _, answer = started(tmp_path, index, [WEB], wanted)
    row = answer.package("web")
    assert row["status"] == "platform"
    assert "web 1 has no extra standrad (it has all, standard)" in str(row["reason"])


def test_a_package_whose_markers_hold_nowhere_here_is_skipped_and_not_missed(
    tmp_path: Path, index: Index
) -> None:
    wanted = package("fast", requires=["fast; python_version < '3'"], required=True)
    other = package("more")
    _, answer = started(tmp_path, index, [], wanted, other)
    row = answer.package("fast")
    assert answer.code == 0, answer.stderr
    assert row["status"] == "skipped"
    assert 'python_version < "3"' in str(row["reason"])
    assert answer.status("more") == "installed"


def test_of_several_requirements_one_that_holds_is_enough(tmp_path: Path, index: Index) -> None:
    wanted = package("fast", requires=["more; python_version < '3'", "fast"])
    _, answer = started(tmp_path, index, [], wanted)
    row = answer.package("fast")
    assert (row["status"], row["distributions"]) == ("installed", ["fast==2"])
