"""Kills: installations killed at random moments, then the same command again; what it accepts.

Every trial has a place of its own: `preheat warm` a fresh store, uv and pip a fresh virtual
environment, and a cache that the second command finds as the first one left it. The kill takes
every process of the first command at once. Where the second command ends well, what it accepted
is held against the wheels: every file, every row of every RECORD, and an import of each package.
Trials lie in memory where that can be: a kill loses nothing that was written, whatever the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from uv import find_uv_bin

from bench import ground
from bench.casualties import Damage, examine, projects
from tests.support.index import Index

KILLS = 300  # of each installer; --kills says otherwise
SEED = 20_260_801
WORKERS = 2
UNDISTURBED = 6
MEMORY = Path("/dev/shm")  # noqa: S108  # only a directory of our own in it
ROOM = 1_500_000_000  # bytes
PATIENCE = 300.0  # seconds; no command here takes ten
PROJECTS = projects()


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where one trial happens.

    Attributes:
        index: address of the package index.
        platform: interpreter of the platform that preheat warms.
    """

    root: Path
    index: str
    platform: Path

    @property
    def python(self) -> Path:
        """The interpreter of the trial's own virtual environment."""
        return self.root / "venv" / "bin" / "python"

    @property
    def site(self) -> Path:
        """Its site directory."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.root / "venv" / "lib" / version / "site-packages"

    def environment(self) -> dict[str, str]:
        """Without settings of this machine; caches lie in the place itself."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        for name in ("home", "tmp"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        return {
            **kept,
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            # What is cleaned is this place's, never the machine's.
            "PREHEAT_INTERNAL_SYSTEM": str(self.root / "system"),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Installer:
    """One way to have the packages.

    Attributes:
        prepare: makes the place ready for the command.
        command: what is killed, and then run again.
        found: directories with what it accepted, after it ended well.
    """

    name: str
    prepare: Callable[[Place], None]
    command: Callable[[Place], list[str]]
    found: Callable[[Place, str], list[Path]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One kill, and what came of it.

    Attributes:
        moment: seconds after the start.
        accepted: the second command ended with success.
        damage: what is wrong all the same; None where it was not accepted.
        said: the end of what the second command wrote, where it did not.
    """

    moment: float
    accepted: bool
    damage: Damage | None
    said: str


@dataclass(kw_only=True, slots=True)
class Moments:
    """Random moments, uniform over an undisturbed run; the same seed gives the same."""

    longest: float
    chance: random.Random
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> float:
        """Seconds."""
        with self.lock:
            return self.chance.uniform(0, self.longest)


# -- who is killed -----------------------------------------------------------------------------


def make_venv(place: Place) -> None:
    """An empty virtual environment, without pip in it."""
    venv = str(place.root / "venv")
    make = (sys.executable, "-I", "-m", "venv", "--without-pip", "--symlinks", venv)
    subprocess.run(make, check=True)


def write_manifest(place: Place) -> None:
    """Three packages of four distributions each, all of them required."""
    names = [project.name for project in PROJECTS]
    groups = [names[start::3] for start in range(3)]
    tables = (
        {"name": group[0], "requires": group, "imports": group, "required": True}
        for group in groups
    )
    ground.write_manifest(place.root / "preheat.toml", tables)


def preheat_command(place: Place) -> list[str]:
    """`preheat warm`."""
    command = [sys.executable, "-m", "preheat", "warm", "--json"]
    command += ["--manifest", str(place.root / "preheat.toml")]
    command += ["--store", str(place.root / "store"), "--python", str(place.platform)]
    return [*command, "--set", f"index.url={place.index}"]


def uv_command(place: Place) -> list[str]:
    """`uv pip install`."""
    command = [find_uv_bin(), "pip", "install", "--no-config", "--python", str(place.python)]
    return [*command, "--default-index", place.index, *(project.name for project in PROJECTS)]


def pip_command(place: Place) -> list[str]:
    """`pip install`."""
    command = [sys.executable, "-m", "pip", "--python", str(place.python), "install"]
    return [*command, "--index-url", place.index, *(project.name for project in PROJECTS)]


INSTALLERS = (
    Installer(
        name="preheat warm",
        prepare=write_manifest,
        command=preheat_command,
        found=lambda _, said: [Path(path) for path in json.loads(said)["paths"]],
    ),
    Installer(
        name="uv pip install",
        prepare=make_venv,
        command=uv_command,
        found=lambda place, _: [place.site],
    ),
    Installer(
        name="pip install",
        prepare=make_venv,
        command=pip_command,
        found=lambda place, _: [place.site],
    ),
)


# -- one trial ---------------------------------------------------------------------------------


def run(installer: Installer, place: Place) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        installer.command(place),
        env=place.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def kill_after(installer: Installer, place: Place, moment: float) -> bool:
    """Run the command and kill it; False where it had ended before."""
    process = subprocess.Popen(
        installer.command(place),
        env=place.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(moment)
    landed = process.poll() is None
    kill_all(process.pid)
    process.wait()
    return landed


def kill_all(first: int) -> None:
    """Kill a process and all that it started, in whatever session; stopped first, none escapes."""
    family = [first]
    for each in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGSTOP)
            family += children(each)
    for each in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def children(parent: int) -> list[int]:
    """What a process started and has not waited for."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            text = Path("/proc", process, "stat").read_text(encoding="utf-8", errors="replace")
            if int(text.rpartition(")")[2].split()[1]) == parent:
                found.append(int(process))
    return found


def attempt(installer: Installer, place: Place, moments: Moments) -> Trial:
    """One kill that lands, the same command again, and the examination."""
    while True:
        shutil.rmtree(place.root, ignore_errors=True)
        place.root.mkdir(parents=True)
        installer.prepare(place)
        moment = moments.next()
        if kill_after(installer, place, moment):
            break
    done = run(installer, place)
    damage = None
    if done.returncode == 0:
        paths = installer.found(place, done.stdout)
        damage = examine(paths, PROJECTS, str(place.platform))
    trial = Trial(
        moment=moment,
        accepted=damage is not None,
        damage=damage,
        said="" if damage is not None else (done.stderr or done.stdout)[-600:],
    )
    shutil.rmtree(place.root, ignore_errors=True)
    return trial


# -- all of them -------------------------------------------------------------------------------


def measure() -> None:
    """Kill each installer that often, print the table and keep the figures."""
    kills = KILLS
    files = sum(len(project.files) for project in PROJECTS)
    print(f"{kills} kills each, seed {SEED}; {len(PROJECTS)} wheels, {files} files", flush=True)
    ground.BUILD.mkdir(parents=True, exist_ok=True)
    memory = MEMORY if _has_room(MEMORY) else ground.BUILD
    with tempfile.TemporaryDirectory(prefix="preheat-kill-", dir=memory) as home:
        outcomes = all_killed(Path(home), kills)
    show({name: _figures(longest, trials) for name, (longest, trials) in outcomes.items()})


def _has_room(place: Path) -> bool:
    """Whether trials can be there, beside the 500 MB that preheat leaves free by itself."""
    return os.access(place, os.W_OK) and shutil.disk_usage(place).free > ROOM


def all_killed(home: Path, kills: int) -> dict[str, tuple[float, list[Trial]]]:
    """Seconds of an undisturbed run and every trial, by installer; figures are kept after each."""
    platform = Place(root=home / "platform", index="", platform=Path())
    platform.root.mkdir(parents=True)
    make_venv(platform)
    outcomes: dict[str, tuple[float, list[Trial]]] = {}
    with Index(home / "index") as index:
        index.publish(*PROJECTS)
        for installer in ground.chosen(INSTALLERS):
            places = [
                Place(root=home / f"trial-{n}", index=index.url, platform=platform.python)
                for n in range(WORKERS)
            ]
            longest = undisturbed(installer, places)
            moments = Moments(longest=longest, chance=random.Random(SEED))  # noqa: S311
            outcomes[installer.name] = longest, list(killed(installer, places, moments, kills))
            keep(outcomes)
    return outcomes


def undisturbed(installer: Installer, places: Sequence[Place]) -> float:
    """Median seconds of whole runs, as many at a time as there will be; each must be sound."""

    def once(place: Place) -> float:
        shutil.rmtree(place.root, ignore_errors=True)
        place.root.mkdir(parents=True)
        installer.prepare(place)
        begin = time.perf_counter()
        done = run(installer, place)
        seconds = time.perf_counter() - begin
        if done.returncode:
            raise SystemExit(f"{installer.name} fails undisturbed: {done.stderr[-2000:]}")
        damage = examine(installer.found(place, done.stdout), PROJECTS, str(place.platform))
        if damage.any:
            raise SystemExit(f"{installer.name} is broken undisturbed: {damage}")
        return seconds

    with ThreadPoolExecutor(len(places)) as pool:
        rounds = UNDISTURBED // len(places)
        return statistics.median(s for _ in range(rounds) for s in pool.map(once, places))


def killed(
    installer: Installer, places: Sequence[Place], moments: Moments, kills: int
) -> Iterator[Trial]:
    """That many trials, in each place one after the other."""
    free = list(places)

    def once(number: int) -> Trial:
        place = free.pop()
        try:
            return attempt(installer, place, moments)
        finally:
            free.append(place)

    with ThreadPoolExecutor(len(places)) as pool:
        accepted = broken = 0
        for number, trial in enumerate(pool.map(once, range(kills)), 1):
            accepted += trial.accepted
            broken += bool(trial.damage and trial.damage.any)
            if number % 10 == 0:
                said = f"{number} of {kills} kills, {accepted} accepted, {broken} of them broken"
                print(f"{installer.name}: {said}", file=sys.stderr, flush=True)
            yield trial


def keep(outcomes: Mapping[str, tuple[float, list[Trial]]]) -> None:
    """The JSON, with the installers whose turn it was."""
    figures = {name: _figures(longest, trials) for name, (longest, trials) in outcomes.items()}
    ground.keep("kill", {"seed": SEED, "workers": WORKERS, "installers": figures})


def show(figures: Mapping[str, Mapping[str, object]]) -> None:
    """The table."""
    columns = ("", "kills", "accepted", "broken", "share", "files", "RECORD", "import", "refused")
    keys = ("kills", "accepted", "broken", "share", "files", "records", "imports", "refused")
    ground.show(
        "environments after a kill and the same command again",
        columns,
        (
            [name, *(f"{f[key]:.1%}" if key == "share" else str(f[key]) for key in keys)]
            for name, f in figures.items()
        ),
    )
    print(
        "accepted: the second command ended with success; broken, of these: a file of a wheel is\n"
        "missing or has other bytes (files), a row of a RECORD has no file (RECORD), or a package\n"
        "cannot be imported (import)"
    )


def _figures(longest: float, trials: Sequence[Trial]) -> dict[str, object]:
    accepted = [trial.damage for trial in trials if trial.damage is not None]
    broken = [damage for damage in accepted if damage.any]
    return {
        "undisturbed_seconds": round(longest, 3),
        "kills": len(trials),
        "accepted": len(accepted),
        "refused": len(trials) - len(accepted),
        "broken": len(broken),
        "share": len(broken) / len(accepted) if accepted else 0.0,
        "files": sum(bool(damage.files) for damage in broken),
        "records": sum(bool(damage.records) for damage in broken),
        "imports": sum(bool(damage.imports) for damage in broken),
        "moments": [round(trial.moment, 4) for trial in trials],
        "examples": [
            [*damage.files[:2], *damage.records[:2], *damage.imports[:1]] for damage in broken[:5]
        ],
        "refusals": sorted({trial.said for trial in trials if not trial.accepted})[:5],
    }
