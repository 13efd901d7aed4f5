"""What preheat does, as it was recorded: exit status, data, words, log, and what is left on disk.

Each scene below is a few commands in a situation, and `data/recorded_starts/NAME.json` is what they
said the last time that somebody looked. A comparison that fails prints the lines that differ. Where
the change is meant, record anew and read the difference before it is committed:

    RECORD=1 .venv/bin/python -m pytest tests/test_recorded_starts.py

Nothing here knows preheat from the inside: commands are run in processes of their own, and the API
is `import preheat`. What depends on the machine, the moment or the Python is masked
(`tests/support/masking.py`). All starts have one processor, so that none has its packages proved
side by side, in an order of the moment.
"""

from __future__ import annotations

import difflib
import inspect
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

import preheat
from tests.support.index import Index
from tests.support.masking import Masks, events
from tests.support.platforms import Platform, fake_torch, make_platform
from tests.support.starts import Ground, package
from tests.support.wheels import (
    Project,
    corrupt,
    leave_renamed,
    lose_files,
    tiny_setuptools,
    tinybackend,
)

RECORDED = Path(__file__).parent / "data" / "recorded_starts"
PREHEAT = (sys.executable, "-m", "preheat")
BESIDE = ("stage name=install ", "stage name=fingerprint")
TIMEOUT = 120.0
ENVIRONMENT = {"PREHEAT_LOG": "json", "COLUMNS": "80", "TERM": "dumb", "LC_ALL": "C.UTF-8"}

# Versions have three parts: a number with one dot is a size or a time.
PROJECTS = (
    Project(name="pitch", version="1.2.3", files={"pitch/__init__.py": "VALUE = 7\n"}),
    Project(
        name="tone",
        version="1.0.0",
        files={"tone.py": "import pitch\ndef main():\n    print('a tone of', pitch.VALUE)\n"},
        requires=("pitch>=1",),
        console_scripts={"tone": "tone:main"},
    ),
    Project(name="chime", version="1.0.0", files={"chime.py": "VALUE = 1\n"}),
    Project(name="broken", version="1.0.0", files={"broken.py": "raise ImportError('no')\n"}),
    Project(name="deadly", version="1.0.0", files={"deadly.py": "import os\nos._exit(7)\n"}),
    Project(name="sleepy", version="1.0.0", files={"sleepy.py": "import time\ntime.sleep(60)\n"}),
    Project(name="old", version="2.0.0", files={"old.py": "VALUE = 2\n"}),
    Project(name="torch", version="2.14.0", files={"torch/__init__.py": ""}),
    Project(name="tied", version="1.0.0", files={"tied.py": ""}, requires=("torch>=2.14",)),
    Project(name="tied", version="0.9.0", files={"tied.py": ""}, requires=("torch>=2",)),
    Project(name="bound", version="1.0.0", files={"bound.py": ""}, requires=("torch>=2.14",)),
    Project(
        name="laden",
        version="1.0.0",
        files={"laden.py": "import pitch\n"},
        requires=("pitch", "ballast"),
    ),
    Project(name="ballast", version="1.0.0", files={"ballast.py": "# x\n" * 50_000}),
    Project(name="lying", version="1.0.0", files={"lying.py": "VALUE = 1\n"}),
    tinybackend("1.0.0"),
    tiny_setuptools(),
)
COMPILED = Project(name="compiled", version="1.0.0", files={"compiled.py": "VALUE = 1\n"})
HERE = Project(name="here", version="2.0.0", files={"here.py": "VALUE = 1\n"})
OLD = Project(name="old", version="1.0.0", files={"old.py": "VALUE = 1\n"})


