"""Who is asked to start a worker on a small disk: pip, uv, the naive script and preheat.

Each finds the same disk: a virtual environment without the packages, an empty home and an empty
temporary directory, and nothing else of this machine. The script and preheat start as they are,
and again with the settings that a contender's name states.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from uv import find_uv_bin

from bench import naive

IMPORTED = 'compile = "imported"'
LOWER = "preheat, lower keep-free"
_TIMEOUT = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Goods:
    """What the worker wants, the most important package first.

    Attributes:
        imports: package to the module that it promises.
        required: without these the start has failed.
        keep_free: bytes that are to stay free where a contender is told so, less than by default.
    """

    imports: Mapping[str, str]
    required: tuple[str, ...]
    keep_free: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The small disk as a worker's container sees it.

    Attributes:
        tools: directory with pip's launcher, which is not on the disk.
        index: address of the package index.
    """

    root: Path
    tools: Path
    index: str = ""

    @property
    def python(self) -> Path:
        """The platform's interpreter."""
        return self.root / "venv" / "bin" / "python"

    @property
    def site(self) -> Path:
        """Its site directory."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.root / "venv" / "lib" / version / "site-packages"

    @property
    def store(self) -> Path:
        """Where preheat keeps layers."""
        return self.root / "store"

    def furnish(self) -> None:
        """Put there what every contender finds."""
        for name in ("home", "tmp"):
            (self.root / name).mkdir(mode=0o1777)
        make = (sys.executable, "-I", "-m", "venv", "--without-pip", str(self.root / "venv"))
        subprocess.run(make, check=True)

    def environment(self) -> dict[str, str]:
        """All that a contender is told: nothing of this machine's settings gets through."""
        return {
            "PATH": os.pathsep.join((str(self.tools), "/usr/local/bin", "/usr/bin", "/bin")),
            "LANG": "C.UTF-8",
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": self.index,
            "PIP_PYTHON": str(self.python),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            # What is cleaned is this disk's, never the machine's.
            "PREHEAT_INTERNAL_SYSTEM": str(self.root / "system"),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a start ended.

    Attributes:
        status: of the exit.
        output: all that was said.
        paths: what goes before the platform's own site directory.
        refusal: the sentence by which it said that a required package does not fit; else empty.
    """

    status: int
    output: str
    paths: tuple[Path, ...] = ()
    refusal: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """A name for the table, and how it starts."""

    name: str
    start: Callable[[Place, Goods], Ended]


def start_pip(place: Place, goods: Goods) -> Ended:
    """One command for everything, as a start script has it."""
    done = _run((str(place.tools / "pip"), "install", *goods.imports), place)
    return Ended(status=done.returncode, output=done.stdout + done.stderr)


def start_uv(place: Place, goods: Goods) -> Ended:
    """The same of uv."""
    command = (find_uv_bin(), "pip", "install", "--no-config", "--default-index", place.index)
    done = _run((*command, "--python", str(place.python), *goods.imports), place)
    return Ended(status=done.returncode, output=done.stdout + done.stderr)


def start_naive(place: Place, goods: Goods) -> Ended:
    """The script with its own thresholds: it cleans below 1 GB and skips below 500 MB."""
    return _start_naive(place, goods, (1_000_000_000, 500_000_000))


def start_lenient(place: Place, goods: Goods) -> Ended:
    """The script with lower thresholds: it skips below what the goods say is to stay free."""
    return _start_naive(place, goods, (2 * goods.keep_free, goods.keep_free))


def start_preheat(place: Place, goods: Goods) -> Ended:
    """`preheat warm` with its default settings."""
    return _start_preheat(place, goods, {})


def start_imported(place: Place, goods: Goods) -> Ended:
    """The same with bytecode of what is imported."""
    return _start_preheat(place, goods, {"compile": "imported"})


def start_lower(place: Place, goods: Goods) -> Ended:
    """`preheat warm`, told to leave free what the goods say, and not 500 MB."""
    return _start_preheat(place, goods, {"space": {"keep-free": goods.keep_free}})


def start_lower_imported(place: Place, goods: Goods) -> Ended:
    """Both of these settings."""
    settings = {"compile": "imported", "space": {"keep-free": goods.keep_free}}
    return _start_preheat(place, goods, settings)


def _start_preheat(place: Place, goods: Goods, settings: Mapping[str, object]) -> Ended:
    manifest = place.root.parent / "preheat.toml"
    document = {**settings, **_manifest(place, goods)}
    manifest.write_text(tomli_w.dumps(document), encoding="utf-8")
    command = (sys.executable, "-m", "preheat", "warm", "--json", "--manifest", str(manifest))
    done = _run((*command, "--store", str(place.store), "--python", str(place.python)), place)
    report = _document(done.stdout)
    paths = tuple(Path(str(path)) for path in report.get("paths", ()))
    return Ended(
        status=done.returncode,
        output=done.stdout + done.stderr,
        paths=paths,
        refusal=_refusal(report) if done.returncode else "",
    )


CONTENDERS = (
    Contender(name="pip", start=start_pip),
    Contender(name="uv", start=start_uv),
    Contender(name="naive script", start=start_naive),
    Contender(name="naive script, lower reserve", start=start_lenient),
    Contender(name="preheat", start=start_preheat),
    Contender(name=LOWER, start=start_lower),
    Contender(name=f"{LOWER}, {IMPORTED}", start=start_lower_imported),
)


def importable(place: Place, goods: Goods, paths: Sequence[Path], scratch: Path) -> tuple[str, ...]:
    """The packages whose module a fresh interpreter imports; it writes nothing to the disk."""
    found = []
    environment = {
        **place.environment(),
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
    }
    for name, module in goods.imports.items():
        done = subprocess.run(
            (str(place.python), "-c", f"import {module}"),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=scratch,
            timeout=_TIMEOUT,
            check=False,
        )
        if done.returncode == 0:
            found.append(name)
    return tuple(found)


def _start_naive(place: Place, goods: Goods, thresholds: tuple[int, int]) -> Ended:
    clean_below, skip_below = thresholds
    task = {
        "root": str(place.root),
        "clean_below": clean_below,
        "skip_below": skip_below,
        "packages": dict(goods.imports),
        "required": goods.required,
    }
    done = _run((str(place.python), "-B", str(naive.__file__), json.dumps(task)), place)
    said = (line for line in done.stdout.splitlines() if line.startswith("insufficient"))
    refused = [line for line in said if line.split()[-1] in goods.required]
    return Ended(
        status=done.returncode,
        output=done.stdout + done.stderr,
        refusal=refused[0] if refused and done.returncode else "",
    )


def _manifest(place: Place, goods: Goods) -> dict[str, object]:
    return {
        "index": {"url": place.index},
        "package": [
            {
                "name": name,
                "requires": [name],
                "imports": [module],
                "required": name in goods.required,
            }
            for name, module in goods.imports.items()
        ],
    }


def _document(text: str) -> dict[str, list[dict[str, object]]]:
    try:
        document: dict[str, list[dict[str, object]]] = json.loads(text)
    except ValueError:
        return {}
    return document


def _refusal(report: Mapping[str, list[dict[str, object]]]) -> str:
    """Why a required package was not even begun, where it was not."""
    for package in report.get("packages", ()):
        if package["required"] and package["status"] == "skipped":
            return str(package["reason"])
    return ""


def _run(command: Sequence[str], place: Place) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=place.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        cwd=place.root,
        timeout=_TIMEOUT,
        check=False,
    )
