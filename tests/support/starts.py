"""Starts of preheat as a worker makes them: the command line, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from tests.support.index import Index

TIMEOUT = 120.0
MARGIN = 1_000_000  # bytes kept free in tests, where the machine's own reserve does not matter


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The one object that `--json` printed."""
        document: dict[str, Any] = json.loads(self.stdout)
        return document

    @property
    def packages(self) -> dict[str, dict[str, Any]]:
        """The report's packages by name."""
        return {row["name"]: row for row in self.document["packages"]}

    def status(self, name: str) -> str:
        """What became of that package."""
        return str(self.packages[name]["status"])

    def reason(self, name: str) -> str:
        """Why."""
        return str(self.packages[name]["reason"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """A directory with a manifest, a store and a home, for one platform's interpreter."""

    root: Path
    python: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def manifest(self) -> Path:
        """The manifest's file."""
        return self.root / "preheat.toml"

    @property
    def store(self) -> Path:
        """The store's directory."""
        return self.root / "store"

    @property
    def temp(self) -> Path:
        """What is TMPDIR to a start."""
        return self.root / "tmp"

    def write(self, *packages: Mapping[str, object], **settings: object) -> Path:
        """Write the manifest; `index` may be an `Index`, keys are written with hyphens."""
        document = {key.replace("_", "-"): value for key, value in settings.items()}
        index = document.get("index")
        if isinstance(index, Index):
            document["index"] = {"url": index.url}
        document.setdefault("space", {"keep-free": MARGIN, "clean-below": 0})
        document["package"] = list(packages)
        self.root.mkdir(parents=True, exist_ok=True)
        self.manifest.write_text(tomli_w.dumps(document), encoding="utf-8")
        return self.manifest

    def command(self, *arguments: str, store: Path | None = None) -> list[str]:
        """The command line of `preheat ARGUMENTS` on this ground."""
        place = ("--manifest", str(self.manifest), "--store", str(store or self.store))
        return [sys.executable, "-m", "preheat", *arguments, *place, "--python", str(self.python)]

    def surroundings(self) -> dict[str, str]:
        """An environment without what this machine's tools and users set."""
        ours = ("UV_", "PIP_", "PREHEAT_", "PYTHON", "RUNPOD_", "XDG_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        home = self.root / "home"
        for place in (home, self.temp):
            place.mkdir(parents=True, exist_ok=True)
        local = {"HOME": str(home), "TMPDIR": str(self.temp), "NO_PROXY": "127.0.0.1"}
        # What is cleaned is this ground's, never the machine's.
        local["PREHEAT_INTERNAL_SYSTEM"] = str(self.root / "system")
        return {**clean, **local, "no_proxy": "127.0.0.1", **self.environment}

    def run(self, *arguments: str, store: Path | None = None, timeout: float = TIMEOUT) -> Answer:
        """Run `preheat ARGUMENTS` to its end."""
        return finished(self.command(*arguments, store=store), self.surroundings(), timeout)

    def warm(self, *arguments: str) -> Answer:
        """Run `preheat warm --json`."""
        return self.run("warm", "--json", *arguments)

    def spawn(self, *arguments: str) -> "subprocess.Popen[str]":
        """Begin `preheat ARGUMENTS` and return while it runs, in a session of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.surroundings(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Whoever runs the tests in the background has it ignored, and children inherit that.
            preexec_fn=_end_when_interrupted,  # noqa: PLW1509  # it takes no lock
        )

    def layers(self) -> list[Path]:
        """The published layers."""
        place = self.store / "layers"
        return sorted(place.iterdir()) if place.is_dir() else []

    def staged(self) -> list[Path]:
        """What lies in staging."""
        place = self.store / "staging"
        return sorted(place.iterdir()) if place.is_dir() else []


def finished(
    command: Sequence[str], environment: Mapping[str, str], timeout: float = TIMEOUT
) -> Answer:
    """Run a command to its end."""
    done = subprocess.run(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Answer(code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def package(name: str, *imports: str, **more: object) -> dict[str, object]:
    """A package's table; it requires its own name unless `requires` says otherwise."""
    table: dict[str, object] = {
        "name": name,
        "requires": [name],
        "imports": list(imports or (name.replace("-", "_"),)),
    }
    return table | {key.replace("_", "-"): value for key, value in more.items()}


def _end_when_interrupted() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def descendants(pid: int) -> list[int]:
    """The processes that this one started, in whatever thread, and theirs."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    own = [int(child) for file in threads for child in file.read_text(encoding="ascii").split()]
    return own + [each for child in own for each in descendants(child)]


def settle_in(root: Path, environment: MutableMapping[str, str]) -> None:
    """Has everything that may be cleaned lie below that directory: nothing of this machine's."""
    moved = ("XDG_", "PIP_", "UV_", "CONDA_", "HF_", "TRITON_", "TORCHINDUCTOR_")
    for name in [name for name in environment if name.startswith(moved)]:
        del environment[name]
    places = {"HOME": "home", "TMPDIR": "tmp", "PREHEAT_INTERNAL_SYSTEM": "system"}
    for name, place in places.items():
        environment[name] = str(root / place)
    # Remembered since it was first asked for.
    tempfile.tempdir = None
