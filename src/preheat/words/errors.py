"""The one exception root. Each error has a stable code, an exit status, data and a hint."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class PreheatError(Exception):
    """Something a person must know about, in one sentence, with what to do next.

    Attributes:
        code: stable name for scripts (``error.code`` in ``--json``).
        exit_status: what the command line exits with.
        hint: what to do about it; empty where the sentence says it all.
        data: the values the sentence was made of.
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


class RequiredPackageError(PreheatError):
    """A package marked ``required`` could not be made importable."""

    code = "required-package"
    exit_status = 3


class StoreError(PreheatError):
    """The store cannot be read or written: read-only, full, or not a directory."""

    code = "store"
    exit_status = 4


class PackError(StoreError):
    """A packed layer is damaged or cut short, or holds what no layer does."""

    code = "pack"


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


class InstallError(PreheatError):
    """A wheel could not be fetched, checked, unpacked or built."""

    code = "install"
    exit_status = 8
