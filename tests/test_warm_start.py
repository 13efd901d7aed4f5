"""The second start: what makes it cold, what must not, and what it may cost."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from preheat import pointer
from tests.support.index import Index, offering
from tests.support.platforms import Platform
from tests.support.starts import GOOD, Answer, package
from tests.support.wheels import Project, install_tree
from tests.support.workers import Worker, distributions_in, make_host
from tests.test_floors import WARM_STANDARD_LIBRARY, is_ours
from tests.test_import_budget import HEAVY

Change = Callable[[Worker], AbstractContextManager[None]]

WATCHED = (
    *("subprocess.Popen", "os.posix_spawn", "os.exec", "os.fork", "os.system", "os.spawn"),
    *("socket.__new__", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname"),
)


def module(
    name: str, text: str = "", version: str = "1", requires: tuple[str, ...] = ()
) -> Project:
    """A release with one module."""
    return Project(name=name, version=version, files={f"{name}.py": text}, requires=requires)


PROJECTS = (
    module("dep", "VERSION = 1\n"),
    module("app", "import dep\nVERSION = 'layer'\n", requires=("dep",)),
    module("failing", "raise RuntimeError('cannot work here')\n"),
    module("newcomer"),
)
PACKAGES = (package("app"), package("failing"), package("steady"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    return make_host(tmp_path_factory.mktemp("image"), [module("steady"), module("spare")])


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory, index: Index, image: Platform) -> Worker:
    """A worker that was started once; tests leave it as they found it."""
    worker = Worker(place=tmp_path_factory.mktemp("worker"), platform=image, index=index)
    worker.write(PACKAGES, capabilities={"work": ["failing", "app"]})
    first = worker.warm_inside()
    assert (first.code, first.document["warm"]) == (0, False), first.stderr
    assert set(first.bad) == {"failing"}
    return worker


own_index = offering(*PROJECTS)


@pytest.fixture
def own(tmp_path: Path, own_index: Index, image: Platform) -> Worker:
    """A worker over an index of its own, with nothing in its store."""
    return Worker(place=tmp_path / "worker", platform=image, index=own_index)


def next_is_warm(worker: Worker, *arguments: str, **environment: str) -> bool:
    """Whether the next start would be, as `preheat status` says."""
    said = worker.preheat(worker.platform.python, "status", *arguments, **environment)
    return bool(said.document["warm"])


def pointer_file(worker: Worker) -> Path:
    """The one pointer in the store."""
    (file,) = (file for file in (worker.store / "starts").iterdir() if file.suffix != ".json")
    return file


# -- what a warm start costs -----------------------------------------------------------------


def test_the_second_start_is_warm_and_says_the_same(settled: Worker) -> None:
    again = settled.warm_inside()
    assert (again.code, again.document["warm"], again.document["ready"]) == (0, True, True)
    assert again.status("app") == "reused"
    assert again.status("steady") == "platform"
    assert "cannot work here" in again.reason("failing")
    assert again.document["capabilities"] == {"work": "app"}
    assert distributions_in(again.layer("app")) == {"app-1", "dep-1"}


def test_the_document_of_a_warm_start_has_every_promised_key(settled: Worker) -> None:
    report = settled.warm_inside().document
    promised = {"schema", "ready", "warm", "seconds", "packages", "capabilities", "paths"}
    assert promised | {"volumes"} <= report.keys()
    row = {"name", "status", "version", "reason", "layer", "bytes_predicted", "bytes_actual"}
    assert all(row <= package.keys() for package in report["packages"])
    assert all({"before", "after"} <= volume.keys() for volume in report["volumes"])


def test_a_warm_start_starts_no_process_and_asks_no_network(settled: Worker, index: Index) -> None:
    index.forget_requests()
    code = (
        "import sys\n"
        "seen = []\n"
        f"watched = {WATCHED!r}\n"
        "sys.addaudithook(lambda event, _: seen.append(event) if event in watched else None)\n"
        "import preheat\n"
        "ready = preheat.warm(sys.argv[1], store=sys.argv[2])\n"
        "import app\n"
        "print(ready.warm, app.VERSION, seen)\n"
    )
    said = settled.python(code, str(settled.manifest), str(settled.store))
    assert said == "True layer []"
    assert index.requests == ()


def test_the_watch_over_processes_and_network_would_see_a_cold_start(settled: Worker) -> None:
    code = (
        "import sys\n"
        "seen = set()\n"
        "sys.addaudithook(lambda event, _: seen.add(event))\n"
        "import preheat\n"
        "preheat.warm(sys.argv[1], store=sys.argv[2], retry=True)\n"
        "print('subprocess.Popen' in seen)\n"
    )
    assert settled.python(code, str(settled.manifest), str(settled.store)) == "True"


def test_the_command_starts_no_process_and_asks_no_network_when_warm(
    settled: Worker, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"watched = {WATCHED!r}\n"
        "def look(event, arguments):\n"
        "    if event in watched:\n"
        "        with open(os.environ['SEEN'], 'a') as file:\n"
        "            file.write(f'{event} {arguments}\\n')\n"
        "open(os.environ['SEEN'], 'a').close()\n"
        "sys.addaudithook(look)\n"
    )
    seen = tmp_path / "seen"
    again = settled.warm_inside(PYTHONPATH=str(tmp_path), SEEN=str(seen))
    assert again.document["warm"]
    assert seen.read_text() == ""


def test_a_warm_start_imports_nothing_heavy(settled: Worker) -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import preheat\n"
        "ready = preheat.warm(sys.argv[1], store=sys.argv[2])\n"
        "added = sorted(set(sys.modules) - before)\n"
        "import json\n"
        "print(json.dumps([ready.warm, added]))\n"
    )
    said = settled.python(code, str(settled.manifest), str(settled.store))
    is_warm, added = json.loads(said)
    assert is_warm
    # The lease of a start is locked too.
    assert {name for name in added if not is_ours(name)} <= WARM_STANDARD_LIBRARY
    assert not set(added) & HEAVY


def test_every_start_adds_one_line_to_the_history(settled: Worker) -> None:
    history = settled.store / "history.jsonl"
    before = history.read_text().splitlines()
    assert settled.warm_inside().document["warm"]
    assert settled.inside("print(ready.warm)").stdout.strip() == "True"
    lines = [json.loads(line) for line in history.read_text().splitlines()[len(before) :]]
    assert [(line["warm"], line["ready"]) for line in lines] == [(True, True)] * 2
    assert lines[0]["packages"]["app"] in GOOD


def test_a_start_that_was_made_from_outside_is_followed_inside(own: Worker) -> None:
    own.write(PACKAGES)
    assert not own.warm().document["warm"]
    assert own.warm_inside().document["warm"]


# -- what makes the next start cold ----------------------------------------------------------


@contextmanager
def manifest_byte(worker: Worker) -> Iterator[None]:
    text = worker.manifest.read_bytes()
    worker.manifest.write_bytes(text + b"\n")
    try:
        yield
    finally:
        worker.manifest.write_bytes(text)


@contextmanager
def layer_removed(worker: Worker) -> Iterator[None]:
    (layer,) = (worker.store / "layers").iterdir()
    aside = layer.rename(worker.store / "aside")
    try:
        yield
    finally:
        aside.rename(layer)


@contextmanager
def added_to_site(worker: Worker, name: str) -> Iterator[None]:
    """A directory of that name in the platform's site directory."""
    place = worker.platform.site / name
    place.mkdir()
    try:
        yield
    finally:
        place.rmdir()


