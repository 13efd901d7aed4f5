from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from preheat.edges.manifest import schema
from preheat.edges.manifest.file import find_manifest, read_manifest
from preheat.words.display import redact
from preheat.words.errors import ManifestError
from preheat.words.frozen_map import FrozenMap
from preheat.words.manifest import Condition, Index, Manifest, Package
from preheat.words.manifest_parser import TABLES, fields_of, parse_manifest
from preheat.words.quantities import format_duration, format_size, parse_duration, parse_size

ROOT = Path(__file__).parents[1]

# The keys that the issue fixes.
EXAMPLE = """
[space]
clean-below = "1GB"
keep-free = "500MB"

[[package]]
name = "transformers"
requires = ["transformers>=4.48.1"]
imports = ["transformers"]
required = true

[[package]]
name = "google-cloud-speech"
requires = ["google-cloud-speech"]
imports = ["google.cloud.speech"]

[[package]]
name = "flash-attn"
requires = ["flash-attn"]
imports = ["flash_attn"]
build-isolation = false

[[package]]
name = "whisperx"
requires = ["whisperx"]
imports = ["whisperx.alignment"]

[capabilities]
word-timing = ["whisperx", "google-cloud-speech"]
attention = ["flash-attn", "torch"]
"""


def package(name: str = "whisperx", **keys: object) -> dict[str, object]:
    return {"name": name, "requires": [name], "imports": ["whisperx"]} | keys


def parse(**keys: object) -> Manifest:
    return parse_manifest(keys, "preheat.toml")


def parse_package(**keys: object) -> Package:
    return parse(package=[package() | keys]).package[0]


def refused(document: Mapping[str, Any]) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(document, "preheat.toml")
    return caught.value.message.splitlines()


@pytest.fixture
def from_example(tmp_path: Path) -> Manifest:
    (tmp_path / "preheat.toml").write_text(EXAMPLE)
    return read_manifest(tmp_path / "preheat.toml")


# Values


def test_packages_keep_their_order(from_example: Manifest) -> None:
    names = [package.name for package in from_example.package]
    assert names == ["transformers", "google-cloud-speech", "flash-attn", "whisperx"]
    assert from_example.package[0].required
    assert not from_example.package[2].build_isolation


def test_capabilities_keep_the_order_of_preference(from_example: Manifest) -> None:
    assert from_example.capabilities == {
        "word-timing": ("whisperx", "google-cloud-speech"),
        "attention": ("flash-attn", "torch"),
    }


def test_an_empty_document_has_every_default() -> None:
    assert parse() == Manifest()
    assert parse().space.clean_below == 10**9
    assert parse().space.keep_free == 500 * 10**6
    assert parse().retry_after == 6 * 3600
    assert parse().import_timeout == 300
    assert parse().deadline is None
    assert "nvidia-*" in parse().protected


def test_names_are_canonical() -> None:
    made = parse(
        package=[package("Flash_Attn", exclude=["Gradio.Client"])],
        capabilities={"attention": ["Flash.Attn"]},
        protected=["NVIDIA_*"],
    )
    assert made.package[0].name == "flash-attn"
    assert made.package[0].exclude == ("gradio-client",)
    assert made.capabilities["attention"] == ("flash-attn",)
    assert made.protected == ("nvidia-*",)


def test_requirements_are_kept_as_written_and_offered_parsed() -> None:
    made = parse_package(requires=["torch >=2 ; python_version>'3'"], override=["numpy<3"])
    assert made.requires == ("torch >=2 ; python_version>'3'",)
    assert [requirement.name for requirement in made.requirements] == ["torch"]
    assert [str(requirement.specifier) for requirement in made.overrides] == ["<3"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, True),
        ({"build-isolation": False}, False),
        ({"build-isolation": False, "build": True}, True),
        ({"build": False}, False),
    ],
)
def test_what_is_compiled_against_the_platform_is_not_built_by_surprise(
    keys: dict[str, object], expected: bool
) -> None:
    assert parse_package(**keys).may_build is expected


