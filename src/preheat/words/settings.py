"""The settings: what holds for a whole start, and where each value came from.

A setting is stated in the manifest, over that in an environment variable, over that on the
command line. Each has one name in three spellings: `space.clean-below` in the manifest,
`PREHEAT_CLEAN_BELOW` in the environment, `--set space.clean-below=2GB` on the command line; store,
offline and deadline have options of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from preheat.words.display import redact
from preheat.words.errors import ManifestError
from preheat.words.frozen_map import FrozenMap
from preheat.words.manifest import Index, Manifest, Space, StatedCuda
from preheat.words.manifest_types import (
    BYTECODE,
    DURATION,
    FLAG,
    LAYER_FORM,
    LIMIT,
    NAME_PATTERN,
    PATH,
    PATH_OR_URL,
    SIZE,
    URL,
    VERSION,
)
from preheat.words.notation import Notation
from preheat.words.problem import Problem, did_you_mean

DefaultPlace = tuple[Path, str]
"""A directory where nobody states one, and what it is: "user cache directory"."""

PREFIX = "PREHEAT_"
NOT_SETTINGS = frozenset({"PREHEAT_MANIFEST", "PREHEAT_PYTHON", "PREHEAT_LOG"})
"""Variables that preheat reads before, or apart from, its settings."""
INTERNAL = "PREHEAT_INTERNAL_"
"""How the variables begin by which preheat talks to its own children."""

OWN_OPTION = frozenset({"store", "offline", "deadline"})
"""Settings that have an option of their own on the command line; `--set` states the others."""

_BOOLEANS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the value of a setting came from.

    Attributes:
        kind: which of the layers stated it.
        name: the file, variable or option; for a default that was found, what it is.
    """

    kind: Literal["default", "manifest", "environment", "command line"]
    name: str = ""

    def __str__(self) -> str:
        if self.kind == "default":
            return self.name or self.kind
        return f"{self.kind} {self.name}".rstrip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One setting: its key in the manifest, how its value is written, whether it has several."""

    key: str
    notation: Notation[Any]
    several: bool = False

    @property
    def variable(self) -> str:
        """Its environment variable."""
        name = self.key.removeprefix("space.").replace(".", "_").replace("-", "_")
        return PREFIX + name.upper()

    @property
    def option(self) -> str:
        """Its option on the command line."""
        return f"--{self.key}" if self.key in OWN_OPTION else f"--set {self.key}"

    @property
    def allowed(self) -> str:
        """The phrase that says what may be stated for it outside of the manifest."""
        several = ", or several with spaces between" if self.several else ""
        return self.notation.allowed + several

    def read(self, stated: object) -> object:
        """Return the value that text, or an already typed value, states.

        Raises:
            ValueError: it is not allowed; the text says why, or is empty.
        """
        if self.several:
            parts = stated.split() if isinstance(stated, str) else stated
            if not isinstance(parts, list | tuple):
                raise ValueError
            return tuple(map(self.notation.read, parts))
        if self.notation is FLAG and isinstance(stated, str):
            stated = _BOOLEANS.get(stated.strip().lower(), stated)
        return self.notation.read(stated)

    def write(self, value: Any) -> str:
        """Return a value for a person to read: without credentials."""
        if value is None or value == ():
            return "none"
        if self.several:
            return redact(" ".join(value))
        written = self.notation.write(value)
        return redact(str(written).lower() if isinstance(written, bool) else str(written))


SETTINGS = (
    Setting(key="store", notation=PATH),
    Setting(key="layers", notation=LAYER_FORM),
    Setting(key="local", notation=PATH),
    Setting(key="image", notation=PATH),
    Setting(key="offline", notation=FLAG),
    Setting(key="compile", notation=BYTECODE),
    Setting(key="space.clean-below", notation=SIZE),
    Setting(key="space.keep-free", notation=SIZE),
    Setting(key="space.clean", notation=PATH, several=True),
    Setting(key="index.url", notation=URL),
    Setting(key="index.extra", notation=URL, several=True),
    Setting(key="index.find-links", notation=PATH_OR_URL, several=True),
    Setting(key="cuda.driver", notation=VERSION),
    Setting(key="cuda.runtime", notation=VERSION),
    Setting(key="cuda.toolkit", notation=PATH),
    Setting(key="cuda.cudnn", notation=VERSION),
    Setting(key="cuda.nccl", notation=VERSION),
    Setting(key="cuda.cxx11-abi", notation=FLAG),
    Setting(key="cuda.compute-capability", notation=VERSION, several=True),
    Setting(key="protected", notation=NAME_PATTERN, several=True),
    Setting(key="retry-after", notation=DURATION),
    Setting(key="import-timeout", notation=LIMIT),
    Setting(key="index-timeout", notation=LIMIT),
    Setting(key="deadline", notation=LIMIT),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Every setting of one start, resolved. The manifest's own fields describe their meaning.

    Attributes:
        store: an absolute path, unless the working directory is unknown.
        local: likewise; None where this machine has no place for it.
        image: likewise; None where nothing was baked into the image.
        retry_after: seconds, as are the timeouts and the deadline.
        sources: by the key in the manifest, where each value came from.
    """

    store: Path
    layers: str
    local: Path | None
    image: Path | None
    offline: bool
    compile: str
    space: Space
    index: Index
    cuda: StatedCuda
    protected: tuple[str, ...]
    retry_after: float
    import_timeout: float
    index_timeout: float
    deadline: float | None
    sources: FrozenMap[str, Source]

    def with_local(self, default: DefaultPlace) -> Settings:
        """These settings with a default place for unpacked layers."""
        place, words = default
        source = Source(kind="default", name=words)
        return dataclasses.replace(
            self, local=place, sources=FrozenMap({**self.sources, "local": source})
        )

    def rows(self) -> tuple[tuple[str, str, str], ...]:
        """Key, value and source of every setting as text for a person: without credentials."""
        return tuple(
            (each.key, each.write(_value_at(self, each.key)), str(self.sources[each.key]))
            for each in SETTINGS
        )


