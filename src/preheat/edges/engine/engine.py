"""uv: resolves, downloads, unpacks, links. Everything that preheat asks of it is asked here.

uv runs with an environment of our making and without configuration files, against a *metadata
venv*: a virtual environment that holds the metadata of the platform's distributions and nothing
else. So it sees the platform that our inventory saw (behind a venv, on Debian's managed Python),
it cannot write to it, and what a killed install left behind is not taken for installed.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

from packaging.markers import Environment
from packaging.pylock import Package as PylockPackage
from packaging.pylock import PackageArchive, PackageSdist, PackageWheel, Pylock
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name

from preheat.edges.engine import failures
from preheat.edges.engine.build import Built, Job, build
from preheat.edges.engine.installation import Installation
from preheat.edges.engine.metadata_venv import make_metadata_venv
from preheat.edges.engine.uv import Cancellation, Limits, Uv, repeat
from preheat.edges.manifest.toml import load as load_toml
from preheat.words.display import redact
from preheat.words.engine import Pin, Request, Solved, Unsolved
from preheat.words.errors import InstallError, ResolutionError, Unreachable
from preheat.words.lock import Archive, Locked
from preheat.words.manifest import Index
from preheat.words.platform import Interpreter, Platform


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where archives come from.

    Attributes:
        timeout: seconds for one request to an index.
        offline: ask no index.
        build_requires: what builds against the platform need besides it.
        patience: seconds left for everything that is asked before the first installation; None
            where a required package is waited for.
    """

    index: Index
    timeout: float
    offline: bool
    build_requires: tuple[str, ...] = ()
    patience: Callable[[], float | None] = lambda: None