@dataclass(kw_only=True)
class Scene:
    """A ground to start on, and what was recorded there so far."""

    ground: Ground
    index: Index
    masks: Masks
    steps: list[dict[str, Any]] = field(default_factory=list)

    def on(self, python: Path) -> Scene:
        """The scene goes on around another platform."""
        return replace(self, ground=replace(self.ground, python=python))

    def write(self, *packages: Mapping[str, object], **settings: object) -> None:
        """Write the manifest, for this index unless another is stated."""
        # Where layers are packed depends on the machine's filesystems.
        stated = {"index": self.index, "layers": "directory", **settings}
        self.ground.write(*packages, **stated)

    def preheat(self, command: str, *arguments: str, then: Sequence[str] = ()) -> None:
        """Run `preheat COMMAND` on this ground; `then` is what it is to become."""
        at = ["--manifest", str(self.ground.manifest), "--python", str(self.ground.python)]
        if command != "bake":
            at += ["--store", str(self.ground.store)]
        become = ["--", *then] if then else []
        ran = self._ran([*PREHEAT, command, *arguments, *at, *become], {})
        self._record(["preheat", command, *arguments, *become], ran)

    def bare(self, *words: str, **environment: str) -> None:
        """Run `preheat WORDS` in the ground's directory, without naming manifest and store."""
        self._record(["bare preheat", *words], self._ran([*PREHEAT, *words], environment))

    def python(self, name: str, code: str) -> None:
        """Run code in this test's own interpreter, which is then the platform."""
        told = (str(self.ground.manifest), str(self.ground.store))
        environment = {"PREHEAT_INDEX_URL": self.index.url, "PREHEAT_LAYERS": "directory"}
        self._record([name], self._ran([sys.executable, "-c", code, *told], environment))

    def note(self, name: str, value: object) -> None:
        """Remember something else."""
        self.steps.append({name: value})

    def note_store(self) -> None:
        """Remember the layout of the store."""
        self.note("store", self.masks.tree(self.ground.store))

    def note_text(self, file: Path) -> None:
        """Remember a text that a command wrote."""
        text = self.masks.sentence(file.read_text(encoding="utf-8"))
        self.note(file.name, re.sub(r"\bsize = \d+", "size = <bytes>", text).splitlines())

    def _record(self, words: Sequence[str], done: subprocess.CompletedProcess[str]) -> None:
        said = {
            "exit": done.returncode,
            "stdout": _data(self.masks, done.stdout),
            **_log(self.masks, done.stderr),
        }
        told = {key: value for key, value in said.items() if key == "exit" or value}
        self.steps.append({"command": self.masks.sentence(" ".join(words)), **told})

    def _ran(
        self, command: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.ground.root,
            env={**self.ground.surroundings(), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )


def _data(masks: Masks, stdout: str) -> Any:
    """What was printed: an object, or one on each line, or text."""
    for text in (f"[{stdout}]", f"[{','.join(stdout.splitlines())}]"):
        with suppress(ValueError):
            found = masks.document(json.loads(text))
            return found[0] if len(found) == 1 else found
    return masks.lines(stdout)


def _log(masks: Masks, stderr: str) -> dict[str, list[str]]:
    """The events in their order, and the rest.

    Packages are fetched while others are proved, and begun anew where one fails meanwhile, and the
    platform's fingerprint is taken while it is looked at: what is said of that comes at a time of
    its own, so it is told once, by itself.
    """
    said = [masks.event(line) for line in events(stderr)]
    beside = dict.fromkeys(line for line in said if line.startswith(BESIDE))
    words = "\n".join(line for line in stderr.splitlines() if not line.startswith('{"time"'))
    return {
        "log": [line for line in said if line not in beside],
        "beside": list(beside),
        "stderr": masks.lines(words),
    }


# -- the scenes --------------------------------------------------------------------------------

SCENES: dict[str, Callable[[Scene], None]] = {}


def scene(play: Callable[[Scene], None]) -> Callable[[Scene], None]:
    """Make a function a scene of its name."""
    SCENES[play.__name__.replace("_", "-")] = play
    return play


@scene
def everything_works(at: Scene) -> None:
    at.write(
        package("tone", required=True),
        package("chime"),
        package("here"),
        capabilities={"sound": ["tone", "chime"], "nothing": ["absent"]},
    )
    at.preheat("status", "--json")
    at.preheat("plan", "--json")
    at.preheat("plan")
    at.preheat("report", "--json")
    at.preheat("warm", "--json")
    at.preheat("warm", "--json")
    at.note_store()
    at.preheat("status")
    at.preheat("report", "--json")
    at.preheat("report")
    at.preheat("report", "--history")
    at.preheat("run", then=["tone"])
    at.preheat("run", then=["no-such-command"])
    at.preheat("doctor", "--json")
    at.preheat("warm", "--cold")


@scene
def a_lock(at: Scene) -> None:
    at.write(package("tone", required=True), package("absent"))
    at.preheat("warm", "--locked", "--json")
    at.preheat("lock")
    at.note_text(at.ground.root / "pylock.preheat.toml")
    at.preheat("lock", "--json")
    at.preheat("warm", "--locked", "--json")
    at.write(package("tone", required=True), package("chime"))
    at.preheat("plan", "--locked")


@scene
def an_optional_package_fails(at: Scene) -> None:
    at.write(
        package("broken"),
        package("deadly"),
        package("tone"),
        package("unchecked", requires=["chime"], imports=["chime"], check="assert 1 == 2, 'no'"),
        capabilities={"sound": ["broken", "tone"], "none": ["broken", "deadly"]},
    )
    at.preheat("warm", "--json")
    at.preheat("warm", "--json")
    at.preheat("warm", "--cold", "--json")
    at.preheat("warm", "--retry")


@scene
def a_required_package_fails(at: Scene) -> None:
    at.write(package("broken", required=True), package("tone"))
    at.preheat("warm", "--json")
    at.preheat("warm")
    at.preheat("run", then=["true"])
    at.preheat("report", "--history")


@scene
def a_package_is_not_wanted_here(at: Scene) -> None:
    at.write(
        package("tone", when={"marker": "sys_platform == 'win32'"}, required=True),
        package("chime", when={"compute-capability": ">=10"}),
        package("laden", when={"cuda": ">=12"}),
        package("pitch", when={"accelerator": "cuda"}),
        cuda={"compute-capability": ["9.0"], "driver": "580.0"},
    )
    at.preheat("plan")
    at.preheat("warm", "--json")


@scene
def what_the_platform_has_is_kept(at: Scene) -> None:
    projects = (fake_torch("2.13.0+cpu"), HERE, OLD)
    python = make_platform(at.ground.root / "platform", projects=projects).python
    at = at.on(python)
    at.write(
        package("here", required=True),
        package("old", requires=["old>=2"]),
        package("tied"),
        package("bound"),
        package("laden", exclude=["ballast"]),
        capabilities={"tensors": ["torch"]},
    )
    at.preheat("plan")
    at.preheat("warm", "--json")
    at.preheat("run", then=[str(python), "-c", "import old, torch; print(torch, old)"])


@scene
def the_manifest_is_wrong(at: Scene) -> None:
    at.bare("warm")
    at.preheat("warm", "--json")
    at.ground.manifest.write_text("[[package]\n", encoding="utf-8")
    at.preheat("warm", "--json")
    at.write(package("tone", import_timeout="soon", colour="red"), package("tone"), deadlin=1)
    at.preheat("plan", "--json")
    at.preheat("doctor", "--json")
    at.write(package("tone"))
    at.preheat("warm", "--set", "space.keepfree=1MB")
    at.preheat("warm", "--deadline", "soon")
    at.bare("status", PREHEAT_COMPILE="some")
    at.bare("status", PREHEAT_NO_SUCH_SETTING="1")
    at.bare("warn")


@scene
def settings_come_from_everywhere(at: Scene) -> None:
    at.write(package("tone"), retry_after="1h", import_timeout="9s", store="here")
    manifest = at.ground.manifest.read_text(encoding="utf-8")
    at.ground.manifest.unlink()
    table = manifest.replace("[[package", "[[tool.preheat.package")
    table = re.sub(r"^\[(\w)", r"[tool.preheat.\1", table, flags=re.MULTILINE)
    (at.ground.root / "pyproject.toml").write_text(f"[tool.preheat]\n{table}", encoding="utf-8")
    words = ("--set", "space.keep-free=2GB", "--offline")
    at.bare("status", "--json", *words, PREHEAT_RETRY_AFTER="2h", PREHEAT_DEADLINE="90s")
    at.bare("status", PREHEAT_LAYERS="packed", PREHEAT_LOG="text")


@scene
def the_index_is_silent(at: Scene) -> None:
    with socket.socket() as bound:
        # Bound and not listening: whoever connects is refused.
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        url = f"http://127.0.0.1:{port}/simple/"
        at.masks.places[f"127.0.0.1:{port}"] = "<silent>"
        at.write(package("tone", required=True), package("chime"), index={"url": url})
        at.preheat("warm", "--json")
        at.preheat("lock", "--json")
    at.write(package("tone"))
    at.preheat("warm", "--offline", "--json")


@scene
def a_package_cannot_be_had(at: Scene) -> None:
    at.write(
        package("absent"),
        package("tone", requires=["tone>=9"]),
        package("lying"),
        package("clash", requires=["pitch<1"], imports=["pitch"]),
    )
    at.preheat("plan")
    at.preheat("warm", "--json")


@scene
def time_runs_out(at: Scene) -> None:
    at.write(package("sleepy", import_timeout="1s"), package("chime"))
    at.preheat("warm", "--json")
    at.index.hang("/simple/hung/")
    at.write(package("hung"))
    at.preheat("warm", "--deadline", "2", "--json")
    at.index.heal()


@scene
def there_is_no_room(at: Scene) -> None:
    space = {"keep-free": "900TB", "clean-below": 0}
    at.write(package("tone", required=True), package("here"), package("chime"), space=space)
    at.preheat("plan", "--json")
    at.preheat("warm", "--json")
    at.preheat("clean", "--need", "900TB", "--json")
    at.preheat("clean", "--need", "900TB", "--dry-run")


@scene
def the_store_cannot_be_used(at: Scene) -> None:
    at.write(package("tone"))
    at.ground.store.write_text("a file", encoding="utf-8")
    at.preheat("plan", "--json")
    at.preheat("warm", "--json")
    at.preheat("run", then=["true"])
    at.preheat("clean", "--json")
    at.preheat("doctor", "--json")


@scene
def the_platform_cannot_be_used(at: Scene) -> None:
    at = at.on(at.ground.root / "bin" / "python")
    at.write(package("tone"))
    at.preheat("warm", "--json")
    at.preheat("plan")
    at.preheat("doctor", "--json")
    at.preheat("clean", "--dry-run", "--json")


@scene
def the_platform_is_damaged(at: Scene) -> None:
    platform = make_platform(at.ground.root / "platform", projects=(HERE, OLD))
    leave_renamed(OLD, platform.site)
    lose_files(platform.site / HERE.dist_info)
    at = at.on(platform.python)
    at.write(package("here"), package("old"))
    at.preheat("doctor", "--json")
    at.preheat("doctor")
    at.preheat("warm", "--json")


@scene
def caches_are_cleaned(at: Scene) -> None:
    at.write(package("tone"))
    at.preheat("warm")
    at.write(package("chime"))
    staged = at.ground.store / "staging" / "of-nobody" / "file"
    left = (staged, at.ground.root / "home" / ".cache" / "pip" / "http" / "young")
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 100_000)
    at.preheat("clean", "--dry-run", "--json")
    at.preheat("clean", "--dry-run")
    at.preheat("clean", "--json")
    at.note("left", [file.exists() for file in left])
    at.note_store()


