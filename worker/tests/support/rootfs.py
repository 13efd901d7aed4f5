"""A root filesystem made of a Dockerfile's own lines, where no container engine runs.

Only what the worker's Dockerfile uses is carried out; any other instruction is refused, so that the
two cannot come apart unseen. Reference: https://docs.docker.com/reference/dockerfile/
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.hosts import Host, missing_tools, no_hosts
from worker.tests.support.real import MINUTES, uv

PACKAGES = ("ca-certificates", "python3", "python3-pip", "python-is-python3")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What is mounted for whatever runs in it, as engines do; nothing of it is in the filesystem.
MOUNTS = """
set -e
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
for place in /etc/resolv.conf /etc/hosts; do
  touch "$1$place"
  mount --bind "$place" "$1$place"
done
if test -d /etc/ssl/certs; then
  mkdir -p "$1/etc/ssl/certs"
  mount --bind /etc/ssl/certs "$1/etc/ssl/certs"
fi
"""
_ENTER = 'root=$1; shift; exec chroot "$root" sh -c \'cd "$0" && exec "$@"\' "$@"'
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
# How this machine's own clients reach their index.
_CLIENTS = ("PIP_CERT", "PIP_INDEX", "PIP_EXTRA_INDEX", "SSL_CERT_FILE", "UV_", "NETRC")


class DockerfileError(ValueError):
    """A line that is not carried out here, or is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruction:
    """One instruction: its name in upper case, and all that follows it on its lines."""

    name: str
    text: str


def read_dockerfile(text: str) -> Iterator[Instruction]:
    """The instructions in their order; comments and empty lines are left out."""
    whole = ""
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        whole += line
        if whole.endswith("\\"):
            whole = whole[:-1]
            continue
        name, _, rest = whole.strip().partition(" ")
        yield Instruction(name=name.upper(), text=rest.strip())
        whole = ""


@dataclass(kw_only=True)
class RootFilesystem:
    """One that is being made, and then entered.

    Attributes:
        root: its directory; the platform image's files are there before the first line.
        context: directory that COPY takes from.
        arguments: what is given by --build-arg.
        declared: what ARG lines have declared so far, with their values.
        environment: of everything that runs in it, as ENV lines say.
        workdir: where that runs.
        command: what the container runs.
    """

    root: Path
    context: Path
    arguments: Mapping[str, str]
    declared: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH, "HOME": "/root"})
    workdir: str = "/"
    command: tuple[str, ...] = ()

    def build(self, dockerfile: Path) -> None:
        """Carry out every line.

        Raises:
            DockerfileError: one is not known here.
            RuntimeError: a RUN line failed; what it said is in the text.
        """
        known = {
            "ARG": self._arg,
            "FROM": self._from,
            "COPY": self._copy,
            "RUN": self._run,
            "ENV": self._env,
            "WORKDIR": self._workdir,
            "CMD": self._cmd,
        }
        for instruction in read_dockerfile(dockerfile.read_text(encoding="utf-8")):
            if instruction.name not in known:
                raise DockerfileError(f"not carried out here: {instruction}")
            known[instruction.name](instruction.text)

    def entered(self, *command: str, place: str | None = None) -> list[str]:
        """The command line that runs a command in it, where its mounts are made."""
        arguments = (str(self.root), place or self.workdir, *command)
        return ["sh", "-c", _ENTER, "sh", *arguments]

    def run(self, *command: str, **more: str) -> str:
        """Run a command in it with this machine's network; return what it printed.

        Raises:
            RuntimeError: it failed; what it said is in the text.
        """
        unshared = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork")
        both = f"{MOUNTS}\n{_ENTER}"
        arguments = ("sh", "-c", both, "sh", str(self.root), self.workdir, *command)
        clients = {name: text for name, text in os.environ.items() if name.startswith(_CLIENTS)}
        done = subprocess.run(
            (*unshared, "--kill-child", *arguments),
            env={**clients, **self.environment, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=MINUTES,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}: {done.stdout}")
        return done.stdout

    def mount(self, host: Host) -> None:
        """Make the mounts on a host, for `entered`."""
        host.must("sh", "-c", MOUNTS, "sh", self.root)

    # One instruction each

    def _arg(self, text: str) -> None:
        name, _, default = text.partition("=")
        self.declared[name] = self.arguments.get(name, default)

    def _from(self, text: str) -> None:
        if not self._filled(text):
            raise DockerfileError(f"FROM {text}: no platform was named")
        # As docker does: what was declared before FROM is of no use after it.
        self.declared.clear()

    def _env(self, text: str) -> None:
        for pair in shlex.split(text):
            name, equals, value = pair.partition("=")
            if not equals:
                raise DockerfileError(f"ENV {text}: write it as NAME=VALUE")
            self.environment[name] = self._filled(value)

    def _workdir(self, text: str) -> None:
        self.workdir = os.path.join(self.workdir, self._filled(text))
        self._inside(self.workdir).mkdir(parents=True, exist_ok=True)

    def _cmd(self, text: str) -> None:
        self.command = tuple(json.loads(text))

    def _run(self, text: str) -> None:
        self.run("/bin/sh", "-c", text, **self.declared)

    def _copy(self, text: str) -> None:
        *sources, target = shlex.split(self._filled(text))
        if any(source.startswith("--") for source in sources):
            raise DockerfileError(f"COPY {text}: options are not carried out here")
        place = self._inside(os.path.join(self.workdir, target))
        for source in sources:
            found = self.context / source
            if found.is_dir():
                # Its contents, and not the directory.
                shutil.copytree(found, place, symlinks=True, dirs_exist_ok=True)
            elif target.endswith("/"):
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, place)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, place)

    def _inside(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _filled(self, text: str) -> str:
        values = {**self.declared, **self.environment}
        return _VARIABLE.sub(lambda found: values.get(found[1] or found[2], ""), text)


def no_rootfs() -> str | None:
    """Why none can be made here."""
    missing = missing_tools(("debootstrap", "chroot", "apt-get"))
    return no_hosts() or (f"needs {', '.join(missing)}" if missing else None)


def make_platform(root: Path, provides: Sequence[str]) -> None:
    """What stands in for a platform image: Debian with its Python, and packages installed by pip.

    From the mirror that apt is configured for. The packages come from the cache of uv, by
    hardlinks where it can.
    """
    mirror, release = _mirror()
    command = ("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}")
    done = subprocess.run(
        (*command, release, str(root), mirror),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=MINUTES,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"debootstrap ended with {done.returncode}: {done.stdout[-2000:]}")
    shutil.rmtree(root / "var" / "cache" / "apt", ignore_errors=True)
    (python,) = (root / "usr" / "lib").glob("python3.*")
    # Images whose packages come from pip do not tell pip to leave them alone.
    (python / "EXTERNALLY-MANAGED").unlink(missing_ok=True)
    site = root / "usr" / "local" / "lib" / python.name / "dist-packages"
    version = python.name.removeprefix("python")
    uv("pip", "install", "--quiet", "--python", sys.executable, "--python-version", version,
       "--target", str(site), *provides)  # fmt: skip


def _mirror() -> tuple[str, str]:
    """Where this machine's own packages come from, and the name of its release."""
    listed = _targets()
    if not listed:
        # Images have no lists.
        subprocess.run(("apt-get", "update", "-qq"), check=True, timeout=300)  # noqa: S607
        listed = _targets()
    if not listed:
        raise RuntimeError("apt knows no mirror: see /etc/apt")
    mirror, release = listed[0].split()
    return mirror, release


def _targets() -> list[str]:
    command = ("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)")
    done = subprocess.run(
        (*command, "Created-By: Packages"), capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines()