def resolve_settings(
    manifest: Manifest,
    environment: Mapping[str, str],
    command_line: Mapping[str, object],
    default_store: DefaultPlace | None,
    here: Path,
) -> Settings:
    """Return the settings that manifest, environment and command line state together.

    An empty variable states nothing, and so does an argument that is None. The keys of
    `command_line` are the settings' keys, its values text or already typed. Relative
    paths start at `here`, the working directory; those in the manifest at the manifest's own.
    `default_store` is used where nobody states a store.

    Raises:
        ManifestError: one line for each variable or argument that is unknown, or whose value is
            not allowed; or nobody states a store and there is no default.
    """
    problems = [*_unknown_variables(environment), *_unknown_arguments(command_line)]
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for setting in SETTINGS:
        key = setting.key
        values[key], sources[key] = _in_manifest(setting, manifest)
        for stated, source in _outside(setting, environment, command_line):
            value = _read(setting, stated, source)
            if isinstance(value, Problem):
                problems.append(value)
            else:
                values[key], sources[key] = value, source
    if problems:
        raise _refusal(problems)

    def placed(key: str, text: str) -> Path:
        return _path(text, _base(sources[key], manifest, here), environment)

    _complete_paths(values, placed)
    if values["store"] is None:
        if default_store is None:
            raise _refusal([Problem(where="store", found="nothing", allowed=PATH.allowed)])
        values["store"], words = default_store
        sources["store"] = Source(kind="default", name=words)
    problems = [*_not_on_a_path(values, sources)]
    if problems:
        raise _refusal(problems)
    return _settings(values, sources)


def _not_on_a_path(values: Mapping[str, Any], sources: Mapping[str, Source]) -> Iterator[Problem]:
    """Places of layers that PYTHONPATH and the file of a bootstrap, line by line, cannot hold."""
    for key in ("store", "local", "image"):
        place = str(values[key] or "")
        if ":" in place or "\n" in place or "\r" in place:
            yield Problem(
                where=f"{key} ({sources[key]})",
                found=repr(place),
                allowed="a path without colons and line breaks, which PYTHONPATH cannot hold",
            )