@contextmanager
def distribution_added(worker: Worker) -> Iterator[None]:
    info = install_tree(module("late"), worker.platform.site)
    try:
        yield
    finally:
        shutil.rmtree(info)
        (worker.platform.site / "late.py").unlink()


@contextmanager
def renamed(worker: Worker, old: str, new: str) -> Iterator[None]:
    """A name in the platform's site directory changed."""
    site = worker.platform.site
    (site / old).rename(site / new)
    try:
        yield
    finally:
        (site / new).rename(site / old)


def distribution_upgraded(worker: Worker) -> AbstractContextManager[None]:
    return renamed(worker, "spare-1.dist-info", "spare-2.dist-info")


def distribution_removed(worker: Worker) -> AbstractContextManager[None]:
    return renamed(worker, "spare-1.dist-info", "spare-was-here")


def leftover_appeared(worker: Worker) -> AbstractContextManager[None]:
    return added_to_site(worker, "~pare")


@contextmanager
def path_file_added(worker: Worker) -> Iterator[None]:
    file = worker.platform.site / "late.pth"
    file.write_text("")
    try:
        yield
    finally:
        file.unlink()


@contextmanager
def pointer_replaced(worker: Worker, change: Callable[[bytes], bytes]) -> Iterator[None]:
    file = pointer_file(worker)
    data = file.read_bytes()
    file.write_bytes(change(data))
    try:
        yield
    finally:
        file.write_bytes(data)


