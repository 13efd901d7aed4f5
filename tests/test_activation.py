"""What a process, and its children, see of the layers: real interpreters, real wheels."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.index import Index
from tests.support.platforms import Platform, make_platform, other_pythons
from tests.support.starts import Answer, package
from tests.support.wheels import Project
from tests.support.workers import Worker, make_host


def module(name: str, text: str, version: str = "1", requires: tuple[str, ...] = ()) -> Project:
    """A release with one module."""
    return Project(name=name, version=version, files={f"{name}.py": text}, requires=requires)


SCRIPTED = Project(
    name="scripted",
    version="1",
    files={
        "scripted.py": (
            "import sys\n"
            "class App:\n"
            "    @staticmethod\n"
            "    def run():\n"
            "        return main()\n"
            "def main():\n"
            "    import tool\n"
            "    print(tool.VERSION, *sys.argv[1:])\n"
            "    return 5\n"
        )
    },
    console_scripts={"say": "scripted:main", "say-nested": "scripted:App.run"},
    data_scripts={
        "say-python": "#!python\nimport sys, tool\nprint(tool.VERSION, *sys.argv[1:])\n",
        "say-shell": '#!/bin/sh\necho shell "$@"\n',
    },
)
HOOKED = Project(
    name="hooked",
    version="1",
    files={
        "hooked.py": "",
        "hooked.pth": "hooked_more\nimport hooked_start\n",
        "hooked_start.py": "STARTED = True\n",
        "hooked_more/hooked_inside.py": "",
        "hooked_more/tool.py": "VERSION = 'of the directory that a .pth names'\n",
    },
)
PROJECTS = (
    module("tool", "VERSION = 'layer'\n", "2"),
    module("failing", "raise RuntimeError('cannot work here')\n"),
    module("fussy", "VERSION = 1\n", "1"),
    module("fussy", "VERSION = 2\n", "2"),
    module("follower", "import fussy\nVERSION = fussy.VERSION\n", requires=("fussy",)),
    HOOKED,
    SCRIPTED,
)
PACKAGES = (
    package("tool", requires=["tool>=2"]),
    package("hooked", imports=["hooked", "hooked_inside"]),
    package("scripted"),
    package("failing"),
    package("steady"),
)
CAPABILITIES = {"speech": ["failing", "scripted"], "sight": ["failing"], "base": ["base", "tool"]}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform that hosts preheat, with an older tool than the manifest wants."""
    provided = (
        module("tool", "VERSION = 'platform'\n"),
        module("steady", "VERSION = 'platform'\n"),
        module("base", ""),
    )
    return make_host(tmp_path_factory.mktemp("image"), provided)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, index: Index, image: Platform) -> Worker:
    worker = Worker(place=tmp_path_factory.mktemp("worker"), platform=image, index=index)
    worker.write(PACKAGES, capabilities=CAPABILITIES)
    return worker


@pytest.fixture(scope="module")
def started(worker: Worker) -> Answer:
    started = worker.warm_inside()
    assert started.code == 0, started.stderr
    return started


# -- the path of a process -------------------------------------------------------------------


def test_a_layers_version_wins_over_the_platforms(worker: Worker, started: Answer) -> None:
    assert not started.document["warm"]
    assert worker.inside("import tool; print(tool.VERSION)").stdout.strip() == "layer"


def test_layers_lie_just_before_the_platforms_site_directory(
    worker: Worker, started: Answer
) -> None:
    path = json.loads(worker.inside("import json; print(json.dumps(sys.path))").stdout)
    layers = started.document["paths"]
    where = path.index(str(worker.platform.site))
    between = path[path.index(layers[0]) : where]
    assert [place for place in between if place in layers] == layers
    assert all(place.startswith(layers[0].rpartition("/")[0]) for place in between)
    assert path.index(layers[0]) > path.index(os.path.dirname(os.__file__))


def test_the_paths_of_a_report_work_raw(worker: Worker, started: Answer) -> None:
    raw = os.pathsep.join(started.document["paths"])
    assert worker.python("import tool; print(tool.VERSION)", PYTHONPATH=raw) == "layer"


def test_a_pth_file_of_a_layer_is_processed(worker: Worker, started: Answer) -> None:
    assert started.code == 0
    code = "print('hooked_start' in sys.modules); import hooked_inside"
    assert worker.inside(code).stdout.strip() == "True"
    assert worker.after(started, "import sys; print('hooked_start' in sys.modules)") == "True"


