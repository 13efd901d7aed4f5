"""What is wrong costs what is wrong: each failure is told by name, the rest is installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from preheat.edges.platform import inventory
from preheat.words.platform import RecordState
from tests.support.index import Index, offering
from tests.support.platforms import Platform, fake_torch, make_platform, tree_digest
from tests.support.starts import Ground, descendants, finished, package
from tests.support.wheels import (
    Project,
    corrupt,
    damage,
    escaping_wheel,
    incomplete_wheel,
    tiny_setuptools,
    tinybackend,
)


def module(name: str, source: str = "VALUE = 1\n", **more: object) -> Project:
    """A project of one module."""
    text = f"{name.replace('-', '_')}.py"
    return Project(name=name, version="1.0", files={text: source}, **more)  # type: ignore[arg-type]


GOOD = module("good")
LAST = module("last")
RAISES = module("raises", "raise RuntimeError('the library is of another world')\n")
EXITS = module("exits", "import sys\nsys.exit(3)\n")
HANGS = module("hangs", "import time\ntime.sleep(3600)\n")
SEGFAULTS = module("segfaults", "import ctypes\nctypes.string_at(0)\n")
KILLED = module("killed", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
MUTE = module("mute")
MODULAR = Project(
    name="modular",
    version="1.0",
    files={"modular.py": "", "modular_check.py": "raise SystemExit('the model is missing')\n"},
)
CHECKED = Project(
    name="checked",
    version="1.0",
    files={"checked.py": "", "checked_check.py": "import checked\nassert __name__ == '__main__'\n"},
)
# Fails only when the wheel itself is built: its metadata can be had.
UNBUILDABLE_WHEEL = (
    "import inspect\n"
    "if any(frame.function == 'build_wheel' for frame in inspect.stack()):\n"
    "    raise SystemExit('no compiler here')\n"
)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A venv with a torch; no test of this file changes it."""
    return make_platform(tmp_path_factory.mktemp("platform") / "venv", projects=[fake_torch()])


index = offering(GOOD, LAST)


def assert_nothing_left(ground: Ground, layers: int) -> None:
    """Staging and temp are empty, and no more was published than that."""
    assert ground.staged() == []
    assert list(ground.temp.iterdir()) == []
    assert len(ground.layers()) == layers


# -- the manifest ------------------------------------------------------------------------------


def test_an_unknown_key_is_refused_with_file_key_and_what_was_meant(
    ground: Ground, index: Index
) -> None:
    ground.write(package("good", requird=True), index=index)
    answer = ground.warm()
    assert answer.code == 2
    assert answer.document["error"]["code"] == "manifest"
    said = answer.document["error"]["message"]
    assert str(ground.manifest) in said
    assert 'package[0] "good"' in said
    assert "requird" in said
    assert 'did you mean "required"?' in said
    assert not ground.store.exists()


def test_a_wrong_type_is_refused_with_what_was_found_and_what_is_allowed(
    ground: Ground, index: Index
) -> None:
    ground.write(package("good", imports="good"), index=index)
    answer = ground.run("warm")
    assert answer.code == 2
    assert answer.stdout == ""
    assert f"{ground.manifest}: " in answer.stderr
    assert 'package[0] "good": imports: found "good"; allowed: an array of' in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_file_that_is_not_toml_is_refused_with_its_line(ground: Ground) -> None:
    ground.write()
    ground.manifest.write_text("[space]\nkeep-free = \n", encoding="utf-8")
    answer = ground.run("warm")
    assert answer.code == 2
    assert str(ground.manifest) in answer.stderr
    assert "line 2" in answer.stderr


def test_a_manifest_that_is_not_there_is_wrong_usage(ground: Ground) -> None:
    answer = ground.run("warm")
    assert answer.code == 2
    assert str(ground.manifest) in answer.stderr


# -- one start with all that can be wrong with a package ----------------------------------------

SOUND = ("good", "checked", "padded", "last")
WRECKS = (
    "raises",
    "exits",
    "hangs",
    "segfaults",
    "killed",
    "mute",
    "modular",
    "corrupt",
    "damaged",
    "restamped",
    "escapes",
    "incomplete",
    "unbuildable",
    "unbuildable-wheel",
    "nowhere",
    "unsatisfiable",
    "checkout",
    "directory",
)


