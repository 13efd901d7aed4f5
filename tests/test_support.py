"""The tests' own ground: if this does not hold, what the other tests say means nothing."""

import http.client
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.message import Message
from pathlib import Path

import pytest
import uv

from tests.support import simple_api
from tests.support.index import Index, offering
from tests.support.platforms import (
    Interpreter,
    Platform,
    fake_nvidia,
    fake_torch,
    make_platform,
    other_pythons,
    pythons,
    tree_digest,
)
from tests.support.wheels import (
    Project,
    corrupt,
    damage,
    escaping_wheel,
    incomplete_wheel,
    install_egg_info,
    install_egg_info_file,
    install_tree,
    leave_renamed,
    lose_files,
    lose_metadata,
    lose_modules,
    lose_record,
    tiny_setuptools,
    tinybackend,
    write_sdist,
    write_wheel,
)

DEP = Project(name="dep", version="2.0", files={"dep.py": "VALUE = 2\n"})
APP = Project(
    name="My.App",
    version="1.0",
    files={
        "my_app/__init__.py": "import dep\ndef main():\n    print('app', dep.VALUE)\n",
        "my_app/big.bin": bytes(range(256)) * 64,
    },
    requires=("dep>=1",),
    extras={"fast": ("turbo>3; python_version >= '3'",)},
    console_scripts={"my-app": "my_app:main"},
    data_scripts={"tool": "#!python\nprint('tool')\n"},
    requires_python=">=3.8",
)
WHEEL = APP.wheel_name

RunUv = Callable[..., "subprocess.CompletedProcess[str]"]