@pytest.mark.parametrize(
    "change",
    [
        manifest_byte,
        layer_removed,
        distribution_added,
        distribution_upgraded,
        distribution_removed,
        leftover_appeared,
        path_file_added,
    ],
)
def test_the_next_start_is_cold_after(settled: Worker, change: Change) -> None:
    with change(settled):
        assert not next_is_warm(settled)
    assert next_is_warm(settled)


@pytest.mark.parametrize("length", [0, 3, 4, 60, -1])
def test_a_truncated_pointer_makes_the_next_start_cold(settled: Worker, length: int) -> None:
    with pointer_replaced(settled, lambda data: data[:length]):
        assert not next_is_warm(settled)


def test_a_flipped_byte_anywhere_in_the_pointer_makes_the_next_start_cold(
    settled: Worker,
) -> None:
    """One process asks for each byte: following a pointer must never raise, whatever it holds."""
    code = (
        "import sys\n"
        "from preheat import pointer\n"
        "manifest, store, file = sys.argv[1:]\n"
        "data = open(file, 'rb').read()\n"
        "followed = []\n"
        "for where in range(len(data)):\n"
        "    with open(file, 'wb') as out:\n"
        "        out.write(data[:where] + bytes([data[where] ^ 0xFF]) + data[where + 1:])\n"
        "    if not pointer.examine(manifest, store)[1]:\n"
        "        followed.append(where)\n"
        "open(file, 'wb').write(data)\n"
        "print(followed, not pointer.examine(manifest, store)[1])\n"
    )
    arguments = (settled.manifest, settled.store, pointer_file(settled))
    assert settled.python(code, *map(str, arguments)) == "[] True"


def test_a_pointer_of_another_format_makes_the_next_start_cold(settled: Worker) -> None:
    facts = pointer.read_pointer(str(pointer_file(settled)))
    assert facts is not None
    other = pointer.pack_pointer({**facts, "format": facts["format"] - 1})
    with pointer_replaced(settled, lambda _: other):
        assert not next_is_warm(settled)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PREHEAT_COMPILE", "none"), ("PREHEAT_KEEP_FREE", "1MB"), ("PREHEAT_OFFLINE", "1")],
)
def test_a_setting_in_the_environment_makes_the_next_start_cold(
    settled: Worker, variable: str, value: str
) -> None:
    assert not next_is_warm(settled, **{variable: value})


def test_the_pointer_of_one_environment_does_not_serve_another(
    settled: Worker, tmp_path: Path
) -> None:
    other = make_host(tmp_path, [module("steady"), module("spare")])
    beside = Worker(place=settled.place, platform=other, index=settled.index)
    assert not next_is_warm(beside)
    assert next_is_warm(settled)


