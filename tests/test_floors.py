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

# A package imports from those before it and from itself, never in a circle.
ORDER = ("words", "decisions", "edges", "proving", "planning", "making", "commands", "cli")

# Each package in `edges` touches one outside thing, and knows of the others only what stands here.
NEIGHBOURS: dict[str, set[str]] = {
    "disk": set(),
    "process": set(),
    "platform": {"disk", "process"},
    "index": {"disk"},
    "manifest": {"disk"},
    "engine": {"disk", "process", "index", "manifest"},
    "store": {"disk", "process", "platform"},
    "proof": {"process"},
    "cleaning": {"disk", "process", "store"},
}

# In the root stands the warm path alone, beside what opens the house: the front door, the calls of
# old scripts, and `python -m`. `edges` and all after it may use the warm path's modules.
ROOF = ("preheat", "preheat.compat", "preheat.__main__")
ROOT_IS_OPEN_FROM = ORDER.index("edges")

# All that the warm path may load besides its own modules.
WARM_STANDARD_LIBRARY = {
    "__future__",
    "_thread",
    "atexit",
    "binascii",
    "fcntl",
    "marshal",
    "os",
    "site",
    "sys",
    "time",
}

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


def place(name: str) -> int | None:
    """Where a module's package stands in the order, or None where it has no place."""
    if name in ROOF:
        return ORDER.index("cli")
    package = name.split(".")[1]
    if package in ORDER:
        return ORDER.index(package)
    return ROOT_IS_OPEN_FROM if is_warm(name) else None


def is_warm(name: str) -> bool:
    """Whether it stands in the root, and so on the warm path."""
    return name.count(".") == 1 and name not in ROOF and name.split(".")[1] not in ORDER


def outside_thing(name: str) -> str | None:
    """The package in `edges` that a module lives in."""
    parts = name.split(".")
    return parts[2] if parts[1:2] == ["edges"] and len(parts) > 2 else None


def modules_without_a_place(tree: Tree) -> Iterator[str]:
    for name in tree.modules:
        thing = outside_thing(name)
        if place(name) is None or (thing is not None and thing not in NEIGHBOURS):
            yield f"{name} has no place"


def imports_that_climb(tree: Tree) -> Iterator[str]:
    for module in tree.modules.values():
        here = place(module.name)
        if here is None or is_warm(module.name):
            continue
        for imported in filter(lambda each: is_ours(each.name), module.imports):
            there_name = target(imported.name, tree)
            there = place(there_name)
            if there is None or there > here:
                yield f"{module.name}:{imported.line} imports {there_name}"


def edges_that_meet(tree: Tree) -> Iterator[str]:
    for module in tree.modules.values():
        here = outside_thing(module.name)
        for imported in module.imports:
            there = outside_thing(target(imported.name, tree))
            if here and there and there != here and there not in NEIGHBOURS.get(here, set()):
                yield f"{module.name}:{imported.line}: {here} knows nothing of {there}"


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
        if not is_warm(module.name) and module.name != "preheat":
            continue
        for imported in module.imports:
            # What opens the house when it is called leaves the warm path, knowingly.
            leaves = imported.when == "call" and (
                is_ours(imported.name) or not is_warm(module.name)
            )
            if imported.when == "types" or leaves or is_warm(target(imported.name, tree)):
                continue
            if not any(is_within(imported.name, name) for name in WARM_STANDARD_LIBRARY):
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
            if top == "_typeshed" and imported.when == "types":
                # It is the type checkers' own, and nobody loads it.
                continue
            owners = {canonicalize_name(owner) for owner in providers.get(top, [top])}
            if not owners & tree.declared:
                yield f"{module.name}:{imported.line} imports {top}, which pyproject.toml lacks"


@pytest.fixture(scope="module")
def preheat() -> Tree:
    return read_tree(ROOT)


def test_every_module_has_a_place(preheat: Tree) -> None:
    assert list(modules_without_a_place(preheat)) == []


def test_a_package_imports_only_from_itself_and_those_before_it(preheat: Tree) -> None:
    assert list(imports_that_climb(preheat)) == []


def test_one_outside_thing_imports_no_other_but_those_stated(preheat: Tree) -> None:
    assert list(edges_that_meet(preheat)) == []


