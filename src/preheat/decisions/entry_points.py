"""The scripts that a distribution declares (entry points specification of the PyPA)."""

from __future__ import annotations

from collections.abc import Iterator
from configparser import ConfigParser

_SCRIPTS = ("console_scripts", "gui_scripts")


def scripts_in(text: str) -> Iterator[tuple[str, str]]:
    """Name and ``module:attribute`` of every script in the text of an ``entry_points.txt``."""
    parser = ConfigParser(delimiters=("=",), strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # names keep their case
    parser.read_string(text)
    for group in _SCRIPTS:
        if parser.has_section(group):
            yield from parser.items(group)