index = offering(APP, DEP)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A venv with a torch."""
    projects = (fake_torch("2.13.0+cu130"), fake_nvidia("nvidia-cublas", "13.1.0"))
    return make_platform(tmp_path_factory.mktemp("platform") / "venv", projects=projects)


@pytest.fixture
def run_uv(tmp_path: Path, platform: Platform) -> RunUv:
    """Return a function that runs `uv pip install` into `tmp_path/target`."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("UV_")}
    environment = {
        **clean,
        "NO_PROXY": "127.0.0.1",
        "UV_HTTP_RETRIES": "0",
        "UV_HTTP_TIMEOUT": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    }

    def run(url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        where = ("--default-index", url, "--cache-dir", str(tmp_path / "cache"))
        target = ("--python", str(platform.python), "--target", str(tmp_path / "target"))
        return subprocess.run(
            (uv.find_uv_bin(), "--no-config", "pip", "install", *where, *target, *arguments),
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def get(
    url: str, method: str = "GET", timeout: float = 5, **headers: str
) -> tuple[int, bytes, Message]:
    """Ask once and return status, body and headers, whatever the status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, method=method, headers=named)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def ran(python: Path, code: str, path: Path | None = None) -> str:
    """Return what the interpreter prints."""
    environment = os.environ | ({} if path is None else {"PYTHONPATH": str(path)})
    command = (str(python), "-B", "-c", code)
    return subprocess.check_output(command, env=environment, text=True, timeout=30).strip()


# -- archives ------------------------------------------------------------------------------


def test_archives_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    for write in (write_wheel, write_sdist):
        first, second = write(APP, tmp_path / "a"), write(APP, tmp_path / "b")
        assert first.read_bytes() == second.read_bytes()


def test_a_wheel_says_what_the_project_says(tmp_path: Path) -> None:
    install = tmp_path / "site"
    with zipfile.ZipFile(write_wheel(APP, tmp_path)) as wheel:
        wheel.extractall(install)
    (found,) = importlib.metadata.distributions(path=[str(install)])
    assert (found.metadata["Name"], found.version) == ("My.App", "1.0")
    assert found.requires == ["dep>=1", 'turbo>3 ; (python_version >= "3") and extra == "fast"']
    assert [point.value for point in found.entry_points] == ["my_app:main"]
    assert {str(file) for file in found.files or ()} == {
        path.relative_to(install).as_posix() for path in install.rglob("*") if path.is_file()
    }
    assert WHEEL == "my_app-1.0-py3-none-any.whl"


def test_corrupt_leaves_a_valid_wheel_and_damage_does_not(tmp_path: Path) -> None:
    wheel = write_wheel(APP, tmp_path)
    before = wheel.read_bytes()
    corrupt(wheel)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
    assert wheel.read_bytes() != before
    size = wheel.stat().st_size
    damage(wheel)
    assert wheel.stat().st_size == size
    with zipfile.ZipFile(wheel) as archive, pytest.raises((zipfile.BadZipFile, zlib.error)):
        [archive.read(name) for name in archive.namelist()]


def test_bad_wheels_are_bad(tmp_path: Path) -> None:
    with zipfile.ZipFile(escaping_wheel(DEP, tmp_path)) as archive:
        assert "../../evil.txt" in archive.namelist()
    with zipfile.ZipFile(incomplete_wheel(DEP, tmp_path, missing=("dep_lost.py",))) as archive:
        assert "dep_lost.py" not in archive.namelist()
        assert b"\ndep_lost.py,sha256=" in archive.read("dep-2.0.dist-info/RECORD")


# -- installed distributions ---------------------------------------------------------------


def versions(site: Path) -> dict[str, str | None]:
    """Return what importlib.metadata sees, by directory name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 on: a missing key in metadata
        return {
            each._path.name: each.metadata["Version"]  # type: ignore[attr-defined]
            for each in importlib.metadata.distributions(path=[str(site)])
        }


def test_an_installed_tree_matches_its_record(platform: Platform) -> None:
    (torch,) = importlib.metadata.distributions(name="torch", path=[str(platform.site)])
    assert torch.read_text("INSTALLER") == "pip\n"
    for file in torch.files or ():
        content = Path(str(file.locate())).read_bytes()
        assert file.size in (None, len(content))
    code = "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())"
    assert ran(platform.python, code) == "2.13.0+cu130 13.0 False"


def test_installed_scripts_run(tmp_path: Path) -> None:
    made = make_platform(tmp_path / "venv", projects=(APP, DEP))
    assert subprocess.check_output((made.scripts / "my-app",), text=True) == "app 2\n"
    assert subprocess.check_output((made.scripts / "tool",), text=True) == "tool\n"
    (app,) = importlib.metadata.distributions(name="my-app", path=[str(made.site)])
    recorded = {Path(str(file.locate())).resolve() for file in app.files or ()}
    assert (made.scripts / "my-app").resolve() in recorded


def test_broken_installations(tmp_path: Path) -> None:
    app, dep = install_tree(APP, tmp_path), install_tree(DEP, tmp_path)
    assert versions(tmp_path) == {app.name: "1.0", dep.name: "2.0"}
    assert [path.name for path in lose_files(app, "*.bin")] == ["big.bin"]
    assert not (tmp_path / "my_app/big.bin").exists()
    lose_metadata(app)
    lose_record(dep)
    assert versions(tmp_path) == {app.name: None, dep.name: "2.0"}
    assert [path.name for path in leave_renamed(DEP, tmp_path)] == [
        "~ep-2.0.dist-info",
        "~ep.py",
    ]
    lose_modules(APP, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "my_app-1.0.dist-info",
        "~ep-2.0.dist-info",
        "~ep.py",
    ]


def test_egg_infos(tmp_path: Path) -> None:
    directory, file = install_egg_info(APP, tmp_path), install_egg_info_file(DEP, tmp_path)
    assert (directory.is_dir(), file.is_file()) == (True, True)
    assert versions(tmp_path) == {"my_app-1.0.egg-info": "1.0", "dep-2.0.egg-info": "2.0"}


# -- the index and uv ----------------------------------------------------------------------


@pytest.mark.parametrize(("as_json", "core_metadata"), [(True, True), (False, False)])
def test_uv_installs_a_wheel_and_its_dependency(
    index: Index, run_uv: RunUv, tmp_path: Path, *, as_json: bool, core_metadata: bool
) -> None:
    index.json, index.core_metadata = as_json, core_metadata
    done = run_uv(index.url, "my-app")
    assert done.returncode == 0, done.stderr
    code = "import my_app; my_app.main()"
    assert ran(Path(sys.executable), code, tmp_path / "target") == "app 2"
    assert index.downloaded("my.app")
    assert index.downloaded(DEP.wheel_name)
    beside = [request for request in index.requests if request.path.endswith(".metadata")]
    assert bool(beside) is core_metadata


@pytest.mark.parametrize("setup_py", [None, "import setuptools\nsetuptools.setup()\n"])
def test_uv_builds_an_sdist_offline(
    index: Index, run_uv: RunUv, tmp_path: Path, setup_py: str | None
) -> None:
    index.publish(tinybackend(), tiny_setuptools())
    source = Project(name="src", version="3", files={"src.py": "X = 3\n"}, requires=("dep",))
    index.publish_sdist(source, setup_py)
    done = run_uv(index.url, "src")
    assert done.returncode == 0, done.stderr
    assert ran(Path(sys.executable), "import src, dep; print(src.X)", tmp_path / "target") == "3"
    assert index.downloaded("src")
    assert index.downloaded("setuptools") is (setup_py is not None)


def test_a_setup_py_that_needs_torch_fails_in_isolation(index: Index, run_uv: RunUv) -> None:
    index.publish(tinybackend(), tiny_setuptools())
    index.publish_sdist(Project(name="flash", version="1", files={}), setup_py="import torch\n")
    done = run_uv(index.url, "flash")
    assert done.returncode != 0
    assert "No module named 'torch'" in done.stderr


def test_uv_sees_only_what_the_interpreter_may_use(index: Index, run_uv: RunUv) -> None:
    index.publish(Project(name="old", version="1", files={}, requires_python=">=3.99"))
    assert run_uv(index.url, "old").returncode != 0
    assert not index.downloaded("old")


def test_uv_reads_metadata_by_range(index: Index, run_uv: RunUv) -> None:
    index.core_metadata = False
    assert run_uv(index.url, "--dry-run", "my-app").returncode == 0
    asked = index.requests_for(WHEEL)
    assert {request.status for request in asked} <= {200, 206}
    assert any(request.range and request.status == 206 for request in asked)
    assert sum(request.bytes_sent for request in asked) > 0


def test_uv_checks_the_published_hash(index: Index, run_uv: RunUv, tmp_path: Path) -> None:
    corrupt(index.published[DEP.wheel_name].path)
    done = run_uv(index.url, "dep")
    assert done.returncode != 0
    assert "Hash mismatch" in done.stderr
    assert not (tmp_path / "target/dep.py").exists()


def test_uv_refuses_a_damaged_wheel(index: Index, run_uv: RunUv, tmp_path: Path) -> None:
    damage(index.published[WHEEL].path)
    assert run_uv(index.url, "my-app").returncode != 0
    assert not (tmp_path / "target/my_app").exists()


def test_uv_drops_from_record_what_the_wheel_does_not_hold(
    index: Index, run_uv: RunUv, tmp_path: Path
) -> None:
    half = Project(name="half", version="1", files={"half.py": ""})
    index.add(incomplete_wheel(half, tmp_path / "index", missing=("half_lost.py",)))
    assert run_uv(index.url, "half").returncode == 0
    record = (tmp_path / "target" / half.dist_info / "RECORD").read_text(encoding="utf-8")
    assert "half.py" in record
    assert "half_lost.py" not in record  # so an installed RECORD does not prove a whole wheel


def test_uv_drops_the_member_that_escapes_and_installs_the_rest(
    index: Index, run_uv: RunUv, tmp_path: Path
) -> None:
    evil = Project(name="evil", version="1", files={"evil.py": ""})
    index.add(escaping_wheel(evil, tmp_path / "index"))
    assert run_uv(index.url, "evil").returncode == 0
    assert (tmp_path / "target/evil.py").exists()
    assert not list(tmp_path.rglob("evil.txt"))


def test_credentials(tmp_path: Path, run_uv: RunUv) -> None:
    with Index(tmp_path / "index", user="me@home", password="p/w") as index:  # noqa: S106
        index.publish(DEP)
        status, _, headers = get(index.url)
        assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="index"')
        assert run_uv(index.url, "dep").returncode != 0
        assert not index.downloaded("dep")
        done = run_uv(index.url_with_credentials, "dep")
        assert done.returncode == 0, done.stderr


# -- the index by itself -------------------------------------------------------------------


def test_pages(index: Index) -> None:
    status, body, headers = get(index.url + "My_App", Accept=simple_api.JSON)
    assert (status, headers["Content-Type"]) == (200, simple_api.JSON)
    (file,) = json.loads(body)["files"]
    known = index.published[WHEEL]
    assert (file["filename"], file["size"]) == (WHEEL, known.size)
    assert file["hashes"] == {"sha256": known.sha256}
    assert file["core-metadata"] == {"sha256": known.metadata_sha256}
    assert (file["requires-python"], file["upload-time"][:10]) == (">=3.8", "2020-01-01")
    _, body, headers = get(index.url + "my-app/", Accept="text/html")
    assert headers["Content-Type"] == "text/html"
    assert f"{known.address}#sha256={known.sha256}".encode() in body
    assert b'data-requires-python="&gt;=3.8"' in body
    assert get(index.url + "none/")[0] == 404
    assert b"my-app" in get(index.url)[1]
    assert get(index.file_url(WHEEL) + ".metadata")[1] == known.metadata


@pytest.mark.parametrize(
    ("header", "where"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=5-", slice(5, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=-99999999", slice(None)),
        ("bytes=3-99999999", slice(3, None)),
    ],
)
def test_a_range(index: Index, header: str, where: slice) -> None:
    content = index.published[WHEEL].path.read_bytes()
    status, body, headers = get(index.file_url(WHEEL), Range=header)
    assert (status, body) == (206, content[where])
    start, stop, _ = where.indices(len(content))
    assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(content)}"
    (request,) = index.requests
    assert (request.range, request.bytes_sent) == (header, len(body))


