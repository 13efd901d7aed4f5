"""A worker in small: a manifest, a store and a platform, and the real command run over them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import uv
from packaging.requirements import Requirement

from tests.support.index import Index
from tests.support.platforms import Platform, make_platform
from tests.support.starts import Answer, Ground, finished
from tests.support.wheels import Project

SOURCE = Path(__file__).parents[2] / "src"


@dataclass(frozen=True, kw_only=True, slots=True)
class Worker:
    """One worker: its files lie in `place`, and nothing of the caller's environment reaches it."""

    place: Path
    platform: Platform
    index: Index
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def manifest(self) -> Path:
        """The manifest's file."""
        return self.ground.manifest

    @property
    def store(self) -> Path:
        """Where layers are kept."""
        return self.ground.store

    def write(self, packages: Sequence[Mapping[str, object]], **tables: object) -> None:
        """Write the manifest; the index is the worker's own, and is waited for briefly."""
        stated = {"index_timeout": "5s", **tables, "index": self.index}
        self.ground.write(*packages, **stated)

    @property
    def ground(self) -> Ground:
        """What it is started on."""
        return Ground(root=self.place, python=self.platform.python, environment=self.extra)

    @property
    def options(self) -> tuple[str, ...]:
        """The options that name this worker's manifest and store."""
        return ("--manifest", str(self.manifest), "--store", str(self.store))

    def warm(self, *arguments: str, **environment: str) -> Answer:
        """Run `preheat warm` for the platform, from outside of it."""
        options = ("--python", str(self.platform.python))
        return self.preheat(sys.executable, "warm", *options, *arguments, **environment)

    def warm_inside(self, *arguments: str, **environment: str) -> Answer:
        """Run `preheat warm` in the platform itself, which must host preheat."""
        return self.preheat(self.platform.python, "warm", *arguments, **environment)

    def preheat(
        self, python: str | Path, command: str, /, *arguments: str, **environment: str
    ) -> Answer:
        """Run a command with `--json` over this worker's manifest and store."""
        return self.run(
            (str(python), "-m", "preheat", command, "--json", *self.options, *arguments),
            **environment,
        )

    def run(self, command: Sequence[str], /, **environment: str) -> Answer:
        """Run any command in this worker's environment; its exit status is the caller's."""
        return self.run_at(self.place, command, **environment)

    def run_at(self, directory: Path, command: Sequence[str], /, **environment: str) -> Answer:
        """Run a command with this working directory."""
        surroundings = self.ground.surroundings(**environment)
        return finished(command, surroundings, directory=directory)

    def python(self, code: str, /, *arguments: str, **environment: str) -> str:
        """Run code in the platform's interpreter and return what it printed.

        Without writing bytecode: what changes in the platform is then preheat's doing.
        """
        return self.run_code(code, *arguments, **environment).stdout.strip()

    def run_code(self, code: str, /, *arguments: str, **environment: str) -> Answer:
        """Run code in the platform's interpreter, which must end well."""
        ended = self.run((str(self.platform.python), "-B", "-c", code, *arguments), **environment)
        assert ended.code == 0, ended.stderr
        return ended

    def after(self, started: Answer, code: str) -> str:
        """Run code as a child of a process that this start activated; return what it printed."""
        return self.python(code, PYTHONPATH=str(started.document["bootstrap"]))

    def inside(self, code: str, **environment: str) -> Answer:
        """Run code in a process of the platform that called `ready = preheat.warm(...)`."""
        call = "import sys, preheat\nready = preheat.warm(sys.argv[1], store=sys.argv[2])\n"
        return self.run_code(call + code, str(self.manifest), str(self.store), **environment)

    def published(self) -> set[str]:
        """The layers of the store, by directory name."""
        return {path.name for path in (self.store / "layers").iterdir()}


def distributions_in(layer: Path) -> set[str]:
    """`name-version` of what a layer holds, as its metadata directories say."""
    return {path.name.removesuffix(".dist-info") for path in layer.glob("*.dist-info")}


def host_preheat(platform: Platform, tools: Path) -> None:
    """Make preheat importable in the platform, as an editable installation does; no download.

    `tools` gets a link to everything of preheat's dependencies in this environment, so that the
    platform's own site directory holds one `.pth` and this environment's site is not on its path.
    """
    tools.mkdir(parents=True, exist_ok=True)
    for source in _dependencies():
        target = tools / source.name
        if not target.is_symlink():
            target.symlink_to(source)
    (platform.site / "_preheat.pth").write_text(f"{SOURCE}\n{tools}\n", encoding="utf-8")
    (platform.scripts / "uv").symlink_to(uv.find_uv_bin())


@cache
def _dependencies() -> tuple[Path, ...]:
    """Everything at the top of site-packages that preheat and its dependencies own."""
    found: dict[Path, None] = {}
    queue, seen = ["preheat"], {"preheat"}
    while queue:
        owner = distribution(queue.pop())
        for text in owner.requires or ():
            requirement = Requirement(text)
            marker = requirement.marker
            wanted = marker is None or marker.evaluate({"extra": ""})
            if wanted and requirement.name not in seen:
                seen.add(requirement.name)
                queue.append(requirement.name)
        if owner.metadata["Name"] == "preheat":
            continue
        for file in owner.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__"):
                found.setdefault(Path(str(owner.locate_file(top))))
    return tuple(sorted(found))


def make_host(directory: Path, projects: Iterable[Project] = ()) -> Platform:
    """Make a platform with these projects that hosts preheat."""
    platform = make_platform(directory / "venv", projects=projects)
    host_preheat(platform, directory / "tools")
    return platform
