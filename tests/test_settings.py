from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from preheat.edges.manifest import schema
from preheat.edges.manifest.default_store import default_store
from preheat.edges.manifest.file import read_settings
from preheat.words.errors import ManifestError
from preheat.words.manifest import Manifest, Space, StatedCuda
from preheat.words.manifest_parser import TABLES, fields_of, parse_manifest
from preheat.words.settings import SETTINGS, Setting, Settings, Source, resolve_settings

HERE = Path("/here")
CACHE = (Path("/home/someone/.cache/preheat"), "user cache directory")


def resolve(
    manifest: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    command_line: Mapping[str, object] | None = None,
) -> Settings:
    parsed = parse_manifest(manifest or {}, "preheat.toml", directory="project")
    return resolve_settings(parsed, environment or {}, command_line or {}, CACHE, HERE)


def refused(environment: Mapping[str, str], **command_line: object) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        resolve({}, environment, command_line)
    assert caught.value.exit_status == 2
    return caught.value.message.splitlines()


def test_every_scalar_key_of_the_manifest_is_a_setting() -> None:
    def keys(path: tuple[str, ...]) -> set[str]:
        return {".".join((*path, key)) for key in fields_of(TABLES[path])}

    tables = {"package", "capabilities", "space", "index", "cuda"}
    scalars = (keys(()) - tables) | keys(("space",)) | keys(("index",)) | keys(("cuda",))
    assert {setting.key for setting in SETTINGS} == scalars


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_a_setting_is_written_as_the_manifest_writes_it(setting: Setting) -> None:
    *table, key = setting.key.split(".")
    made = schema.schema()
    described = (made["$defs"][TABLES[tuple(table)].__name__] if table else made)["properties"][key]
    written = described["items"] if setting.several else described
    assert setting.notation.json_schema.items() <= written.items()


def test_a_setting_has_one_name_in_three_spellings() -> None:
    spelled = {setting.key: (setting.variable, setting.option) for setting in SETTINGS}
    assert spelled["store"] == ("PREHEAT_STORE", "--store")
    assert spelled["space.clean-below"] == ("PREHEAT_CLEAN_BELOW", "--set space.clean-below")
    assert spelled["index.find-links"] == (
        "PREHEAT_INDEX_FIND_LINKS",
        "--set index.find-links",
    )


def test_defaults_say_that_they_are() -> None:
    settings = resolve()
    assert settings.store == CACHE[0]
    assert str(settings.sources["store"]) == "user cache directory"
    assert str(settings.sources["offline"]) == "default"
    assert settings.space == Space()
    assert settings.deadline is None


def test_the_manifest_is_named() -> None:
    settings = resolve({"offline": True, "space": {"keep-free": "500MB"}})
    assert settings.offline
    assert str(settings.sources["offline"]) == "manifest preheat.toml"
    assert str(settings.sources["space.keep-free"]) == "manifest preheat.toml"
    assert str(settings.sources["space.clean-below"]) == "default"


def test_a_manifest_made_in_python_is_a_source_too() -> None:
    settings = resolve_settings(Manifest(offline=True), {}, {}, CACHE, HERE)
    assert settings.sources["offline"] == Source(kind="manifest")
    assert str(settings.sources["offline"]) == "manifest"


def test_the_environment_wins_over_the_manifest_and_the_command_line_over_both() -> None:
    manifest = {"deadline": "1m", "retry-after": "1h", "import-timeout": "10s"}
    environment = {"PREHEAT_DEADLINE": "2m", "PREHEAT_RETRY_AFTER": "2h"}
    settings = resolve(manifest, environment, {"deadline": 180.0, "offline": None})
    assert (settings.deadline, str(settings.sources["deadline"])) == (
        180,
        "command line --deadline",
    )
    assert settings.retry_after == 7200
    assert str(settings.sources["retry-after"]) == "environment PREHEAT_RETRY_AFTER"
    assert settings.import_timeout == 10


