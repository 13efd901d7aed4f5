"""Everything that preheat raises, below one root. What differs for whoever catches it is a class.

    PreheatError                    preheat            exit 1
    ├── ManifestError               manifest                2
    │   └── NoManifest
    ├── RequiredPackageError        required-package        3
    ├── StoreError                  store                   4
    │   └── PackError               pack
    │       └── PackDamaged
    ├── PlatformError               platform                5
    ├── PlatformChangedError        platform-changed        5
    ├── LockError                   lock                    6
    ├── ResolutionError             resolution              7
    │   └── Unreachable
    └── InstallError                install                 8
        ├── ArchiveChanged
        ├── TimedOut
        └── Transient
            ├── DiskFull
            └── Cancelled

A class without a code of its own has that of the one above it: who reads ``error.code`` in
``--json``, or the exit status, need not know it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class PreheatError(Exception):
    """Something a person must know about, in one sentence, with what to do next.

    Attributes:
        code: stable name for scripts (``error.code`` in ``--json``).
        exit_status: what the command line exits with.
        hint: what to do about it; empty where the sentence says it all.
        data: the values the sentence was made of, for people and programs that show it.
    """

    code = "preheat"
    exit_status = 1

    def __init__(self, message: str, *, hint: str = "", **data: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.data: Mapping[str, object] = MappingProxyType(data)

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ManifestError(PreheatError):
    """The manifest, an environment setting or an argument is not what is allowed."""

    code = "manifest"
    exit_status = 2


class NoManifest(ManifestError):
    """No file with a manifest is where one is looked for."""


class RequiredPackageError(PreheatError):
    """A package marked ``required`` could not be made importable."""

    code = "required-package"
    exit_status = 3


class StoreError(PreheatError):
    """The store cannot be read or written: read-only, full, or not a directory."""

    code = "store"
    exit_status = 4


class PackError(StoreError):
    """A packed layer cannot be read, is damaged or cut short, or holds what no layer does."""

    code = "pack"


class PackDamaged(PackError):
    """A packed layer is of no use to anybody, now or later."""


class PlatformError(PreheatError):
    """The platform's interpreter cannot be run, or is one that preheat does not support."""

    code = "platform"
    exit_status = 5


class PlatformChangedError(PreheatError):
    """Files of the platform changed while packages were installed: nothing is published."""

    code = "platform-changed"
    exit_status = 5


class LockError(PreheatError):
    """The lock is missing, unreadable, or made for another manifest or platform."""

    code = "lock"
    exit_status = 6


class ResolutionError(PreheatError):
    """The engine finds no set of versions, or the index cannot be asked."""

    code = "resolution"
    exit_status = 7


class Unreachable(ResolutionError):
    """The index does not answer, or refuses to: nothing is known about what was asked.

    Attributes:
        why: that, in a few words, to be said of each package that it costs.
    """

    def __init__(self, message: str, *, hint: str = "", why: str) -> None:
        super().__init__(message, hint=hint)
        self.why = why


class InstallError(PreheatError):
    """A wheel could not be fetched, checked, unpacked or built.

    Attributes:
        output: what the engine or the package itself said; empty where nothing did.
    """

    code = "install"
    exit_status = 8

    def __init__(self, message: str, *, hint: str = "", output: str = "") -> None:
        super().__init__(message, hint=hint)
        self.output = output


class ArchiveChanged(InstallError):
    """The index serves another archive than the one that was chosen."""


class TimedOut(InstallError):
    """The engine was ended at a deadline, or at the limit of a build."""


class Transient(InstallError):
    """The machine's trouble or the network's, and not the package's: another try may succeed."""


class DiskFull(Transient):
    """A disk, or a quota on it, has no room left."""


class Cancelled(Transient):
    """Nobody waits for it any more."""