@pytest.mark.parametrize(
    ("check", "kept", "module"),
    [
        ("", "", None),
        ("whisperx.selftest", "whisperx.selftest", "whisperx.selftest"),
        ("import whisperx; whisperx.load()", "import whisperx; whisperx.load()", None),
        ("\n    import os\n    if os:\n        pass\n", "import os\nif os:\n    pass", None),
        ("x = '\\d'", "x = '\\d'", None),  # only a warning, and not ours to raise
    ],
)
def test_a_check_is_code_or_the_name_of_a_module(check: str, kept: str, module: str | None) -> None:
    made = parse_package(check=check)
    assert (made.check, made.check_module) == (kept, module)


def test_a_condition_states_what_the_platform_must_have() -> None:
    keys = {
        "accelerator": "cuda",
        "compute-capability": ">=8.0",
        "cuda": ">=12",
        "marker": "python_version >= '3.11'",
    }
    assert parse_package(when=keys).when == Condition(
        accelerator="cuda",
        compute_capability=">=8.0",
        cuda=">=12",
        marker="python_version >= '3.11'",
    )


def test_values_are_frozen_hashable_and_travel(from_example: Manifest) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        from_example.offline = True  # type: ignore[misc]
    with pytest.raises(TypeError):
        from_example.capabilities["x"] = ("y",)  # type: ignore[index]
    assert len({from_example, copy.deepcopy(from_example)}) == 1
    travelled = pickle.loads(pickle.dumps(from_example))  # noqa: S301
    assert travelled == from_example
    assert travelled.origin == from_example.origin


def test_where_a_manifest_came_from_does_not_change_what_it_says(tmp_path: Path) -> None:
    made = parse_manifest({"offline": True, "space": {"keep-free": 1}}, "x.toml", "/somewhere")
    assert made == Manifest(offline=True, space=made.space)
    assert made.origin.source == "x.toml"
    assert made.origin.directory == "/somewhere"
    assert made.origin.stated == {"offline", "space.keep-free"}


def test_a_frozen_map_is_equal_by_content_and_shows_it() -> None:
    assert FrozenMap({"a": 1, "b": 2}) == FrozenMap({"b": 2, "a": 1})
    assert hash(FrozenMap({"a": 1, "b": 2})) == hash(FrozenMap({"b": 2, "a": 1}))
    assert repr(FrozenMap({"a": 1})) == "FrozenMap({'a': 1})"


# Sizes and durations


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        (500, 500),
        ("500", 500),
        ("500B", 500),
        ("500MB", 500 * 10**6),
        ("500mb", 500 * 10**6),
        (" 1.5 GB ", 15 * 10**8),
        ("2GiB", 2 * 2**30),
        ("0.3KiB", 307),
        ("1kB", 1000),
    ],
)
def test_a_size_is_bytes_or_text_with_a_unit(written: object, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize(
    "written",
    ["", "MB", "500M", "-1B", -1, True, 1.5, None, "1e9", "1GB2", "\u0661GB", 2**63, "9" * 5000],
)
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  its text is empty where `allowed` says it all
        parse_size(written)


@given(st.integers(0, 2**63 - 1) | st.integers(0, 2**20).map(lambda n: n * 10**6))
@example(0)
@example(10**9)
@example(2**40)
def test_a_size_survives_being_written(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(0, 0), (90, 90), (1.5, 1.5), ("90", 90), ("90s", 90), ("10m", 600), ("1.5 h", 5400)],
)
def test_a_duration_is_seconds_or_text_with_a_unit(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds
    assert isinstance(parse_duration(written), float)


@pytest.mark.parametrize(
    "written", ["", "h", "6 hours", "-1s", -1, True, None, float("nan"), float("inf"), 10**400]
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  its text is empty where `allowed` says it all
        parse_duration(written)


@given(st.floats(0, 1e12) | st.integers(0, 10**6).map(lambda n: n * 60.0))
@example(0.0)
@example(1e-07)
@example(21600.0)
def test_a_duration_survives_being_written(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("size", "written"),
    [(10**9, "1GB"), (15 * 10**8, "1500MB"), (2**31, "2GiB"), (1024, "1KiB"), (7, "7B"), (0, "0B")],
)
def test_a_size_is_written_in_its_largest_exact_unit(size: int, written: str) -> None:
    assert format_size(size) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(21600.0, "6h"), (90.0, "90s"), (0.5, "0.5s"), (172800.0, "2d"), (0.0, "0s")],
)
def test_a_duration_is_written_in_its_largest_exact_unit(seconds: float, written: str) -> None:
    assert format_duration(seconds) == written