def restamp(wheel: Path) -> None:
    """Change the time of its first member: size and checksums stay, the hash does not."""
    content = bytearray(wheel.read_bytes())
    content[10] ^= 0xFF
    wheel.write_bytes(content)


SPOILT = {"corrupt": corrupt, "damaged": damage, "restamped": restamp}


class Wrecked:
    """One cold start over everything in WRECKS, between packages that are well."""

    def __init__(self, root: Path, platform: Platform) -> None:
        self.ground = Ground(root=root / "ground", python=platform.python)
        self.escaped = root / "evil.txt"
        self.source = root / "source"
        self.source.mkdir()
        with Index(root / "index") as index:
            self._offer(index, root)
            self.before = tree_digest(platform.site)
            self.ground.write(*self._packages(), index=index, import_timeout=10, index_timeout=5)
            self.answer = self.ground.warm("-v")
            self.after = tree_digest(platform.site)
            self.escapes = index.requests_for("escapes")
            self.again = self.ground.warm("--cold")

    def _offer(self, index: Index, root: Path) -> None:
        index.publish(GOOD, LAST, RAISES, EXITS, HANGS, SEGFAULTS, KILLED, MUTE, MODULAR, CHECKED)
        index.publish(tinybackend(), tiny_setuptools())
        for name, spoil in SPOILT.items():
            (wheel,) = index.publish(module(name, "VALUE = 1\n" * 2000))
            spoil(wheel)
        shelf = root / "index"
        index.add(escaping_wheel(module("escapes"), shelf, f"../../../../..{self.escaped}"))
        incomplete = module("incomplete", "import incomplete_lost\n")
        index.add(incomplete_wheel(incomplete, shelf, ["incomplete_lost.py"]))
        index.add(incomplete_wheel(module("padded"), shelf, ["padded_lost.txt"]))
        index.publish_sdist(module("unbuildable"), "raise SystemExit('no compiler here')\n")
        index.publish_sdist(module("unbuildable-wheel"), UNBUILDABLE_WHEEL)

    def _packages(self) -> list[dict[str, object]]:
        special: dict[str, dict[str, object]] = {
            "hangs": {"import-timeout": 1},
            "mute": {"check": "import mute\nassert mute.VALUE == 2, 'it says nothing'"},
            "modular": {"check": "modular_check"},
            "unsatisfiable": {"requires": ["good>=99"], "imports": ["good"]},
            "checkout": {"requires": ["checkout @ git+https://127.0.0.1:1/u/checkout@v1"]},
            "directory": {"requires": [f"directory @ {self.source.as_uri()}"]},
        }
        wrecks = [package(name) | special.get(name, {}) for name in WRECKS]
        sound = package("checked", check="checked_check"), package("padded")
        return [package("good", required=True), *wrecks, *sound, package("last")]


@pytest.fixture(scope="module")
def wrecked(tmp_path_factory: pytest.TempPathFactory, platform: Platform) -> Wrecked:
    """The start; it costs seconds, so that all look at one."""
    return Wrecked(tmp_path_factory.mktemp("wrecked"), platform)


def test_what_is_well_is_installed_between_all_that_is_not(wrecked: Wrecked) -> None:
    assert wrecked.answer.code == 0
    assert wrecked.answer.document["ready"] is True
    for name in SOUND:
        assert wrecked.answer.status(name) == "installed"
    assert len(wrecked.answer.document["paths"]) == len(SOUND)


def test_a_start_full_of_failures_leaves_nothing_half_made(wrecked: Wrecked) -> None:
    assert_nothing_left(wrecked.ground, layers=len(SOUND))
    assert wrecked.before == wrecked.after


def test_a_start_full_of_failures_prints_no_traceback_of_its_own(wrecked: Wrecked) -> None:
    assert "Traceback" not in wrecked.answer.stderr


@pytest.mark.parametrize("name", WRECKS)
def test_no_wreck_is_published_or_counted_as_ready(wrecked: Wrecked, name: str) -> None:
    row = wrecked.answer.packages[name]
    assert row["status"] in ("failed", "skipped")
    assert row["reason"]
    assert "\n" not in row["reason"]
    assert len(row["reason"]) < 400