def test_directories_that_a_pth_file_names_follow_their_layer(
    worker: Worker, started: Answer
) -> None:
    layer = str(started.layer("hooked"))
    code = "import json, sys; print(json.dumps(sys.path))"
    for path in (
        json.loads(worker.inside(code).stdout),
        json.loads(worker.after(started, code)),
    ):
        assert path[path.index(layer) + 1] == os.path.join(layer, "hooked_more")


def test_a_package_that_failed_its_check_is_not_on_the_path(
    worker: Worker, started: Answer
) -> None:
    assert started.status("failing") == "failed"
    code = "from importlib.util import find_spec; print(find_spec('failing'))"
    assert worker.inside(code).stdout.strip() == "None"
    assert worker.after(started, code) == "None"


def test_a_module_that_was_imported_before_the_start_is_reported_as_a_conflict(
    worker: Worker, started: Answer
) -> None:
    assert started.code == 0
    code = (
        "import sys, tool, steady, preheat\n"
        "ready = preheat.warm(sys.argv[1], store=sys.argv[2])\n"
        "import tool as again\n"
        "print(ready.conflicts, again.VERSION)\n"
    )
    ended = worker.run_code(code, str(worker.manifest), str(worker.store))
    assert ended.stdout.strip() == "('tool',) platform"
    assert "tool" in ended.stderr
    assert "imported before" in ended.stderr
    assert "steady" not in ended.stderr


def test_a_process_that_imported_nothing_before_has_no_conflicts(
    worker: Worker, started: Answer
) -> None:
    assert started.code == 0
    ended = worker.inside("print(ready.conflicts)")
    assert (ended.stdout.strip(), ended.stderr) == ("()", "")


def test_a_second_call_in_the_same_process_changes_nothing(worker: Worker, started: Answer) -> None:
    assert started.code == 0
    code = (
        "import os\n"
        "before = list(sys.path), os.environ['PYTHONPATH']\n"
        "again = preheat.warm(sys.argv[1], store=sys.argv[2])\n"
        "print(again.warm, (sys.path, os.environ['PYTHONPATH']) == before)\n"
    )
    assert worker.inside(code).stdout.strip() == "True True"


def test_what_was_imported_from_a_layer_is_no_conflict_for_a_second_call(
    worker: Worker, started: Answer
) -> None:
    assert started.code == 0
    code = (
        "import tool\nprint(preheat.warm(sys.argv[1], store=sys.argv[2]).conflicts, tool.VERSION)\n"
    )
    ended = worker.inside(code)
    assert (ended.stdout.strip(), ended.stderr) == ("() layer", "")


@pytest.fixture(scope="module")
def pair(
    worker: Worker, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[Worker, Worker], list[Answer]]:
    """Two manifests over one store that want different versions of the same package."""
    place = tmp_path_factory.mktemp("pair")
    workers = tuple(
        Worker(place=place / name, platform=worker.platform, index=worker.index)
        for name in ("one", "two")
    )
    one, two = workers
    one.write([package("fussy", requires=["fussy<2"]), package("scripted")])
    two.write([package("hooked"), package("fussy", requires=["fussy>=2"])])
    return (one, two), [one.warm_inside(), two.warm_inside()]


@pytest.mark.parametrize("first_in_parent", [False, True])
def test_a_start_for_another_manifest_replaces_the_layers_of_the_first(
    pair: tuple[tuple[Worker, Worker], list[Answer]], first_in_parent: bool
) -> None:
    (one, two), (started, _) = pair
    first = f"preheat.warm({str(one.manifest)!r}, store={str(one.store)!r})\n"
    code = (
        "import preheat, sys\n"
        + ("" if first_in_parent else first)
        + f"ready = preheat.warm({str(two.manifest)!r}, store={str(two.store)!r})\n"
        "import fussy, hooked, subprocess\n"
        "print(fussy.VERSION, ready.conflicts, flush=True)\n"
        "print([p for p in sys.path if 'one' + '/store' in p], flush=True)\n"
        "subprocess.run([sys.executable, '-c', 'import fussy; print(fussy.VERSION)'], check=True)\n"
    )
    bootstrap = str(started.document["bootstrap"]) if first_in_parent else ""
    inherited = {"PYTHONPATH": bootstrap, "PREHEAT_INTERNAL_BOOTSTRAP": bootstrap}
    said = one.python(code, **(inherited if first_in_parent else {}))
    assert said.splitlines() == ["2 ()", "[]", "2"]


