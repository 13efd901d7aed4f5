"""What is inside a wheel is known, to the byte, before the wheel is fetched."""

from __future__ import annotations

import os
import socket
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from packaging.requirements import Requirement

from preheat.edges.index import transport
from preheat.edges.index.wheels import Reader, contents_of
from preheat.words.lock import Archive, Contents, Locked
from tests.support.index import Index, offering
from tests.support.wheels import Project, damage, escaping_wheel

LARGE = os.urandom(200_000)  # does not compress: the wheel is longer than the first tail
APP = Project(
    name="app",
    version="1.0",
    files={"app/__init__.py": "A = 1\n", "app/weights.bin": LARGE},
    requires=("dep>=1", "fast; python_version >= '3.8'"),
    extras={"more": ("extra-one",)},
    console_scripts={"App-Run": "app:main"},
    data_scripts={"tool": "#!python\nprint('tool')\n"},
)


index = offering(APP)


def locked(index: Index, filename: str, *, sized: bool = True) -> Locked:
    """The distribution as a resolution would name it."""
    file = index.published[filename]
    name, version = filename.split("-")[:2]
    return Locked(
        name=name,
        version=version,
        archive=Archive(
            filename=filename,
            url=index.file_url(filename),
            sha256=file.sha256,
            size=file.size if sized else None,
        ),
    )


def reader(memory: Path, *indexes: str, timeout: float | None = 5) -> Reader:
    """A reader that remembers in that directory."""
    return Reader([memory], indexes=indexes, timeout=timeout, remember=True)


def read(index: Index, memory: Path, filename: str = APP.wheel_name) -> Contents:
    """The contents of one file of the index."""
    each = locked(index, filename)
    return reader(memory).read([each])[each.name]


