"""Runs in a fresh interpreter of the platform: imports what is promised and says what happened.

Not imported by preheat: its text is handed to the interpreter, after that of ``activation``, with
paths of files with tasks (JSON) as the lines of standard input, and the answers as JSON lines on a
descriptor of their own, so that what packages print mixes with nothing.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import json
import marshal
import os
import runpy
import sys
import time
import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.abc import PathEntryFinder
    from types import CodeType, FrameType
    from typing import Any


def main(activate: "Callable[..., object]") -> None:
    """Imports and checks in the order given; stops a package at its first failure."""
    answers = os.fdopen(int(sys.argv[1]), "w", buffering=1)

    def say(**answer: object) -> None:
        answers.write(json.dumps(answer) + "\n")

    task = _task()
    if "ahead" in task:
        say(state="ahead", **_import_ahead(task["ahead"]))
        task = _task()
    opened = _trace(task["layers"]) if task["traced"] else None
    unwritten: list[str] = []
    for staged, final in task["kept"]:
        _keep_bytecode(staged, final, unwritten)
    activate(task["layers"], task["sites"], task["hooked"])
    sys.path[:] = [place for place in sys.path if place]
    for name in task["first"]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for package in task["packages"]:
        name = package["name"]
        for what, action in _steps(package):
            say(package=name, what=what, state="begun")
            begin = time.perf_counter()
            failure = _failure(action)
            if failure:
                say(package=name, what=what, state="failed", **failure)
                break
            say(package=name, what=what, state="done", seconds=time.perf_counter() - begin)
        else:
            kept = "".join(unwritten[:1])
            say(package=name, state="proved", unwritten=kept, libraries=_libraries())
    if opened is not None:
        say(state="opened", paths=sorted(opened | _mapped(task["layers"])))
    say(state="finished")
    answers.close()
    # What packages registered for exit is not ours to prove.
    os._exit(0)


def _steps(package: "dict[str, Any]") -> "list[tuple[str, Callable[[], object]]]":
    """What is to be done to prove it, each with its words."""
    steps = [("import " + module, _import(module)) for module in package["imports"]]
    if package["check"]:
        steps.append(("check", _check(package)))
    if package["loads"]:
        # Last of all: what the package loads by itself should be what it loads in use.
        steps.append(("loading the platform's libraries", _load(package["loads"])))
    return steps


def _task() -> "dict[str, Any]":
    """The next one; where none comes, nobody waits for an answer."""
    path = sys.stdin.readline().rstrip("\n")
    if not path:
        os._exit(0)
    with open(path, encoding="utf-8") as file:
        task: dict[str, Any] = json.load(file)
    os.unlink(path)
    return task


class _Asked:
    """Stands before all finders, finds nothing, and notes what is looked for."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.distributions: set[str] = set()
        self.groups: set[str] = set()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        self.modules.add(name.partition(".")[0])

    def find_distributions(self, context: "Any" = None) -> "tuple[()]":
        name = getattr(context, "name", None)
        if name is not None:
            self.distributions.add(name)
            return ()
        self.groups.add(_group_asked() or "*")
        return ()