@scene
def what_nothing_loads_is_told(at: Scene) -> None:
    at.write(package("laden", required=True))
    at.preheat("slim", "--json")
    at.preheat("warm")
    at.preheat("slim", "--json")
    at.preheat("slim", "--write")
    at.note_text(at.ground.manifest)


@scene
def a_worker_is_baked(at: Scene) -> None:
    at.write(package("tone", required=True), package("laden", bake="volume"), package("absent"))
    parts = ("--image", str(at.ground.root / "image"), "--volume", str(at.ground.store))
    at.preheat("bake", "--dry-run", *parts)
    at.preheat("bake", "--json", *parts)
    at.note("image", at.masks.tree(at.ground.root / "image"))
    at.preheat("warm", "--json", "--set", f"image={at.ground.root / 'image'}")


@scene
def what_is_compiled_is_built(at: Scene) -> None:
    at.index.publish_sdist(COMPILED, "import torch\n")
    torch = make_platform(at.ground.root / "platform", projects=(fake_torch("2.13.0+cpu"),))
    at = at.on(torch.python)
    limits = {"memory": "1MB", "disk": "1MB", "cuda": False}
    keys = {"build": True, "build_isolation": False, "build_requires": ["setuptools"]}
    at.write(package("compiled", **keys, build_limits=limits), package("tone"))
    at.preheat("build", "--json")
    at.preheat("build")
    at.preheat("warm", "--json")
    at.note_store()


