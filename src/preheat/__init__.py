"""preheat makes heavy Python packages importable at a worker's start, around its platform.

import preheat

ready = preheat.warm("preheat.toml")
ready["whisperx"].ok
ready.choose("word-timing")
"""

from __future__ import annotations

from preheat.start import PackageState, Ready, warm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from preheat.compat import check_and_install_package, cleanup_disk_space
    from preheat.words.errors import PreheatError, RequiredPackageError

__all__ = [
    "PackageState",
    "PreheatError",
    "Ready",
    "RequiredPackageError",
    "check_and_install_package",
    "cleanup_disk_space",
    "warm",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Opens what a warm start does not need when it is first asked for (PEP 562)."""
    if name in ("PreheatError", "RequiredPackageError"):
        from preheat.words import errors

        return getattr(errors, name)
    if name in ("check_and_install_package", "cleanup_disk_space"):
        from preheat import compat

        return getattr(compat, name)
    raise AttributeError(f"module 'preheat' has no attribute {name!r}")
