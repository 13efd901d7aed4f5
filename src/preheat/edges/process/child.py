"""preheat's own command line in a child process, its data and its errors handed back.

Everything heavy happens there: the calling process is a worker's, and must not hold modules that
a layer is about to shadow.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from preheat.edges.process.environment import PARENT, without_layers
from preheat.words import errors
from preheat.words.errors import PreheatError

_PR_SET_PDEATHSIG = 1
# Also where preheat is on the path by the caller's own doing: behind everything else there.
_LOCATION = str(Path(__file__).parents[3])
_RUN = f"import sys; sys.path.append({_LOCATION!r}); from preheat.cli.main import main; main()"


def command(arguments: Sequence[str]) -> dict[str, Any]:
    """Runs a command with ``--json`` and returns its document; progress goes to standard error.

    Raises:
        PreheatError: what the child reported, as it would have been raised here.
    """
    answer = subprocess.run(
        [sys.executable, "-c", _RUN, *arguments, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**without_layers(os.environ), PARENT: str(os.getpid())},
        check=False,
    )
    try:
        document: dict[str, Any] = json.loads(answer.stdout)
    except ValueError:
        raise PreheatError(
            f"preheat {arguments[0]} ended with exit {answer.returncode} and no report",
            hint="what it said is above",
        ) from None
    if "error" in document:
        raise _as_raised(document["error"])
    return document


def end_with_parent() -> None:
    """Asks the kernel to end this process when the worker that it starts for is gone.

    prctl(2), PR_SET_PDEATHSIG. SIGTERM, so that nothing half-made is left.
    """
    parent = os.environ.get(PARENT)
    if parent is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        # It died before we could ask.
        os.kill(os.getpid(), signal.SIGTERM)


def provision(
    manifest: str, store: str | None, deadline: float | None, options: Sequence[str]
) -> dict[str, Any]:
    """Runs a startup and returns its report.

    Args:
        manifest: its file.
        store: one that was named.
        deadline: in seconds.
        options: others of ``preheat warm``: what makes a startup cold where it need not be.

    Raises:
        PreheatError: what the child reported.
    """
    arguments = ["warm", *options, "--manifest", manifest]
    arguments += ["--store", store] if store else []
    arguments += ["--deadline", str(deadline)] if deadline is not None else []
    return command(arguments)


def _as_raised(error: Mapping[str, Any]) -> PreheatError:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    for kind in kinds:
        # One that only narrows another has no code of its own.
        if issubclass(kind, PreheatError) and vars(kind).get("code") == error["code"]:
            return kind(error["message"], hint=error["hint"])
    return PreheatError(error["message"], hint=error["hint"])