@pytest.mark.parametrize("name", WRECKS)
def test_the_next_start_tries_no_wreck_again(wrecked: Wrecked, name: str) -> None:
    assert wrecked.again.status(name) in ("failed", "skipped")


def test_the_next_start_uses_what_was_kept(wrecked: Wrecked) -> None:
    assert wrecked.again.code == 0
    assert {wrecked.again.status(name) for name in SOUND} == {"reused"}
    assert_nothing_left(wrecked.ground, layers=len(SOUND))


def test_an_import_that_raises_is_told_with_its_exception(wrecked: Wrecked) -> None:
    assert wrecked.answer.status("raises") == "failed"
    assert wrecked.answer.reason("raises") == (
        "import raises failed: RuntimeError: the library is of another world"
    )
    assert "Traceback" in wrecked.answer.packages["raises"]["trace"]


def test_an_import_that_exits_is_a_failure_of_that_import(wrecked: Wrecked) -> None:
    assert wrecked.answer.reason("exits") == "import exits failed: SystemExit: 3"


def test_an_import_that_never_returns_is_ended_in_time(wrecked: Wrecked) -> None:
    assert wrecked.answer.status("hangs") == "failed"
    assert wrecked.answer.reason("hangs") == "import hangs did not return within 1 s"


@pytest.mark.parametrize("name", ["segfaults", "killed"])
def test_an_import_that_kills_the_interpreter_is_told_with_the_signal(
    wrecked: Wrecked, name: str
) -> None:
    assert wrecked.answer.status(name) == "failed"
    assert wrecked.answer.reason(name) == f"import {name} ended the interpreter (SIGSEGV)"


def test_a_check_that_fails_is_told_with_its_exception(wrecked: Wrecked) -> None:
    assert wrecked.answer.reason("mute") == "check failed: AssertionError: it says nothing"


def test_a_check_may_be_a_module_that_is_run(wrecked: Wrecked) -> None:
    assert wrecked.answer.reason("modular") == "check failed: SystemExit: the model is missing"
    assert wrecked.answer.status("checked") == "installed"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("corrupt", "Size mismatch"),
        ("damaged", "Bad CRC"),
        ("restamped", "Hash mismatch"),
    ],
)
def test_a_wheel_that_is_not_the_one_that_was_published_is_refused(
    wrecked: Wrecked, name: str, words: str
) -> None:
    assert wrecked.answer.status(name) == "failed"
    assert f"`{name}==1.0`" in wrecked.answer.reason(name)
    assert words in wrecked.answer.reason(name)


def test_a_wheel_with_a_path_that_escapes_is_refused_before_it_is_fetched(
    wrecked: Wrecked,
) -> None:
    assert wrecked.answer.status("escapes") == "skipped"
    assert "escapes-1.0-py3-none-any.whl holds a path that leads out of it" in (
        wrecked.answer.reason("escapes")
    )
    assert wrecked.escapes
    assert all(request.range for request in wrecked.escapes)  # its directory, and no more
    assert not wrecked.escaped.exists()


def test_a_wheel_that_lacks_a_file_of_its_record_fails_where_it_needs_the_file(
    wrecked: Wrecked,
) -> None:
    assert wrecked.answer.status("incomplete") == "failed"
    assert wrecked.answer.reason("incomplete") == (
        "import incomplete failed: ModuleNotFoundError: No module named 'incomplete_lost'"
    )


def test_a_wheel_that_lacks_a_file_that_nobody_needs_lies_in_its_layer_as_whole(
    wrecked: Wrecked,
) -> None:
    layer = Path(wrecked.answer.packages["padded"]["layer"])
    (found,) = inventory.read([str(layer)])
    assert (found.name, found.state) == ("padded", RecordState.WHOLE)


@pytest.mark.parametrize("name", ["unbuildable", "unbuildable-wheel"])
def test_a_source_distribution_that_does_not_build_is_told_by_name(
    wrecked: Wrecked, name: str
) -> None:
    row = wrecked.answer.packages[name]
    assert f"{name}==1.0" in row["reason"]
    assert "build" in row["reason"]
    assert "no compiler here" in row["reason"] + row["trace"]