def test_every_setting_has_a_variable() -> None:
    environment = {
        "PREHEAT_STORE": "/volume",
        "PREHEAT_LAYERS": "packed",
        "PREHEAT_LOCAL": "/scratch",
        "PREHEAT_IMAGE": "/opt/image",
        "PREHEAT_OFFLINE": "1",
        "PREHEAT_COMPILE": "none",
        "PREHEAT_CLEAN_BELOW": "2 GiB",
        "PREHEAT_KEEP_FREE": "1000",
        "PREHEAT_CLEAN": "/scratch /models/tmp",
        "PREHEAT_INDEX_URL": "https://index/simple",
        "PREHEAT_INDEX_EXTRA": "https://a/ https://b/",
        "PREHEAT_INDEX_FIND_LINKS": "/wheels https://c/",
        "PREHEAT_CUDA_DRIVER": "580.95",
        "PREHEAT_CUDA_RUNTIME": "13.0",
        "PREHEAT_CUDA_TOOLKIT": "cuda-13.0",
        "PREHEAT_CUDA_CUDNN": "9.19",
        "PREHEAT_CUDA_NCCL": "2.28",
        "PREHEAT_CUDA_CXX11_ABI": "no",
        "PREHEAT_CUDA_COMPUTE_CAPABILITY": "8.0 9.0",
        "PREHEAT_PROTECTED": "Torch jax*",
        "PREHEAT_RETRY_AFTER": "1d",
        "PREHEAT_IMPORT_TIMEOUT": "60",
        "PREHEAT_INDEX_TIMEOUT": "5s",
        "PREHEAT_DEADLINE": "1.5m",
    }
    settings = resolve({}, environment)
    assert settings.store == Path("/volume")
    assert settings.image == Path("/opt/image")
    assert (settings.offline, settings.compile) == (True, "none")
    assert settings.space == Space(
        clean_below=2**31, keep_free=1000, clean=("/scratch", "/models/tmp")
    )
    assert settings.index.url == "https://index/simple"
    assert settings.index.extra == ("https://a/", "https://b/")
    assert settings.index.find_links == ("/wheels", "https://c/")
    assert settings.cuda == StatedCuda(
        driver="580.95",
        runtime="13.0",
        toolkit="/here/cuda-13.0",
        cudnn="9.19",
        nccl="2.28",
        cxx11_abi=False,
        compute_capability=("8.0", "9.0"),
    )
    assert settings.protected == ("torch", "jax*")
    assert (settings.retry_after, settings.deadline) == (86400, 90)
    assert (settings.import_timeout, settings.index_timeout) == (60, 5)
    assert {source.name for source in settings.sources.values()} == set(environment)


def test_an_empty_variable_states_nothing() -> None:
    assert str(resolve({}, {"PREHEAT_STORE": " "}).sources["store"]) == "user cache directory"


@pytest.mark.parametrize(
    ("key", "value", "option"),
    [
        ("offline", True, "--offline"),
        ("compile", "all", "--set compile"),
        ("store", Path("/volume"), "--store"),
        ("index.extra", ("https://a/",), "--set index.extra"),
        ("space.keep-free", "1GB", "--set space.keep-free"),
    ],
)
def test_the_command_line_gives_text_or_values(key: str, value: object, option: str) -> None:
    settings = resolve({}, {}, {key: value})
    assert f"command line {option}" in map(str, settings.sources.values())


def test_a_bad_variable_is_named_with_what_is_allowed() -> None:
    assert refused({"PREHEAT_CLEAN_BELOW": "lots", "PREHEAT_OFFLINE": "maybe"}) == [
        'environment PREHEAT_OFFLINE: found "maybe"; allowed: true or false',
        'environment PREHEAT_CLEAN_BELOW: found "lots"; allowed: a size such as "500MB", '
        '"1.5 GB" or "2GiB", or a number of bytes',
    ]


def test_a_bad_argument_is_named_as_the_option() -> None:
    (line,) = refused({}, deadline="soon")
    assert line.startswith('command line --deadline: found "soon"; allowed: a duration')
    (line,) = refused({}, **{"index.extra": 3})
    assert line.endswith("or several with spaces between")


def test_a_mistyped_variable_gets_the_nearest_one() -> None:
    (line,) = refused({"PREHEAT_STROE": "/x"})
    assert line.startswith("environment PREHEAT_STROE: found an unknown variable; allowed: ")
    assert line.endswith('did you mean "PREHEAT_STORE"?')
    (line,) = refused({}, stroe="/x")
    assert line.endswith('did you mean "store"?')


@pytest.mark.parametrize(
    "variable",
    [
        "PREHEAT_MANIFEST",
        "PREHEAT_PYTHON",
        "PREHEAT_LOG",
        "PREHEAT_INTERNAL_X",
        "PATH",
        "preheat_x",
    ],
)
def test_other_variables_are_not_ours_to_judge(variable: str) -> None:
    assert resolve({}, {variable: "x"}) == resolve()


def test_relative_paths_start_where_they_were_written() -> None:
    stated = {"store": "layers", "index": {"find-links": ["wheels", "https://c/"]}}
    settings = resolve(stated)
    assert settings.store == Path("/here/project/layers")
    assert settings.index.find_links == ("/here/project/wheels", "https://c/")
    environment = {"PREHEAT_STORE": "layers", "PREHEAT_INDEX_FIND_LINKS": "wheels"}
    settings = resolve(stated, environment)
    assert settings.store == Path("/here/layers")
    assert settings.index.find_links == ("/here/wheels",)


def test_a_tilde_is_the_home_directory() -> None:
    assert resolve({"store": "~/x"}, {"HOME": "/user"}).store == Path("/user/x")
    assert resolve({"store": "~"}, {"HOME": "/user"}).store == Path("/user")