# Errors


@pytest.mark.parametrize(
    ("document", "line"),
    [
        (
            {"package": [package(imports=["whisperx-alignment"])]},
            'preheat.toml: package[0] "whisperx": imports[0]: found "whisperx-alignment"; '
            'allowed: the dotted name of a module, such as "google.cloud.speech"',
        ),
        (
            {"package": [package(imports=[])]},
            'preheat.toml: package[0] "whisperx": imports: found an empty array; '
            "allowed: an array of dotted module names, at least one",
        ),
        (
            {"package": [package(imports="whisperx")]},
            'preheat.toml: package[0] "whisperx": imports: found "whisperx"; '
            "allowed: an array of dotted module names, at least one",
        ),
        (
            {"package": [{"name": "whisperx", "requires": ["whisperx"]}]},
            'preheat.toml: package[0] "whisperx": imports: found nothing; '
            "allowed: an array of dotted module names, at least one",
        ),
        (
            {"package": [package(when={"accelerator": "rocm"})]},
            'preheat.toml: package[0] "whisperx": when.accelerator: found "rocm"; '
            'allowed: "cuda" or "none"',
        ),
        (
            {"package": [package(when={"cuda": 12.4})]},
            'preheat.toml: package[0] "whisperx": when.cuda: found 12.4; '
            'allowed: a version specifier such as ">=8.0" or ">=12,<13"',
        ),
        (
            {"package": [package(check="if:")]},
            'preheat.toml: package[0] "whisperx": check: found "if:" (line 1: invalid syntax); '
            "allowed: Python code, or the dotted name of a module to run",
        ),
        (
            {"package": {"name": "whisperx"}},
            "preheat.toml: package: found a table; allowed: tables that start with [[package]]",
        ),
        (
            {"package": ["whisperx"]},
            'preheat.toml: package[0]: found "whisperx"; allowed: a table',
        ),
        (
            {"package": [{}, package(required="yes")]},
            'preheat.toml: package[1] "whisperx": required: found "yes"; allowed: true or false',
        ),
        (
            {"space": {"keep-free": "much"}},
            'preheat.toml: space.keep-free: found "much"; allowed: a size such as "500MB", '
            '"1.5 GB" or "2GiB", or a number of bytes',
        ),
        (
            {"deadline": "8d"},
            'preheat.toml: deadline: found "8d" (too long); allowed: a duration such as "90s" or '
            '"10m", or a number of seconds, from 0.001 to "7d"',
        ),
        (
            {"capabilities": {"word timing": ["whisperx"]}},
            'preheat.toml: capabilities."word timing": found "word timing"; allowed: the name of a '
            'capability, of letters, digits, "-", "_" and ".": "word-timing"',
        ),
        (
            {"capabilities": {"word-timing": []}},
            "preheat.toml: capabilities.word-timing: found an empty array; "
            "allowed: an array of names, at least one",
        ),
        (
            {"capabilities": ["whisperx"]},
            "preheat.toml: capabilities: found an array of 1; allowed: a table of arrays of names",
        ),
    ],
)
def test_an_error_names_file_key_what_was_found_and_what_is_allowed(
    document: dict[str, object], line: str
) -> None:
    assert line in refused(document)


