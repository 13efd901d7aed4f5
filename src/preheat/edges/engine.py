"""uv: resolves, downloads, unpacks, links. Everything that preheat asks of it is asked here.

uv runs with an environment of our making and without configuration files, against a *shadow*: a
virtual environment that holds the metadata of the platform's distributions and nothing else. So
it sees the same platform that our inventory saw (behind a venv, on Debian's managed Python), it
cannot write to it, and what a killed install left behind is not taken for installed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

import tomli_w
import uv
from packaging.markers import Environment
from packaging.pylock import Package as PylockPackage
from packaging.pylock import PackageArchive, PackageSdist, PackageWheel, Pylock
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name

from preheat.edges import engine_failure, process_group, transport
from preheat.edges.deletion import erase
from preheat.edges.relay import Relay
from preheat.edges.shadow import make_shadow
from preheat.edges.toml import load as load_toml
from preheat.words.engine import Pin, Request, Solved, Unsolved
from preheat.words.errors import InstallError, ResolutionError
from preheat.words.lock import Archive, Locked
from preheat.words.manifest import Index
from preheat.words.platform import Interpreter, Platform

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
# The relay's own patience ends first: what stalls is taken up by it and not begun anew.
_LONGER_WITH_RELAY = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where archives come from.

    Attributes:
        timeout: seconds for one request to an index.
        offline: ask no index.
        patience: seconds left for everything that is asked before the first installation; None
            where a required package is waited for.
    """

    index: Index
    timeout: float
    offline: bool
    patience: Callable[[], float | None] = lambda: None


