"""Every Python that preheat supports, warmed for from outside, each with wheels of its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.index import Index
from tests.support.platforms import (
    SUPPORTED,
    Interpreter,
    Platform,
    make_platform,
    pythons,
    tree_digest,
)
from tests.support.starts import Answer, Ground, package
from tests.support.wheels import Project

INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_EXTRA_INDEX", "UV_FIND_LINKS", "UV_INDEX")

# Prints, of each module that is named: its file, and what it says of itself.
IMPORT = """
import importlib, json, sys
found = {name: importlib.import_module(name) for name in sys.argv[1:]}
about = {name: [m.__file__, getattr(m, "SAYS", "")] for name, m in found.items()}
print(json.dumps([list(sys.version_info[:2]), about]))
"""


@pytest.fixture(params=SUPPORTED, ids=lambda version: ".".join(map(str, version)))
def interpreter(request: pytest.FixtureRequest) -> Interpreter:
    """One interpreter for each supported version that this machine has."""
    for found in pythons():
        if found.version == request.param:
            return found
    pytest.skip("this machine has no CPython " + ".".join(map(str, request.param)))


@pytest.fixture
def platform(interpreter: Interpreter, tmp_path: Path) -> Platform:
    """A venv of that interpreter."""
    return make_platform(tmp_path / "platform", interpreter.path)


def test_every_supported_python_is_warmed_for_and_imports_its_own_wheels(
    platform: Platform, tmp_path: Path
) -> None:
    own = "cp{}{}".format(*platform.version)
    ground = Ground(root=tmp_path / "worker", python=platform.python)
    before = tree_digest(platform.site)
    with Index(tmp_path / "index") as index:
        index.publish(*tiny(), *other_versions(platform.version), tagged(own))
        ground.write(package("tiny"), package("native"), index=index)
        answer = ground.warm()
    assert answer.code == 0, answer.stderr
    assert {row["status"] for row in answer.packages.values()} == {"installed"}, answer.packages
    for surroundings in both_ways(answer):
        version, found = imported(ground, surroundings, "tiny", "deep.inside", "native")
        assert version == list(platform.version)
        assert all(Path(file).is_relative_to(ground.store) for file, _ in found.values())
        assert found["native"][1] == own
    assert tree_digest(platform.site) == before


def test_bytecode_in_a_layer_is_that_of_the_platforms_python(
    platform: Platform, tmp_path: Path
) -> None:
    ground = Ground(root=tmp_path / "worker", python=platform.python)
    with Index(tmp_path / "index") as index:
        index.publish(*tiny())
        ground.write(package("tiny"), index=index)
        assert ground.warm().code == 0
    tag = "cpython-{}{}".format(*platform.version)
    compiled = [path.name for layer in ground.layers() for path in layer.rglob("*.pyc")]
    assert compiled
    assert all(name.endswith(f".{tag}.pyc") for name in compiled)


@pytest.mark.network
def test_real_compiled_packages_import_on_every_supported_python(
    platform: Platform, tmp_path: Path
) -> None:
    reach = {n: v for n, v in os.environ.items() if n.startswith(INDEX_VARIABLES)}
    ground = Ground(root=tmp_path / "worker", python=platform.python, environment=reach)
    ground.write(package("markupsafe"), package("pyyaml", "yaml", "yaml._yaml"))
    answer = ground.warm()
    assert answer.code == 0, answer.stderr
    assert {row["status"] for row in answer.packages.values()} == {"installed"}, answer.packages
    for surroundings in both_ways(answer):
        version, found = imported(ground, surroundings, "markupsafe._speedups", "yaml._yaml")
        assert version == list(platform.version)
        assert all(file.endswith(".so") for file, _ in found.values())


def tiny() -> tuple[Project, ...]:
    """A package with one dependency."""
    files = {"tiny.py": "import deep.inside\n"}
    deep = {"deep/__init__.py": "", "deep/inside.py": ""}
    return (
        Project(name="tiny", version="1.0", files=files, requires=["deep"]),
        Project(name="deep", version="1.0", files=deep),
    )


def tagged(interpreter: str, version: str = "1.0") -> Project:
    """A wheel for one Python only, which says for which."""
    files = {"native.py": f"SAYS = {interpreter!r}\n"}
    return Project(name="native", version=version, files=files, tag=f"{interpreter}-none-any")


def other_versions(version: tuple[int, int]) -> list[Project]:
    """The same for the other Pythons: a newer release where that is a trap, as it mostly is."""
    others = [each for each in SUPPORTED if each != version]
    return [tagged("cp{}{}".format(*each), version="2.0") for each in others]


def both_ways(answer: Answer) -> list[dict[str, str]]:
    """How a child gets at the layers: by the bootstrap, or by the report's paths as they are."""
    document = answer.document
    return [
        {"PYTHONPATH": document["bootstrap"]},
        {"PYTHONPATH": os.pathsep.join(document["paths"])},
    ]


def imported(
    ground: Ground, surroundings: dict[str, str], *modules: str
) -> tuple[list[int], dict[str, tuple[str, str]]]:
    """Import in a child of the platform's interpreter; its version, and file and word of each."""
    done = subprocess.run(
        (ground.python, "-B", "-c", IMPORT, *modules),
        env={**ground.surroundings(), **surroundings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, found = json.loads(done.stdout)
    return version, {name: (file, says) for name, (file, says) in found.items()}