def test_every_stated_neighbour_is_needed(preheat: Tree) -> None:
    met = {
        (outside_thing(module.name), outside_thing(target(each.name, preheat)))
        for module in preheat.modules.values()
        for each in module.imports
    }
    stated = {(here, there) for here, others in NEIGHBOURS.items() for there in others}
    assert stated <= met


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
    (modules_without_a_place, "attic/boxes.py", ""),
    (modules_without_a_place, "edges/registry.py", ""),
    (modules_without_a_place, "edges/cloud/bucket.py", ""),
    (imports_that_climb, "words/wheel.py", "from preheat.decisions import plan"),
    (imports_that_climb, "decisions/plan.py", "from ..edges.store import store"),
    (imports_that_climb, "edges/store/store.py", "def late():\n    import preheat.making.warm"),
    (imports_that_climb, "planning/survey.py", "from preheat.making.warm import begin"),
    (imports_that_climb, "commands/bake.py", "from preheat.cli.main import main"),
    (imports_that_climb, "words/wheel.py", "from preheat import start"),
    (imports_that_climb, "words/wheel.py", "import preheat"),
    (imports_that_climb, "edges/store/store.py", "from preheat.attic import boxes"),
    (edges_that_meet, "edges/disk/volumes.py", "from preheat.edges.store import store"),
    (edges_that_meet, "edges/proof/child.py", "from ..store.store import publish"),
    (circles, "words/wheel.py", "from preheat.words.lock import Lock"),
    (circles, "words/wheel.py", "from . import lock"),
    (circles, "start.py", "def late():\n    import preheat"),
    (weight_on_the_warm_path, "__init__.py", "from preheat.compat import warm"),
    (weight_on_the_warm_path, "__init__.py", "try:\n    import json\nexcept ImportError: pass"),
    (weight_on_the_warm_path, "start.py", "import json"),
    (weight_on_the_warm_path, "start.py", "from preheat.words import lock"),
    (weight_on_the_warm_path, "start.py", "def late():\n    import pathlib"),
    (weight_on_the_warm_path, "activation.py", "class Path:\n    import json"),
    (weight_on_the_warm_path, "a_new_room.py", "import pathlib"),
    (impure_thoughts, "decisions/plan.py", "import os.path"),
    (impure_thoughts, "decisions/plan.py", "from time import monotonic"),
    (impure_thoughts, "words/wheel.py", "from urllib import request"),
    (names_that_say_nothing, "edges/disk/utils.py", ""),
    (names_that_say_nothing, "words/core/wheel.py", ""),
    (undeclared_distributions, "edges/store/store.py", "import pytest"),
    (undeclared_distributions, "edges/store/store.py", "from nowhere_to_be_found import thing"),
]

# A tree that keeps every rule, and looks like preheat.
SOUND = {
    "pyproject.toml": '[project]\ndependencies = ["packaging>=26"]\n',
    "src/preheat/__init__.py": (
        "from preheat.start import begin\n"
        "TYPE_CHECKING = False\n"
        "if TYPE_CHECKING:\n    from preheat.compat import warm\n"
        "def __getattr__(name):\n    from preheat import compat\n"
    ),
    "src/preheat/start.py": (
        "import sys\n"
        "from preheat import activation\n"
        "if TYPE_CHECKING:\n    from typing import Any\n"
        "def cold():\n    from preheat.edges.process import child\n"
    ),
    "src/preheat/activation.py": "from __future__ import annotations\nimport site\n",
    "src/preheat/compat.py": "from preheat import start\n",
    "src/preheat/words/__init__.py": "",
    "src/preheat/words/lock.py": "from preheat.words.wheel import Wheel\n",
    "src/preheat/words/wheel.py": "from packaging.version import Version\n",
    "src/preheat/decisions/plan.py": "from pathlib import PurePath\nfrom ..words import lock\n",
    "src/preheat/edges/disk/volumes.py": "import os\n",
    "src/preheat/edges/process/child.py": "import subprocess\n",
    "src/preheat/edges/proof/child.py": "from preheat.edges.process import child\n",
    "src/preheat/edges/store/store.py": (
        "from preheat import activation\nfrom preheat.edges.disk import volumes\n"
    ),
    "src/preheat/planning/survey.py": "from preheat.edges.store.store import publish\n",
    "src/preheat/making/warm.py": "from preheat.planning.survey import survey\n",
    "src/preheat/commands/bake.py": "from preheat.making.warm import begin\n",
    "src/preheat/cli/main.py": "import preheat\nfrom preheat.commands import bake\n",
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