class Engine:
    """One uv, one cache, one shadow of one platform, for the length of one start."""

    def __init__(self, platform: Platform, source: Source, *, cache: Path, scratch: Path) -> None:
        self._source = source
        self._request_timeout = source.timeout
        self._cache = cache
        self._scratch = scratch
        self._markers = cast("Environment", dict(platform.interpreter.markers))
        self._tags = wheel_tags(platform.interpreter)
        self._python = make_shadow(platform, scratch / "shadow")
        self._process: subprocess.Popen[str] | None = None
        self._interruption: InstallError | None = None
        self._woken = threading.Event()

    def resolve(self, request: Request) -> Solved | Unsolved:
        """The versions to put beside the platform, or why there are none.

        Raises:
            ResolutionError: uv itself cannot be run.
        """
        try:
            answer = self._uv(
                ["pip", "install", "--dry-run", "--quiet", "--output-format", "json"],
                self._request_arguments(request),
                timeout=self._source.patience(),
            )
        except InstallError as error:
            return Unsolved(wall=error.message, unreachable=True, silent=True)
        if answer.returncode != 0:
            wall = engine_failure.redact(answer.stderr.strip())
            return Unsolved(
                wall=wall,
                unreachable=engine_failure.is_unreachable(wall),
                silent=engine_failure.is_silent(wall),
            )
        changes = json.loads(answer.stdout or "{}").get("changes", ())
        pins = tuple(
            Pin(name=canonicalize_name(change["name"]), version=change["version"])
            for change in changes
            if change["action"] in ("installed", "reinstalled")
        )
        return Solved(pins=pins)

    def locate(self, pins: Iterable[Pin], request: Request) -> tuple[Locked, ...]:
        """Finds the archive of each pin that fits the platform, with URL, size and sha256.

        Raises:
            ResolutionError: an archive cannot be found, or the index does not answer.
        """
        wanted = [f"{pin.name}=={pin.version}" for pin in pins]
        if not wanted:
            return ()
        direct = [r for r in request.requirements if "@" in r]
        output = self._scratch / "pylock.engine.toml"
        answer = self._uv(
            ["pip", "compile", "--quiet", "--no-deps", "--no-header", "--format", "pylock.toml"],
            [*self._source_arguments(), "--output-file", str(output)],
            ["--prerelease", "allow", *_repeat("--only-binary", request.wheels_only)],
            [str(self._write("pins.txt", [*wanted, *direct]))],
        )
        if answer.returncode != 0:
            wall = engine_failure.redact(answer.stderr.strip())
            raise ResolutionError(
                f"the archives of the chosen versions cannot be found: {wall}",
                hint="check that the index answers, or use --offline with a lock",
                unreachable=engine_failure.is_unreachable(wall),
                why="the index cannot be reached",
            )
        chosen = Pylock.from_dict(load_toml(output)).select(
            environment=self._markers, tags=self._tags
        )
        return tuple(_locked(package, archive) for package, archive in chosen)

    def declared(
        self, sources: Iterable[Pin], pins: Iterable[Pin], request: Request
    ) -> dict[str, tuple[str, ...]]:
        """What source distributions require among the pins: their wheels are not built yet.

        The engine has their metadata since it resolved them; it says so as ``via`` annotations.
        """
        wanted = {pin.name: f"{pin.name}=={pin.version}" for pin in sources}
        if not wanted:
            return {}
        every = [f"{pin.name}=={pin.version}" for pin in pins]
        output = self._scratch / "edges.txt"
        answer = self._uv(
            ["pip", "compile", "--quiet", "--no-header", "--annotation-style", "split"],
            [*self._source_arguments(), "--output-file", str(output)],
            ["-c", str(self._write("pins.txt", every)), "--prerelease", "allow"],
            [*_repeat("--no-build-isolation-package", request.no_isolation)],
            [str(self._write("sources.txt", wanted.values()))],
        )
        if answer.returncode != 0:
            return {}
        needs: dict[str, list[str]] = {name: [] for name in wanted}
        name = ""
        for line in output.read_text(encoding="utf-8").splitlines():
            if not line.startswith((" ", "#")):
                name = line.partition("==")[0]
            else:
                parent = line.strip(" #").removeprefix("via ").strip()
                if parent in needs:
                    needs[parent].append(name)
        return {parent: tuple(found) for parent, found in needs.items()}

    def install(
        self,
        distributions: Sequence[Locked],
        target: Path,
        request: Request,
        *,
        timeout: float | None = None,
    ) -> None:
        """Fetches, checks against sha256, unpacks and links into an empty directory.

        Args:
            distributions: what to install, and nothing besides.
            target: an empty directory.
            request: what they were resolved for.
            timeout: seconds after which the engine is ended.

        Raises:
            InstallError: a hash differs, an archive is damaged, a build fails, the disk is full,
                the index stops answering, or it was interrupted. The target is then worth
                nothing.
        """
        self._interruption = None
        self._woken.clear()
        ends = None if timeout is None else time.monotonic() + timeout
        answer = self._install(distributions, target, request, ends=ends)
        if _may_pass(answer):
            answer = self._install_relayed(distributions, target, request, ends=ends) or answer
        if answer.returncode != 0:
            raise InstallError(
                engine_failure.sentence(answer.stderr, answer.returncode),
                wall=engine_failure.redact(answer.stderr),
                passing=engine_failure.is_passing(answer.stderr),
                full=engine_failure.is_full(answer.stderr),
                changed=engine_failure.is_changed(answer.stderr),
            )
        (target / ".lock").unlink(missing_ok=True)

    def _install(
        self,
        distributions: Sequence[Locked],
        target: Path,
        request: Request,
        *,
        ends: float | None,
    ) -> subprocess.CompletedProcess[str]:
        return self._uv(
            ["pip", "install", "--quiet", "--no-deps", "--target", str(target)],
            ["--preview-features", "pylock", "--link-mode", self._link_mode(target)],
            [*_repeat("--no-build-isolation-package", request.no_isolation)],
            [*_repeat("--only-binary", request.wheels_only)],
            [*self._source_arguments(), "-r", str(self._write_pylock(distributions))],
            timeout=None if ends is None else ends - time.monotonic(),
        )

    def _install_relayed(
        self,
        distributions: Sequence[Locked],
        target: Path,
        request: Request,
        *,
        ends: float | None,
    ) -> subprocess.CompletedProcess[str] | None:
        """Again, after a fault of the network: what breaks from now on goes on where it stopped.

        Returns:
            The last answer; None where there was no time for one.
        """
        index = self._source.index
        known = transport.credentials([*index.extra, index.url or ""])
        pause = transport.pause(1)
        if ends is not None and time.monotonic() + pause >= ends:
            return None
        if self._woken.wait(pause) and self._interruption is not None:
            raise self._interruption
        for left in target.iterdir():
            erase(left)
        with Relay(distributions, known, self._source.timeout) as relay:
            relayed = [relay.relayed(each) for each in distributions]
            self._request_timeout *= _LONGER_WITH_RELAY
            try:
                answer = self._install(relayed, target, request, ends=ends)
            finally:
                self._request_timeout = self._source.timeout
            answer.stderr = relay.unrelayed(answer.stderr)
        return answer

    def interrupt(self, reason: InstallError) -> None:
        """Ends the installation that is going on, from another thread; it raises the reason."""
        self._interruption = reason
        self._woken.set()
        if self._process is not None:
            process_group.kill(self._process)

    def _request_arguments(self, request: Request) -> list[str]:
        return [
            *self._source_arguments(),
            "-c",
            str(self._write("constraints.txt", request.constraints)),
            "--overrides",
            str(self._write("overrides.txt", request.overrides)),
            "--excludes",
            str(self._write("excludes.txt", request.excludes)),
            *_repeat("--only-binary", request.wheels_only),
            *_repeat("--no-build-isolation-package", request.no_isolation),
            "-r",
            str(self._write("requirements.txt", request.requirements)),
        ]

    def _source_arguments(self) -> list[str]:
        index = self._source.index
        arguments = ["--offline"] if self._source.offline else []
        if index.url:
            arguments += ["--default-index", index.url]
        arguments += _repeat("--index", index.extra)
        arguments += _repeat("--find-links", index.find_links)
        return arguments

    def _uv(
        self, *arguments: Sequence[str], timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [
            uv.find_uv_bin(),
            *(argument for group in arguments for argument in group),
            *("--python", str(self._python), "--cache-dir", str(self._cache)),
            *("--no-config", "--no-python-downloads", "--color", "never"),
        ]
        return self._run(command, timeout)

    def _run(
        self, command: Sequence[str], timeout: float | None
    ) -> subprocess.CompletedProcess[str]:
        """Runs uv in a process group of its own, so that an interrupted start leaves no child."""
        try:
            process = self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=self._environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise ResolutionError(f"the engine cannot be run: {error}") from error
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            raise InstallError(
                f"the engine did not answer within {timeout:.0f} s, when the deadline passed",
                deadline=True,
            ) from None
        except BaseException:
            _end(process)
            raise
        finally:
            self._process = None
        if self._interruption is not None:
            raise self._interruption
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    def _environment(self) -> dict[str, str]:
        home = self._scratch / "home"
        temp = self._scratch / "tmp"
        home.mkdir(exist_ok=True)
        temp.mkdir(exist_ok=True)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in _PASSED_ON or _INDEX_CREDENTIALS.fullmatch(name)
        }
        netrc = Path.home() / ".netrc"
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
            UV_HTTP_TIMEOUT=str(max(1, round(self._request_timeout))),
            UV_HTTP_RETRIES=_RETRIES,
        )
        return environment

    def _link_mode(self, target: Path) -> str:
        """``hardlink`` where cache and target allow it, found by trying; else ``copy``."""
        self._cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._cache, prefix=".link-") as probe:
            link = target / ".link-probe"
            try:
                os.link(probe.name, link)
            except OSError:
                return "copy"
            link.unlink()
            return "hardlink"

    def _write(self, name: str, lines: Iterable[str]) -> Path:
        file = self._scratch / name
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return file

    def _write_pylock(self, distributions: Iterable[Locked]) -> Path:
        file = self._scratch / "pylock.layer.toml"
        packages = [
            {
                "name": each.name,
                "version": each.version,
                **archive_table(each.archive),
            }
            for each in distributions
        ]
        document = {"lock-version": "1.0", "created-by": "preheat", "packages": packages}
        file.write_bytes(tomli_w.dumps(document).encode())
        return file


