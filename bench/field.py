"""The field's packages: what imports and works in a virtual environment, and with preheat.

The packages of `field_packages.toml`, in groups as projects have them, are installed around a
platform with torch: once by uv into a virtual environment that has what the platform has, and once
by preheat into layers. Each package's use runs in a fresh process in both. PREHEAT_BENCH_ONLY
chooses groups by how their names begin; a whole run goes on where one before it was ended.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from packaging.requirements import Requirement

from bench import ground
from bench.payload import PLATFORM
from bench.scales import belongs_to_the_platform
from preheat.edges.platform.probe import probe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HOME = ground.BUILD / "field"
LIST = Path(__file__).with_name("field_packages.toml")
TIMEOUT = 600
"""Seconds for one import and use: a machine that others use takes its time."""
_IMPORTED = "imported"


Figures = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Group to package to side to an outcome."""


class Kept(TypedDict):
    """The figures' file."""

    left: list[str]
    groups: dict[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """One package of the list.

    Attributes:
        requires: what is installed for it.
        imports: the modules that a project imports.
        use: lines of Python that do something real with them, and print what came of it.
    """

    name: str
    requires: tuple[str, ...]
    imports: tuple[str, ...]
    use: str

    def program(self) -> str:
        """What runs in a fresh process; it leaves the version in a file, so as not to print it."""
        # A process that a use starts imports this file too, and is not to start others.
        lines = (
            "from importlib.metadata import version",
            "from pathlib import Path",
            f"Path('version').write_text(version({Requirement(self.requires[0]).name!r}))",
            f"print({_IMPORTED!r}, flush=True)",
            *self.use.strip().splitlines(),
        )
        return "\n".join(
            (
                *(f"import {module}" for module in self.imports),
                "if __name__ == '__main__':",
                *(f"    {line}" for line in lines),
                "",
            )
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Packages that one project has."""

    name: str
    packages: tuple[Package, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of one package on one side.

    Attributes:
        version: of the distribution that it is named after; empty, where there is none.
        imports: whether its modules could be imported.
        works: whether its use went through.
        printed: what the use printed.
        error: the last line of what went wrong; with preheat, its reason where it left it out.
        trace: the end of the traceback.
    """

    version: str = ""
    imports: bool = False
    works: bool = False
    printed: str = ""
    error: str = ""
    trace: str = ""


def measure() -> None:
    """Run the groups, print the table and the differences, and keep the figures."""
    groups = read(LIST)
    kept = _kept()
    chosen = ground.chosen(groups)
    if len(chosen) == len(groups):
        # What an earlier whole run did not come to, or everything.
        chosen = tuple(each for each in groups if each.name in kept["left"]) or groups
        kept["left"] = [each.name for each in chosen]
    python = ground.make_venv(HOME / "platform", *PLATFORM)
    ours = ground.image_preheat().with_name("preheat")
    for group in chosen:
        print(f"{group.name}:", flush=True)
        with ground.thrown_away(HOME / group.name) as place:
            kept["groups"][group.name] = Trial(group, place, python, ours).run()
        kept["left"] = [name for name in kept["left"] if name != group.name]
        order = [each.name for each in groups if each.name in kept["groups"]]
        kept["groups"] = {name: kept["groups"][name] for name in order}
        ground.keep("field", kept)
    print("\n".join(table(kept["groups"])))


def read(file: Path) -> tuple[Group, ...]:
    """The groups of the list."""
    document = tomllib.loads(file.read_text(encoding="utf-8"))
    return tuple(
        Group(name=name, packages=tuple(_package(each) for each in packages))
        for name, packages in document.items()
    )


class Trial:
    """One group, on both sides."""

    def __init__(self, group: Group, place: Path, platform: Path, preheat: Path) -> None:
        self.group = group
        self.place = place
        self.platform = platform
        self.preheat = preheat

    def run(self) -> dict[str, dict[str, Any]]:
        """Install on both sides, use every package on both; as figures."""
        theirs = {name: asdict(each) for name, each in self.with_uv().items()}
        ours = {name: asdict(each) for name, each in self.with_preheat().items()}
        for name, uvs in theirs.items():
            print(f"  {name:<28} {_verdict(uvs):<16} {_verdict(ours[name])}", flush=True)
        return {name: {"uv": theirs[name], "preheat": ours[name]} for name in theirs}

    def with_uv(self) -> dict[str, Outcome]:
        """In a virtual environment with what the platform has, which uv then adds to."""
        python = self.place / "venv" / "bin" / "python"
        ground.uv("venv", "--quiet", "--python", sys.executable, str(self.place / "venv"))
        install = ["pip", "install", "--quiet", "--python", str(python)]
        ground.uv(*install, *PLATFORM)
        bounds = self.place / "bounds.txt"
        present = probe(str(self.platform)).distributions
        held = [each for each in present if belongs_to_the_platform(each.name)]
        bounds.write_text("".join(f"{each.name}=={each.version}\n" for each in held))
        wanted = [each for package in self.group.packages for each in package.requires]
        try:
            ground.uv(*install, "--constraints", str(bounds), *wanted)
        except subprocess.CalledProcessError as error:
            failed = Outcome(error=f"uv pip install ended with {error.returncode}")
            return {package.name: failed for package in self.group.packages}
        return {
            package.name: self.use(package, "uv", (str(python),)) for package in self.group.packages
        }

    def with_preheat(self) -> dict[str, Outcome]:
        """In layers around the platform."""
        manifest = ground.write_manifest(
            self.place / "preheat.toml",
            [
                {"name": p.name, "requires": list(p.requires), "imports": list(p.imports)}
                for p in self.group.packages
            ],
            **{"import-timeout": TIMEOUT},
        )
        options = (
            *("--manifest", str(manifest), "--store", str(self.place / "store")),
            *("--python", str(self.platform)),
        )
        report = self._warm(options)
        command = (str(self.preheat), "run", *options, "--", str(self.platform))
        outcomes = {}
        for package in self.group.packages:
            row = report[package.name]
            if row["status"] in ("failed", "skipped"):
                reason = f"{row['status']}: {row['reason']}"
                outcomes[package.name] = Outcome(error=self._without_paths(self.place, reason))
            else:
                outcomes[package.name] = self.use(package, "preheat", command)
        return outcomes

    def use(self, package: Package, side: str, command: Sequence[str]) -> Outcome:
        """Import and use it in a fresh process, in a directory and with a home of its own."""
        home = self.place / f"{side}-home" / package.name
        home.mkdir(parents=True)
        program = home / "use.py"
        program.write_text(package.program(), encoding="utf-8")
        version = home / "version"
        environment = {
            "HOME": str(home),
            "PATH": f"{Path(command[-1]).parent}{os.pathsep}{os.environ['PATH']}",
            "TMPDIR": str(self.place),
            "HF_HUB_OFFLINE": "1",
            "PREHEAT_LOG": "none",
        }
        try:
            done = subprocess.run(
                (*command, str(program)),
                env=ground.surroundings(**environment),
                cwd=home,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            return Outcome(error=f"not done after {error.timeout:.0f} s")
        tell = partial(self._without_paths, home)
        before, mark, printed = done.stdout.partition(f"{_IMPORTED}\n")
        return Outcome(
            version=version.read_text(encoding="utf-8") if version.exists() else "",
            imports=bool(mark),
            works=bool(mark) and done.returncode == 0,
            printed=tell(printed or before)[-2000:],
            error=tell(_last_line(done)),
            trace=tell(done.stderr)[-4000:] if done.returncode else "",
        )

    def _warm(self, options: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        done = subprocess.run(
            (str(self.preheat), "warm", "--json", *options),
            env=ground.surroundings(PREHEAT_LOG="none"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            packages = json.loads(done.stdout)["packages"]
        except (ValueError, KeyError):
            raise SystemExit(f"preheat warm: {done.stderr[-2000:]}") from None
        return {row["name"]: row for row in packages}

    def _without_paths(self, home: Path, text: str) -> str:
        """Without this machine's paths, nor on which side it was."""
        names = {
            str(home): "HOME",
            str(self.place): "PLACE",
            str(self.platform.parents[1]): "PLATFORM",
            str(ground.PROJECT): "PROJECT",
            sys.base_prefix: "PYTHON",
        }
        for path, name in names.items():
            text = text.replace(path, name)
        return text.strip()


def differences(groups: Figures) -> Iterator[tuple[str, str, str]]:
    """Group, package, and in which way preheat's outcome is another one than uv's."""
    for group, packages in groups.items():
        for name, sides in packages.items():
            found = compare(Outcome(**sides["uv"]), Outcome(**sides["preheat"]))
            if found:
                yield group, name, found


def compare(theirs: Outcome, ours: Outcome) -> str:
    """In which way preheat's outcome is another one; empty, where it is the same."""
    if theirs.works and not ours.works:
        return ours.error or "ended without a word"
    if ours.works and not theirs.works:
        return f"works with preheat alone; uv: {theirs.error}"
    if theirs.works and theirs.printed != ours.printed:
        return f"prints {ours.printed!r}; uv: {theirs.printed!r}"
    if theirs.works and theirs.version != ours.version:
        return f"version {ours.version}; uv: {theirs.version}"
    return ""


def table(groups: Figures) -> Iterator[str]:
    """Markdown: a row for each group, and one for each difference."""
    outcomes = {
        (group, name): {side: Outcome(**sides[side]) for side in ("uv", "preheat")}
        for group, packages in groups.items()
        for name, sides in packages.items()
    }
    yield "| | packages | import: uv | import: preheat | work: uv | work: preheat | same outcome |"
    yield "|---|---|---|---|---|---|---|"
    for group in groups:
        yield _row(group, [each for key, each in outcomes.items() if key[0] == group])
    yield _row("all", list(outcomes.values()))
    yield ""
    yield "| group | package | difference |"
    yield "|---|---|---|"
    for group, name, found in differences(groups):
        yield f"| {group} | {name} | {_cell(found)} |"
    neither = [name for (_, name), each in outcomes.items() if not _any_works(each.values())]
    yield ""
    yield f"works on neither side: {', '.join(neither) or 'none'}"


def _row(name: str, rows: Sequence[Mapping[str, Outcome]]) -> str:
    cells = [
        len(rows),
        sum(row["uv"].imports for row in rows),
        sum(row["preheat"].imports for row in rows),
        sum(row["uv"].works for row in rows),
        sum(row["preheat"].works for row in rows),
        sum(row["uv"].works and not compare(row["uv"], row["preheat"]) for row in rows),
    ]
    return f"| {name} | {' | '.join(map(str, cells))} |"


def _any_works(outcomes: Iterable[Outcome]) -> bool:
    return any(each.works for each in outcomes)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:300]


def _verdict(figures: Mapping[str, object]) -> str:
    if figures["works"]:
        return "works"
    return f"{'fails in use' if figures['imports'] else 'no import'}: {figures['error']}"


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    # What is written at the end of a process comes after the traceback.
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Warning)\b", line)]
    return (named or lines or [f"ended with {done.returncode}"])[-1]


def _package(row: Mapping[str, str | list[str]]) -> Package:
    name = str(row["name"])
    return Package(
        name=name,
        requires=tuple(row.get("requires", [name])),
        imports=tuple(row.get("imports", [name.replace("-", "_")])),
        use=str(row["use"]),
    )


def _kept() -> Kept:
    """What earlier runs found, and which groups a whole run still has to come to."""
    file = ground.BUILD / "field.json"
    if not file.exists():
        return {"left": [], "groups": {}}
    kept: Kept = json.loads(file.read_text(encoding="utf-8"))
    return kept