class Engine:
    """One uv, with one cache and one metadata venv of one platform, for the length of one start."""

    def __init__(self, platform: Platform, source: Source, *, cache: Path, scratch: Path) -> None:
        self._source = source
        self._markers = cast("Environment", dict(platform.interpreter.markers))
        self._tags = wheel_tags(platform.interpreter)
        self._platform = platform
        self._cache = cache
        self._scratch = scratch
        self._running: list[Cancellation] = []
        self._why_no_build_tools = ""

    def prepare(self) -> None:
        """Makes the metadata venv now, so that its bytes are there when free space is measured."""
        self._uv  # noqa: B018  # made when it is first asked for

    @cached_property
    def _uv(self) -> Uv:
        """With the metadata venv, made when uv is first asked: a plan from a lock does not ask."""
        python = make_metadata_venv(self._platform, self._scratch / "metadata-venv")
        return Uv(
            python=python,
            cache=self._cache,
            scratch=self._scratch,
            variables=_index_variables(self._source.index),
        )

    @cached_property
    def _building(self) -> Uv:
        """With what builds against the platform need, on the path of builds alone.

        In the metadata venv it would count as the platform's.
        """
        uv = self._uv
        if not self._source.build_requires:
            return uv
        tools = self._scratch / "build-tools"
        wanted = uv.write("build-requires.txt", self._source.build_requires)
        answer = uv.run(
            ["pip", "install", "--quiet", "--target", str(tools), "-r", str(wanted)],
            self._source_arguments(),
            limits=Limits.within(self._source.patience(), request=self._source.timeout),
        )
        if answer.returncode != 0:
            # The build may do without; where it does not, this tells why.
            said = failures.sentence(answer.stderr, answer.returncode)
            self._why_no_build_tools = f"; what build-requires names could not be had: {said}"
        path = os.pathsep.join((str(tools / "bin"), os.environ.get("PATH", os.defpath)))
        return replace(uv, variables={**uv.variables, "PYTHONPATH": str(tools), "PATH": path})

    def resolve(self, request: Request) -> Solved | Unsolved:
        """The versions to put beside the platform, or why there are none.

        Raises:
            ResolutionError: uv itself cannot be run.
        """
        try:
            answer = self._building.run(
                ["pip", "install", "--dry-run", "--quiet", "--output-format", "json"],
                self._request_arguments(request),
                limits=Limits.within(self._source.patience(), request=self._source.timeout),
            )
        except InstallError as error:
            return Unsolved(solver_output=error.message, unreachable=True, silent=True)
        if answer.returncode != 0:
            solver_output = redact(answer.stderr.strip()) + self._why_no_build_tools
            return Unsolved(
                solver_output=solver_output,
                unreachable=failures.is_unreachable(solver_output),
                silent=failures.is_silent(solver_output),
            )
        changes = json.loads(answer.stdout or "{}").get("changes", ())
        pins = tuple(
            Pin(name=canonicalize_name(change["name"]), version=change["version"])
            for change in changes
            if change["action"] in ("installed", "reinstalled")
        )
        return Solved(pins=pins)

    def offered(self, name: str) -> tuple[set[str], bool]:
        """Versions of that name's wheels wherever archives come from, and whether a source is."""
        from preheat.edges.index.listing import wheel_versions

        timeout = None if self._source.offline else self._source.timeout
        return wheel_versions(name, self._source.index, timeout)

    def locate(self, pins: Iterable[Pin], request: Request) -> tuple[Locked, ...]:
        """Finds the archive of each pin that fits the platform, with URL, size and sha256.

        Raises:
            ResolutionError: an archive cannot be found, or the index does not answer.
        """
        wanted = [f"{pin.name}=={pin.version}" for pin in pins]
        if not wanted:
            return ()
        direct = [r for r in request.requirements if "@" in r]
        output = self._uv.scratch / "pylock.engine.toml"
        answer = self._ask_again(
            ["pip", "compile", "--quiet", "--no-deps", "--no-header", "--format", "pylock.toml"],
            ["--output-file", str(output)],
            ["--prerelease", "allow", *repeat("--only-binary", request.wheels_only)],
            # 1.0 names 1.0+cu126 as well, and that one may have been left out.
            ["-c", str(self._uv.write("constraints.txt", request.constraints))],
            [str(self._uv.write("pins.txt", [*wanted, *direct]))],
        )
        if answer.returncode != 0:
            solver_output = redact(answer.stderr.strip())
            message = f"the archives of the chosen versions cannot be found: {solver_output}"
            hint = "check that the index answers, or use --offline with a lock"
            if failures.is_unreachable(solver_output):
                raise Unreachable(message, hint=hint, why="the index cannot be reached")
            raise ResolutionError(message, hint=hint)
        chosen = Pylock.from_dict(load_toml(output)).select(
            environment=self._markers, tags=self._tags
        )
        return tuple(_locked(package, archive) for package, archive in chosen)

    def declared(
        self, unread: Iterable[Pin], pins: Iterable[Pin], request: Request
    ) -> dict[str, tuple[str, ...]]:
        """What distributions require among the pins that nobody has looked into.

        Of source distributions the wheels are not built yet, and not every index lets a wheel's
        directory be read. The engine has their metadata since it resolved them; it says so as
        ``via`` annotations. What only the platform has is left out: the engine would ask the index
        about it.
        """
        wanted = {pin.name: f"{pin.name}=={pin.version}" for pin in unread}
        if not wanted:
            return {}
        every = [f"{pin.name}=={pin.version}" for pin in pins]
        pinned = {pin.name for pin in pins}
        beneath = {d.name for d in self._platform.distributions if d.state.present} - pinned
        output = self._uv.scratch / "edges.txt"
        answer = self._ask_again(
            ["pip", "compile", "--quiet", "--no-header", "--annotation-style", "split"],
            ["--output-file", str(output)],
            ["-c", str(self._uv.write("pins.txt", every)), "--prerelease", "allow"],
            ["--excludes", str(self._uv.write("beneath.txt", sorted(beneath)))],
            [*repeat("--no-build-isolation-package", request.no_isolation)],
            [str(self._uv.write("unread.txt", wanted.values()))],
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

        Several may go on at once, each in a thread of its own.

        Args:
            distributions: what to install, and nothing besides.
            target: an empty directory.
            request: what they were resolved for.
            timeout: seconds after which the engine is ended.

        Raises:
            InstallError: see `Installation.run`.
        """
        installation = self._installation(self._uv, distributions, target, request)
        self._running.append(installation.cancellation)
        try:
            installation.run(Limits.within(timeout, request=self._source.timeout))
        finally:
            self._running.remove(installation.cancellation)

    def build(self, job: Job, target: Path) -> Built:
        """Builds the wheel of one source distribution against the platform.

        Args:
            job: what to build, and how.
            target: an empty directory; what lies there afterwards is of no use.

        Raises:
            InstallError: see `build`.
        """
        uv = replace(self._building, variables={**self._building.variables, **job.variables})
        installation = self._installation(uv, [job.source], target, job.request)
        self._running.append(installation.cancellation)
        try:
            limits = Limits.within(job.seconds, request=self._source.timeout)
            return build(installation, limits, job.told)
        except InstallError as error:
            error.message += self._why_no_build_tools
            raise
        finally:
            self._running.remove(installation.cancellation)

    def _installation(
        self, uv: Uv, distributions: Sequence[Locked], target: Path, request: Request
    ) -> Installation:
        return Installation(
            uv=uv,
            source=self._source_arguments(),
            index=self._source.index,
            distributions=distributions,
            target=target,
            request=request,
        )

    def unpacked(self) -> frozenset[tuple[str, str]]:
        """Canonical names and versions of what its cache holds, and would not fetch again."""
        found = self._cache.glob("archive-v*/*/*.dist-info")
        parts = (place.name.removesuffix(".dist-info").partition("-") for place in found)
        return frozenset((canonicalize_name(name), version) for name, _, version in parts)

    def interrupt(self, reason: InstallError) -> None:
        """Ends the installations that are going on, from another thread; they raise the reason."""
        for cancellation in tuple(self._running):
            cancellation.cancel(reason)

    def _ask_again(self, *arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Asks about what `resolve` has just found: its cache knows, and else the index does.

        Asked online, the engine would fetch the pages of all of it again wherever an index does
        not let them be kept, and build the metadata of source distributions a second time.
        """
        limits = Limits(request=self._source.timeout)
        source = self._source_arguments()
        if not self._source.offline:
            answer = self._building.run(*arguments, ["--offline", *source], limits=limits)
            if answer.returncode == 0:
                return answer
        return self._building.run(*arguments, source, limits=limits)

    def _request_arguments(self, request: Request) -> list[str]:
        return [
            *self._source_arguments(),
            "-c",
            str(self._uv.write("constraints.txt", request.constraints)),
            "--overrides",
            str(self._uv.write("overrides.txt", request.overrides)),
            "--excludes",
            str(self._uv.write("excludes.txt", request.excludes)),
            *repeat("--only-binary", request.wheels_only),
            *repeat("--no-build-isolation-package", request.no_isolation),
            "-r",
            str(self._uv.write("requirements.txt", request.requirements)),
        ]

    def _source_arguments(self) -> list[str]:
        return ["--offline"] if self._source.offline else []


def _index_variables(index: Index) -> dict[str, str]:
    """Where packages come from, as variables: every user of a machine can read a command line.

    An address may hold credentials. uv splits UV_INDEX by spaces and UV_FIND_LINKS by commas
    (https://docs.astral.sh/uv/reference/environment/).
    """
    stated = {
        "UV_DEFAULT_INDEX": index.url or "",
        "UV_INDEX": " ".join(index.extra),
        "UV_FIND_LINKS": ",".join(index.find_links),
    }
    return {name: value for name, value in stated.items() if value}


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
