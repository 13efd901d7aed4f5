"""The shape of the house, held by what the modules import.

Every rule is a function from the source tree to its violations. Each is tried twice: on preheat
itself, and on a small tree with one violation planted in it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Literal

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]

# A module imports from lower floors, and from its own without going in circles.
FLOORS = {
    "preheat.words": 0,  # frozen values
    "preheat.decisions": 1,  # pure: values in, values out
    "preheat.seams": 2,  # what the composition needs of the world
    "preheat.edges": 3,  # each touches one outside thing
    "preheat.provision": 4,  # the stages, in order
    "preheat.baking": 4,
    "preheat.render_bake": 4,
    "preheat.render": 4,
    "preheat.progress": 4,
    "preheat.api": 4,
    "preheat.building": 4,
    "preheat.decided": 4,
    "preheat.deciding": 4,
    "preheat.standing_in": 4,
    "preheat.library_bounds": 4,
    "preheat.resolution": 4,
    "preheat.locks": 4,
    "preheat.proving": 4,
    "preheat.side_by_side": 4,
    "preheat.stacking": 4,
    "preheat.installing": 4,
    "preheat.fetching": 4,
    "preheat.slimming": 4,
    "preheat.render_slim": 4,
    "preheat.render_build": 4,
    "preheat.making_room": 4,
    "preheat.unpacking": 4,
    "preheat.account": 4,
    "preheat.pace": 4,
    "preheat.doctor": 4,
    "preheat.render_doctor": 4,
    "preheat": 4,  # the front door: opens the api when it is first asked for
    "preheat.cli": 5,
    "preheat.cli_options": 5,
    "preheat.__main__": 5,
}

# Beside the floors stand the modules of the warm path. This is all that they may load; whoever
# touches the world (floor 3 and up) may use them.
LIGHT = {
    "preheat": {"preheat.start"},
    "preheat.start": {
        *("preheat.activation", "preheat.following", "preheat.lease"),
        *("atexit", "os", "sys", "time"),
    },
    "preheat.following": {"binascii", "marshal", "os", "sys", "time"},
    "preheat.lease": {"_thread", "binascii", "fcntl", "os", "time"},
    "preheat.activation": {"os", "site", "sys"},
}
LIGHT_IS_OPEN_FROM = 3

PURE = ("preheat.words", "preheat.decisions")
IMPURE = (
    "httpx",
    "os",
    "random",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "time",
    "urllib.request",
)

# What a newer Python than the one that runs the tests has, imported behind a look at its version.
NEWER_STANDARD_LIBRARY = {"compression", "tomllib"}

SAYS_NOTHING = {"common", "core", "helper", "helpers", "manager", "managers", "util", "utils"}


# Paid by whoever loads the module, by whoever calls the function it is in, or by type checkers.
When = Literal["load", "call", "types"]


@dataclass(frozen=True)
class Import:
    """One imported name, dotted in full: `from os import path` is `os.path`."""

    name: str
    line: int
    when: When


@dataclass(frozen=True)
class Module:
    """One file, by its dotted name."""

    name: str
    imports: tuple[Import, ...]


@dataclass(frozen=True)
class Tree:
    """A package's modules and the distributions that it declares."""

    modules: dict[str, Module]
    declared: frozenset[str]


def read_tree(root: Path) -> Tree:
    """Parse every module below `root`/src, and the dependencies in its pyproject.toml."""
    source = root / "src"
    modules = [read_module(path, source) for path in sorted(source.rglob("*.py"))]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    return Tree({module.name: module for module in modules}, frozenset(declared))


def read_module(path: Path, source: Path) -> Module:
    parts = path.relative_to(source).with_suffix("").parts
    package = parts[:-1]
    name = ".".join(package if parts[-1] == "__init__" else parts)
    tree = ast.parse(path.read_text(), str(path))
    return Module(name, tuple(find_imports(tree, package, "load")))


def find_imports(node: ast.AST, package: tuple[str, ...], when: When) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, node.lineno, when)
    elif isinstance(node, ast.ImportFrom):
        parents = package[: len(package) - node.level + 1] if node.level else ()
        origin = ".".join((*parents, *filter(None, [node.module])))
        for alias in node.names:
            yield Import(f"{origin}.{alias.name}", node.lineno, when)
    elif isinstance(node, ast.If) and is_for_types_only(node.test):
        for guarded in node.body:
            yield from find_imports(guarded, package, "types")
        for otherwise in node.orelse:
            yield from find_imports(otherwise, package, when)
    else:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            when = "call"
        for child in ast.iter_child_nodes(node):
            yield from find_imports(child, package, when)