@pytest.mark.parametrize(
    ("document", "where", "suggestion"),
    [
        ({"packages": []}, "packages", 'did you mean "package"?'),
        ({"Offline": True}, "Offline", 'did you mean "offline"?'),
        ({"keep-free": 1}, "keep-free", "it belongs in [space]"),
        ({"space": {"offline": True}}, "space.offline", "it belongs above all tables"),
        (
            {"package": [package(build_isolation=False)]},
            'package[0] "whisperx": build_isolation',
            'did you mean "build-isolation"?',
        ),
        (
            {"package": [package(accelerator="cuda")]},
            'package[0] "whisperx": accelerator',
            "it belongs in [package.when]",
        ),
    ],
)
def test_an_unknown_key_gets_the_nearest_one(
    document: dict[str, object], where: str, suggestion: str
) -> None:
    (line,) = refused(document)
    assert line.startswith(f"preheat.toml: {where}: found an unknown key; allowed: ")
    assert line.endswith(suggestion)


def test_what_is_not_the_users_to_state_is_an_unknown_key() -> None:
    (line,) = refused({"origin": {"source": "elsewhere"}})
    assert "origin: found an unknown key" in line
    assert "origin" not in line.partition("allowed")[2]


def test_a_name_stated_twice_is_named_at_both_positions() -> None:
    (line,) = refused({"package": [package("flash-attn"), package("b"), package("Flash_Attn")]})
    assert line == (
        'preheat.toml: package[2] "Flash_Attn": name: found "Flash_Attn", '
        "which package[0] is already called; allowed: each name once"
    )


def test_everything_that_is_wrong_is_said_at_once() -> None:
    lines = refused(
        {
            "offline": "yes",
            "colour": 1,
            "package": [package("a"), package("a", imports=["no-module"], required=1)],
        }
    )
    assert len(lines) == 5
    assert all(line.startswith("preheat.toml: ") for line in lines)


def test_the_problems_are_data_too() -> None:
    with pytest.raises(ManifestError) as caught:
        parse(offline="yes")
    assert caught.value.exit_status == 2
    assert json.loads(json.dumps(dict(caught.value.data))) == {
        "file": "preheat.toml",
        "problems": [
            {
                "where": "offline",
                "found": '"yes"',
                "allowed": "true or false",
                "suggestion": "",
            }
        ],
    }


def test_a_value_made_in_python_is_held_to_the_same_rules() -> None:
    with pytest.raises(ValidationError, match="dotted name of a module"):
        Package(name="x", requires=("x",), imports=("x-y",))
    twin = Package(name="x", requires=("x",), imports=("x",))
    with pytest.raises(ValidationError, match="already called"):
        Manifest(package=(twin, twin))


_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers().map(lambda n: n * 10**5000)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["torch", "a.b", "500MB", "6h", ">=1", "https://u:p@h/", "cuda", "[key]"])
    | st.dates()
)
_known_keys = st.sampled_from(
    sorted({key for table in TABLES.values() for key in fields_of(table)})
)
_keys = _known_keys | st.text(max_size=10) | st.just("[key]")
_nested = st.recursive(
    _scalars, lambda inner: st.lists(inner) | st.dictionaries(_keys, inner), max_leaves=30
)