def test_without_any_place_for_the_store_one_must_be_stated() -> None:
    with pytest.raises(ManifestError, match="store: found nothing"):
        resolve_settings(Manifest(), {}, {}, None, HERE)
    assert resolve_settings(Manifest(), {}, {"store": "/x"}, None, HERE).store == Path("/x")


def test_rows_show_values_as_they_are_written_and_no_credentials() -> None:
    environment = {
        "PREHEAT_INDEX_URL": "https://user:secret@host/simple",
        "PREHEAT_INDEX_EXTRA": "https://user:secret@a/ https://b/",
    }
    settings = resolve({"space": {"keep-free": "2GiB"}}, environment)
    rows = {key: (value, source) for key, value, source in settings.rows()}
    assert list(rows) == [setting.key for setting in SETTINGS]
    assert rows["index.url"] == ("https://***@host/simple", "environment PREHEAT_INDEX_URL")
    assert rows["index.extra"][0] == "https://***@a/ https://b/"
    assert rows["space.keep-free"] == ("2GiB", "manifest preheat.toml")
    assert rows["offline"] == ("false", "default")
    assert rows["deadline"] == ("none", "default")
    assert rows["retry-after"] == ("6h", "default")
    assert rows["store"] == (str(CACHE[0]), "user cache directory")
    assert "secret" not in repr(settings)


def test_no_error_shows_credentials() -> None:
    lines = refused({"PREHEAT_INDEX_URL": "htp://user:secret@host"})
    assert "secret" not in "\n".join(lines)


# Where layers are kept by default


def test_a_serverless_workers_volume_is_the_default_store(tmp_path: Path) -> None:
    volume = tmp_path / "runpod-volume"
    environ = {"RUNPOD_ENDPOINT_ID": "x", "HOME": "/user"}
    assert default_store(environ, tmp_path) == (Path("/user/.cache/preheat"), CACHE[1])
    volume.mkdir()
    assert default_store(environ, tmp_path) == (volume / "preheat", f"network volume {volume}")
    assert default_store({"HOME": "/user"}, tmp_path) == (Path("/user/.cache/preheat"), CACHE[1])


def test_a_mounted_volume_counts_without_the_platforms_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = tmp_path / "runpod-volume"
    volume.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == volume)
    assert default_store({}, tmp_path) == (volume / "preheat", f"network volume {volume}")


@pytest.mark.parametrize("beside", [(), ("preheat",)])
def test_runpods_cached_models_alone_are_no_network_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: tuple[str, ...]
) -> None:
    """They are mounted below a directory of the container's own disk."""
    volume = tmp_path / "runpod-volume"
    for name in ("huggingface-cache/hub", *beside):
        (volume / name).mkdir(parents=True)
    environ = {"RUNPOD_ENDPOINT_ID": "x", "HOME": "/user"}
    assert default_store(environ, tmp_path) == (Path("/user/.cache/preheat"), CACHE[1])
    monkeypatch.setattr(os.path, "ismount", lambda path: path == volume)
    assert default_store(environ, tmp_path) == (volume / "preheat", f"network volume {volume}")


def test_a_volume_that_has_more_than_cached_models_counts(tmp_path: Path) -> None:
    volume = tmp_path / "runpod-volume"
    for name in ("huggingface-cache/hub", "models"):
        (volume / name).mkdir(parents=True)
    environ = {"RUNPOD_ENDPOINT_ID": "x", "HOME": "/user"}
    assert default_store(environ, tmp_path) == (volume / "preheat", f"network volume {volume}")


def test_a_workspace_counts_only_mounted_and_in_a_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    environ = {"RUNPOD_POD_ID": "x", "XDG_CACHE_HOME": "/cache"}
    assert default_store(environ, tmp_path) == (Path("/cache/preheat"), CACHE[1])
    monkeypatch.setattr(os.path, "ismount", lambda path: path == workspace)
    assert default_store(environ, tmp_path) == (
        workspace / "preheat",
        f"network volume {workspace}",
    )
    assert default_store({"HOME": "/user"}, tmp_path) == (Path("/user/.cache/preheat"), CACHE[1])


def test_a_relative_cache_directory_is_ignored(tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": "cache", "HOME": "/user"}
    assert default_store(environ, tmp_path) == (Path("/user/.cache/preheat"), CACHE[1])


def test_without_a_home_there_is_no_default_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert default_store({}, tmp_path) is None


def test_the_process_is_asked_for_what_is_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREHEAT_STORE", "layers")
    assert read_settings(Manifest(), {}).store == tmp_path / "layers"


@pytest.mark.parametrize("place", ["/mnt/pvc:1/store", "/mnt/two\nlines", "/mnt/return\rs"])
@pytest.mark.parametrize("variable", ["PREHEAT_STORE", "PREHEAT_LOCAL", "PREHEAT_IMAGE"])
def test_a_place_of_layers_that_pythonpath_cannot_hold_is_refused(
    variable: str, place: str
) -> None:
    (line,) = refused({variable: place})
    assert "colons and line breaks" in line
    assert variable in line
