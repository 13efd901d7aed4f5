"""Platforms as records of metadata, and the plans that preheat makes on them, without a network.

    tests/data/platforms/index.json   what the index says of each release that a plan may take
    tests/data/platforms/NAME.json    one platform, where it is from, and two plans: `plan` for
                                      the F5-TTS worker, `companions` for all that goes with torch

The plan is made by preheat's own deciding and by the real engine, over a loopback index of tiny
wheels that have the recorded metadata and the recorded names of files that tell something. Two
things differ from a start: the platform is read from its record instead of an interpreter, so that
nothing of it can be imported and what it has is `reuse` and not `platform`; and the engine is told
which Python to resolve for, since it runs on this machine's.
"""

from __future__ import annotations

import dataclasses
import io
import json
import platform as machine
import sys
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name, parse_wheel_filename

from preheat.cli.progress import Silent
from preheat.decisions.plan import by_importance
from preheat.edges.engine.engine import Engine, Source
from preheat.edges.engine.metadata_venv import make_metadata_venv
from preheat.edges.engine.uv import Uv
from preheat.edges.manifest.file import read_manifest, read_settings
from preheat.planning.session import looking
from preheat.planning.state import State
from preheat.planning.survey import Surveyor
from preheat.words.coupling import COMPANIONS
from preheat.words.cuda import Cuda, Fact
from preheat.words.manifest import Manifest, Package
from preheat.words.order import Order
from preheat.words.plan import Step
from preheat.words.platform import Accelerator, Distribution, Gpu, Interpreter, Platform, Torch
from tests.support.wheels import Project, write_wheel

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "tests" / "data" / "platforms"
MANIFEST = ROOT / "worker" / "preheat.toml"
INDEX = PLACE / "index.json"

# What a row of a plan names of a layer: what has to go with torch. The rest is counted.
_TELLING = ("torch", "torchaudio", "torchvision", "torchcodec", "triton", "xformers")


def names() -> list[str]:
    """Every platform of the table."""
    return sorted(path.stem for path in PLACE.glob("*.json") if path != INDEX)


def document(name: str) -> dict[str, Any]:
    """The record of one platform."""
    found: dict[str, Any] = json.loads((PLACE / f"{name}.json").read_text(encoding="utf-8"))
    return found


def releases() -> list[dict[str, Any]]:
    """What the index says of each release that a plan may take."""
    found: list[dict[str, Any]] = json.loads(INDEX.read_text(encoding="utf-8"))
    return found


def platform_of(record: Mapping[str, Any]) -> Platform:
    """The platform that a record tells of."""
    cuda = record["cuda"]
    gpus = [Gpu(name=n, compute_capability=c, memory=80 << 30) for n, c in record["gpus"]]
    here = Accelerator(driver=record["driver"], cuda=cuda if gpus else None, gpus=tuple(gpus))
    distributions = tuple(
        Distribution(
            name=canonicalize_name(each["name"]),
            version=each["version"],
            location="/opt/platform",
            metadata=f"/opt/platform/{each['name']}.dist-info",
            requires=tuple(each.get("requires", ())),
        )
        for each in record["distributions"]
    )
    return Platform(
        interpreter=interpreter(record["python"]),
        distributions=distributions,
        accelerator=here,
        torch=Torch(version=record["torch"], cuda=cuda),
        cuda=Cuda(
            driver=_fact(record["driver"]),
            runtime=_fact(cuda),
            cxx11_abi=_fact(record["cxx11-abi"]),
            compute_capability=tuple(
                Fact(value=gpu.compute_capability, source=f"the record: {gpu.name}") for gpu in gpus
            ),
        ),
    )


def interpreter(version: str) -> Interpreter:
    """CPython of that version on Linux, x86-64, with glibc."""
    minor = ".".join(version.split(".")[:2])
    tag = f"cpython-{minor.replace('.', '')}"
    return Interpreter(
        executable=sys.executable,
        base_executable=sys.executable,
        version=version,
        full_version=version,
        abi=f"{tag}-x86_64-linux-gnu",
        cache_tag=tag,
        libc="glibc 2.35",
        machine="x86_64",
        prefix="/opt/platform",
        path=(),
        sites=(),
        markers={
            "implementation_name": "cpython",
            "implementation_version": version,
            "os_name": "posix",
            "platform_machine": "x86_64",
            "platform_python_implementation": "CPython",
            "platform_release": "6.1.0",
            "platform_system": "Linux",
            "platform_version": "#1 SMP",
            "python_full_version": version,
            "python_version": minor,
            "sys_platform": "linux",
        },
    )