def test_ranges_that_cannot_be(index: Index) -> None:
    content = index.published[WHEEL].path.read_bytes()
    status, _, headers = get(index.file_url(WHEEL), Range=f"bytes={len(content)}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(content)}")
    assert get(index.file_url(WHEEL), Range="bytes=-0")[0] == 416
    for odd in ("bytes=0-1,4-5", "bytes=5-1", "lines=0-1", "bytes=-"):
        assert get(index.file_url(WHEEL), Range=odd)[:2] == (200, content)
    assert get(index.file_url(WHEEL), Range="bytes=0-1", If_Range='"old"')[0] == 200
    index.ranges = False
    status, body, headers = get(index.file_url(WHEEL), Range="bytes=0-9")
    assert (status, body, headers["Accept-Ranges"]) == (200, content, None)


def test_head_and_one_connection_for_many_requests(index: Index) -> None:
    status, body, headers = get(index.file_url(WHEEL), method="HEAD")
    size = index.published[WHEEL].size
    assert (status, body, headers["Content-Length"]) == (200, b"", str(size))
    assert headers["Accept-Ranges"] == "bytes"
    assert index.bytes_sent == 0
    connection = http.client.HTTPConnection(*_address(index), timeout=5)
    for path, status in (("/simple/", 200), ("/nowhere", 404), ("/simple/dep/", 200)):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert (answer.status, connection.sock is not None) == (status, True)
    connection.close()


