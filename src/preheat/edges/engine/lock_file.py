"""Locks as files: PEP 751, with what preheat adds in the ``tool`` tables that it allows."""

from __future__ import annotations

from pathlib import Path

import tomli_w
from packaging.pylock import Package, Pylock, PylockValidationError
from packaging.utils import canonicalize_name

from preheat.edges.disk.atomic import write_atomically
from preheat.edges.engine.engine import locked_of
from preheat.edges.engine.installation import archive_table
from preheat.edges.manifest.toml import load
from preheat.words.errors import LockError, ResolutionError
from preheat.words.lock import Contents, Lock, Locked

NAME = "pylock.preheat.toml"
"""The lock beside a manifest; PEP 751 gives the spelling."""


def write_lock(lock: Lock, contents: dict[str, Contents], file: Path) -> None:
    """Writes a lock with sizes, hashes, and what each distribution requires and unpacks to.

    Raises:
        StoreError: the file cannot be written.
    """
    packages = []
    for each in lock.distributions:
        inside = contents[each.name]
        entry: dict[str, object] = {"name": each.name, "version": each.version}
        entry |= archive_table(each.archive)
        entry["tool"] = {
            "preheat": {
                "requires": list(inside.requires),
                "installed-size": sum(size for _, size in inside.files),
                "installed-files": len(inside.files),
                "exact": inside.exact,
            }
        }
        packages.append(entry)
    document = {
        "lock-version": "1.0",
        "created-by": "preheat",
        "packages": packages,
        "tool": {
            "preheat": {
                "manifest": lock.manifest,
                "platform": lock.platform,
                "packages": list(lock.packages),
                "refused": dict(lock.refused),
            }
        },
    }
    write_atomically(file, tomli_w.dumps(document).encode())


def read_lock(file: Path) -> Lock:
    """Reads a lock that preheat wrote.

    Raises:
        LockError: it is not there, not PEP 751, or another tool's.
    """
    try:
        document = load(file)
        ours = document["tool"]["preheat"]
        packages = Pylock.from_dict(document).packages
        return Lock(
            distributions=tuple(_locked(package) for package in packages),
            manifest=str(ours["manifest"]),
            platform=str(ours["platform"]),
            packages=tuple(map(str, ours["packages"])),
            refused=tuple(sorted(ours.get("refused", {}).items())),
        )
    except FileNotFoundError:
        raise LockError(f"there is no lock {file}", hint="make it with: preheat lock") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"not a lock of preheat's ({error})"
        raise LockError(f"{file}: {reason}", hint="make it again with: preheat lock") from error
    except (PylockValidationError, ResolutionError) as error:
        raise LockError(f"{file}: {error}", hint="make it again: preheat lock") from error


def _locked(package: Package) -> Locked:
    bare = locked_of(package)
    ours = (package.tool or {}).get("preheat", {})
    requires = ours.get("requires")
    return Locked(
        name=canonicalize_name(bare.name),
        version=bare.version,
        archive=bare.archive,
        requires=None if requires is None else tuple(map(str, requires)),
    )