def test_after_a_damaged_pointer_the_layers_are_reused_and_the_pointer_is_whole_again(
    settled: Worker,
) -> None:
    file = pointer_file(settled)
    file.write_bytes(file.read_bytes()[:-7])
    again = settled.warm_inside()
    assert (again.code, again.document["warm"], again.status("app")) == (0, False, "reused")
    assert next_is_warm(settled)


def test_after_a_layer_was_removed_the_next_start_makes_it_again(own: Worker) -> None:
    own.write(PACKAGES)
    first = own.warm_inside()
    shutil.rmtree(first.layer("app"))
    second = own.warm_inside()
    assert second.status("app") == "installed"
    assert second.layer("app") == first.layer("app")
    assert own.after(second, "import app; print(app.VERSION)") == "layer"


# -- what must not ---------------------------------------------------------------------------


@contextmanager
def bytecode_written(worker: Worker) -> Iterator[None]:
    with added_to_site(worker, "__pycache__"):
        yield


@contextmanager
def site_touched(worker: Worker) -> Iterator[None]:
    os.utime(worker.platform.site)
    yield


@contextmanager
def layer_touched(worker: Worker) -> Iterator[None]:
    (layer,) = (worker.store / "layers").iterdir()
    os.utime(layer)
    yield


@contextmanager
def manifest_touched(worker: Worker) -> Iterator[None]:
    os.utime(worker.manifest)
    yield


@contextmanager
def leases_lost(worker: Worker) -> Iterator[None]:
    shutil.rmtree(worker.store / "leases")
    yield


@pytest.mark.parametrize(
    "change",
    [bytecode_written, site_touched, layer_touched, manifest_touched, leases_lost],
)
def test_the_next_start_stays_warm_after(settled: Worker, change: Change) -> None:
    with change(settled):
        assert next_is_warm(settled)


@pytest.mark.parametrize(
    "environment",
    [{"PREHEAT_LOG": "json"}, {"SOMETHING": "else"}, {"PREHEAT_INTERNAL_X": "1"}],
)
def test_the_next_start_stays_warm_with(settled: Worker, environment: Mapping[str, str]) -> None:
    assert next_is_warm(settled, **environment)


def test_the_pointer_works_from_another_directory_and_for_relative_paths(
    settled: Worker, tmp_path: Path
) -> None:
    python = str(settled.platform.python)
    command = (python, "-m", "preheat", "warm", "--json")
    far = settled.run_at(tmp_path, (*command, *settled.options))
    near = ("--manifest", settled.manifest.name, "--store", settled.store.name)
    here = settled.run_at(settled.place, (*command, *near))
    assert (json.loads(far.stdout)["warm"], json.loads(here.stdout)["warm"]) == (True, True)


def test_the_start_is_warm_where_the_manifest_states_the_store(own: Worker) -> None:
    own.write(PACKAGES, store="kept/here")
    command = (str(own.platform.python), "-m", "preheat", "warm", "--json")
    found = [
        json.loads(own.run_at(place, (*command, "--manifest", str(own.manifest))).stdout)
        for place in (own.place, own.place.parent)
    ]
    assert [report["warm"] for report in found] == [False, True]
    assert {report["store"] for report in found} == {str(own.place / "kept" / "here")}


# -- failures that are remembered ------------------------------------------------------------


def test_a_failed_optional_package_keeps_the_next_start_warm_until_it_is_retried(
    own: Worker, own_index: Index
) -> None:
    own.write([package("failing"), package("app")])
    assert own.warm_inside().status("failing") == "failed"
    own_index.publish(module("failing", "FIXED = True\n", "2"))
    assert own.warm_inside().document["warm"]
    retried = own.warm_inside("--retry")
    assert (retried.document["warm"], retried.status("failing")) == (False, "installed")
    assert retried.package("failing")["version"] == "2"
    assert retried.status("app") == "reused"
    assert own.warm_inside().document["warm"]


