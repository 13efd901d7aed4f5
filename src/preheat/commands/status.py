"""The settings with where each came from, and whether the next startup is warm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from preheat import pointer
from preheat.commands.invocation import Invocation, manifest_of
from preheat.commands.warm import find_pointer
from preheat.edges.manifest.file import read_manifest, read_settings

_STATED = "settings are stated by --set, which only a cold start looks at"


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """What the next startup goes by.

    Attributes:
        manifest: the manifest's file.
        settings: key, value and source of each, for people.
        why_cold: why it is not warm; empty if it is.
    """

    manifest: Path
    settings: tuple[tuple[str, str, str], ...]
    why_cold: str

    @property
    def unpacks(self) -> bool:
        """Whether all that it lacks to be warm is to unpack."""
        return self.why_cold == pointer.UNPACK


def status(invocation: Invocation) -> Status:
    """What the next startup goes by.

    Raises:
        ManifestError: there is no manifest, or it or a setting is wrong.
        PlatformError: the interpreter cannot be run.
    """
    file = manifest_of(invocation)
    settings = read_settings(read_manifest(file), invocation.command_line)
    _, why_cold = find_pointer(invocation)
    return Status(
        manifest=file,
        settings=settings.rows(),
        why_cold=_STATED if invocation.settings else why_cold,
    )
