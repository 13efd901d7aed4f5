"""The commands that mend: for the installer that is there, and quoted for a shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace

from packaging.version import InvalidVersion, Version

from preheat.words.examination import Installed, Tools

# PyTorch publishes each build, for one CUDA or for none, in an index of its own.
_TORCH_INDEX = "https://download.pytorch.org/whl/"
_TORCH_BUILDS = frozenset({"torch", "torchaudio", "torchcodec", "torchtext", "torchvision"})
# By the CUDA that a driver can do: the builds of most versions of torch for that major version.
_BUILD_FOR = {11: "cu118", 12: "cu126", 13: "cu130"}
_DPKG_SITE = "/usr/lib/python3/dist-packages"


def restore(tools: Tools, broken: Installed) -> str:
    """Puts every file of that copy back; dpkg's and conda's own are theirs to restore."""
    each = broken.distribution
    if each.location.endswith(_DPKG_SITE):
        owner = f'"$(dpkg -S {shlex.quote(each.metadata)} | cut -d: -f1)"'
        return f"apt-get install --reinstall {owner}"
    name, version = each.name, each.version or ""
    if broken.installer == "conda" and version:
        return shlex.join(["conda", "install", "--force-reinstall", f"{name}={version}"])
    if each.missing or broken.truncated:
        return reinstall(tools, name, version, each.location)
    # Without METADATA or RECORD no installer can tell what it would replace.
    version = version or version_in(each.metadata)
    return then(remove([each.metadata]), reinstall(tools, name, version, each.location))


def reinstall(tools: Tools, name: str, version: str, location: str) -> str:
    """Puts that version in place of what is there, and touches nothing else."""
    pin = f"{name}=={version}" if version else name
    index = build_index(name, version)
    if _elsewhere(tools, location):
        return _install(
            _by_uv(tools), ["--target", location, "--reinstall", "--no-deps", pin], index
        )
    return _install(tools, [_force(tools), "--no-deps", pin], index)


def install(tools: Tools, *requirements: str) -> str:
    """Installs what these requirements ask for together, and what that requires."""
    return _install(tools, requirements, "")


def torch_for(tools: Tools, driver_cuda: str | None, *, name: str = "torch") -> str:
    """A build for the CUDA of a driver, with the libraries that it requires."""
    major = int((driver_cuda or "").partition(".")[0] or 0)
    build = _BUILD_FOR.get(major, "")
    return _install(tools, [_force(tools), name], f"{_TORCH_INDEX}{build}" if build else "")


def build_of(tools: Tools, name: str, version: str, cuda: str | None) -> str:
    """Installs the build of that version for that CUDA, or for none."""
    build = f"cu{cuda.replace('.', '')}" if cuda else "cpu"
    public = version.partition("+")[0]
    return _install(
        tools, [_force(tools), "--no-deps", f"{name}=={public}"], f"{_TORCH_INDEX}{build}"
    )


def uninstall(tools: Tools, names: Iterable[str], location: str) -> str:
    """Removes these distributions from that directory of the path."""
    if _elsewhere(tools, location):
        where = ["--target", location]
        return shlex.join([tools.uv, "pip", "uninstall", *where, *names])
    managed = ["--break-system-packages"] if tools.managed else []
    if tools.pip:
        return shlex.join([tools.python, "-m", "pip", "uninstall", "-y", *managed, *names])
    return shlex.join([tools.uv, "pip", "uninstall", "--python", tools.python, *managed, *names])


def command(*words: str) -> str:
    """Any command."""
    return shlex.join(words)


def quoted(word: str) -> str:
    """One word of a command."""
    return shlex.quote(word)


def remove(paths: Iterable[str]) -> str:
    """Deletes exactly these paths."""
    return shlex.join(["rm", "-rf", "--", *paths])


def preheat(tools: Tools, *arguments: str) -> str:
    """One of preheat's own commands, about the same store and interpreter."""
    return shlex.join(["preheat", *arguments, *tools.options])


def then(*commands: str) -> str:
    """One after the other, as long as they succeed."""
    return " && ".join(commands)


def by_hand(what: str, command: str) -> str:
    """A command, and in a comment what a person must do before it."""
    return f"# {what}, then:\n{command}"


def export(name: str, value: str) -> str:
    """Sets a variable for what is started from here."""
    return f"export {name}={shlex.quote(value)}" if value else f"unset {name}"


def build_index(name: str, version: str) -> str:
    """The index of PyTorch's builds where a local version such as ``+cu130`` is published."""
    try:
        local = Version(version).local
    except InvalidVersion:
        return ""
    return f"{_TORCH_INDEX}{local}" if local and name in _TORCH_BUILDS else ""


def version_in(metadata: str) -> str:
    """The version in the name of a ``.dist-info``; empty where it is none."""
    stem = metadata.rpartition("/")[2].removesuffix(".dist-info")
    version = stem.partition("-")[2]
    try:
        return str(Version(version))
    except InvalidVersion:
        return ""


def _elsewhere(tools: Tools, location: str) -> bool:
    """Whether a directory is not the interpreter's own: one of PYTHONPATH, or behind a venv."""
    return not location.startswith(f"{tools.prefix.rstrip('/')}/")


def _by_uv(tools: Tools) -> Tools:
    return replace(tools, pip=False, managed=False)


def _force(tools: Tools) -> str:
    return "--force-reinstall" if tools.pip else "--reinstall"


def _install(tools: Tools, arguments: Sequence[str], index: str) -> str:
    managed = ["--break-system-packages"] if tools.managed else []
    source = index or tools.index
    chosen = ["--index-url", source] if source else []
    if tools.pip:
        command = [tools.python, "-m", "pip", "install"]
    else:
        command = [tools.uv, "pip", "install", "--python", tools.python]
    return shlex.join([*command, *managed, *chosen, *arguments])