def test_a_module_imported_from_a_layer_that_a_second_start_replaces_is_a_conflict(
    pair: tuple[tuple[Worker, Worker], list[Answer]],
) -> None:
    (one, two), _ = pair
    code = f"import fussy; again = preheat.warm({str(two.manifest)!r}, store={str(two.store)!r})\n"
    ended = one.inside(code + "print(again.conflicts)")
    assert ended.stdout.strip() == "('fussy',)"
    assert "fussy" in ended.stderr


# -- children --------------------------------------------------------------------------------


def test_a_child_process_sees_the_layers(worker: Worker, started: Answer) -> None:
    assert started.code == 0
    code = (
        "import subprocess\n"
        "code = 'import tool, hooked_inside; print(tool.VERSION)'\n"
        "subprocess.run([sys.executable, '-c', code], check=True)\n"
    )
    assert worker.inside(code).stdout.strip() == "layer"


def test_a_child_of_a_child_sees_the_layers(worker: Worker, started: Answer) -> None:
    inner = "import tool; print(tool.VERSION)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}], check=True)"
    assert worker.after(started, outer) == "layer"


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_multiprocessing_child_sees_the_layers(
    worker: Worker, started: Answer, tmp_path: Path, method: str
) -> None:
    assert started.code == 0
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "import preheat\n"
        "def look(queue):\n"
        "    import tool, hooked_inside\n"
        "    queue.put(tool.VERSION)\n"
        "if __name__ == '__main__':\n"
        "    preheat.warm(sys.argv[1], store=sys.argv[2])\n"
        "    context = multiprocessing.get_context(sys.argv[3])\n"
        "    queue = context.Queue()\n"
        "    child = context.Process(target=look, args=(queue,))\n"
        "    child.start()\n"
        "    print(queue.get(timeout=30))\n"
        "    child.join()\n"
    )
    command = (worker.platform.python, script, worker.manifest, worker.store, method)
    ended = worker.run([str(word) for word in command])
    assert ended.stdout.strip() == "layer", ended.stderr