def is_for_types_only(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def is_within(name: str, owner: str) -> bool:
    return name == owner or name.startswith(f"{owner}.")


def is_ours(name: str) -> bool:
    return is_within(name, "preheat")


def target(name: str, tree: Tree) -> str:
    """The module that an imported name of ours lives in: the longest prefix that is one."""
    parts = name.split(".")
    prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in tree.modules), name)


def floor(name: str) -> int | None:
    """The floor of a module, or None where it has none. The front door is not a folder."""
    if name == "preheat":
        return FLOORS[name]
    homes = (home for home in FLOORS if home != "preheat" and is_within(name, home))
    return next((FLOORS[home] for home in homes), None)


def is_light(name: str) -> bool:
    return name in LIGHT and name != "preheat"


def modules_without_a_floor(tree: Tree) -> Iterator[str]:
    for name in tree.modules:
        if floor(name) is None and not is_light(name):
            yield f"{name} has no floor"


def imports_that_climb(tree: Tree) -> Iterator[str]:
    for module in tree.modules.values():
        here = floor(module.name)
        if here is None:
            continue
        for imported in filter(lambda each: is_ours(each.name), module.imports):
            there_name = target(imported.name, tree)
            there = LIGHT_IS_OPEN_FROM if is_light(there_name) else floor(there_name)
            if there is None or there > here:
                yield f"{module.name}:{imported.line} (floor {here}) imports {there_name} ({there})"


