"""Keeps tests and benches from cleaning the machine that they run on.

preheat cleans caches where space is short, and every start may find it so. A process that states
its own ground, or a made-up system, cleans in that directory and nowhere else, also where a
temporary directory that cannot be written to gives way to /tmp; one that states neither is not
started at all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

STATED = ("PREHEAT_INTERNAL_GROUND", "PREHEAT_INTERNAL_SYSTEM")

_PROGRAMS = ("python", "preheat")
# The engine is preheat's own child and cleans nothing; what is in a chroot has a system of its own.
_HARMLESS = ("uv", "chroot")


def refuse_to_clean_the_machine() -> None:
    """Has this process refuse to start a Python or a preheat that may clean the machine.

    The refusal is an AssertionError at the place that starts it.
    """
    sys.addaudithook(_look)


def may_clean_the_machine(command: Sequence[object], environment: Mapping[str, str]) -> bool:
    """Whether a command may run preheat, and would then clean what is not its own."""
    names = [os.path.basename(part) for word in command for part in _text(word).split()]
    if any(harmless in names for harmless in _HARMLESS):
        return False
    runs = any(name.startswith(_PROGRAMS) for name in names)
    return runs and not any(environment.get(name) for name in STATED)


def _look(event: str, arguments: tuple[object, ...]) -> None:
    # https://docs.python.org/3/library/audit_events.html
    if event == "subprocess.Popen":
        program, words, _, environment = arguments
    elif event in ("os.exec", "os.posix_spawn"):
        program, words, environment = arguments
    else:
        return
    assert isinstance(words, list | tuple | str | bytes | Path)
    stated = environment if isinstance(environment, Mapping) else os.environ
    command = [program, *words] if isinstance(words, list | tuple) else [program, words]
    told = {_text(name): _text(value) for name, value in stated.items()}
    if may_clean_the_machine(command, told):
        raise AssertionError(
            f"{' '.join(map(_text, command))[:200]} could clean the caches of this machine: take "
            f"its environment from tests.support.starts, or set {STATED[0]}"
        )


def _text(word: object) -> str:
    return os.fsdecode(word) if isinstance(word, str | bytes | os.PathLike) else str(word)
