"""What every command of the command line takes, and how each of them ends."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from preheat.words.errors import PreheatError
from preheat.words.listener import Listener

if TYPE_CHECKING:
    from preheat.words.order import Order
    from preheat.words.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What every command takes."""

    manifest: Path | None
    store: Path | None
    python: str
    as_json: bool
    offline: bool | None
    verbose: int
    settings: tuple[str, ...]


def common(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command, handed over as one value."""

    def wrapped(**given: Any) -> None:
        options = Options(
            manifest=given.pop("manifest"),
            store=given.pop("store"),
            python=_executable(given.pop("python")),
            as_json=given.pop("as_json"),
            offline=given.pop("offline") or None,
            verbose=given.pop("verbose"),
            settings=given.pop("settings"),
        )
        _guarded(options, lambda: command(options, **given))

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    for parameter in reversed(_PARAMETERS):
        wrapped = parameter(wrapped)
    return wrapped


class _Named(click.Path):
    """A path that says something: an unset variable in a script is no place."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        """The path.

        Raises:
            click.BadParameter: it is empty.
        """
        if not os.fspath(value):
            self.fail("it is empty", param, ctx)
        return super().convert(value, param, ctx)


_FILE = _Named(path_type=Path)
_PARAMETERS = (
    click.option("--manifest", type=_FILE, envvar="PREHEAT_MANIFEST", help="The manifest's file."),
    click.option("--store", type=_FILE, help="Where layers are kept."),
    click.option(
        "--python",
        default=sys.executable,
        envvar="PREHEAT_PYTHON",
        help="The platform's interpreter; by default the running one.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print data for programs."),
    click.option("--offline", is_flag=True, help="Ask no index."),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Any setting of the manifest: --set space.keep-free=2GB. Makes the start a cold one.",
    ),
    click.option("-v", "--verbose", count=True, help="Show tracebacks and the solver's words."),
)


def _guarded(options: Options, work: Callable[[], None]) -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        # It was removed under us: paths from it lead nowhere, and all others still count.
        os.chdir("/")
    try:
        work()
    except PreheatError as error:
        if options.as_json:
            about = {"code": error.code, "message": error.message, "hint": error.hint}
            print_json({"error": about})
        _stop(f"preheat: {error.message}" + (f"\n  {error.hint}" if error.hint else ""), error)
    except KeyboardInterrupt:
        click.echo("preheat: interrupted; nothing half-made is left", err=True)
        sys.exit(130)


def _stop(text: str, error: PreheatError) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(error.exit_status)


def order_of(
    options: Options, extra: Mapping[str, object], *, locked: str | None, retry: bool = False
) -> Order:
    """What one start is asked for: manifest, settings and interpreter.

    Raises:
        ManifestError: there is no manifest, or it or a setting is wrong.
    """
    from preheat.edges.manifest.file import read_manifest, read_settings
    from preheat.words.order import Order

    file = manifest_of(options)
    manifest = read_manifest(file)
    return Order(
        manifest=manifest,
        settings=read_settings(manifest, stated(options, extra)),
        manifest_file=file,
        executable=options.python,
        retry=retry,
        lock=file.parent / locked if locked else None,
    )


def stated(options: Options, extra: Mapping[str, object]) -> dict[str, object]:
    """The settings of the command line by key; ``--set`` gives way to an option of its own."""
    found: dict[str, object] = {}
    for text in options.settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--set {text}: write it as KEY=VALUE")
        found[key.strip()] = value.strip()
    own = {"store": options.store, "offline": options.offline, **extra}
    return {**found, **{key: value for key, value in own.items() if value is not None}}


def _executable(text: str) -> str:
    """An interpreter by path or by name; a venv's own link is kept as it is."""
    if os.sep in text:
        return os.path.abspath(text)
    return shutil.which(text) or text


def manifest_of(options: Options) -> Path:
    """The manifest's file; where it is named or plain to see, without the weight of reading it."""
    if options.manifest is not None:
        return options.manifest.absolute()
    own = Path("preheat.toml").absolute()
    if own.exists():
        return own
    from preheat.edges.manifest.file import find_manifest

    return find_manifest(Path.cwd()).absolute()


def known_manifest(options: Options) -> Path | None:
    """The manifest's file, or None where nobody names one and none is here."""
    from preheat.words.errors import ManifestError

    try:
        return manifest_of(options)
    except ManifestError as error:
        # Without places that were looked at, there is one that cannot be read.
        return None if "places" in error.data else Path("pyproject.toml").absolute()


def same_place(options: Options, manifest: Path | None) -> tuple[str, ...]:
    """The options with which another command means the same manifest, store and interpreter."""
    chosen = {"--manifest": manifest, "--store": options.store and options.store.absolute()}
    words = [word for key, value in chosen.items() if value for word in (key, str(value))]
    return (*words, "--python", options.python) if options.python != sys.executable else (*words,)


def settings_of(options: Options) -> Settings:
    """The settings, also where there is no manifest: cleaning must always be possible."""
    from preheat.edges.manifest.file import read_manifest, read_settings
    from preheat.words.errors import ManifestError
    from preheat.words.manifest import Manifest

    try:
        manifest = read_manifest(manifest_of(options))
    except ManifestError:
        if options.manifest is not None:
            raise
        manifest = Manifest()
    return read_settings(manifest, stated(options, {}))


def size_of(text: str) -> int:
    """Bytes of a size such as ``3GB``."""
    from preheat.words.quantities import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise click.BadParameter(f"{text}: a size such as 3GB is allowed") from error


def check_deadline(text: str | None) -> None:
    """A wrong deadline is wrong in a warm start too, which has no use for it.

    Raises:
        click.BadParameter: it is no duration.
    """
    if text is None:
        return
    from preheat.words.manifest_types import LIMIT

    try:
        LIMIT.read(text)
    except ValueError as error:
        raise click.BadParameter(f"{text}: {LIMIT.allowed}", param_hint="--deadline") from error


def listening() -> AbstractContextManager[Listener]:
    """Who is told of progress, as PREHEAT_LOG says."""
    from preheat.cli.progress import listener

    return listener(os.environ)


def print_json(document: object) -> None:
    """Prints data for programs."""
    click.echo(json.dumps(document, indent=1))