class OfAnotherPython(Engine):
    """The engine, told to resolve for the platform's Python instead of the one that it runs on."""

    @cached_property
    def _uv(self) -> Uv:
        own = dataclasses.replace(self._platform.interpreter, version=machine.python_version())
        shadow = make_metadata_venv(
            dataclasses.replace(self._platform, interpreter=own), self._scratch / "metadata-venv"
        )
        return Uv(python=shadow, cache=self._cache, scratch=self._scratch)

    def _source_arguments(self) -> list[str]:
        version = self._platform.interpreter.version
        there = ["--python-version", version, "--python-platform", "x86_64-manylinux_2_35"]
        return [*super()._source_arguments(), *there]


class OnRecord(Surveyor):
    """The survey of a platform that is read from its record."""

    recorded: Platform

    def _probe(self) -> Platform:
        return self.recorded

    def _engine(self, platform: Platform, packages: Sequence[Package]) -> Engine:
        settings = self._settings
        source = Source(index=settings.index, timeout=settings.index_timeout, offline=False)
        cache, scratch = self._session.cache, self._session.scratch
        return OfAnotherPython(platform, source, cache=cache, scratch=scratch)


def worker() -> Manifest:
    """The F5-TTS worker's manifest."""
    return read_manifest(MANIFEST)


def companions() -> Manifest:
    """Everything that has to go with torch, and nothing else."""
    return Manifest(
        package=tuple(
            Package(name=name, requires=(name,), imports=(name,)) for name in sorted(COMPANIONS)
        )
    )


def rows_on(
    record: Mapping[str, Any], manifest: Manifest, place: Path, index: str
) -> list[dict[str, Any]]:
    """The plan for that manifest on a recorded platform, as the records hold it."""
    return rows(decide_on(platform_of(record), manifest, place, index), manifest)


def decide_on(platform: Platform, manifest: Manifest, place: Path, index: str | None) -> State:
    """Everything up to the plan, for a manifest on that platform.

    Args:
        platform: from a record.
        manifest: what is asked for.
        place: an empty directory to work in.
        index: address of the index; None for the one that uv is configured for.
    """
    place.mkdir(exist_ok=True)
    stated = {"store": str(place / "store"), "space.keep-free": "0", "index.url": index}
    order = Order(
        manifest=manifest,
        settings=read_settings(manifest, stated, {"HOME": str(place)}),
        manifest_file=MANIFEST,
        executable=sys.executable,
    )
    with looking(order, Silent()) as session:
        surveyor = OnRecord(session)
        surveyor.recorded = platform
        return surveyor.survey()


def rows(state: State, manifest: Manifest) -> list[dict[str, Any]]:
    """The plan as the records hold it."""
    packages = by_importance(manifest.package)
    return [_row(step) for step in state.planner.plan(packages).steps]


def write_shelf(releases: Iterable[Mapping[str, Any]], directory: Path) -> None:
    """Tiny archives with the recorded metadata and file names, to be offered by an index."""
    directory.mkdir(parents=True, exist_ok=True)
    for release in releases:
        for filename in release["archives"]:
            if filename.endswith(".whl"):
                write_wheel(_project(release, filename), directory)
            else:
                _write_source(release, directory)


def _fact(value: str | None) -> Fact | None:
    return None if value is None else Fact(value=value, source="the record")


def _row(step: Step) -> dict[str, Any]:
    pins = {each.name: each.version for each in step.distributions}
    return {
        "name": step.package.name,
        "action": step.action.value,
        "version": step.version,
        "reason": step.reason,
        "brings": {
            name: version
            for name, version in pins.items()
            if name in _TELLING or name.startswith(("nvidia-", "cuda-"))
        },
        "distributions": len(pins),
    }


def _project(release: Mapping[str, Any], filename: str) -> Project:
    name, version, _, tags = parse_wheel_filename(filename)
    sets = zip(*((t.interpreter, t.abi, t.platform) for t in sorted(tags, key=str)), strict=True)
    return Project(
        name=name,
        version=str(version),
        files=dict.fromkeys(release["files"], b""),
        requires=release["requires"],
        extras=dict.fromkeys(release.get("extras", ()), ()),
        tag="-".join(".".join(dict.fromkeys(each)) for each in sets),
        requires_python=release.get("requires-python"),
    )


def _write_source(release: Mapping[str, Any], directory: Path) -> None:
    """A source distribution whose metadata needs no build: version 2.2, and nothing dynamic."""
    stem = f"{release['name'].replace('-', '_')}-{release['version']}"
    lines = ["Metadata-Version: 2.2", f"Name: {release['name']}", f"Version: {release['version']}"]
    lines += [f"Requires-Dist: {each}" for each in release["requires"]]
    text = "\n".join([*lines, ""]).encode()
    with tarfile.open(directory / f"{stem}.tar.gz", "w:gz") as archive:
        for path, data in (("PKG-INFO", text), ("pyproject.toml", b"")):
            member = tarfile.TarInfo(f"{stem}/{path}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