def test_a_package_that_does_not_exist_is_told_by_name(wrecked: Wrecked) -> None:
    assert wrecked.answer.reason("nowhere") == "nowhere is not on the configured index"


def test_versions_that_do_not_exist_are_told_with_the_bound(wrecked: Wrecked) -> None:
    assert "good" in wrecked.answer.reason("unsatisfiable")
    assert ">=99" in wrecked.answer.reason("unsatisfiable")


def test_a_checkout_is_refused_by_name(wrecked: Wrecked) -> None:
    reason = wrecked.answer.reason("checkout")
    assert reason.startswith("checkout is required from a checkout (git+https://127.0.0.1:1/u/")
    assert "wheel" in reason


def test_a_directory_is_refused_by_name(wrecked: Wrecked) -> None:
    reason = wrecked.answer.reason("directory")
    assert reason.startswith(f"directory is required from a directory ({wrecked.source})")


# -- what a required package costs ---------------------------------------------------------------


def test_a_required_package_that_fails_ends_the_start_with_3_and_the_others_stay(
    ground: Ground, index: Index
) -> None:
    index.publish(RAISES)
    ground.write(package("raises", required=True), package("good"), index=index)
    answer = ground.warm()
    assert answer.code == 3
    assert answer.document["ready"] is False
    assert answer.status("good") == "installed"
    assert_nothing_left(ground, layers=1)


# -- the index -----------------------------------------------------------------------------------


def test_an_index_that_answers_500_for_everything_is_told_and_nothing_is_left(
    ground: Ground, index: Index
) -> None:
    index.fail("*", 500)
    ground.write(package("good", required=True), package("last"), index=index, index_timeout=1)
    answer = ground.warm()
    assert answer.code == 3
    assert "index" in answer.reason("good")
    assert {answer.status("good"), answer.status("last")} == {"skipped"}
    assert_nothing_left(ground, layers=0)
    index.heal()
    healed = ground.warm()  # not by the pointer: that start knew nothing
    assert healed.code == 0
    assert healed.status("good") == "installed"


def test_an_index_that_hangs_is_given_up_in_bounded_time(ground: Ground, index: Index) -> None:
    index.hang("*")
    ground.write(package("good"), package("last"), index=index, index_timeout=1)
    begin = time.monotonic()
    answer = ground.warm()
    assert time.monotonic() - begin < 40
    assert answer.code == 0
    assert "index" in answer.reason("good")
    assert_nothing_left(ground, layers=0)


def test_an_index_that_hangs_on_one_file_costs_that_package(ground: Ground, index: Index) -> None:
    index.hang("/files/good-*.whl")
    ground.write(package("good"), package("last"), index=index, index_timeout=1)
    begin = time.monotonic()
    answer = ground.warm()
    assert time.monotonic() - begin < 60
    assert answer.status("last") == "installed"
    assert answer.status("good") in ("failed", "skipped")
    assert_nothing_left(ground, layers=1)


def test_an_index_that_answers_500_for_one_file_costs_that_package(
    ground: Ground, index: Index
) -> None:
    index.fail("/files/good-1.0-py3-none-any.whl", 500)
    ground.write(package("good"), package("last"), index=index, index_timeout=1)
    answer = ground.warm()
    assert answer.status("last") == "installed"
    assert answer.status("good") == "failed"
    assert "good" in answer.reason("good")
    assert "500" in answer.reason("good")
    assert_nothing_left(ground, layers=1)


def test_an_index_that_answers_500_for_one_project_costs_those_who_need_it(
    ground: Ground, index: Index
) -> None:
    index.fail("/simple/good/", 500)
    ground.write(package("good"), package("last"), index=index, index_timeout=1)
    answer = ground.warm()
    assert answer.status("last") == "installed"
    assert answer.status("good") == "skipped"
    assert "does not answer" in answer.reason("good")
    index.heal()
    assert ground.warm().status("good") == "installed"  # not remembered against it


def test_a_failed_build_is_remembered_and_not_tried_at_the_next_cold_start(
    ground: Ground, index: Index
) -> None:
    index.publish(tinybackend(), tiny_setuptools())
    index.publish_sdist(module("unbuildable"), UNBUILDABLE_WHEEL)
    ground.write(package("unbuildable"), package("last"), index=index)
    assert ground.warm().status("unbuildable") == "failed"
    again = ground.warm("--cold")
    assert again.status("unbuildable") == "skipped"
    assert "failed before" in again.reason("unbuildable")
    assert ground.warm("--retry").status("unbuildable") == "failed"