@scene
def layers_are_packed(at: Scene) -> None:
    at.write(package("tone"), layers="packed", local=str(at.ground.root / "local"))
    at.preheat("warm", "--json")
    at.note_store()
    at.note("local", at.masks.tree(at.ground.root / "local"))
    at.preheat("warm", "--json")
    at.preheat("warm", "--json", "--set", f"local={at.ground.root / 'other'}")


WORKER = """
import json, os, sys
import preheat

ready = preheat.warm(sys.argv[1], store=sys.argv[2])
rows = [[p.name, p.ok, p.status, p.required, p.version, p.reason, p.layer] for p in ready]
import tone
print(json.dumps({
    "ok": ready.ok, "warm": ready.warm, "report": ready.report, "paths": list(ready.paths),
    "conflicts": list(ready.conflicts), "packages": rows, "length": len(ready),
    "repr": [repr(ready), repr(ready["tone"])], "in": ["tone" in ready, "absent" in ready],
    "chosen": ready.choose("sound"), "pythonpath": os.environ["PYTHONPATH"], "tone": tone.__file__,
}))
"""
OLD_CALLS = """
import json
import preheat

print(json.dumps({
    "good": preheat.check_and_install_package("tone", "tone", ["tone>=1", "-q"], "sounds"),
    "bad": preheat.check_and_install_package("absent"),
    "freed": sorted(preheat.cleanup_disk_space()),
}))
try:
    preheat.check_and_install_package("not a name")
except preheat.PreheatError as error:
    print(type(error).__name__, error.code, error.exit_status, error, sorted(error.data))
"""
FAILING = """
import sys
import preheat

try:
    preheat.warm(sys.argv[1], store=sys.argv[2])
except preheat.RequiredPackageError as error:
    print(error.code, error.exit_status, error.message)
    print(error.hint, dict(error.data))
try:
    preheat.warm("nowhere.toml")
except preheat.PreheatError as error:
    print(error.code, error.exit_status, error.message)
"""


