"""What an installation weighs, by the directories of its wheels: nothing is downloaded.

Bytes are those of the files without bytecode, as an index's archives hold them, so that an
installation that was never made and one that was are measured alike.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from uv import find_uv_bin

from preheat.edges.engine.engine import Engine, Source
from preheat.edges.index.wheels import Reader
from preheat.edges.platform.probe import probe
from preheat.words.engine import Pin, Request
from preheat.words.manifest import Index

OF_THE_PLATFORM = ("torch", "triton", "nvidia-*", "cuda-*")
"""Names of what an image with torch has already, and nothing may bring again."""

_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """What an installation would put beside a platform.

    Attributes:
        bytes: of the files, without bytecode.
        archives: bytes of the archives.
        distributions: canonical names.
        estimated: those that ship as source only, whose bytes are an estimate.
    """

    bytes: int
    archives: int
    distributions: tuple[str, ...]
    estimated: tuple[str, ...]

    @property
    def again(self) -> tuple[str, ...]:
        """Torch, triton and NVIDIA's libraries, which the platform has already."""
        return tuple(name for name in self.distributions if belongs_to_the_platform(name))


class Scales:
    """Weighs installations around the platform of one interpreter."""

    def __init__(self, python: Path, scratch: Path) -> None:
        shutil.rmtree(scratch / "engine", ignore_errors=True)
        for place in (scratch / "engine", scratch / "cache"):
            place.mkdir(parents=True, exist_ok=True)
        self._python = python
        source = Source(index=Index(), timeout=_SECONDS, offline=False)
        platform = probe(str(python))
        self._engine = Engine(platform, source, cache=scratch / "cache", scratch=scratch / "engine")
        self._reader = Reader([scratch / "contents"], indexes=(), timeout=_SECONDS, remember=True)

    def unconstrained(self, requirements: Iterable[str]) -> Payload:
        """What `uv pip install` of the requirements would bring into the platform itself."""
        return self.weigh(unconstrained_pins(self._python, requirements))

    def weigh(self, pins: Iterable[str]) -> Payload:
        """What those distributions, each `name==version`, hold together."""
        exact = [_pin(text) for text in dict.fromkeys(pins)]
        located = self._engine.locate(exact, Request(requirements=()))
        contents = self._reader.read(located)
        return Payload(
            bytes=sum(size for each in contents.values() for _, size in each.files),
            archives=sum(each.archive.size or 0 for each in located),
            distributions=tuple(sorted(each.name for each in located)),
            estimated=tuple(sorted(name for name, each in contents.items() if not each.exact)),
        )


def belongs_to_the_platform(name: str) -> bool:
    """Whether that canonical name is torch, triton or one of NVIDIA's."""
    return any(fnmatchcase(name, pattern) for pattern in OF_THE_PLATFORM)


def unconstrained_pins(python: Path, requirements: Iterable[str]) -> list[str]:
    """What `uv pip install` of the requirements would bring, as `name==version`."""
    command = [find_uv_bin(), "pip", "install", "--dry-run", "--quiet", "--output-format", "json"]
    command += ["--python", str(python), *requirements]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    changes = json.loads(said)["changes"]
    new = [c for c in changes if c["action"] in ("installed", "reinstalled")]
    return [f"{change['name']}=={change['version']}" for change in new]


def pins_of(packages: Sequence[dict[str, object]]) -> list[str]:
    """The `name==version` of everything that a report's packages bring in layers of their own."""
    found: dict[str, None] = {}
    for package in packages:
        rows = package["distributions"]
        if package["status"] in ("installed", "reused") and isinstance(rows, list):
            found.update(dict.fromkeys(map(str, rows)))
    return list(found)


def _pin(text: str) -> Pin:
    requirement = Requirement(text)
    (specifier,) = requirement.specifier
    return Pin(name=canonicalize_name(requirement.name), version=specifier.version)
