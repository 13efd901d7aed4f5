"""What every command of the command line takes, and how each of them ends."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from preheat.commands.invocation import Invocation
from preheat.words.errors import PreheatError
from preheat.words.listener import Listener


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What every command takes: what it is about, and how its answer is shown."""

    invocation: Invocation
    as_json: bool
    verbose: bool


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command, handed over as one value."""

    def wrapped(**given: Any) -> None:
        options = Options(
            invocation=Invocation(
                manifest=given.pop("manifest"),
                store=given.pop("store"),
                python=_executable(given.pop("python")),
                offline=given.pop("offline") or None,
                settings=_settings(given.pop("settings")),
            ),
            as_json=given.pop("as_json"),
            verbose=bool(given.pop("verbose")),
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


def _settings(texts: Sequence[str]) -> dict[str, object]:
    """The settings of ``--set``, by key.

    Raises:
        click.UsageError: one is not written as KEY=VALUE.
    """
    found: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--set {text}: write it as KEY=VALUE")
        found[key.strip()] = value.strip()
    return found


def _executable(text: str) -> str:
    """An interpreter by path or by name; a venv's own link is kept as it is."""
    if os.sep in text:
        return os.path.abspath(text)
    return shutil.which(text) or text


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
