"""Real platforms in small: a venv with stand-in distributions, and proof that none changed."""

import functools
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from tests.support.wheels import Project, install_tree

SUPPORTED = tuple((3, minor) for minor in range(10, 14))

_TIMEOUT = 60.0
_CHUNK = 1 << 20
_DESCRIBE = (
    "import json, sys, sysconfig, venv;"
    "print(json.dumps([sys.implementation.name, sys.version_info[:2],"
    " sysconfig.get_path('purelib'), sysconfig.get_path('scripts')]))"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Platform:
    """An interpreter and the directories that its image provides."""

    python: Path
    site: Path
    scripts: Path
    version: tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpreter:
    """A CPython that was run, and said its version."""

    path: Path
    version: tuple[int, int]


def make_platform(
    directory: Path,
    python: str | Path = sys.executable,
    projects: Iterable[Project] = (),
    *,
    system_site_packages: bool = False,
) -> Platform:
    """Make a venv (PEP 405) without pip, and install the projects into it."""
    options = ("--system-site-packages",) if system_site_packages else ()
    made = (str(python), "-I", "-m", "venv", "--without-pip", "--symlinks", *options, directory)
    subprocess.run(made, check=True, capture_output=True, timeout=_TIMEOUT)
    interpreter = directory.absolute() / "bin" / "python"
    _, version, site, scripts = _described(interpreter)
    platform = Platform(python=interpreter, site=Path(site), scripts=Path(scripts), version=version)
    for project in projects:
        install_tree(project, platform.site, platform.scripts)
    return platform


def fake_torch(version: str = "2.13.0+cpu", requires: Sequence[str] = ()) -> Project:
    """A stand-in for torch; its CUDA is that of the local version: `+cu130` gives "13.0"."""
    label = re.fullmatch(r"cu(\d+)(\d)", Version(version).local or "")
    cuda = None if label is None else ".".join(label.groups())
    files = {
        "torch/__init__.py": (
            "from torch import cuda as cuda, version as version\n"
            "from torch.version import __version__ as __version__\n"
        ),
        "torch/version.py": f"__version__ = {version!r}\ncuda = {cuda!r}\n",
        "torch/cuda/__init__.py": "def is_available():\n    return False\n",
    }
    return Project(name="torch", version=version, files=files, requires=tuple(requires))


def fake_nvidia(name: str, version: str) -> Project:
    """A stand-in for one of NVIDIA's library wheels, which share the namespace `nvidia`."""
    component = re.sub(r"^nvidia-|-cu\d+$", "", name).replace("-", "_")
    files: dict[str, str | bytes] = {
        f"nvidia/{component}/__init__.py": "",
        f"nvidia/{component}/lib/lib{component}.so.1": b"\x7fELF stand-in\n",
    }
    return Project(name=name, version=version, files=files)


def tree_digest(path: Path) -> str:
    """Return the sha256 over names, modes, link targets and contents of all below `path`.

    Bytecode counts; times do not. Every field is preceded by its length, so that no two
    different trees give the same stream.
    """
    digest = hashlib.sha256()
    for entry in sorted(_below(path), key=lambda entry: os.fsencode(entry.path)):
        mode = entry.stat(follow_symlinks=False).st_mode
        relative = os.path.relpath(entry.path, path)
        for field in (
            os.fsencode(relative),
            f"{mode:o}".encode(),
            _content(Path(entry.path), mode),
        ):
            digest.update(b"%d:" % len(field))
            digest.update(field)
    return digest.hexdigest()


@functools.cache
def pythons() -> tuple[Interpreter, ...]:
    """Return one working CPython per supported minor version, the running one for its own.

    Looked for on PATH, among pyenv's versions and among those that uv manages.
    """
    found: dict[tuple[int, int], Interpreter] = {}
    for path in (Path(sys.executable), *_candidates()):
        if _minor_in_name(path) in found or not os.access(path, os.X_OK):
            continue
        try:
            implementation, version, _, _ = _described(path)
        except (OSError, subprocess.SubprocessError, ValueError):
            continue  # a shim, or a build that lacks venv: not available really
        if implementation == "cpython" and version in SUPPORTED:
            found.setdefault(version, Interpreter(path=path, version=version))
    return tuple(found[version] for version in sorted(found))


def other_pythons() -> tuple[Interpreter, ...]:
    """Return what `pythons` found but the running interpreter's own version."""
    return tuple(each for each in pythons() if each.version != sys.version_info[:2])


def _below(path: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _below(Path(entry.path))


def _content(path: Path, mode: int) -> bytes:
    """A symlink's target, or the sha256 of a regular file; other kinds have no content."""
    if stat.S_ISLNK(mode):
        return os.fsencode(path.readlink())
    if not stat.S_ISREG(mode):
        return b""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()


def _described(python: Path) -> tuple[str, tuple[int, int], str, str]:
    said = subprocess.run(
        (python, "-I", "-B", "-c", _DESCRIBE),
        check=True,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
    ).stdout
    implementation, (major, minor), site, scripts = json.loads(said)
    return implementation, (major, minor), site, scripts


def _candidates() -> Iterator[Path]:
    names = [f"python{major}.{minor}" for major, minor in SUPPORTED]
    on_path = (Path(each) for each in os.get_exec_path() if each)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for directory in (*on_path, *_below_versions(pyenv), *_uv_managed()):
        yield from (directory / name for name in names if os.access(directory / name, os.X_OK))


def _below_versions(place: Path) -> Sequence[Path]:
    """The directories of programs; none where another user's are closed to this one."""
    try:
        return sorted(place.glob("*/bin"))
    except PermissionError:
        return ()


def _uv_managed() -> Sequence[Path]:
    uv = shutil.which("uv") or Path(sys.executable).with_name("uv")
    try:
        said = subprocess.run(
            (uv, "--no-config", "python", "dir"),
            check=True,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return _below_versions(Path(said.strip()))


def _minor_in_name(path: Path) -> tuple[int, int] | None:
    named = re.fullmatch(r"python(\d+)\.(\d+)", path.name)
    return None if named is None else (int(named[1]), int(named[2]))
