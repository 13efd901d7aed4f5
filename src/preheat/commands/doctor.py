"""Looks at a whole container and says what is wrong with it, whatever is broken."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import uv

from preheat.commands.invocation import Invocation, known_manifest
from preheat.decisions.cuda import overridden
from preheat.decisions.health.diagnosis import diagnose
from preheat.decisions.health.store import PARTS
from preheat.edges.disk.volumes import read_volumes
from preheat.edges.manifest.file import read_manifest, read_settings
from preheat.edges.platform import duplicates
from preheat.edges.platform.cuda import read_cuda
from preheat.edges.platform.probe import probe
from preheat.edges.platform.system_libraries import system_libraries
from preheat.edges.store.layer_files import layer_files, pack_files
from preheat.edges.store.open import open_store
from preheat.edges.store.self_test import try_store
from preheat.edges.store.store import Store
from preheat.words.diagnosis import Finding
from preheat.words.display import redact
from preheat.words.errors import ManifestError, PlatformError
from preheat.words.examination import (
    Examination,
    Installed,
    LayerFiles,
    StoreState,
    Tools,
    Trial,
    Unexamined,
)
from preheat.words.manifest import Manifest, StatedCuda
from preheat.words.platform import Interpreter, Platform, Volume
from preheat.words.settings import Settings

_Seen = TypeVar("_Seen")
_OWN = "PREHEAT_"


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is looked at.

    Attributes:
        manifest: its file; None where there is none, which is no fault.
        executable: the platform's interpreter.
        command_line: settings that were stated there.
        options: what a command of preheat's own must be given to mean the same.
    """

    manifest: Path | None
    executable: str
    command_line: Mapping[str, object]
    options: tuple[str, ...] = ()