def test_a_remembered_failure_is_not_installed_again_by_a_cold_start(
    own: Worker, own_index: Index
) -> None:
    own.write([package("failing"), package("app")])
    assert own.warm_inside().status("failing") == "failed"
    own_index.forget_requests()
    again = own.warm_inside("--cold")
    assert (again.document["warm"], again.status("failing")) == (False, "skipped")
    assert "cannot work here" in again.reason("failing")
    assert own_index.requests == ()


def test_a_failure_whose_memory_has_expired_is_tried_again(own: Worker) -> None:
    own.write([package("failing"), package("app")], retry_after="1s")
    first = own.warm_inside()
    assert first.status("failing") == "failed"
    time.sleep(1.1)
    assert not next_is_warm(own)
    again = own.warm_inside()
    assert (again.status("failing"), again.status("app")) == ("failed", "reused")


def test_a_package_that_cannot_be_resolved_keeps_the_next_start_warm(own: Worker) -> None:
    own.write([package("app"), package("not-on-the-index")])
    assert own.warm_inside().status("not-on-the-index") == "skipped"
    assert own.warm_inside().document["warm"]


# -- without the index -----------------------------------------------------------------------


@pytest.fixture
def served(own: Worker) -> Worker:
    """A worker that was started once, and whose manifest has grown since."""
    own.write([package("app", required=True)])
    assert own.warm_inside().code == 0
    own.write([package("app", required=True), package("newcomer")], index_timeout="1s")
    return own


@pytest.mark.parametrize("fault", ["fail", "hang", "closed"])
def test_while_the_index_is_down_the_last_good_layers_serve(
    served: Worker, own_index: Index, fault: str
) -> None:
    if fault == "fail":
        own_index.fail("*", status=503)
    elif fault == "hang":
        own_index.hang("*")
    else:
        own_index.close()
    started = served.warm_inside()
    assert (started.code, started.document["ready"]) == (0, True), started.stderr
    assert started.status("app") == "reused"
    assert "index" in started.bad["newcomer"]
    assert served.after(started, "import app; print(app.VERSION)") == "layer"


def test_once_the_index_is_back_the_next_start_gets_what_was_missing(
    served: Worker, own_index: Index
) -> None:
    own_index.fail("*", status=503)
    assert set(served.warm_inside().bad) == {"newcomer"}
    own_index.heal()
    again = served.warm_inside()
    assert (again.document["warm"], again.status("newcomer")) == (False, "installed")
    assert served.warm_inside().document["warm"]


def test_a_first_start_while_the_index_is_down_says_so_and_leaves_nothing(
    own: Worker, own_index: Index
) -> None:
    own_index.fail("*", status=503)
    own.write([package("app", required=True), package("steady")])
    started = own.warm_inside()
    assert (started.code, started.document["ready"]) == (3, False)
    assert "index" in started.reason("app")
    assert started.status("steady") == "platform"
    assert own.published() == set()


def test_offline_asks_no_index_and_uses_what_the_store_has(
    served: Worker, own_index: Index
) -> None:
    own_index.forget_requests()
    started = served.warm_inside("--offline")
    assert started.code == 0, started.stderr
    assert started.status("app") == "reused"
    assert "offline" in started.bad["newcomer"]
    assert own_index.requests == ()


def test_offline_with_nothing_in_the_store_is_exit_3_for_what_is_required(
    own: Worker, own_index: Index
) -> None:
    own.write([package("app", required=True), package("newcomer")])
    started = own.warm_inside("--offline")
    assert (started.code, started.document["ready"]) == (3, False)
    assert all("offline" in reason for reason in started.bad.values())
    assert own_index.requests == ()


# -- a resolution that is kept ----------------------------------------------------------------