@scene
def a_worker_calls_the_api(at: Scene) -> None:
    at.write(package("tone", required=True), package("broken"), capabilities={"sound": ["tone"]})
    at.python("a worker", WORKER)
    at.python("a worker", WORKER)
    at.write(package("broken", required=True))
    at.python("a worker that fails", FAILING)


@scene
def a_script_makes_the_old_calls(at: Scene) -> None:
    at.write(package("tone"))
    at.python("a script", OLD_CALLS)


@scene
def help_is_asked_for(at: Scene) -> None:
    at.bare("--help")
    for line in at.steps[0]["stdout"]:
        if found := re.match(r"([a-z]+) [A-Z]", line):
            at.bare(found[1], "--help")
    at.bare("--version")


# -- the tests ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def one_processor() -> Iterator[None]:
    """For what the tests start, for as long as they last."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """One that has a package already."""
    return make_platform(tmp_path_factory.mktemp("platform") / "venv", projects=(HERE,))


@pytest.fixture(scope="module")
def lying(index: Index) -> None:
    """An index that published one of its files before it was changed."""
    corrupt(next(file.path for name, file in index.published.items() if name.startswith("lying")))


def compared(name: str, found: object) -> None:
    """Compare with what was recorded, or record it where that is asked for."""
    file = RECORDED / f"{name}.json"
    text = laid_out(found) + "\n"
    if os.environ.get("RECORD") == "1":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    lines = (before.splitlines(), text.splitlines())
    difference = list(difflib.unified_diff(*lines, "recorded", "now", lineterm="", n=8))
    if difference:
        pytest.fail("\n".join([f"{name} is not as it was recorded:", *difference]), pytrace=False)


@pytest.mark.usefixtures("lying")
@pytest.mark.parametrize("name", SCENES)
def test_preheat_does_what_was_recorded(
    name: str, tmp_path: Path, platform: Platform, index: Index
) -> None:
    root = tmp_path / "ground"
    root.mkdir()
    played = Scene(
        ground=Ground(root=root, python=platform.python, environment=ENVIRONMENT),
        index=index,
        masks=Masks(
            places={
                str(root): "<ground>",
                str(platform.python.parents[1]): "<platform>",
                sys.executable: "<interpreter>",
                sys.prefix: "<prefix>",
                index.url.split("/")[2]: "<index>",
            }
        ),
    )
    SCENES[name](played)
    compared(name, played.steps)


def test_the_api_is_what_was_recorded() -> None:
    names = {name: getattr(preheat, name) for name in sorted(preheat.__all__)}
    compared("api", {name: described(value) for name, value in names.items()})


@pytest.mark.parametrize("kind", ["manifest", "report"])
def test_the_schemas_are_what_was_recorded(kind: str) -> None:
    text = (resources.files(preheat) / f"{kind}.schema.json").read_text(encoding="utf-8")
    compared(f"{kind}-schema", json.loads(text))


def test_nothing_is_recorded_that_is_not_looked_at() -> None:
    made = {*SCENES, "api", "manifest-schema", "report-schema"}
    assert {file.stem for file in RECORDED.iterdir()} == made


def laid_out(value: object, indent: int = 0, before: int = 0) -> str:
    """JSON in which whatever fits on a line is on one."""
    line = json.dumps(value, ensure_ascii=False)
    if indent + before + len(line) <= 100 or not isinstance(value, dict | list):
        return line
    inner, pairs = indent + 1, isinstance(value, dict)
    heads = [f"{json.dumps(key)}: " for key in value] if pairs else [""] * len(value)
    parts = value.values() if isinstance(value, dict) else value
    rows = (
        f"{' ' * inner}{head}{laid_out(each, inner, len(head))}"
        for head, each in zip(heads, parts, strict=True)
    )
    body = ",\n".join(rows)
    opening, closing = "{}" if pairs else "[]"
    return f"{opening}\n{body}\n{' ' * indent}{closing}"


def described(value: object) -> object:
    """A function by its signature, a class by its bases and what is public in it."""
    if not isinstance(value, type):
        return signature(value)
    found = inspect.getmembers(value)
    public = {k: v for k, v in found if not k.startswith("_") and not hasattr(Exception, k)}
    return {
        "bases": [each.__name__ for each in value.__mro__[1:-1]],
        "public": {k: signature(v) if callable(v) else kind(v) for k, v in public.items()},
        "special": [
            k
            for k in ("__contains__", "__getitem__", "__iter__", "__len__", "__repr__")
            if k in value.__dict__
        ],
    }


def kind(value: object) -> object:
    """A constant, or that it is something that instances have."""
    return value if isinstance(value, str | int) else "attribute"


def signature(value: Any) -> list[str]:
    """Every parameter with its kind, type and default, then what comes back."""
    told = inspect.signature(value)
    rows = [f"{each.kind.description}: {each}" for each in told.parameters.values()]
    return [*rows, f"returns {told.return_annotation}"]