def unpacked(wheel: Path) -> dict[str, int]:
    """Path to size of every member, as the archive itself says after it was read whole."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: len(archive.read(name)) for name in archive.namelist()}


@pytest.mark.parametrize("sized", [True, False])
def test_sizes_are_those_of_the_unpacked_wheel(tmp_path: Path, index: Index, sized: bool) -> None:
    each = locked(index, APP.wheel_name, sized=sized)
    found = reader(tmp_path / "memory").read([each])["app"]
    members = unpacked(index.published[APP.wheel_name].path)
    scripts = "app-1.0.data/scripts/tool"
    members["bin/tool"] = members.pop(scripts)
    sizes = dict(found.files)
    assert sizes.pop("app-1.0.dist-info/INSTALLER") == 2
    assert sizes.pop("app-1.0.dist-info/REQUESTED") == 0
    assert sizes == members
    assert found.exact
    assert found.escapes == ""


def test_what_the_metadata_requires_and_the_scripts_are_read_with_it(
    tmp_path: Path, index: Index
) -> None:
    found = read(index, tmp_path)
    assert [str(Requirement(text)) for text in found.requires] == [
        "dep>=1",
        'fast; python_version >= "3.8"',
        'extra-one; extra == "more"',
    ]
    assert found.scripts == ("App-Run",)


def test_a_wheel_is_read_by_ranges_and_never_fetched(tmp_path: Path, index: Index) -> None:
    read(index, tmp_path)
    asked = index.requests_for("app")
    assert asked
    assert all(request.range for request in asked)
    assert len(asked) <= 3
    assert index.bytes_sent < len(LARGE)


def test_a_directory_larger_than_the_first_tail_is_read_whole(tmp_path: Path, index: Index) -> None:
    files = {f"wide/some_long_directory_name/part_number_{n:05}.py": "x" for n in range(2500)}
    index.publish(Project(name="wide", version="1.0", files={**files, "wide/w.bin": LARGE}))
    found = read(index, tmp_path, "wide-1.0-py3-none-any.whl")
    assert found.exact
    assert set(files) <= dict(found.files).keys()
    asked = index.requests_for("wide")
    assert len(asked) > 1
    assert all(request.range for request in asked)


def test_a_wheel_shorter_than_the_first_tail_is_read_whole(tmp_path: Path, index: Index) -> None:
    index.publish(Project(name="mini", version="1.0", files={"mini.py": ""}))
    found = read(index, tmp_path, "mini-1.0-py3-none-any.whl")
    assert found.exact
    assert ("mini.py", 0) in found.files
    assert len(index.requests_for("mini")) == 1


def test_the_second_time_it_is_remembered_by_its_hash_and_nothing_is_asked(
    tmp_path: Path, index: Index
) -> None:
    first = read(index, tmp_path)
    index.forget_requests()
    assert read(index, tmp_path) == first
    assert index.requests == ()


def test_another_hash_is_read_anew(tmp_path: Path, index: Index) -> None:
    read(index, tmp_path)
    index.forget_requests()
    index.publish(Project(name="app", version="1.0", files={"app/__init__.py": "A = 2\n"}))
    assert ("app/weights.bin", len(LARGE)) not in read(index, tmp_path).files
    assert index.requests_for("app")


def test_a_memory_that_is_damaged_is_read_anew(tmp_path: Path, index: Index) -> None:
    first = read(index, tmp_path)
    for file in tmp_path.glob("*.json"):
        file.write_text('{"format": 1, "files": [["a"', encoding="utf-8")
    assert read(index, tmp_path) == first


def test_a_reader_that_must_not_remember_writes_nothing(tmp_path: Path, index: Index) -> None:
    memory = tmp_path / "memory"
    each = locked(index, APP.wheel_name)
    Reader([memory], indexes=(), timeout=5, remember=False).read([each])
    assert not memory.exists()


def is_estimate(found: Contents, each: Locked) -> bool:
    """Say whether it is marked as one, and is of a size to reckon with."""
    assert each.archive.size is not None
    return not found.exact and sum(size for _, size in found.files) > each.archive.size


def test_without_ranges_there_is_an_estimate_and_it_is_marked_and_not_remembered(
    tmp_path: Path, index: Index
) -> None:
    index.ranges = False
    each = locked(index, APP.wheel_name)
    assert is_estimate(read(index, tmp_path), each)
    assert list(tmp_path.glob("*.json")) == []
    index.ranges = True
    assert read(index, tmp_path).exact


@pytest.mark.parametrize("status", [404, 500, 503])
def test_an_index_that_fails_gives_an_estimate(tmp_path: Path, index: Index, status: int) -> None:
    index.fail("/files/*", status)
    assert is_estimate(read(index, tmp_path), locked(index, APP.wheel_name))


def test_an_index_that_hangs_gives_an_estimate_in_time(tmp_path: Path, index: Index) -> None:
    index.hang("/files/*")
    each = locked(index, APP.wheel_name)
    found = reader(tmp_path, timeout=0.3).read([each])["app"]
    assert is_estimate(found, each)


def test_an_index_that_hangs_up_gives_an_estimate(tmp_path: Path, index: Index) -> None:
    index.truncate("/files/*")
    assert is_estimate(read(index, tmp_path), locked(index, APP.wheel_name))


def test_offline_nothing_is_asked(tmp_path: Path, index: Index) -> None:
    each = locked(index, APP.wheel_name)
    assert is_estimate(reader(tmp_path, timeout=None).read([each])["app"], each)
    assert index.requests == ()


def test_a_source_distribution_is_estimated_and_marked(tmp_path: Path, index: Index) -> None:
    index.publish_sdist(APP)
    assert not read(index, tmp_path, APP.sdist_name).exact


def test_a_wheel_that_is_no_zip_is_estimated(tmp_path: Path, index: Index) -> None:
    path = tmp_path / "index" / "torn-1.0-py3-none-any.whl"
    index.publish(Project(name="torn", version="1.0", files={"torn.py": ""}))
    path.write_bytes(path.read_bytes()[:-40])
    assert not read(index, tmp_path / "memory", path.name).exact


def test_damage_in_the_data_does_not_change_what_the_directory_says(
    tmp_path: Path, index: Index
) -> None:
    damage(index.published[APP.wheel_name].path)
    assert ("app/weights.bin", len(LARGE)) in read(index, tmp_path).files


@pytest.mark.parametrize(
    "member", ["../../evil.txt", "/etc/evil", "app/../../evil", "app-1.0.data/data/../../evil"]
)
def test_a_member_that_escapes_is_named_and_never_remembered_as_harmless(
    tmp_path: Path, index: Index, member: str
) -> None:
    index.add(escaping_wheel(APP, tmp_path / "index", member))
    for _ in range(2):
        found = read(index, tmp_path / "memory")
        assert "evil" in found.escapes


def test_each_directory_of_data_lands_where_its_scheme_says(tmp_path: Path) -> None:
    wheel = tmp_path / "schemes.zip"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("s-1.dist-info/METADATA", "Name: s\nVersion: 1\n")
        for scheme in ("purelib", "platlib", "scripts", "data", "headers"):
            archive.writestr(f"s-1.data/{scheme}/sub/{scheme}.txt", "x" * 3)
        archive.writestr("s-1.data/purelib/", "")
    with zipfile.ZipFile(wheel) as archive:
        found = dict(contents_of(archive).files)
    for place in ("sub/purelib", "sub/platlib", "bin/sub/scripts", "sub/data"):
        assert found[f"{place}.txt"] == 3
    assert any(path.endswith("sub/headers.txt") for path in found)


def test_credentials_of_the_index_are_used_for_its_files(tmp_path: Path) -> None:
    with Index(tmp_path / "index", user="team", password="p@ss/word") as index:  # noqa: S106
        index.publish(APP)
        each = locked(index, APP.wheel_name)
        without = reader(tmp_path / "one").read([each])["app"]
        assert not without.exact
        assert {request.status for request in index.requests} == {401}
        known = reader(tmp_path / "two", index.url_with_credentials).read([each])["app"]
        assert known.exact
        wrong = index.url_with_credentials.replace("team", "other")
        assert not reader(tmp_path / "three", wrong).read([each])["app"].exact


def test_credentials_of_one_host_are_not_sent_to_another(tmp_path: Path, index: Index) -> None:
    secret = "http://team:word@localhost:1/simple/"  # noqa: S105
    each = locked(index, APP.wheel_name)
    with Index(tmp_path / "private", user="team", password="word") as private:  # noqa: S106
        private.publish(APP)
        other = locked(private, APP.wheel_name)
        found = reader(tmp_path / "memory", secret).read([other])
        assert not found["app"].exact
    assert reader(tmp_path / "memory", secret).read([each])["app"].exact


def test_a_wheel_in_a_directory_is_read_where_it_lies(tmp_path: Path, index: Index) -> None:
    path = index.published[APP.wheel_name].path
    archive = Archive(filename=path.name, url=path.as_uri(), sha256="0" * 64, size=None)
    each = Locked(name="app", version="1.0", archive=archive)
    found = reader(tmp_path / "memory", timeout=None).read([each])["app"]
    assert found.exact
    assert ("app/weights.bin", len(LARGE)) in found.files


def test_many_wheels_are_read_at_once_and_each_is_told(tmp_path: Path, index: Index) -> None:
    projects = [
        Project(name=f"p{n}", version="1.0", files={f"p{n}.py": "x" * n}) for n in range(60)
    ]
    index.publish(*projects)
    told: list[int] = []
    every = [locked(index, project.wheel_name) for project in projects]
    found = reader(tmp_path / "memory").read(every, told.append)
    assert told == list(range(1, 61))
    assert all((f"p{n}.py", n) in found[f"p{n}"].files for n in range(60))


def test_a_host_is_looked_up_once_for_all_of_its_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **more: Any) -> Any:
        if host == "localhost":
            asked.append(host)
            # The first address takes no connection: the second one is taken.
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.9", 1)),
                *real("127.0.0.1", *rest, **more),
            ]
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with Index(tmp_path / "index") as index:
        index.publish(*(Project(name=f"p{n}", version="1", files={"m.py": ""}) for n in range(20)))
        url = index.url.replace("127.0.0.1", "localhost")
        once = transport.LookedUpOnce()
        with httpx.Client(transport=once) as client, ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: client.get(f"{url}p{n}/"), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.request.url.host for answer in answers} == {"localhost"}
    assert asked == ["localhost"]


@pytest.mark.parametrize(
    ("index", "url", "known"),
    [
        ("https://me:pw@host/simple/", "https://host/files/a.whl", True),
        ("https://me:pw@host/simple/", "https://host:443/files/a.whl", True),
        ("https://me:pw@host:8443/simple/", "https://host:8443/files/a.whl", True),
        ("https://me:pw@host/simple/", "https://host:8443/files/a.whl", False),
        ("https://me:pw@host/simple/", "http://host/files/a.whl", False),
        ("https://me:pw@host/simple/", "https://other/files/a.whl", False),
        ("https://me:pw@host/simple/", "https://host:none/files/a.whl", False),
        ("https://host/simple/", "https://host/files/a.whl", False),
    ],
)
def test_credentials_go_to_the_origin_that_they_are_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, index: str, url: str, known: bool
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert (transport.credentials([index]).of(url) is not None) == known


def test_credentials_of_netrc_go_to_any_port_of_their_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file knows of hosts alone."""
    file = tmp_path / "netrc"
    file.write_text("machine host login me password pw\n")
    monkeypatch.setenv("NETRC", str(file))
    assert transport.credentials([]).of("https://host:8443/a.whl") is not None
    assert transport.credentials([]).of("https://other/a.whl") is None