def archive_table(archive: Archive) -> dict[str, object]:
    """The PEP 751 table of an archive: ``wheels`` with one entry, or ``sdist``."""
    place = urlsplit(archive.url)
    entry: dict[str, object] = {"name": archive.filename}
    if place.scheme == "file":
        entry["path"] = unquote(place.path)
    else:
        entry["url"] = archive.url
    if archive.size is not None:
        entry["size"] = archive.size
    entry["hashes"] = {"sha256": archive.sha256}
    return {"wheels": [entry]} if archive.is_wheel else {"sdist": entry}


def wheel_tags(interpreter: Interpreter) -> tuple[Tag, ...]:
    """The wheel tags that interpreter takes, the best first; it shares this machine's C library."""
    major, minor = (int(part) for part in interpreter.version.split(".")[:2])
    version = (major, minor)
    specific = cpython_tags(version)
    return (*specific, *compatible_tags(version, f"cp{major}{minor}"))


def locked_of(package: PylockPackage) -> Locked:
    """A package of a lock that names one archive for each."""
    archive = next(iter(package.wheels or ()), None) or package.sdist or package.archive
    return _locked(package, archive)


def _locked(package: PylockPackage, archive: object) -> Locked:
    if not isinstance(archive, PackageWheel | PackageSdist | PackageArchive):
        raise ResolutionError(
            f"{package.name} is required from a place without a hash (a checkout or a directory)",
            hint="build it to a wheel and name the wheel's address",
        )
    return Locked(
        name=package.name,
        version=str(package.version or "0"),
        archive=_archive(archive.url, archive.path, archive.size, archive.hashes),
    )


def _archive(
    url: str | None, path: str | None, size: int | None, hashes: Mapping[str, str]
) -> Archive:
    place = url or Path(str(path)).absolute().as_uri()
    return Archive(
        filename=unquote(urlsplit(place).path.rsplit("/", 1)[-1]),
        url=place,
        sha256=hashes["sha256"],
        size=size,
    )


def _repeat(option: str, values: Iterable[str]) -> list[str]:
    return [argument for value in values for argument in (option, value)]


def _may_pass(answer: subprocess.CompletedProcess[str]) -> bool:
    """Whether the network failed and nothing else, so that the same may succeed a moment later."""
    return answer.returncode != 0 and engine_failure.is_network_fault(answer.stderr)


def _end(process: subprocess.Popen[str]) -> None:
    process_group.kill(process)
    process.communicate()