def test_when_the_index_is_gone_the_last_good_layers_serve(ground: Ground, index: Index) -> None:
    ground.write(package("good", required=True), index=index, index_timeout=1)
    assert ground.warm().code == 0
    index.fail("*", 503)
    ground.write(package("good", required=True), package("last"), index=index, index_timeout=1)
    answer = ground.warm()
    assert answer.code == 0
    assert answer.status("good") == "reused"
    assert "cannot be reached" in answer.reason("last")


# -- the platform --------------------------------------------------------------------------------


def test_a_package_that_writes_to_the_platform_ends_the_start_and_is_not_published(
    tmp_path: Path, index: Index
) -> None:
    own = make_platform(tmp_path / "venv", projects=[fake_torch()])
    ground = Ground(root=tmp_path / "ground", python=own.python)
    intruder = own.site / "intruder.txt"
    index.publish(module("writes", f"open({str(intruder)!r}, 'w').close()\n"))
    ground.write(package("good"), package("writes"), package("last"), index=index)
    answer = ground.warm()
    assert answer.code == 5
    error = answer.document["error"]
    assert error["code"] == "platform-changed"
    assert str(intruder) in error["message"]
    # What was proved before the file was there may have been published.
    assert_nothing_left(
        ground, layers=sum((layer / "good.py").exists() for layer in ground.layers())
    )
    assert list((ground.store / "starts").iterdir()) == []


def old_python(directory: Path) -> Path:
    """What answers as Python 3.8 does."""
    script = directory / "python3.8"
    text = (
        f"#!{sys.executable}\n"
        "import collections, sys\n"
        "Version = collections.namedtuple('V', 'major minor micro releaselevel serial')\n"
        "sys.version_info = Version(3, 8, 19, 'final', 0)\n"
        "exec(sys.argv[sys.argv.index('-c') + 1])\n"
    )
    script.write_text(text, encoding="utf-8")
    script.chmod(0o755)
    return script


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda directory: directory / "absent", "cannot be run"),
        (lambda directory: Path("/bin/false"), "did not answer (exit 1)"),
        (lambda directory: Path("/bin/echo"), "did not answer (exit 0)"),
        (lambda directory: directory, "cannot be run"),
        (old_python, "is Python 3.8.19; preheat needs 3.10 or newer"),
    ],
    ids=["absent", "false", "echo", "directory", "3.8"],
)
def test_an_interpreter_that_is_none_is_refused_with_5(
    tmp_path: Path, index: Index, make: Callable[[Path], Path], words: str
) -> None:
    ground = Ground(root=tmp_path / "ground", python=make(tmp_path))
    ground.write(package("good"), index=index)
    answer = ground.warm()
    assert answer.code == 5
    assert answer.document["error"]["code"] == "platform"
    assert words in answer.document["error"]["message"]
    assert str(ground.python) in answer.document["error"]["message"]
    assert_nothing_left(ground, layers=0)


# -- the store -----------------------------------------------------------------------------------


def test_a_store_that_is_a_file_is_refused_with_4(ground: Ground, index: Index) -> None:
    ground.write(package("good"), index=index)
    ground.store.write_text("not a directory", encoding="utf-8")
    answer = ground.warm()
    assert answer.code == 4
    assert answer.document["error"]["code"] == "store"
    assert str(ground.store) in answer.document["error"]["message"]
    assert answer.document["error"]["hint"]
    assert index.requests == ()


@pytest.mark.root
def test_a_store_on_a_read_only_filesystem_is_refused_with_4(ground: Ground, index: Index) -> None:
    ground.write(package("good"), index=index)
    ground.store.mkdir()
    mount = f'mount -t tmpfs -o ro none {ground.store} || exit 77; exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh", *ground.command("warm", "--json")]
    answer = finished(command, ground.surroundings())
    if answer.code in (1, 77) and "mount" in answer.stderr + answer.stdout:
        pytest.skip(f"nothing can be mounted here: {answer.stderr.strip()}")
    assert answer.code == 4
    assert "Read-only file system" in answer.document["error"]["message"]
    assert str(ground.store) in answer.document["error"]["message"]
    assert index.requests == ()