def test_fail_so_many_times(index: Index) -> None:
    index.fail("/files/dep-*.whl", status=503, times=2)
    assert [get(index.file_url(DEP.wheel_name))[0] for _ in range(3)] == [503, 503, 200]
    index.fail("/simple/*", status=404)
    assert get(index.url + "dep/")[0] == 404
    index.heal()
    assert get(index.url + "dep/")[0] == 200


def test_truncate(index: Index, run_uv: RunUv) -> None:
    index.truncate("*.whl", times=1)
    with pytest.raises(http.client.IncompleteRead):
        get(index.file_url(WHEEL))
    (request,) = index.requests
    assert request.bytes_sent == index.published[WHEEL].size // 2
    assert not index.downloaded("my-app")
    index.heal()
    index.truncate("*/my_app*.whl", times=1)
    index.forget_requests()
    assert run_uv(index.url, "my-app").returncode == 0  # it asks again
    assert [request.status for request in index.requests_for(WHEEL)] == [200, 200]
    index.truncate("*/dep-3*.whl")
    index.publish(Project(name="dep", version="3", files={"dep.py": "VALUE = 3\n" * 999}))
    assert run_uv(index.url, "dep>=3").returncode != 0


def test_hang_until_the_index_closes(tmp_path: Path) -> None:
    with Index(tmp_path / "index") as index:
        index.publish(DEP)
        index.hang("*.whl")
        with pytest.raises(TimeoutError):
            get(index.file_url(DEP.wheel_name), timeout=0.2)
        (request,) = index.requests
        assert request.status is None
        started = time.monotonic()
    assert time.monotonic() - started < 2


def test_uv_gives_up_on_a_hanging_index(index: Index, run_uv: RunUv) -> None:
    index.hang("/simple/dep/")
    done = run_uv(index.url, "dep")
    assert done.returncode != 0