def _complete_paths(values: dict[str, Any], placed: Callable[[str, str], Path]) -> None:
    """Makes every stated path absolute; `placed` does it for one, by its setting's key."""
    for key in ("store", "local", "image"):
        if values[key] is not None:
            values[key] = placed(key, values[key])
    if values["cuda.toolkit"] is not None:
        values["cuda.toolkit"] = str(placed("cuda.toolkit", values["cuda.toolkit"]))
    values["index.find-links"] = tuple(
        link if "://" in link else str(placed("index.find-links", link))
        for link in values["index.find-links"]
    )


def _read(setting: Setting, stated: object, source: Source) -> object | Problem:
    try:
        return setting.read(stated)
    except ValueError as error:
        refused = setting.notation.problem(str(source), stated, error)
        return dataclasses.replace(refused, allowed=setting.allowed)


def _settings(values: Mapping[str, Any], sources: Mapping[str, Source]) -> Settings:
    plain = {key.replace("-", "_"): value for key, value in values.items() if "." not in key}
    return Settings(
        **plain,
        space=Space(**_table("space", values)),
        index=Index(**_table("index", values)),
        cuda=StatedCuda(**_table("cuda", values)),
        sources=FrozenMap(sources),
    )


def _table(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    keys = [key for key in values if key.startswith(f"{name}.")]
    return {key.partition(".")[2].replace("-", "_"): values[key] for key in keys}


def _value_at(holder: object, key: str) -> object:
    return reduce(getattr, key.replace("-", "_").split("."), holder)


def _in_manifest(setting: Setting, manifest: Manifest) -> tuple[object, Source]:
    value = _value_at(manifest, setting.key)
    # A manifest that was made in Python has no origin: there, what differs was stated.
    if setting.key in manifest.origin.stated or value != _value_at(Manifest(), setting.key):
        return value, Source(kind="manifest", name=manifest.origin.source)
    return value, Source(kind="default")


def _outside(
    setting: Setting, environment: Mapping[str, str], command_line: Mapping[str, object]
) -> Iterator[tuple[object, Source]]:
    if text := environment.get(setting.variable, "").strip():
        yield text, Source(kind="environment", name=setting.variable)
    argument = command_line.get(setting.key)
    if argument is not None:
        stated = str(argument) if isinstance(argument, Path) else argument
        yield stated, Source(kind="command line", name=setting.option)


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[Problem]:
    known = [setting.variable for setting in SETTINGS] + sorted(NOT_SETTINGS)
    for variable in sorted(environment):
        ours = variable.startswith(PREFIX) and not variable.startswith(INTERNAL)
        if ours and variable not in known:
            yield _unknown(f"environment {variable}", "variable", variable, known)


def _unknown_arguments(command_line: Mapping[str, object]) -> Iterator[Problem]:
    known = [setting.key for setting in SETTINGS]
    for argument in command_line:
        if argument not in known:
            yield _unknown(f"command line --set {argument}", "setting", argument, known)


def _unknown(where: str, kind: str, word: str, known: list[str]) -> Problem:
    return Problem(
        where=where,
        found=f"an unknown {kind}",
        allowed=", ".join(known),
        suggestion=did_you_mean(word, known),
    )


def _base(source: Source, manifest: Manifest, here: Path) -> Path:
    return here / manifest.origin.directory if source.kind == "manifest" else here


def _path(text: str, base: Path, environment: Mapping[str, str]) -> Path:
    home = environment.get("HOME")
    if home and (text == "~" or text.startswith("~/")):
        text = home + text[1:]
    return base / text


def _refusal(problems: list[Problem]) -> ManifestError:
    return ManifestError(
        "\n".join(map(str, problems)),
        hint="settings come from the manifest, then PREHEAT_* variables, then the command line",
        problems=tuple(map(dataclasses.asdict, problems)),
    )