@given(st.dictionaries(_keys | st.integers(), _nested))
@example({1: 2})
@example({"package": [{2: 3}]})
@example({"capabilities": {"[key]": {"[key]": 1}, "a": ["[key]", 1]}})
@example({"capabilities": {3: 1}})
@example({"package": [{"name": "x\ny", "x\u2028y": 1}], "\udc80": "\udc80"})
@example({"package": [{"name": "x", "requires": ["x;" + "(" * 5000], "check": "(" * 5000}]})
@example({"package": [{"name": "x", "requires": ["x>=1\u2028y", "x; a == '\u2028'"]}]})
@example({"space": {"keep-free": 10**5000}, "deadline": 10**5000, "store": "\0"})
def test_nothing_but_a_manifest_error_comes_of_any_document(document: dict[str, Any]) -> None:
    try:
        parse_manifest(document, "preheat.toml")
    except ManifestError as error:
        for line in error.message.splitlines():
            assert re.match(r"preheat\.toml: .*: found .+; allowed: .+", line)


# Credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:secret@host/simple", "https://***@host/simple"),
        ("https://secret@host/simple", "https://***@host/simple"),
        ("https://user:p@ss@host/simple", "https://***@host/simple"),
        ("https://user:se/cret@host/simple", "https://***@host/simple"),
        ("x @ git+https://user:secret@host/x@v1", "x @ git+https://***@host/x@v1"),
        ("https://me:a/b@1.2.3.4:9/simple/", "https://***@1.2.3.4:9/simple/"),
        ("https://me@corp.example:a#1@1.2.3.4:9/", "https://***@1.2.3.4:9/"),
        ("https://me:a?b@[::1]:9/", "https://***@[::1]:9/"),
        ("https://host/simple", "https://host/simple"),
        ("https://host/feed@Local/simple/", "https://host/feed@Local/simple/"),
        ("no https://host:8080, see a@b", "no https://host:8080, see a@b"),
        ("git+https://host:8080/x@v1", "git+https://host:8080/x@v1"),
        ("https://host:8080?x=a@b", "https://host:8080?x=a@b"),
        ("two https://a:b@c https://d:e@f", "two https://***@c https://***@f"),
        ("someone@example.org", "someone@example.org"),
    ],
)
def test_credentials_are_hidden_and_nothing_else(text: str, shown: str) -> None:
    assert redact(text) == shown


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8),
)
def test_no_password_is_shown_whatever_stands_in_it(before: str, after: str) -> None:
    """But for one in which a port, or a host, and a path begin: nobody can tell it from those."""
    password = f"{before}hunter2{after}"
    address = f"https://me:{password}@127.0.0.1:9/simple/"
    assume(not re.match(r"\d*([/?#]|$)", before))
    assume("://" not in password and not re.search(r"@[^@]*/", password))
    assert "hunter2" not in redact(f"error: {address}: refused")


@pytest.mark.parametrize(
    "url",
    ["https://me:a/b@host:9/", "https://me@corp.example:a#1@host:9/", "https://me:a?b@host/"],
)
def test_an_address_with_an_unescaped_password_is_refused(url: str) -> None:
    (line,) = refused({"index": {"url": url}})
    assert "%2F" in line
    assert "***@host" in line


def test_no_repr_shows_credentials() -> None:
    url = "https://user:secret@host/simple"
    made = parse(
        index={"url": url, "extra": [url], "find-links": [url]},
        package=[package(requires=[f"whisperx @ git+{url}"], override=[f"x @ {url}"])],
    )
    assert made.index.url == url
    for value in (made, made.index, made.package[0]):
        assert "secret" not in repr(value)
        assert "***@host" in str(value)


@pytest.mark.parametrize(
    "document",
    [
        {"index": {"url": "htp://user:secret@host"}},
        {"index": {"url": "https://user:secret@[host"}},
        {"index": {"url": "https://user:secret@ho\u2100st"}},
        {"index": {"url": "https://user:se cret@host"}},
        {"package": [package("https://user:secret@host")]},
        {"package": [package(requires=["x @@ https://user:secret@host"])]},
    ],
)
def test_no_error_shows_credentials(document: dict[str, object]) -> None:
    assert "secret" not in "\n".join(refused(document))


# Files


