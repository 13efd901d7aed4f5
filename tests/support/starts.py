"""Starts of preheat as a worker makes them: the command line, in a process of its own.

Every test that starts preheat takes the environment from here: `environment` keeps what users and
tools of this machine have set away from it, and has it clean nothing but what is the test's own.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shlex
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
GOOD = ("platform", "reused", "installed")

_OF_CACHES = ("CONDA_", "HF_", "PIP_", "TORCHINDUCTOR_", "TRITON_", "UV_", "XDG_")
_OF_WORKERS = ("AWS_", "F5_TTS_", "GOOGLE_", "METRICS_", "NLTK_", "S3_", "WHISPERX_", "WORKER_")
_OF_BUILDS = ("CUDA_HOME", "CUDA_PATH", "FORCE_CUDA", "LD_LIBRARY_PATH", "MAX_JOBS", "TORCH_")
_FOREIGN = (*_OF_CACHES, *_OF_WORKERS, *_OF_BUILDS, "PREHEAT_", "PYTHON", "RUNPOD_", "VIRTUAL_ENV")
_OWN = {"HOME": "home", "TMPDIR": "tmp", "PREHEAT_INTERNAL_SYSTEM": "system"}


def environment(root: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a process is started with: home, temp and the system's caches lie below that directory.

    Args:
        root: gets the directories.
        more: set besides, or instead.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    for name in ("home", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    own = {name: str(root / place) for name, place in _OWN.items()}
    return {**clean, **own, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **(more or {})}


def settle_in(root: Path, environment: MutableMapping[str, str]) -> None:
    """Has everything that this process may clean lie below that directory."""
    for name in [name for name in environment if name.startswith(_OF_CACHES)]:
        del environment[name]
    environment.update((name, str(root / place)) for name, place in _OWN.items())
    # Remembered since it was first asked for.
    tempfile.tempdir = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The one object that `--json` printed."""
        try:
            document: dict[str, Any] = json.loads(self.stdout)
        except ValueError:
            said = f"exit {self.code} and no document: {self.stdout}{self.stderr}"
            raise AssertionError(said) from None
        return document

    @property
    def packages(self) -> dict[str, dict[str, Any]]:
        """The report's packages by name."""
        return {row["name"]: row for row in self.document["packages"]}

    def package(self, name: str) -> dict[str, Any]:
        """What is reported of one package."""
        return self.packages[name]

    def status(self, name: str) -> str:
        """What became of that package."""
        return str(self.package(name)["status"])

    def reason(self, name: str) -> str:
        """Why."""
        return str(self.package(name)["reason"])

    def layer(self, name: str) -> Path:
        """The directory that it is imported from."""
        return Path(self.package(name)["layer"])

    @property
    def bad(self) -> dict[str, str]:
        """Every package that is not ready, with the reason."""
        rows = self.document["packages"]
        return {row["name"]: row["reason"] for row in rows if row["status"] not in GOOD}


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

    def surroundings(self, **more: str) -> dict[str, str]:
        """What processes on this ground are started with."""
        return environment(self.root, {**self.environment, **more})

    def run(self, *arguments: str, store: Path | None = None, timeout: float = TIMEOUT) -> Answer:
        """Run `preheat ARGUMENTS` to its end."""
        command = self.command(*arguments, store=store)
        return finished(command, self.surroundings(), timeout)

    def warm(self, *arguments: str) -> Answer:
        """Run `preheat warm --json`."""
        return self.run("warm", "--json", *arguments)

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin `preheat ARGUMENTS` and return while it runs, in a session of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.surroundings(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
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
    command: Sequence[str],
    environment: Mapping[str, str],
    timeout: float = TIMEOUT,
    *,
    directory: Path | None = None,
) -> Answer:
    """Run a command to its end; what it said is shown where the test fails.

    Raises:
        TimeoutExpired: it did not end in so many seconds.
    """
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        _show(command, "no end", error.stderr or b"")
        raise
    _show(command, f"exit {done.returncode}", done.stderr)
    return Answer(code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def _show(command: Sequence[str], ended: str, said: str | bytes) -> None:
    """For pytest, which keeps it until the test has failed; a benchmark shows its own."""
    if "PYTEST_CURRENT_TEST" not in os.environ:
        return
    text = said if isinstance(said, str) else said.decode(errors="replace")
    sys.stderr.write(f"$ {shlex.join(map(str, command))}\n{text}{ended}\n")


def package(name: str, *imports: str, **more: object) -> dict[str, object]:
    """A package's table; it requires its own name unless `requires` says otherwise."""
    table: dict[str, object] = {
        "name": name,
        "requires": [name],
        "imports": list(imports or (name.replace("-", "_"),)),
    }
    return table | {key.replace("_", "-"): value for key, value in more.items()}


def descendants(pid: int) -> list[int]:
    """The processes that this one started, in whatever thread, and theirs; less those just gone."""
    own: list[int] = []
    # Not Path.glob, which raises where the directory goes while it is read.
    for file in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError):
            own += map(int, Path(file).read_text(encoding="ascii").split())
    return own + [each for child in own for each in descendants(child)]
