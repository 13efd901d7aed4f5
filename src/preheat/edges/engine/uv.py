"""uv as a program: its command line, its environment, its processes.

It runs with an environment of our making and without configuration files; what says where packages
come from, how to reach it and who asks is passed on knowingly.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uv

from preheat.edges.process import group
from preheat.words.errors import InstallError, ResolutionError, TimedOut

# Passed on knowingly: where packages come from, how to reach it, and who asks.
_PASSED_ON = (
    "PATH",
    "LANG",
    "NETRC",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "SSL_CLIENT_CERT",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_INDEX_STRATEGY",
    "UV_KEYRING_PROVIDER",
    "UV_INSECURE_HOST",
    "UV_NATIVE_TLS",
    "UV_SYSTEM_CERTS",
    "UV_CONCURRENT_DOWNLOADS",
    "UV_CONCURRENT_BUILDS",
    # What builds against the platform's torch and CUDA read.
    "CC",
    "CXX",
    "CUDA_HOME",
    "CPATH",
    "LIBRARY_PATH",
    "LD_LIBRARY_PATH",
    "MAX_JOBS",
    "TORCH_CUDA_ARCH_LIST",
)
_INDEX_CREDENTIALS = re.compile(r"UV_INDEX_\w+_(USERNAME|PASSWORD)")
_RETRIES = "2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long uv may take.

    Attributes:
        request: seconds for one request to an index.
        ends: by ``time.monotonic()``, when all of it must have ended; None where nothing presses.
    """

    request: float
    ends: float | None = None

    @classmethod
    def within(cls, seconds: float | None, *, request: float) -> Limits:
        """With that many seconds left from now on."""
        return cls(request=request, ends=None if seconds is None else time.monotonic() + seconds)


@dataclass(kw_only=True, slots=True)
class Cancellation:
    """Lets another thread cancel what runs.

    Attributes:
        reason: what the cancelled run raises; None as long as nobody has cancelled it.
        requested: set with the reason.
    """

    reason: InstallError | None = None
    requested: threading.Event = field(default_factory=threading.Event)
    process: subprocess.Popen[str] | None = None

    def cancel(self, reason: InstallError) -> None:
        """Ends what runs, and what would be run after it."""
        self.reason = reason
        self.requested.set()
        if self.process is not None:
            group.kill(self.process)

    def raise_if_requested(self) -> None:
        """Raises the reason, where there is one.

        Raises:
            InstallError: the reason.
        """
        if self.reason is not None:
            raise self.reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Uv:
    """One uv for one interpreter, with a cache and a scratch directory of our own.

    Attributes:
        variables: what builds are told besides.
    """

    python: Path
    cache: Path
    scratch: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(
        self, *arguments: Sequence[str], limits: Limits, cancellation: Cancellation | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs it to its end, in a process group of its own: interrupted, it leaves no child.

        Raises:
            ResolutionError: it cannot be started.
            TimedOut: it took too long.
            InstallError: it was cancelled, with this reason.
        """
        command = [
            _program(),
            *(argument for several in arguments for argument in several),
            *("--python", str(self.python), "--cache-dir", str(self.cache)),
            *("--no-config", "--no-python-downloads", "--color", "never"),
        ]
        cancellation = cancellation or Cancellation()
        cancellation.raise_if_requested()
        try:
            process = cancellation.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=self._environment(limits),
                start_new_session=True,
            )
        except OSError as error:
            raise ResolutionError(f"the engine cannot be run: {error}") from error
        timeout = None if limits.ends is None else max(0.0, limits.ends - time.monotonic())
        try:
            if cancellation.reason is not None:
                # It was cancelled before there was a process to end.
                group.kill(process)
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            raise TimedOut(
                f"the engine did not answer within {timeout:.0f} s, when the deadline passed"
            ) from None
        except BaseException:
            _end(process)
            raise
        finally:
            cancellation.process = None
        cancellation.raise_if_requested()
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    def write(self, name: str, lines: Iterable[str]) -> Path:
        """A file for it to read, one line for each."""
        file = self.scratch / name
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return file

    def _environment(self, limits: Limits) -> dict[str, str]:
        home = self.scratch / "home"
        temp = self.scratch / "tmp"
        home.mkdir(exist_ok=True)
        temp.mkdir(exist_ok=True)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in _PASSED_ON or _INDEX_CREDENTIALS.fullmatch(name)
        }
        # The user's own: HOME is ours for uv. A user without a home has none.
        netrc = Path(os.path.expanduser("~/.netrc"))
        if "NETRC" not in environment and netrc.is_file():
            environment["NETRC"] = str(netrc)
        # The relay is reached directly, whatever proxies there are.
        # The engine reads the first of the two that is set, so both say the same.
        direct = environment.get("NO_PROXY") or environment.get("no_proxy")
        for name in ("NO_PROXY", "no_proxy"):
            environment[name] = ",".join(filter(None, [direct, "127.0.0.1"]))
        environment.update(
            HOME=str(home),
            TMPDIR=str(temp),
            PYTHONDONTWRITEBYTECODE="1",
            UV_HTTP_TIMEOUT=str(max(1, round(limits.request))),
            UV_HTTP_RETRIES=_RETRIES,
        )
        environment.update(self.variables)
        return environment


def _program() -> str:
    """Uv's own binary, or the one on PATH where its package was copied without it.

    Raises:
        ResolutionError: there is none.
    """
    try:
        return uv.find_uv_bin()
    except FileNotFoundError as error:
        found = shutil.which("uv")
        if found is not None:
            return found
        raise ResolutionError(
            f"the engine is missing: uv's binary is not beside its package ({error})",
            hint="install it again: python -m pip install --force-reinstall uv",
        ) from error


def repeat(option: str, values: Iterable[str]) -> list[str]:
    """The option before each of the values."""
    return [argument for value in values for argument in (option, value)]


def _end(process: subprocess.Popen[str]) -> None:
    group.kill(process)
    process.communicate()