def test_the_manifests_own_file_comes_first(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.preheat]\n")
    assert find_manifest(tmp_path, {}).name == "pyproject.toml"
    (tmp_path / "preheat.toml").write_text("")
    assert find_manifest(tmp_path, {}).name == "preheat.toml"


def test_a_variable_names_another_file(tmp_path: Path) -> None:
    found = find_manifest(tmp_path, {"PREHEAT_MANIFEST": "conf/worker.toml"})
    assert found == tmp_path / "conf/worker.toml"


def test_a_missing_manifest_says_where_it_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(ManifestError, match=r"\(no such table\)") as caught:
        find_manifest(tmp_path, {})
    assert str(tmp_path / "preheat.toml") in caught.value.message
    assert "--manifest" in caught.value.hint
    with pytest.raises(ManifestError, match=r"preheat\] in .* \(not there\)"):
        find_manifest(inner, {})


def test_a_table_of_pyproject_holds_the_same_keys(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    lines = EXAMPLE.replace("[[", "[[tool.preheat.").replace("\n[", "\n[tool.preheat.")
    file.write_text(lines.replace("[tool.preheat.[tool.preheat.", "[[tool.preheat."))
    assert len(read_manifest(file).package) == 4
    file.write_text("[tool.preheat]\noffline = 1\n")
    with pytest.raises(ManifestError, match=r"pyproject\.toml \[tool\.preheat\]: offline: found 1"):
        read_manifest(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"offline = yes\n", "line 1, column 11: not TOML: "),
        (b"\n[[package]\n", "line 2, column 10: not TOML: "),
        (b"a = 1\nb = [1,", "line 2, column 8: not TOML: "),
        (b'a = 1\nb = "\xff"\n', "line 2, column 6: not TOML: not UTF-8"),
        (b"a = " + b"[" * 100_000, "not TOML: "),
        (b"a = " + b"9" * 5000, "not TOML: "),
    ],
)
def test_what_is_not_toml_is_named_by_line_and_column(
    tmp_path: Path, text: bytes, message: str
) -> None:
    file = tmp_path / "preheat.toml"
    file.write_bytes(text)
    with pytest.raises(ManifestError) as caught:
        read_manifest(file)
    assert caught.value.message.startswith(f"{file}: ")
    assert message in caught.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such file"):
        read_manifest(tmp_path / "nowhere.toml")
    with pytest.raises(ManifestError, match="Is a directory"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "it has no table"), ("tool = 1", "it has no table"), ("tool.preheat = 1", "found 1")],
)
def test_a_pyproject_without_the_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text(text)
    with pytest.raises(ManifestError, match=message):
        read_manifest(file)


# What is generated


@pytest.mark.parametrize("path", sorted(schema.generated()))
def test_a_generated_file_is_up_to_date(path: str) -> None:
    made = (ROOT / path).read_text(encoding="utf-8")
    command = "python -m preheat.edges.manifest.schema ."
    assert made == schema.generated()[path], f"run: {command}"


def test_generated_files_are_written_into_a_checkout(tmp_path: Path) -> None:
    schema.write(tmp_path)
    for path, text in schema.generated().items():
        assert (tmp_path / path).read_text(encoding="utf-8") == text


def test_every_key_is_described_with_what_it_allows() -> None:
    page = schema.reference()
    for table in TABLES.values():
        for key, field in fields_of(table).items():
            assert field.description
            assert field.description.endswith(".")
            assert f"| `{key}` | " in page


def test_the_schema_has_defaults_as_they_are_written() -> None:
    made = schema.schema()
    assert made["$defs"]["Space"]["properties"]["keep-free"]["default"] == "500MB"
    assert made["properties"]["retry-after"]["default"] == "6h"
    assert "default" not in made["properties"]["deadline"]
    assert "origin" not in made["properties"]


def test_an_index_is_made_by_field_name_in_python() -> None:
    assert Index(find_links=("wheels",)).find_links == ("wheels",)
