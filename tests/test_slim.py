"""What nobody loads can be left out: traced, tried without, and written into the manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from preheat.decisions.slimming import removable
from preheat.edges.manifest.edit import add_excludes
from preheat.words.errors import ManifestError
from tests.support.index import Index
from tests.support.platforms import Platform
from tests.support.starts import Ground, package
from tests.support.wheels import Project

BALLAST = "x" * 300_000

PROJECTS = (
    Project(
        name="app",
        version="1.0",
        files={"app.py": "import used\nimport shared.kept\n"},
        requires=("used", "ballast", "heavy-data", "sneaky", "shared-kept", "shared-lost"),
    ),
    Project(
        name="used",
        version="1.0",
        # Looks for a module of `sneaky` and opens none of its files.
        files={
            "used/__init__.py": "import importlib.util\nassert importlib.util.find_spec('sneaky')\n"
        },
    ),
    Project(name="ballast", version="1.0", files={"ballast.py": BALLAST.replace("x", "#")}),
    Project(
        name="heavy-data", version="1.0", files={"heavy_data/__init__.py": "", "heavy_data/d": "y"}
    ),
    Project(name="sneaky", version="1.0", files={"sneaky.py": ""}),
    Project(name="shared-kept", version="1.0", files={"shared/kept.py": ""}),
    Project(name="shared-lost", version="1.0", files={"shared/lost.py": "A = 1\n" * 999}),
    Project(
        name="reader",
        version="1.0",
        files={"reader.py": "import heavy_data, pathlib\n"},
        requires=("heavy-data",),
    ),
)


@pytest.fixture
def ground(tmp_path: Path, platform: Platform) -> Iterator[Ground]:
    """A start that was warmed, from an index that is there no longer."""
    with Index(tmp_path / "index") as index:
        index.publish(*PROJECTS)
        ground = Ground(root=tmp_path / "ground", python=platform.python)
        ground.write(package("app"), index=index)
        assert ground.warm().code == 0
        yield ground


def test_what_nothing_loads_is_told_with_its_bytes_and_the_lines_that_leave_it_out(
    ground: Ground,
) -> None:
    answer = ground.run("slim", "--json")
    assert answer.code == 0, answer.stderr
    spares = {row["name"]: row for row in answer.document["spares"]}
    assert set(spares) == {"ballast", "heavy-data", "sneaky", "shared-lost"}
    assert spares["ballast"]["payload"] > len(BALLAST)
    # It is needed although none of its files is opened: a proof without it says so.
    assert [name for name, row in spares.items() if not row["removable"]] == ["sneaky"]
    assert answer.document["exclude"] == {"app": ["ballast", "heavy-data", "shared-lost"]}
    assert answer.document["unchecked"] == ["app"]
    text = ground.run("slim").stdout
    assert 'exclude = [\n    "ballast",\n    "heavy-data",\n    "shared-lost",\n]' in text
    assert "State a check" in text


def test_slimming_changes_no_layer_and_leaves_nothing_behind(ground: Ground) -> None:
    before = sorted((p, p.stat().st_mtime_ns) for p in ground.store.glob("layers/**/*.py"))
    ground.run("slim")
    after = sorted((p, p.stat().st_mtime_ns) for p in ground.store.glob("layers/**/*.py"))
    assert before == after
    assert ground.staged() == []


def test_written_into_the_manifest_the_next_start_is_slimmer_and_works(ground: Ground) -> None:
    text = ground.manifest.read_text(encoding="utf-8")
    ground.manifest.write_text(f"# ours\n{text}", encoding="utf-8")
    assert ground.run("slim", "--write").code == 0
    assert ground.manifest.read_text(encoding="utf-8").startswith("# ours\n")
    answer = ground.warm()
    assert answer.status("app") == "installed", answer.reason("app")
    layer = Path(answer.packages["app"]["layer"])
    assert not (layer / "ballast.py").exists()
    assert (layer / "sneaky.py").exists()
    assert json.loads(ground.run("slim", "--json").stdout)["removable"] == 0


def test_what_one_package_loads_no_other_has_to_exclude(
    ground: Ground, tmp_path: Path, platform: Platform
) -> None:
    with Index(tmp_path / "index2") as index:
        index.publish(*PROJECTS)
        both = Ground(root=tmp_path / "both", python=platform.python)
        both.write(package("app"), package("reader", check="import reader"), index=index)
        assert both.warm().code == 0
        found = both.run("slim", "--json").document
    assert found["exclude"] == {"app": ["ballast", "shared-lost"]}
    assert found["unchecked"] == ["app"]


def test_slimming_what_is_not_warm_says_what_to_run_first(ground: Ground) -> None:
    ground.write(package("used"), index={"url": "http://127.0.0.1:9/simple/"})
    answer = ground.run("slim")
    assert answer.code != 0
    assert "Traceback" not in answer.stderr


def test_a_manifest_that_a_person_keeps_stays_as_it_is_but_for_the_excludes(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text(
        '[tool.preheat]\nstore = "s"  # here\n\n[[tool.preheat.package]]\nname = "a"\n'
        'exclude = ["z"]  # heavy\n\n[[tool.preheat.package]]\nname = "b"\n',
        encoding="utf-8",
    )
    add_excludes(file, {"a": ("y",), "b": ("x",)})
    text = file.read_text(encoding="utf-8")
    assert 'store = "s"  # here\n' in text
    packages = tomlkit.parse(text)["tool"]["preheat"]["package"]
    assert [list(each["exclude"]) for each in packages] == [["y", "z"], ["x"]]
    with pytest.raises(ManifestError, match="no \\[\\[package\\]\\] named c"):
        add_excludes(file, {"c": ("x",)})


@given(st.sets(st.integers(0, 40).map(str)), st.sets(st.integers(0, 40).map(str)))
def test_all_that_is_not_needed_can_go(candidates: set[str], needed: set[str]) -> None:
    proofs: list[frozenset[str]] = []

    def holds(names: frozenset[str]) -> bool:
        proofs.append(names)
        return not names & needed

    order = sorted(candidates)
    assert removable(order, holds) == candidates - needed
    kept = len(candidates & needed)
    assert len(proofs) <= 1 + 2 * kept * max(1, len(order)).bit_length()