def test_slow(index: Index) -> None:
    size = index.published[WHEEL].size
    index.slow("*.whl", bytes_per_second=size * 4)
    started = time.monotonic()
    assert len(get(index.file_url(WHEEL))[1]) == size
    assert 0.2 < time.monotonic() - started < 2


def test_closing_leaves_neither_thread_nor_connection(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with Index(tmp_path / "index") as index:
        index.publish(APP)
        index.slow("*.whl", bytes_per_second=10)
        index.hang("/simple/")
        clients = [_asked(index, path) for path in ("/simple/", f"/files/{WHEEL}")]
        clients.append(socket.create_connection(_address(index), timeout=5))
        _wait(lambda: len(index.requests) == 2)
        started = time.monotonic()
    assert time.monotonic() - started < 2
    assert set(threading.enumerate()) == before
    for client in clients:
        with client, suppress(ConnectionResetError):  # reset where it was not yet accepted
            while client.recv(1 << 16):
                pass


def test_a_mistake_of_the_index_is_not_lost(tmp_path: Path) -> None:
    index = Index(tmp_path / "index")
    index.__enter__()
    (path,) = index.publish(DEP)
    path.unlink()
    with pytest.raises(http.client.RemoteDisconnected):
        get(index.file_url(DEP.wheel_name))
    with pytest.raises(FileNotFoundError):
        index.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="not open"):
        assert index.url


def _asked(index: Index, path: str) -> socket.socket:
    client = socket.create_connection(_address(index), timeout=5)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: index\r\n\r\n".encode())
    return client


def _address(index: Index) -> tuple[str, int]:
    return "127.0.0.1", int(index.url.split(":")[2].split("/")[0])


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- platforms -----------------------------------------------------------------------------


def _add_file(tree: Path) -> None:
    (tree / "new").touch()


def _change_content(tree: Path) -> None:
    (tree / "my_app/big.bin").write_bytes(bytes(256 * 64))


def _change_mode(tree: Path) -> None:
    (tree / "my_app/big.bin").chmod(0o640)  # no umask makes that


def _rename(tree: Path) -> None:
    (tree / "my_app").rename(tree / "my_app2")


def _add_directory(tree: Path) -> None:
    (tree / "my_app/empty").mkdir()


def _point_elsewhere(tree: Path) -> None:
    (tree / "link").unlink()
    (tree / "link").symlink_to("elsewhere")


def _compile(tree: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = (sys.executable, "-m", "compileall", "-q", str(tree))
    subprocess.run(command, check=True, env=environment, timeout=30)


CHANGES: Sequence[Callable[[Path], None]] = (
    _add_file,
    _change_content,
    _change_mode,
    _rename,
    _add_directory,
    _point_elsewhere,
    _compile,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_a_tree_digest_changes_on(change: Callable[[Path], None], tmp_path: Path) -> None:
    trees = tmp_path / "one", tmp_path / "two"
    for tree in trees:
        install_tree(APP, tree)
        (tree / "link").symlink_to("my_app")
    one, two = trees
    os.utime(one / "my_app/big.bin", (0, 0))
    assert tree_digest(one) == tree_digest(two)
    change(one)
    assert tree_digest(one) != tree_digest(two)


def test_a_platform_is_isolated_unless_asked(tmp_path: Path, platform: Platform) -> None:
    below = make_platform(tmp_path / "venv", platform.python, system_site_packages=True)
    code = "import sys; print(sys.prefix != sys.base_prefix)"
    assert ran(below.python, code) == "True"
    for made, seen in ((below, "true"), (platform, "false")):
        config = (made.python.parents[1] / "pyvenv.cfg").read_text(encoding="utf-8")
        assert f"include-system-site-packages = {seen}" in config
    assert platform.python.is_symlink()
    assert not list(platform.site.glob("pip*"))


@pytest.mark.parametrize("python", other_pythons(), ids=lambda each: str(each.version))
def test_a_platform_of_another_python(tmp_path: Path, python: Interpreter) -> None:
    made = make_platform(tmp_path / "venv", python.path, projects=(fake_torch(),))
    assert made.version == python.version
    assert ran(made.python, "import torch; print(torch.__version__)") == "2.13.0+cpu"


def test_pythons_holds_the_running_one_and_each_version_once() -> None:
    found = [each.version for each in pythons()]
    assert sys.version_info[:2] in found
    assert len(set(found)) == len(found)
    assert sys.version_info[:2] not in {each.version for each in other_pythons()}
