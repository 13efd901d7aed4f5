"""Runs in a fresh interpreter of the platform: imports what is promised and says what happened.

Not imported by preheat: its text is handed to the interpreter, after that of ``activation``, with
the task as JSON on standard input and the answers as JSON lines on a descriptor of their own, so
that what packages print mixes with nothing.
"""

import importlib
import json
import os
import runpy
import sys
import time
import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def main(activate: "Callable[..., object]") -> None:
    """Imports and checks in the order given; stops a package at its first failure."""
    task = json.load(sys.stdin)
    answers = os.fdopen(int(sys.argv[1]), "w", buffering=1)

    def say(**answer: object) -> None:
        answers.write(json.dumps(answer) + "\n")

    activate(task["layers"], task["sites"], task["hooked"])
    sys.path[:] = [place for place in sys.path if place]
    for package in task["packages"]:
        name = package["name"]
        steps = [("import " + module, _import(module)) for module in package["imports"]]
        if package["check"]:
            steps.append(("check", _check(package)))
        for what, action in steps:
            say(package=name, what=what, state="begun")
            begin = time.perf_counter()
            failure = _failure(action)
            if failure:
                say(package=name, what=what, state="failed", **failure)
                break
            say(package=name, what=what, state="done", seconds=time.perf_counter() - begin)
        else:
            say(package=name, state="proved")
    say(state="finished")
    answers.close()
    # What packages registered for exit is not ours to prove.
    os._exit(0)


def _import(name: str) -> "Callable[[], object]":
    return lambda: importlib.import_module(name)


def _check(package: "dict[str, Any]") -> "Callable[[], object]":
    if package["check_is_module"]:
        return lambda: runpy.run_module(package["check"], run_name="__main__", alter_sys=True)
    code = compile(package["check"], "check of " + package["name"], "exec")
    # The manifest's own code, which the worker would run all the same.
    return lambda: exec(code, {"__name__": "__main__"})  # noqa: S102


def _failure(action: "Callable[[], object]") -> "dict[str, str] | None":
    """What went wrong, or None; a package may raise anything, and exit too."""
    try:
        action()
    except SystemExit as stop:
        return {"error": f"SystemExit: {stop.code}"} if stop.code not in (None, 0) else None
    except BaseException as error:  # noqa: BLE001
        lines = traceback.format_exception_only(type(error), error)
        return {"error": " ".join("".join(lines).split()), "trace": traceback.format_exc()}
    return None
