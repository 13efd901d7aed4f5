"""Frees what the store and known caches can give up; works whatever else is broken."""

from __future__ import annotations

from dataclasses import dataclass

from preheat.commands.invocation import Invocation, settings_of
from preheat.edges.cleaning.cleaner import Cleaner
from preheat.edges.platform.probe import ask_interpreter
from preheat.edges.store.open import open_store
from preheat.words.cleaning import Estimate, Freed
from preheat.words.errors import PlatformError, StoreError


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """How much must be free: bytes, and as a person wrote it."""

    bytes: int
    written: str


def survey(invocation: Invocation, wanted: Wanted | None) -> tuple[Estimate, ...]:
    """What `clean` would free, the cheapest loss first; nothing is freed.

    Raises:
        ManifestError: the manifest that was named is wrong, or a setting is.
        StoreError: a disk does not answer.
    """
    cleaner = _cleaner(invocation)
    return cleaner.survey_for(wanted.bytes) if wanted else cleaner.survey()


def clean(invocation: Invocation, wanted: Wanted | None) -> Freed:
    """Frees everything that may go, or as much as is wanted.

    Raises:
        ManifestError: the manifest that was named is wrong, or a setting is.
        StoreError: a disk does not answer.
    """
    cleaner = _cleaner(invocation)
    return cleaner.until_free(wanted.bytes) if wanted else cleaner.clean()


def not_enough(invocation: Invocation, freed: Freed, wanted: Wanted) -> StoreError:
    """The error for less that is free in the end than was wanted."""
    return StoreError(
        f"{wanted.written} are wanted on the filesystem of {settings_of(invocation).store}, and "
        f"{freed.after / 1e6:,.1f} MB are free: nothing more can be given up",
        hint="name caches of your own in [space] clean, or take a larger volume",
    )


def _cleaner(invocation: Invocation) -> Cleaner:
    settings = settings_of(invocation)
    return Cleaner(
        store=open_store(settings),
        extra=settings.space.clean,
        sites=_sites(invocation.python),
    )


def _sites(python: str) -> tuple[str, ...]:
    """Site directories of the interpreter; none where it cannot be run."""
    try:
        return ask_interpreter(python).sites
    except PlatformError:
        return ()