# -- the lock ------------------------------------------------------------------------------------


@pytest.fixture
def locked(ground: Ground, index: Index) -> Ground:
    """A ground with a lock beside the manifest."""
    ground.write(package("good"), index=index)
    answer = ground.run("lock", "--json")
    assert answer.code == 0, answer.stderr
    assert [each["name"] for each in answer.document["distributions"]] == ["good"]
    return ground


def test_a_lock_for_this_manifest_and_platform_is_used(locked: Ground, index: Index) -> None:
    index.publish(Project(name="good", version="2.0", files={"good.py": ""}))
    answer = locked.warm("--locked")
    assert answer.code == 0
    assert answer.packages["good"]["version"] == "1.0"


def test_a_lock_for_another_manifest_is_refused_with_6(locked: Ground, index: Index) -> None:
    locked.write(package("good"), package("last"), index=index)
    answer = locked.warm("--locked")
    assert answer.code == 6
    assert "made for another manifest" in answer.document["error"]["message"]
    assert_nothing_left(locked, layers=0)


def test_a_lock_for_another_platform_is_refused_with_6(locked: Ground, tmp_path: Path) -> None:
    other = make_platform(tmp_path / "other", projects=[fake_torch("2.14.0+cpu")])
    moved = Ground(root=locked.root, python=other.python)
    answer = moved.warm("--locked")
    assert answer.code == 6
    assert "made for another platform" in answer.document["error"]["message"]
    assert_nothing_left(moved, layers=0)


def test_a_lock_that_is_not_there_is_told_with_how_to_make_it(ground: Ground, index: Index) -> None:
    ground.write(package("good"), index=index)
    answer = ground.warm("--locked")
    assert answer.code == 6
    assert "preheat lock" in answer.document["error"]["hint"]


@pytest.mark.parametrize("text", ["", "not toml at all [", 'lock-version = "9.0"\n'])
def test_a_lock_that_is_damaged_is_refused_with_6(locked: Ground, text: str) -> None:
    (locked.root / "pylock.preheat.toml").write_text(text, encoding="utf-8")
    answer = locked.warm("--locked")
    assert answer.code == 6
    assert "pylock.preheat.toml" in answer.document["error"]["message"]


# -- secrets -------------------------------------------------------------------------------------

SECRET = "s3cr3t-of-the-index"  # noqa: S105  # only this test's index asks for it


@pytest.mark.parametrize("where", ["manifest", "environment"])
def test_credentials_of_an_index_are_written_and_said_nowhere(
    tmp_path: Path, platform: Platform, where: str
) -> None:
    with Index(tmp_path / "index", user="team", password=SECRET) as index:
        index.publish(GOOD, LAST)
        index.fail("/files/last-1.0-py3-none-any.whl", 404)
        url = index.url_with_credentials
        stated = {} if where == "manifest" else {"PREHEAT_INDEX_URL": url}
        ground = Ground(root=tmp_path / "ground", python=platform.python, environment=stated)
        packages = package("good", required=True), package("last"), package("nowhere")
        named = {"index": {"url": url}} if where == "manifest" else {}
        ground.write(*packages, index_timeout=1, **named)
        said = [
            ground.run("plan", "-v"),
            ground.warm("-v"),
            ground.run("warm", "-v", "--retry"),
            ground.run("lock", "--json"),
            ground.run("status", "--json"),
            ground.run("report", "-v"),
            ground.run("report", "--history"),
        ]
    assert said[1].code == 0
    assert said[1].status("good") == "installed"
    for answer in said:
        assert SECRET not in answer.stdout
        assert SECRET not in answer.stderr
    files = [file for file in ground.root.rglob("*") if file.is_file() and file != ground.manifest]
    assert files
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []


def test_credentials_of_an_index_are_in_no_command_line(tmp_path: Path, platform: Platform) -> None:
    """Every user of the machine can read them there."""
    with Index(tmp_path / "index", user="team", password=SECRET) as index:
        index.publish(GOOD, LAST)
        index.slow("/files/last-1.0-py3-none-any.whl", 400)
        ground = Ground(root=tmp_path / "ground", python=platform.python, environment={})
        stated = {"url": index.url_with_credentials, "extra": [index.url_with_credentials]}
        ground.write(package("good", required=True), package("last"), index=stated)
        process = ground.spawn("warm", "--json")
        seen: set[str] = set()
        while process.poll() is None:
            for child in (process.pid, *descendants(process.pid)):
                with contextlib.suppress(OSError):
                    seen.add(Path(f"/proc/{child}/cmdline").read_text(errors="replace"))
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 0, said
    assert any("uv" in line.partition("\0")[0] for line in seen)
    assert [line for line in seen if SECRET in line] == []


def test_an_engine_without_its_binary_is_the_engines_fault(
    ground: Ground, index: Index, tmp_path: Path
) -> None:
    """As where site-packages was copied and bin was not; no other uv is on PATH."""
    ground.write(package("good", required=True), index=index)
    shim = tmp_path / "shim"
    (shim / "uv").mkdir(parents=True)
    (shim / "uv" / "__init__.py").write_text(
        "def find_uv_bin():\n    raise FileNotFoundError('/nowhere/bin/uv')\n"
    )
    bare = {**ground.environment, "PYTHONPATH": str(shim), "PATH": "/usr/bin:/bin"}
    answer = replace(ground, environment=bare).warm()
    assert answer.code == 7, answer.stderr
    assert "pip install --force-reinstall uv" in answer.stderr


# -- interrupted ---------------------------------------------------------------------------------


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until it happened, while the process lives."""
    limit = time.monotonic() + 30
    while not happened():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_start_that_is_killed_half_way_is_followed_by_a_whole_one(
    ground: Ground, index: Index, how: signal.Signals
) -> None:
    big = Project(name="big", version="1.0", files={"big.py": "", "big.bin": os.urandom(400_000)})
    index.publish(big)
    index.slow("/files/big-1.0-py3-none-any.whl", 150_000)
    ground.write(package("good"), package("big"), index=index, index_timeout=20)
    process = ground.spawn("warm", "--json")

    def half_fetched() -> bool:
        return any(r.range is None and r.bytes_sent > 0 for r in index.requests_for("big"))

    wait_for(half_fetched, process)
    children = descendants(process.pid)
    process.send_signal(how)
    said = process.communicate(timeout=30)[1]
    if how is signal.SIGKILL:
        # As when a container is killed: its children die with it.
        for child in children:
            # Some see that their parent is gone before we get to them.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    limit = time.monotonic() + 10
    while left := [child for child in children if Path(f"/proc/{child}/exe").exists()]:
        assert time.monotonic() < limit, left
        time.sleep(0.02)
    assert process.returncode == (-signal.SIGKILL if how is signal.SIGKILL else 130), said
    assert [layer for layer in ground.layers() if (layer / "big.py").exists()] == []
    if how is not signal.SIGKILL:
        assert ground.staged() == []
    index.heal()
    again = ground.warm()
    assert again.code == 0
    assert again.status("big") == "installed"
    assert again.status("good") in ("reused", "installed")
    assert again.packages["big"]["fetched"] == again.packages["big"]["download"] > 0
    good = again.packages["good"]
    # What came before is not fetched again, be it a layer or the engine's cache that has it.
    assert good["fetched"] == 0 or how is not signal.SIGKILL
    assert_nothing_left(ground, layers=2)


def test_a_layer_is_never_taken_from_what_a_killed_start_left_in_staging(
    ground: Ground, index: Index
) -> None:
    ground.write(package("good"), index=index)
    assert ground.warm().code == 0
    (layer,) = ground.layers()
    left = ground.store / "staging" / "0123456789ab-01234567-1-1"
    (left / "layer").mkdir(parents=True)
    (left / "owner").touch()
    (left / "layer" / "good.py").write_text("raise SystemError('half-made')\n", encoding="utf-8")
    shutil.rmtree(layer)
    answer = ground.warm()
    assert answer.status("good") == "installed"
    assert (ground.layers()[0] / "good.py").read_text(encoding="utf-8") == "VALUE = 1\n"
    assert_nothing_left(ground, layers=1)