@pytest.fixture
def shadowing(own: Worker, own_index: Index) -> Worker:
    """A worker whose layers shadow a distribution of the platform."""
    own_index.publish(module("spare", version="2"), module("modern", "", "1", ("spare>=2",)))
    own.write([package("modern"), package("app")])
    started = own.warm_inside()
    assert started.package("modern")["shadows"], started.bad
    return own


def test_what_a_setting_protects_now_is_not_shadowed_by_a_resolution_of_before(
    shadowing: Worker,
) -> None:
    started = shadowing.warm_inside(PREHEAT_PROTECTED="torch spare")
    assert "protected" in started.bad["modern"]
    assert started.status("app") == "reused"


def test_what_is_protected_now_is_not_shadowed_while_the_index_is_down(
    shadowing: Worker, own_index: Index
) -> None:
    own_index.fail("*", status=503)
    started = shadowing.warm_inside(PREHEAT_PROTECTED="torch spare")
    assert set(started.bad) == {"modern", "app"}
    found = shadowing.after(
        started, "from importlib.metadata import version; print(version('spare'))"
    )
    assert found == "1"


def test_only_the_index_that_is_configured_now_is_asked(
    own: Worker, own_index: Index, index: Index
) -> None:
    own.write([package("app")])
    shutil.rmtree(own.warm_inside().layer("app"))
    own_index.forget_requests()
    moved = Worker(place=own.place, platform=own.platform, index=index)
    moved.write([package("app")])
    assert moved.warm_inside().status("app") == "installed"
    assert own_index.requests == ()


# -- deadlines -------------------------------------------------------------------------------


def test_an_optional_package_that_is_not_ready_by_the_deadline_is_skipped_for_that_reason(
    own: Worker,
) -> None:
    own.write([package("newcomer"), package("app", check="import time; time.sleep(60)")])
    started = own.warm_inside("--deadline", "4")
    assert started.document["seconds"] < 20
    assert started.code == 0
    assert started.status("newcomer") == "installed"
    assert started.status("app") == "skipped"
    assert "deadline" in started.reason("app")


def test_what_only_the_deadline_left_out_is_made_ready_by_the_next_start(own: Worker) -> None:
    own.write([package("newcomer"), package("app")])
    assert set(own.warm_inside("--deadline", "0.01").bad) == {"newcomer", "app"}
    again = own.warm_inside()
    assert (again.document["warm"], again.bad) == (False, {})


def test_a_required_package_is_waited_for_past_the_deadline(own: Worker) -> None:
    own.write([package("app", required=True), package("newcomer")])
    started = own.warm_inside("--deadline", "0.01")
    assert (started.code, started.status("app")) == (0, "installed")
    assert started.status("newcomer") == "skipped"
    assert "deadline" in started.reason("newcomer")


def test_a_download_that_the_deadline_ends_leaves_nothing_behind(
    own: Worker, own_index: Index
) -> None:
    blob = os.urandom(400_000)
    own_index.publish(
        Project(name="big", version="1", files={"big/__init__.py": "", "big/blob.bin": blob})
    )
    own_index.slow("/files/big-1-*", bytes_per_second=40_000)
    own.write([package("big")])
    started = own.warm_inside("--deadline", "3")
    assert set(started.bad) == {"big"}
    assert "deadline" in started.reason("big")
    assert list((own.store / "staging").iterdir()) == []
    assert all("big-1" not in distributions_in(layer) for layer in _layers(own))


def _layers(worker: Worker) -> list[Path]:
    return list((worker.store / "layers").iterdir())


def test_results_of_both_paths_agree(settled: Worker) -> None:
    def essence(result: Answer) -> list[tuple[str, bool, str | None]]:
        return [
            (row["name"], row["name"] in result.bad, row["layer"])
            for row in result.document["packages"]
        ]

    long_way, short_way = settled.warm_inside("--cold"), settled.warm_inside()
    assert (long_way.document["warm"], short_way.document["warm"]) == (False, True)
    assert essence(long_way) == essence(short_way)
    assert long_way.document["paths"] == short_way.document["paths"]