class Doctor:
    """Looks at one container, once."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._unexamined: list[Unexamined] = []

    def examine(self) -> Examination:
        """Everything that can be seen; what breaks on the way is a fact as well.

        Raises:
            ManifestError: the command line itself states what is no setting.
        """
        manifest, settings, manifest_error = self._settings()
        temp_error = _temp_error()
        platform, interpreter_error = self._platform(settings)
        path = platform.interpreter.path if platform else ()
        none: tuple[Installed, ...] = ()
        installed = self._look("the distributions", lambda: duplicates.copies(path), none)
        seen = Examination(
            tools=self._tools(platform, settings),
            manifest_error=manifest_error,
            interpreter_error=interpreter_error if not temp_error else "",
            temp_error=temp_error,
            platform=platform,
            installed=installed,
            twins=self._look("the site directories", lambda: duplicates.twins(path), ()),
            companions=self._look(
                "torch's companions", lambda: duplicates.companions(installed), ()
            ),
            libraries=self._look(
                "the system's libraries", lambda: system_libraries(installed, os.environ), ()
            ),
            library_path=os.environ.get("LD_LIBRARY_PATH", ""),
        )
        if settings is not None:
            seen = replace(seen, store=self._store(manifest, settings, seen))
        return replace(seen, unexamined=tuple(self._unexamined))

    def _settings(self) -> tuple[Manifest, Settings | None, str]:
        """The manifest and its settings, or the defaults and what is wrong."""
        subject, manifest, wrong = self._subject, Manifest(), ""
        if subject.manifest is not None:
            try:
                manifest = read_manifest(subject.manifest)
            except ManifestError as error:
                wrong = error.message
        outside = {k: v for k, v in os.environ.items() if not k.startswith(_OWN)}
        for stated, environment in ((manifest, None), (Manifest(), None), (Manifest(), outside)):
            try:
                return manifest, read_settings(stated, subject.command_line, environment), wrong
            except ManifestError as error:
                wrong = wrong or error.message
        # Only the command line is left to blame, or that there is no place for a store at all.
        read_settings(Manifest(), {**subject.command_line, "store": "/"}, outside)
        return manifest, None, wrong

    def _platform(self, settings: Settings | None) -> tuple[Platform | None, str]:
        try:
            platform = self._look("the platform", lambda: probe(self._subject.executable), None)
        except PlatformError as error:
            return None, error.message
        if platform is None:
            return None, ""
        stated = settings.cuda if settings else StatedCuda()
        read = self._look(
            "CUDA", lambda: read_cuda(platform, os.environ, stated.toolkit), platform.cuda
        )
        sources = settings.sources if settings else {}
        return replace(platform, cuda=overridden(read, stated, sources)), ""

    def _store(self, manifest: Manifest, settings: Settings, seen: Examination) -> StoreState:
        store = self._look(
            "the form of the layers", lambda: open_store(settings), Store(settings.store)
        )
        unreadable = Trial(place=str(store.root), mount=os.sep, error=errno.EIO)
        trial = self._look("the store", lambda: try_store(store.root), unreadable)
        places: dict[str, str | os.PathLike[str]] = {"store": store.root}
        places |= {part: store.local / part for part in PARTS}
        if not seen.temp_error:
            places["temp"] = tempfile.gettempdir()
        interpreter = seen.platform.interpreter if seen.platform else None
        none: tuple[LayerFiles, ...] = ()
        layers = self._look("the layers", lambda: layer_files(store, interpreter), none)
        nothing: dict[str, Volume] = {}
        return StoreState(
            root=str(store.root),
            local=str(store.local),
            trial=trial,
            volumes=self._look(
                "the volumes", lambda: {v.role: v for v in read_volumes(places)}, nothing
            ),
            clean_below=settings.space.clean_below,
            keep_free=settings.space.keep_free,
            linked=tuple(part for part in PARTS if os.path.islink(store.local / part)),
            builds=sum(package.may_build for package in manifest.package),
            layers=layers,
            packs=self._look("the packed layers", lambda: pack_files(store), none),
            copies=self._look(
                "copies in the layers", lambda: duplicates.several(seen.installed, layers), ()
            ),
        )

    def _tools(self, platform: Platform | None, settings: Settings | None) -> Tools:
        index = (settings.index.url if settings else None) or ""
        return Tools(
            python=self._subject.executable,
            prefix=platform.interpreter.prefix if platform else "",
            pip=platform is not None and platform.find("pip") is not None,
            managed=platform is not None and _managed(platform.interpreter),
            uv=self._look("the engine", uv.find_uv_bin, "uv"),
            index=index if redact(index) == index else "",
            options=self._subject.options,
        )

    def _look(self, part: str, look: Callable[[], _Seen], otherwise: _Seen) -> _Seen:
        """What a look shows; where it breaks, that is told instead of ending everything."""
        try:
            return look()
        except PlatformError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever is broken may break the look at it
            reason = f"{type(error).__name__}: {error}"
            self._unexamined.append(Unexamined(part=part, reason=reason))
            return otherwise


def examine(invocation: Invocation) -> tuple[Examination, tuple[Finding, ...]]:
    """What was seen, and what is wrong, the worst first.

    Raises:
        ManifestError: the command line states what is no setting.
    """
    file = known_manifest(invocation)
    subject = Subject(
        manifest=file,
        executable=invocation.python,
        command_line=invocation.command_line,
        options=invocation.same_place(file),
    )
    seen = Doctor(subject).examine()
    return seen, diagnose(seen)


def _managed(interpreter: Interpreter) -> bool:
    """PEP 668: the marker beside the standard library; a venv is never managed."""
    if os.path.exists(os.path.join(interpreter.prefix, "pyvenv.cfg")):
        return False
    return any(
        os.path.exists(os.path.join(entry, "EXTERNALLY-MANAGED")) for entry in interpreter.path
    )


def _temp_error() -> str:
    """Why there is no temporary directory; empty where there is one."""
    try:
        tempfile.gettempdir()
    except OSError as error:
        # The interpreter is asked in that directory: any will do.
        tempfile.tempdir = os.sep
        return error.strerror or str(error)
    return ""