def _group_asked() -> "str | None":
    """The group of entry points that is being looked up, by what the caller's callers hold."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "entry_points":
            group: str | None = frame.f_locals.get("params", {}).get("group")
            return group
        frame = frame.f_back
    return None


def _import_ahead(names: "list[str]") -> "dict[str, object]":
    """Imports them from the platform; what that looked for."""
    asked = _Asked()
    sys.meta_path.insert(0, asked)
    try:
        for name in names:
            importlib.import_module(name)
    finally:
        sys.meta_path.remove(asked)
    return {
        "modules": sorted(asked.modules),
        "found": sorted(_found(asked.modules)),
        "distributions": sorted(asked.distributions),
        "groups": sorted(asked.groups),
        "libraries": _libraries(),
    }


def _found(asked: "set[str]") -> "set[str]":
    """What is loaded, and what of the rest could be: its presence may be all that was asked for."""
    found = {name.partition(".")[0] for name in sys.modules}
    for name in asked - found:
        with contextlib.suppress(ImportError, ValueError):
            if importlib.util.find_spec(name) is not None:
                found.add(name)
    return found


def _libraries() -> "dict[str, list[str]]":
    """Shared libraries that are mapped (proc(5)): names as far as ".so", and their files."""
    found: dict[str, set[str]] = {}
    with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8") as maps:
        for path in {line.rstrip("\n").partition("/")[2] for line in maps}:
            name, suffix, _ = path.rpartition("/")[2].partition(".so")
            if suffix and name.startswith("lib"):
                found.setdefault(name, set()).add("/" + path)
    return {name: sorted(files) for name, files in found.items()}


def _trace(layers: "list[str]") -> "set[str]":
    """The files below the layers that are opened from now on (PEP 578)."""
    found: set[str] = set()
    below = tuple(layer + os.sep for layer in layers)

    def hook(event: str, arguments: "tuple[object, ...]") -> None:
        if event in ("open", "import"):
            for argument in arguments[:2]:
                if isinstance(argument, str) and argument.startswith(below):
                    found.add(argument)

    sys.addaudithook(hook)
    return found


def _mapped(layers: "list[str]") -> "set[str]":
    """Libraries of the layers that are mapped, whoever loaded them (proc(5))."""
    below = tuple(layer + os.sep for layer in layers)
    with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8") as maps:
        paths = (line.rstrip("\n").partition("/") for line in maps)
        return {"/" + rest for _, slash, rest in paths if slash and ("/" + rest).startswith(below)}
    return set()


def _keep_bytecode(layer: str, final: str, unwritten: "list[str]") -> None:
    """Writes the bytecode of what is imported from a layer, as for the place where it will lie.

    What cannot be written is noted; the imports work without.

    Unchecked hashes (PEP 552): valid wherever the files are copied, and no stat at import.
    """

    class Loader(importlib.machinery.SourceFileLoader):
        def get_code(self, fullname: str) -> "CodeType | None":
            path = self.get_filename(fullname)
            if os.path.exists(importlib.util.cache_from_source(path)):
                return super().get_code(fullname)
            source = self.get_data(path)
            code = self.source_to_code(source, path)
            try:
                moved = _moved(code, path, final + path[len(layer) :])
                _write_bytecode(source, path, moved, beside=layer)
            except OSError as error:
                unwritten.append(error.strerror or str(error))
            return code

    machinery = importlib.machinery
    finder = machinery.FileFinder.path_hook(
        (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
        (Loader, machinery.SOURCE_SUFFIXES),
        (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
    )

    def hook(place: str) -> "PathEntryFinder":
        if place != layer and not place.startswith(layer + os.sep):
            raise ImportError(place, name=None)
        return finder(place)

    sys.path_hooks.insert(0, hook)


def _write_bytecode(source: bytes, path: str, code: "CodeType", beside: str) -> None:
    """The layout of PEP 552; whole or not at all, since a proof may be ended at any time.

    What is not whole lies beside the layer: nothing of it is published.
    """
    target = importlib.util.cache_from_source(path)
    staged = f"{beside}.{os.getpid()}.pyc"
    head = importlib.util.MAGIC_NUMBER + b"\x01\0\0\0" + importlib.util.source_hash(source)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        with open(staged, "wb") as file:
            file.write(head + marshal.dumps(code))
        os.replace(staged, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(staged)
        raise


def _moved(code: "CodeType", here: str, there: str) -> "CodeType":
    """The code as if it had been compiled there; tracebacks name the file it came from."""
    if code.co_filename != here:
        return code
    inner = type(code)
    constants = tuple(
        _moved(each, here, there) if isinstance(each, inner) else each for each in code.co_consts
    )
    return code.replace(co_filename=there, co_consts=constants)


def _import(name: str) -> "Callable[[], object]":
    return lambda: importlib.import_module(name)


def _check(package: "dict[str, Any]") -> "Callable[[], object]":
    if package["check_is_module"]:
        return lambda: runpy.run_module(package["check"], run_name="__main__", alter_sys=True)
    code = compile(package["check"], "check of " + package["name"], "exec")
    # The manifest's own code, which the worker would run all the same.
    return lambda: exec(code, {"__name__": "__main__"})  # noqa: S102


def _load(libraries: "list[tuple[str, str]]") -> "Callable[[], object]":
    """Loads each link in a layer, as whoever looks for a wheel's library there does.

    One that needs what the machine has not (libmlx5, MPI) loads from nowhere, the platform's own
    place included: that is no fault of the link.
    """
    here = {os.path.basename(link) for link, _ in libraries}

    def action() -> None:
        import ctypes

        for link, target in libraries:
            try:
                ctypes.CDLL(link)
            except OSError as error:
                if str(error).partition(":")[0] in here or _loads(target):
                    raise

    return action


def _loads(library: str) -> bool:
    import ctypes

    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


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
