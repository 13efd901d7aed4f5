"""The imperative call of older scripts, as a manifest of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tomli_w
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from preheat.decisions.identity import digest
from preheat.edges.disk.atomic import write_atomically
from preheat.edges.manifest.default_store import default_store
from preheat.words.display import redact
from preheat.words.errors import ManifestError
from preheat.words.manifest_parser import parse_manifest
from preheat.words.store import Directory

# Flags of pip that change nothing here: layers are new directories, fetched once.
_WITHOUT_EFFECT = {
    "-q", "--quiet", "-v", "--verbose", "-U", "--upgrade", "--no-cache-dir", "--no-input",
    "--prefer-binary", "--only-binary=:all:", "--disable-pip-version-check", "--no-deps-check",
    "--break-system-packages", "--root-user-action=ignore", "--no-warn-script-location",
}  # fmt: skip
_WITH_VALUE = {
    "--index-url": "url",
    "-i": "url",
    "--extra-index-url": "extra",
    "--find-links": "find-links",
    "-f": "find-links",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call: a package, and the indexes that its flags named."""

    name: str
    requires: tuple[str, ...]
    imports: tuple[str, ...]
    build_isolation: bool
    index: tuple[tuple[str, str], ...] = ()

    def at(self, version: str | None) -> Call:
        """This call with its first requirement pinned to a version; unchanged if there is none."""
        if version is None:
            return self
        first = Requirement(self.requires[0])
        extras = f"[{','.join(sorted(first.extras))}]" if first.extras else ""
        return replace(self, requires=(f"{first.name}{extras}=={version}", *self.requires[1:]))


def read_call(name: str, import_name: str | None, command: Sequence[str]) -> Call:
    """Reads the arguments of ``check_and_install_package``.

    Raises:
        ManifestError: a flag is unknown, or something is neither flag nor requirement.
    """
    requires: list[str] = []
    index: list[tuple[str, str]] = []
    isolation = True
    words = list(_without_installer(command))
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        if word == "--no-build-isolation":
            isolation = False
        elif flag in _WITH_VALUE:
            address = value if equals else words.pop(0) if words else ""
            if redact(address) != address:
                raise ManifestError(
                    f"install_command of {name}: the address after {flag} holds credentials, and "
                    "what is asked for is kept in the store",
                    hint="set PREHEAT_INDEX_URL, or keep the credentials in netrc",
                )
            index.append((_WITH_VALUE[flag], address))
        elif word in _WITHOUT_EFFECT:
            continue
        elif word.startswith("-"):
            raise ManifestError(
                f"install_command of {name}: the flag {word} is not known",
                hint="known: --no-build-isolation, --index-url, --extra-index-url, --find-links",
            )
        else:
            requires.append(word)
    bare = _bare_name(name)
    return Call(
        name=canonicalize_name(bare),
        requires=tuple(requires or [name]),
        imports=(import_name or bare.replace("-", "_"),),
        build_isolation=isolation,
        index=tuple(index),
    )


def write_manifest(calls: Sequence[Call]) -> str:
    """Writes the manifest of those calls into the store, and returns its path.

    Raises:
        ManifestError: a call is not a valid package.
        StoreError: it cannot be written.
    """
    index: dict[str, object] = {}
    for key, value in (pair for call in calls for pair in call.index):
        if key == "url":
            index[key] = value
        else:
            several = index.setdefault(key, [])
            assert isinstance(several, list)  # noqa: S101  # only url is not a list
            several.append(value)
    document: dict[str, object] = {"index": index} if index else {}
    document["package"] = [
        {
            "name": call.name,
            "requires": list(call.requires),
            "imports": list(call.imports),
            "build-isolation": call.build_isolation,
        }
        for call in calls
    ]
    parse_manifest(document, "check_and_install_package")
    named = os.environ.get("PREHEAT_STORE")
    found = default_store(os.environ)
    if not named and found is None:
        raise ManifestError("there is no place for the store", hint="set PREHEAT_STORE")
    store = Path(named) if named else found[0] if found else Path()
    file = Directory.CALLS.under(store.absolute()) / f"{digest(document)[:16]}.toml"
    if not file.is_file():
        write_atomically(file, tomli_w.dumps(document).encode())
    return str(file)


def _without_installer(command: Sequence[str]) -> Sequence[str]:
    """The words after ``pip install``, ``uv pip install`` or ``python -m pip install``."""
    words = list(command)
    if "install" in words and any(word.endswith(("pip", "pip3")) for word in words):
        return words[words.index("install") + 1 :]
    return words


def _bare_name(text: str) -> str:
    try:
        return Requirement(text).name
    except InvalidRequirement:
        return text