def circles(tree: Tree) -> Iterator[str]:
    graph = {
        module.name: {target(each.name, tree) for each in module.imports if is_ours(each.name)}
        - {module.name}
        for module in tree.modules.values()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield " imports ".join(reversed(error.args[1]))


def weight_on_the_warm_path(tree: Tree) -> Iterator[str]:
    for module in tree.modules.values():
        if module.name not in LIGHT:
            continue
        allowed = {*LIGHT[module.name], "__future__"}
        for imported in module.imports:
            # What opens the api when it is called leaves the warm path, knowingly.
            leaves = imported.when == "call" and (
                is_ours(imported.name) or not is_light(module.name)
            )
            if imported.when == "types" or leaves:
                continue
            if not any(is_within(imported.name, name) for name in allowed):
                yield f"{module.name}:{imported.line} imports {imported.name}"


def impure_thoughts(tree: Tree) -> Iterator[str]:
    for module in tree.modules.values():
        if any(is_within(module.name, home) for home in PURE):
            for imported in module.imports:
                if any(is_within(imported.name, name) for name in IMPURE):
                    yield f"{module.name}:{imported.line} imports {imported.name}"


def names_that_say_nothing(tree: Tree) -> Iterator[str]:
    for name in tree.modules:
        if SAYS_NOTHING & set(name.split(".")):
            yield name


def undeclared_distributions(tree: Tree) -> Iterator[str]:
    providers = packages_distributions()
    for module in tree.modules.values():
        for imported in module.imports:
            top = imported.name.partition(".")[0]
            if top in sys.stdlib_module_names | NEWER_STANDARD_LIBRARY or top == "preheat":
                continue
            owners = {canonicalize_name(owner) for owner in providers.get(top, [top])}
            if not owners & tree.declared:
                yield f"{module.name}:{imported.line} imports {top}, which pyproject.toml lacks"


@pytest.fixture(scope="module")
def preheat() -> Tree:
    return read_tree(ROOT)


def test_every_module_lives_on_a_floor(preheat: Tree) -> None:
    assert list(modules_without_a_floor(preheat)) == []


def test_a_module_imports_only_from_its_own_floor_and_those_below(preheat: Tree) -> None:
    assert list(imports_that_climb(preheat)) == []


def test_no_imports_run_in_a_circle(preheat: Tree) -> None:
    assert list(circles(preheat)) == []


def test_the_warm_path_loads_only_a_handful_of_modules(preheat: Tree) -> None:
    assert list(weight_on_the_warm_path(preheat)) == []


def test_words_and_decisions_do_not_touch_the_world(preheat: Tree) -> None:
    assert list(impure_thoughts(preheat)) == []


def test_no_module_has_a_name_that_says_nothing(preheat: Tree) -> None:
    assert list(names_that_say_nothing(preheat)) == []


def test_every_imported_distribution_is_declared(preheat: Tree) -> None:
    assert list(undeclared_distributions(preheat)) == []


# rule, file, what is planted in it
PLANTED: list[tuple[Callable[[Tree], Iterator[str]], str, str]] = [
    (modules_without_a_floor, "attic.py", ""),
    (modules_without_a_floor, "attic/boxes.py", ""),
    (imports_that_climb, "words/wheel.py", "from preheat.decisions import plan"),
    (imports_that_climb, "decisions/plan.py", "from ..edges import store"),
    (imports_that_climb, "edges/store.py", "def late():\n    import preheat.provision"),
    (imports_that_climb, "api.py", "from preheat.cli import main"),
    (imports_that_climb, "seams.py", "from preheat import start"),
    (imports_that_climb, "words/wheel.py", "import preheat"),
    (imports_that_climb, "edges/store.py", "from preheat.attic import boxes"),
    (circles, "words/wheel.py", "from preheat.words.lock import Lock"),
    (circles, "words/wheel.py", "from . import lock"),
    (weight_on_the_warm_path, "__init__.py", "from preheat.api import warm"),
    (weight_on_the_warm_path, "__init__.py", "try:\n    import json\nexcept ImportError: pass"),
    (weight_on_the_warm_path, "start.py", "import json"),
    (weight_on_the_warm_path, "start.py", "def late():\n    import pathlib"),
    (weight_on_the_warm_path, "activation.py", "class Path:\n    import marshal"),
    (impure_thoughts, "decisions/plan.py", "import os.path"),
    (impure_thoughts, "decisions/plan.py", "from time import monotonic"),
    (impure_thoughts, "words/wheel.py", "from urllib import request"),
    (names_that_say_nothing, "edges/utils.py", ""),
    (names_that_say_nothing, "words/core/wheel.py", ""),
    (undeclared_distributions, "edges/store.py", "import pytest"),
    (undeclared_distributions, "edges/store.py", "from nowhere_to_be_found import thing"),
]

# A tree that keeps every rule, and looks like preheat.
SOUND = {
    "pyproject.toml": '[project]\ndependencies = ["packaging>=26"]\n',
    "src/preheat/__init__.py": (
        "from preheat.start import begin\n"
        "TYPE_CHECKING = False\n"
        "if TYPE_CHECKING:\n    from preheat.api import warm\n"
        "def __getattr__(name):\n    from preheat import api\n"
    ),
    "src/preheat/start.py": (
        "import sys\n"
        "from preheat import activation\n"
        "if TYPE_CHECKING:\n    from typing import Any\n"
    ),
    "src/preheat/activation.py": "from __future__ import annotations\nimport site\n",
    "src/preheat/words/__init__.py": "",
    "src/preheat/words/lock.py": "from preheat.words.wheel import Wheel\n",
    "src/preheat/words/wheel.py": "from packaging.version import Version\n",
    "src/preheat/decisions/plan.py": "from pathlib import PurePath\nfrom ..words import lock\n",
    "src/preheat/seams.py": "from preheat.words.lock import Lock\n",
    "src/preheat/edges/store.py": "import os\nfrom preheat import activation\n",
    "src/preheat/provision.py": "from preheat.edges.store import publish\n",
    "src/preheat/api.py": "from preheat import provision, start\n",
    "src/preheat/cli.py": "import preheat\n",
}

RULES = sorted({rule for rule, _, _ in PLANTED}, key=lambda rule: rule.__name__)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    for path, text in SOUND.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


@pytest.mark.parametrize("rule", RULES)
def test_a_sound_tree_breaks_no_rule(sound: Path, rule: Callable[[Tree], Iterator[str]]) -> None:
    assert list(rule(read_tree(sound))) == []


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_planted_violation_is_found(
    sound: Path, rule: Callable[[Tree], Iterator[str]], path: str, text: str
) -> None:
    file = sound / "src/preheat" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    assert list(rule(read_tree(sound)))
