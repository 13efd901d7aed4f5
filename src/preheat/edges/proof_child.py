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


def main(activate):
    """Imports and checks in the order given; stops a package at its first failure."""
    task = json.load(sys.stdin)
    answers = os.fdopen(int(sys.argv[1]), "w", buffering=1)

    def say(**answer):
        answers.write(json.dumps(answer) + "\n")

    activate(task["layers"], task["sites"], task["hooked"])
    sys.path[:] = [place for place in sys.path if place]
    for package in task["packages"]:
        for name in package["imports"]:
            if not _attempt(say, package["name"], "import " + name, _import(name)):
                break
        else:
            if package["check"]:
                _attempt(say, package["name"], "check", _check(package))
        say(package=package["name"], done=True)
    for name in task["platform_imports"]:
        _attempt(say, "", "import " + name, _import(name))
        origin = getattr(sys.modules.get(name), "__file__", None)
        say(package="", origin=origin, what=name)
    say(finished=True)
    answers.close()
    # What packages registered for exit is not ours to prove.
    os._exit(0)


def _import(name):
    return lambda: importlib.import_module(name)


def _check(package):
    if package["check_is_module"]:
        return lambda: runpy.run_module(package["check"], run_name="__main__", alter_sys=True)
    code = compile(package["check"], "check of " + package["name"], "exec")
    return lambda: exec(code, {"__name__": "__main__"})


def _attempt(say, package, what, action):
    say(package=package, what=what, started=True)
    begin = time.perf_counter()
    try:
        action()
    except SystemExit as stop:
        if stop.code not in (None, 0):
            say(package=package, what=what, ok=False, error="SystemExit: %s" % (stop.code,))
            return False
    except BaseException as error:
        lines = traceback.format_exception_only(type(error), error)
        text = " ".join("".join(lines).split())
        say(package=package, what=what, ok=False, error=text, trace=traceback.format_exc())
        return False
    say(package=package, what=what, ok=True, seconds=time.perf_counter() - begin)
    return True
