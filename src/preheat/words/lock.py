"""The exact archives that were chosen, and what is inside them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """A wheel or source distribution on an index.

    Attributes:
        url: without credentials.
        sha256: hex digest of the archive.
        size: bytes; None where the index does not say.
    """

    filename: str
    url: str
    sha256: str
    size: int | None

    @property
    def is_wheel(self) -> bool:
        """Whether it installs without building (PEP 427)."""
        return self.filename.endswith(".whl")


@dataclass(frozen=True, kw_only=True, slots=True)
class Locked:
    """One distribution of a lock: a name, a version, the archive that fits this platform."""

    name: str
    version: str
    archive: Archive
    requires: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """Everything to be installed besides the platform, jointly resolved (PEP 751).

    Attributes:
        distributions: sorted by name.
        manifest: digest of what the manifest asked for.
        platform: digest of the platform it was resolved on.
        packages: names of the packages that were asked for.
        refused: package name to the sentence that says why it cannot be had.
    """

    distributions: tuple[Locked, ...]
    manifest: str
    platform: str
    packages: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()

    def find(self, name: str) -> Locked | None:
        """The locked distribution of that canonical name."""
        return next((d for d in self.distributions if d.name == name), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What an archive holds once installed, read from its directory before it is fetched.

    Attributes:
        files: path below site-packages and size in bytes, RECORD included.
        requires: ``Requires-Dist`` of its metadata.
        scripts: names of console and GUI scripts.
        exact: False where it had to be estimated (a source distribution, say).
        escapes: a member whose name leads out of site-packages; such an archive is refused.
    """

    files: tuple[tuple[str, int], ...]
    requires: tuple[str, ...]
    scripts: tuple[str, ...] = ()
    exact: bool = True
    escapes: str = ""
