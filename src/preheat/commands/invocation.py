"""What a command was called with, and the manifest and settings that it means by that."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preheat.words.order import Order
    from preheat.words.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Invocation:
    """The options that every command takes.

    Attributes:
        manifest: the file that was named; None where it is to be found.
        store: the store that was named; None where the settings say.
        python: the platform's interpreter.
        offline: True where no index may be asked; None where the settings say.
        settings: those of `--set`, by key.
    """

    manifest: Path | None
    store: Path | None
    python: str
    offline: bool | None
    settings: Mapping[str, object]

    @property
    def command_line(self) -> dict[str, object]:
        """The settings that the command line states; an option of its own wins over `--set`."""
        own = {"store": self.store, "offline": self.offline}
        return {**self.settings, **{k: v for k, v in own.items() if v is not None}}

    def same_place(self, manifest: Path | None) -> tuple[str, ...]:
        """The options with which another command means that manifest, this store and Python."""
        chosen = {"--manifest": manifest, "--store": self.store and self.store.absolute()}
        words = [word for key, value in chosen.items() if value for word in (key, str(value))]
        python = ["--python", self.python] if self.python != sys.executable else []
        return (*words, *python)


def manifest_of(invocation: Invocation) -> Path:
    """The manifest's file; where it is named or plain to see, without the weight of reading it.

    Raises:
        ManifestError: there is none.
    """
    if invocation.manifest is not None:
        return invocation.manifest.absolute()
    own = Path("preheat.toml").absolute()
    if own.exists():
        return own
    from preheat.edges.manifest.file import find_manifest

    return find_manifest(Path.cwd()).absolute()


def known_manifest(invocation: Invocation) -> Path | None:
    """The manifest's file, or None where nobody names one and none is here."""
    from preheat.words.errors import ManifestError, NoManifest

    try:
        return manifest_of(invocation)
    except NoManifest:
        return None
    except ManifestError:
        # There is one, and it cannot be read.
        return Path("pyproject.toml").absolute()


def settings_of(invocation: Invocation) -> Settings:
    """The settings, also where there is no manifest that can be read and none was named.

    Raises:
        ManifestError: the manifest that was named is wrong, or a setting is.
    """
    from preheat.edges.manifest.file import read_manifest, read_settings
    from preheat.words.errors import ManifestError
    from preheat.words.manifest import Manifest

    try:
        manifest = read_manifest(manifest_of(invocation))
    except ManifestError:
        if invocation.manifest is not None:
            raise
        manifest = Manifest()
    return read_settings(manifest, invocation.command_line)


def order_of(
    invocation: Invocation,
    stated: Mapping[str, object] | None = None,
    *,
    retry: bool = False,
    locked: bool = False,
) -> Order:
    """What a startup is asked for: manifest, settings and interpreter.

    Args:
        invocation: what the command was called with.
        stated: more settings of the command line, by key; None states nothing.
        retry: whether what failed before is tried again.
        locked: whether the lock beside the manifest must be used.

    Raises:
        ManifestError: there is no manifest, or it or a setting is wrong.
    """
    from preheat.edges.engine.lock_file import NAME
    from preheat.edges.manifest.file import read_manifest, read_settings
    from preheat.words.order import Order

    file = manifest_of(invocation)
    manifest = read_manifest(file)
    more = {key: value for key, value in (stated or {}).items() if value is not None}
    return Order(
        manifest=manifest,
        settings=read_settings(manifest, {**invocation.command_line, **more}),
        manifest_file=file,
        executable=invocation.python,
        retry=retry,
        lock=file.parent / NAME if locked else None,
    )