def test_a_sitecustomize_further_on_the_path_still_runs(
    worker: Worker, started: Answer, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.CHAINED = True\n")
    path = os.pathsep.join((started.document["bootstrap"], str(tmp_path)))
    code = "import tool, sitecustomize; print(tool.VERSION, CHAINED, sitecustomize.__file__)"
    found = worker.python(code, PYTHONPATH=path).split()
    assert found == ["layer", "True", str(tmp_path / "sitecustomize.py")]


def test_a_sitecustomize_of_the_platform_still_runs(worker: Worker, started: Answer) -> None:
    if worker.python("import sys; print('sitecustomize' in sys.modules)") == "True":
        pytest.skip("this Python has a sitecustomize of its own, as Debian's does")
    file = worker.platform.site / "sitecustomize.py"
    file.write_text("import sys\nsys.chained = True\n")
    try:
        found = worker.after(started, "import sys, tool; print(tool.VERSION, sys.chained)")
        inside = worker.inside(
            "import subprocess\n"
            "code = 'import sys, tool; print(tool.VERSION, sys.chained)'\n"
            "subprocess.run([sys.executable, '-c', code], check=True)\n"
        )
    finally:
        file.unlink()
    assert (found, inside.stdout.strip()) == ("layer True", "layer True")


def test_an_older_pythonpath_is_kept_for_children(
    worker: Worker, started: Answer, tmp_path: Path
) -> None:
    assert started.code == 0
    (tmp_path / "own_module.py").write_text("")
    code = (
        "import subprocess\n"
        "subprocess.run([sys.executable, '-c', 'import own_module, tool; print(tool.VERSION)'])\n"
    )
    found = worker.inside(code, PYTHONPATH=str(tmp_path)).stdout.strip()
    assert found == "layer"


def test_another_environment_of_the_same_python_starts_unaffected(
    worker: Worker, started: Answer, tmp_path: Path
) -> None:
    other = make_platform(tmp_path / "other")
    ended = _look_from(other.python, worker, started)
    assert (ended.stdout.strip(), ended.stderr) == ("False", "")


@pytest.mark.skipif(not other_pythons(), reason="no other Python is here")
def test_another_version_of_python_starts_unaffected(worker: Worker, started: Answer) -> None:
    for python in other_pythons():
        ended = _look_from(python.path, worker, started)
        assert (ended.stdout.strip(), ended.stderr) == ("False", ""), python


def _look_from(python: Path, worker: Worker, started: Answer) -> Answer:
    """Whether an interpreter has any layer on its path, as a child of an activated process."""
    code = (
        "import sys\n"
        f"places = {started.document['paths'] + [started.document['bootstrap']]!r}\n"
        "print(any(place in sys.path for place in places))\n"
    )
    return worker.run((str(python), "-c", code), PYTHONPATH=str(started.document["bootstrap"]))


# -- preheat run -----------------------------------------------------------------------------


def ran(worker: Worker, *command: str, python: str | Path | None = None) -> Answer:
    """What `preheat run -- COMMAND` says and how it ends."""
    host = str(python or worker.platform.python)
    return worker.run((host, "-m", "preheat", "run", *worker.options, "--", *command))


def test_run_starts_a_console_script_of_a_layer_and_ends_as_it_ends(
    worker: Worker, started: Answer
) -> None:
    assert started.code == 0
    ended = ran(worker, "say", "--json", "-x")
    assert (ended.stdout.strip(), ended.code) == ("layer --json -x", 5), ended.stderr


def test_run_starts_a_console_script_that_is_an_attribute_of_a_class(
    worker: Worker, started: Answer
) -> None:
    assert started.code == 0
    ended = ran(worker, "say-nested", "words")
    assert (ended.stdout.strip(), ended.code) == ("layer words", 5), ended.stderr


def test_run_starts_scripts_that_wheels_ship_as_files(worker: Worker, started: Answer) -> None:
    assert started.code == 0
    assert ran(worker, "say-python", "words").stdout.strip() == "layer words"
    assert ran(worker, "say-shell", "words").stdout.strip() == "shell words"


def test_run_starts_scripts_where_the_path_of_the_store_is_longer_than_a_shebang(
    tmp_path: Path, index: Index, image: Platform
) -> None:
    """There installers write `#!/bin/sh` and two lines more in place of one."""
    far = Worker(place=tmp_path / ("far" * 40), platform=image, index=index)
    far.place.mkdir()
    far.write([package("tool", requires=["tool>=2"]), package("scripted")])
    assert far.warm_inside().code == 0
    assert ran(far, "say-python", "words").stdout.strip() == "layer words"
    assert ran(far, "say-shell", "words").stdout.strip() == "shell words"


def test_run_from_outside_of_the_platform_starts_scripts_in_it(
    worker: Worker, started: Answer
) -> None:
    assert started.code == 0
    python = ("--python", str(worker.platform.python))
    command = (sys.executable, "-m", "preheat", "run", *worker.options, *python, "--", "say")
    ended = worker.run(command)
    assert (ended.stdout.strip(), ended.code) == ("layer", 5), ended.stderr


def test_run_says_so_where_the_command_is_another_python(
    worker: Worker, started: Answer, tmp_path: Path
) -> None:
    """It finds none of the packages, and its user would look for the reason for an hour."""
    assert started.code == 0
    image = worker.platform.python
    start = (sys.executable, "-m", "preheat", "run", *worker.options, "--python", str(image), "--")
    # Without the virtual environment that it lies in, which a link from elsewhere leaves.
    bare = tmp_path / "python"
    bare.symlink_to(image)
    for other in (sys.executable, str(bare)):
        said = worker.run((*start, other, "-c", "pass"))
        assert (said.code, f"name {image} in the command" in said.stderr) == (0, True), said.stderr
    # By another name in the same place; and by a shim, of which nobody can tell.
    twin, shim = image.with_name("python3.0"), tmp_path / "python3"
    twin.symlink_to(image.name)
    shim.write_text(f'#!/bin/sh\nexec {image} "$@"\n')
    shim.chmod(0o755)
    try:
        for own in (image, twin, shim):
            said = worker.run((*start, str(own), "-c", "import tool"))
            assert (said.code, "another Python" in said.stderr) == (0, False), said.stderr
    finally:
        twin.unlink()


def test_run_says_when_there_is_no_such_command(worker: Worker, started: Answer) -> None:
    assert started.code == 0
    ended = ran(worker, "no-such-command")
    assert ended.code == 127
    assert "no-such-command" in ended.stderr


def test_run_says_so_too_where_something_on_path_cannot_be_looked_at(
    worker: Worker, started: Answer, tmp_path: Path
) -> None:
    """exec(3) says "permission denied" then; that is for what is there and cannot be run."""
    assert started.code == 0
    (tmp_path / "no-such-command").mkdir()
    (tmp_path / "not-executable").touch()
    far = replace(worker, extra={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"})
    assert ran(far, "no-such-command").code == 127
    assert ran(far, "not-executable").code == 126


def test_run_leaves_the_environment_of_the_command_as_it_was_but_for_its_paths(
    worker: Worker, started: Answer
) -> None:
    assert started.code == 0
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    plain = json.loads(worker.python(code))
    found = json.loads(ran(worker, str(worker.platform.python), "-c", code).stdout)
    changed = {key for key in plain.keys() | found.keys() if plain.get(key) != found.get(key)}
    changed -= {"LC_CTYPE"}  # Python itself coerces it (PEP 538)
    assert changed == {"PATH", "PYTHONPATH", "PREHEAT_INTERNAL_BOOTSTRAP"}


def test_run_gives_the_command_signals_as_they_were(worker: Worker, started: Answer) -> None:
    """Python ignores SIGPIPE and SIGXFSZ, and what is ignored stays so in the next program."""
    assert started.code == 0
    show = ("sh", "-c", "grep SigIgn /proc/self/status")
    assert ran(worker, *show).stdout == worker.run(show).stdout


@pytest.mark.parametrize(
    "shell",
    ['"$@" 2>/dev/full', '"$@" 2>&1 >/dev/null | true', '"$@" 2>&-', '"$@" 2>&- >&- <&-'],
    ids=["full", "its reader gone", "closed", "all closed"],
)
@pytest.mark.parametrize("log", ["text", "json", "bars"])
def test_run_becomes_the_command_whatever_its_log_does(
    tmp_path: Path, index: Index, image: Platform, shell: str, log: str
) -> None:
    """Cold and warm: with a package that is not there, which is told on the way."""
    worker = Worker(place=tmp_path, platform=image, index=index, extra={"PREHEAT_LOG": log})
    worker.write([package("tool", requires=["tool>=2"]), package("failing")])
    for name in ("cold", "warm"):
        python = str(image.python)
        write = f"import tool; open({str(tmp_path / name)!r}, 'w').write(tool.VERSION)"
        command = (python, "-m", "preheat", "run", *worker.options, "--", python, "-c", write)
        worker.run(("sh", "-c", shell, "sh", *command))
        assert (tmp_path / name).read_text() == "layer"


def test_run_refuses_to_start_without_a_required_package(worker: Worker, tmp_path: Path) -> None:
    lacking = Worker(place=tmp_path, platform=worker.platform, index=worker.index)
    lacking.write([package("failing", required=True)])
    ended = ran(lacking, "echo", "started all the same")
    assert (ended.code, ended.stdout) == (3, "")
    assert "failing" in ended.stderr


# -- the API ---------------------------------------------------------------------------------


def test_warm_in_process_is_cold_first_and_warm_then(worker: Worker, tmp_path: Path) -> None:
    fresh = Worker(place=tmp_path, platform=worker.platform, index=worker.index)
    fresh.write(PACKAGES, capabilities=CAPABILITIES)
    code = "import tool; print(ready.warm, tool.VERSION, ready.ok, len(ready.paths) > 0)"
    found = [fresh.inside(code).stdout.strip() for _ in range(2)]
    assert found == ["False layer True True", "True layer True True"]


def test_ready_says_of_each_package_whether_it_works_and_why_not(
    worker: Worker, started: Answer
) -> None:
    code = (
        "import json\n"
        "rows = {p.name: [p.ok, p.status, p.version, p.layer, p.reason] for p in ready}\n"
        "print(json.dumps(rows))\n"
    )
    found = json.loads(worker.inside(code).stdout)
    assert list(found) == [row["name"] for row in PACKAGES]
    layer = str(started.layer("tool"))
    assert found["tool"][:4] == [True, "reused", "2", layer]
    assert found["steady"][:4] == [True, "platform", "1", None]
    assert found["failing"][:2] == [False, "failed"]
    assert "cannot work here" in found["failing"][4]


def test_an_unknown_package_or_capability_is_a_key_error(worker: Worker, started: Answer) -> None:
    assert started.code == 0
    code = (
        "for look in (lambda: ready['nothing'], lambda: ready.choose('nothing')):\n"
        "    try:\n        look()\n    except KeyError as error:\n        print(error)\n"
    )
    assert worker.inside(code).stdout.split() == ["'nothing'", "'nothing'"]


def test_choose_answers_the_first_package_of_a_capability_that_works(
    worker: Worker, started: Answer
) -> None:
    expected = {"speech": "scripted", "sight": None, "base": "base"}
    assert started.document["capabilities"] == expected
    code = "print([ready.choose(name) for name in ('speech', 'sight', 'base')])"
    assert worker.inside(code).stdout.strip() == "['scripted', None, 'base']"


def test_a_required_package_that_is_not_ready_is_an_error_with_its_name_and_reason(
    worker: Worker, tmp_path: Path
) -> None:
    lacking = Worker(place=tmp_path, platform=worker.platform, index=worker.index)
    lacking.write([package("failing", required=True), package("scripted")])
    code = (
        "import sys, preheat\n"
        "try:\n"
        "    preheat.warm(sys.argv[1], store=sys.argv[2])\n"
        "except preheat.RequiredPackageError as error:\n"
        "    print(isinstance(error, preheat.PreheatError), error.exit_status, error)\n"
    )
    said = lacking.python(code, str(lacking.manifest), str(lacking.store))
    assert said.startswith("True 3 ")
    assert "failing" in said
    assert "cannot work here" in said


def test_a_manifest_that_is_wrong_is_an_error_of_its_own_kind(
    worker: Worker, tmp_path: Path
) -> None:
    wrong = tmp_path / "preheat.toml"
    wrong.write_text("[[package]]\nnaem = 'tool'\n")
    code = (
        "import sys, preheat\n"
        "try:\n"
        "    preheat.warm(sys.argv[1])\n"
        "except preheat.PreheatError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    said = worker.python(code, str(wrong), PREHEAT_STORE=str(tmp_path / "store"))
    assert said.startswith("ManifestError ")
    assert "naem" in said


def _calls(worker: Worker, place: Path, code: str) -> str:
    """What code with the imperative calls prints, over a store of its own."""
    return worker.python(
        "import preheat\ninstall = preheat.check_and_install_package\n" + code,
        PREHEAT_STORE=str(place / "store"),
        PREHEAT_INDEX_URL=worker.index.url,
    )


def test_check_and_install_package_makes_a_package_importable_or_says_no(
    worker: Worker, tmp_path: Path
) -> None:
    code = (
        "print(install('scripted', description='says things'))\n"
        "import scripted\n"
        "print(install('failing'), install('not-on-the-index'), install('steady'))\n"
        "print(install('Tool', 'tool', ['tool>=2', '--no-build-isolation']))\n"
        "import tool; print(tool.VERSION)\n"
    )
    assert _calls(worker, tmp_path, code).split() == [
        *("True", "False", "False", "True", "True", "layer"),
    ]


def test_check_and_install_package_keeps_what_earlier_calls_got(
    worker: Worker, tmp_path: Path
) -> None:
    code = (
        "print(install('fussy', install_command=['fussy<2']), install('follower'))\n"
        "import follower; print(follower.VERSION)\n"
    )
    assert _calls(worker, tmp_path, code).split() == ["True", "True", "1"]


def test_check_and_install_package_again_for_another_version_brings_that_version(
    worker: Worker, tmp_path: Path
) -> None:
    code = (
        "print(install('fussy', install_command=['fussy<2']))\n"
        "print(install('fussy', install_command=['fussy>=2']))\n"
        "import fussy; print(fussy.VERSION)\n"
    )
    assert _calls(worker, tmp_path, code).split() == ["True", "True", "2"]


def test_cleanup_disk_space_frees_what_dead_starts_left_and_says_how_much(
    worker: Worker, tmp_path: Path
) -> None:
    staging = tmp_path / "store" / "staging" / "0123456789ab-01234567-1-1"
    staging.mkdir(parents=True)
    (staging / "owner").touch()
    (staging / "half.bin").write_bytes(os.urandom(1 << 20))
    code = "import json; print(json.dumps(preheat.cleanup_disk_space()))"
    freed = json.loads(_calls(worker, tmp_path, code))
    assert {"freed", "tiers", "before", "after"} <= freed.keys()
    assert not staging.exists()


def test_cleanup_disk_space_leaves_layers_alone(worker: Worker, started: Answer) -> None:
    before = worker.published()
    worker.python("import preheat; preheat.cleanup_disk_space()", PREHEAT_STORE=str(worker.store))
    assert worker.published() == before
    assert worker.after(started, "import tool; print(tool.VERSION)") == "layer"
