"""Records the table of platforms anew: `python -m tests.support.recording`.

Asks the index that UV_DEFAULT_INDEX names. What an index has of a platform's distributions is taken
from there (`"source": "index"`); builds of torch that are on no index that is reached here are
written by hand on top of it (`"source": "by hand"`), as `Seed.nvidia` and its label say. Plans
are written as they come out, over the records; where the index itself gives another one, that is
said, and whoever records looks at what changed and says in `review` why it is right.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import httpx
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from preheat.decisions.imports import territory
from preheat.edges.engine.engine import Source
from preheat.edges.index.ranges import Ranges
from preheat.edges.index.wheels import Reader, contents_of
from preheat.words.engine import Request, Solved
from preheat.words.lock import Archive, Contents, Locked
from preheat.words.manifest import Index as Indexes
from preheat.words.platform import Accelerator, Platform
from tests.support import recorded
from tests.support.detected import interpreter
from tests.support.index import Index

_TIMEOUT = 60.0
_INDEX = "UV_DEFAULT_INDEX"
_H100 = ("NVIDIA H100 80GB HBM3", "9.0")
_A100 = ("NVIDIA A100-SXM4-80GB", "8.0")
_T4 = ("Tesla T4", "7.5")
_CU11 = {
    "nvidia-cublas-cu11": "11.11.3.6",
    "nvidia-cuda-cupti-cu11": "11.8.87",
    "nvidia-cuda-nvrtc-cu11": "11.8.89",
    "nvidia-cuda-runtime-cu11": "11.8.89",
    "nvidia-cudnn-cu11": "9.1.0.70",
    "nvidia-cufft-cu11": "10.9.0.58",
    "nvidia-curand-cu11": "10.3.0.86",
    "nvidia-cusolver-cu11": "11.4.1.48",
    "nvidia-cusparse-cu11": "11.7.5.86",
    "nvidia-nccl-cu11": "2.20.5",
    "nvidia-nvtx-cu11": "11.8.86",
}

_CU126 = {
    "nvidia-cublas-cu12": "12.6.4.1",
    "nvidia-cuda-cupti-cu12": "12.6.80",
    "nvidia-cuda-nvrtc-cu12": "12.6.77",
    "nvidia-cuda-runtime-cu12": "12.6.77",
    "nvidia-cudnn-cu12": "9.10.2.21",
    "nvidia-cufft-cu12": "11.3.0.4",
    "nvidia-cufile-cu12": "1.11.1.6",
    "nvidia-curand-cu12": "10.3.7.77",
    "nvidia-cusolver-cu12": "11.7.1.2",
    "nvidia-cusparse-cu12": "12.5.4.2",
    "nvidia-cusparselt-cu12": "0.7.1",
    "nvidia-nccl-cu12": "2.27.3",
    "nvidia-nvjitlink-cu12": "12.6.85",
    "nvidia-nvtx-cu12": "12.6.77",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Seed:
    """One platform of the table.

    Attributes:
        torch: its version, with the local part where it is written by hand.
        cuda: what that torch brings; None for a build without.
        abi: whether torch has libstdc++'s newer strings (PyPI's builds do from 2.7 on).
        nvidia: by hand, NVIDIA's libraries in place of those of PyPI's torch; None: those.
        more: what images have besides.
    """

    name: str
    python: str
    torch: str
    cuda: str | None
    driver: str | None = None
    gpu: tuple[str, str] | None = None
    abi: bool = True
    nvidia: Mapping[str, str] | None = None
    more: tuple[str, ...] = ("numpy",)

    @property
    def by_hand(self) -> bool:
        return bool(Version(self.torch).local)


SEEDS = (
    Seed(name="py310-torch2.4.0-cu121", python="3.10.12", torch="2.4.0", cuda="12.1",
         driver="535.183.01", gpu=_A100, abi=False, more=("numpy<2",)),
    Seed(name="py311-torch2.4.1-cu118", python="3.11.10", torch="2.4.1+cu118", cuda="11.8",
         driver="520.61.05", gpu=_A100, abi=False, nvidia=_CU11, more=("numpy<2",)),
    Seed(name="py311-torch2.5.1-cu124", python="3.11.10", torch="2.5.1", cuda="12.4",
         driver="550.127.05", gpu=_H100, abi=False, more=("numpy<2.2", "torchvision")),
    Seed(name="py312-torch2.6.0-cu124", python="3.12.8", torch="2.6.0", cuda="12.4",
         driver="550.127.05", gpu=_T4, abi=False),
    Seed(name="py312-torch2.7.1-cu126", python="3.12.10", torch="2.7.1", cuda="12.6",
         driver="560.35.05", gpu=_H100, more=("numpy<2.3", "torchvision", "torchaudio==2.7.1")),
    Seed(name="py310-torch2.8.0-cpu", python="3.10.18", torch="2.8.0+cpu", cuda=None, nvidia={}),
    Seed(name="py311-torch2.8.0-cu128", python="3.11.13", torch="2.8.0", cuda="12.8",
         driver="570.172.08", gpu=_H100),
    Seed(name="py312-torch2.8.0-cu126", python="3.12.11", torch="2.8.0+cu126", cuda="12.6",
         driver="560.35.05", gpu=_H100, nvidia=_CU126),
    Seed(name="py313-torch2.9.1-cu128", python="3.13.9", torch="2.9.1", cuda="12.8",
         driver="570.195.03", gpu=_H100),
    Seed(name="py312-torch2.10.0-cu128", python="3.12.12", torch="2.10.0", cuda="12.8",
         driver="570.195.03", gpu=_H100),
    Seed(name="py312-torch2.11.0-cu130", python="3.12.12", torch="2.11.0", cuda="13.0",
         driver="580.159.04", gpu=_H100),
    Seed(name="py311-torch2.13.0-cpu", python="3.11.14", torch="2.13.0+cpu", cuda=None, nvidia={}),
    Seed(name="py311-torch2.13.0-cu130", python="3.11.14", torch="2.13.0", cuda="13.0"),
    Seed(name="py313-torch2.14.1-cu130", python="3.13.11", torch="2.14.1", cuda="13.0",
         driver="580.159.04", gpu=_H100),
    Seed(name="py313-torch2.15.0-cu132", python="3.13.11", torch="2.15.0", cuda="13.2",
         driver="595.45.04", gpu=_H100),
)  # fmt: skip

# Of these every release is recorded that a torch of the table might take, and newer ones too: what
# the resolver leaves is as telling as what it takes.
_IN_FULL = {
    "torchaudio": "2.4",
    "torchvision": "0.19",
    "torchcodec": "0.0.3",
    "xformers": "0.0.27.post1",
    "triton": "3.0",
    "whisperx": "3.2",
}
# Refused without being built, so that no lock has it.
_SOURCE_ONLY = ("flash-attn",)
_PYTHONS = ("cp310", "cp311", "cp312", "cp313")


@dataclass(kw_only=True)
class Recording:
    """What was read of the index so far: name and version to archives by file name."""

    index: str
    client: httpx.Client
    archives: dict[tuple[str, str], dict[str, Archive]] = field(default_factory=dict)
    requires: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    def add(self, locked: Iterable[Locked], contents: Mapping[str, Contents]) -> None:
        """Those of a lock, with what sources declare."""
        for one in locked:
            key = one.name, one.version
            self.archives.setdefault(key, {})[one.archive.filename] = one.archive
            if not one.archive.is_wheel:
                self.requires[key] = contents[one.name].requires

    def add_in_full(self, name: str, since: str) -> None:
        """Every release of a project from that version on, for Linux on x86-64."""
        for archive in self._files(name, _runs_here):
            _, version, _, _ = parse_wheel_filename(archive.filename)
            if version >= Version(since) and not version.is_prerelease:
                key = name, str(version)
                self.archives.setdefault(key, {})[archive.filename] = archive

    def add_source(self, name: str) -> None:
        """The newest source distribution of a project that has no wheels."""
        newest = self._files(name, lambda filename: filename.endswith(".tar.gz"))[-1]
        _, version = parse_sdist_filename(newest.filename)
        self.archives[name, str(version)] = {newest.filename: newest}

    def _files(self, name: str, wanted: Callable[[str], bool]) -> list[Archive]:
        """What the index offers of a project and is not withdrawn, the oldest first."""
        page = self.client.get(
            f"{self.index}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
        )
        return [
            Archive(
                filename=file["filename"],
                url=str(page.url.join(file["url"])),
                sha256=file["hashes"]["sha256"],
                size=file.get("size"),
            )
            for file in page.raise_for_status().json()["files"]
            if wanted(file["filename"]) and not file.get("yanked")
        ]

    def releases(self) -> list[dict[str, Any]]:
        """The document: one entry for each release, read from one of its wheels."""
        with Ranges((), _TIMEOUT) as ranges, ThreadPoolExecutor(8) as pool:
            entries = pool.map(
                lambda item: self._entry(ranges, *item), sorted(self.archives.items())
            )
            found = list(entries)
        wanted = {
            (canonicalize_name(need.name), canonicalize_name(extra))
            for entry in found
            for need in map(Requirement, entry["requires"])
            for extra in need.extras
        }
        for entry in found:
            extras = {extra for name, extra in wanted if name == entry["name"]}
            entry["requires"] = [r for r in entry["requires"] if _is_asked_for(r, extras)]
            entry["extras"] = sorted(extras)
        return [
            {k: v for k, v in entry.items() if v is not None and (k, v) != ("extras", [])}
            for entry in found
        ]

    def _entry(
        self, ranges: Ranges, key: tuple[str, str], archives: Mapping[str, Archive]
    ) -> dict[str, Any]:
        name, version = key
        entry: dict[str, Any] = {"name": name, "version": version, "archives": sorted(archives)}
        wheel = next((a for f, a in sorted(archives.items()) if f.endswith(".whl")), None)
        if wheel is None:
            # That of one that no lock has is not read: it is built before anybody knows.
            return {**entry, "requires": list(self.requires.get(key, ())), "files": []}
        with zipfile.ZipFile(ranges.open(wheel.url, wheel.size)) as archive:
            inside = contents_of(archive)
            metadata = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            head = archive.read(metadata).decode("utf-8", "replace").split("\n\n", 1)[0]
        return {
            **entry,
            "requires": list(inside.requires),
            "requires-python": HeaderParser().parsestr(head).get("Requires-Python"),
            "files": sorted(_telling(path for path, _ in inside.files)),
        }


def main() -> None:
    """Records the platforms, then the index, then the plans."""
    if not os.environ.get(_INDEX):
        raise SystemExit(f"name the address of a package index (PEP 691): {_INDEX}=URL")
    platforms: dict[str, dict[str, Any]] = {}
    with (
        tempfile.TemporaryDirectory() as scratch,
        httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client,
    ):
        place = Path(scratch)
        for seed in SEEDS:
            old = recorded.document(seed.name) if _is_recorded(seed) else {}
            platforms[seed.name] = {
                **_record(seed, place / seed.name),
                "review": old.get("review", ""),
            }
        recording = Recording(index=os.environ[_INDEX].rstrip("/"), client=client)
        direct = {}
        for name, record in platforms.items():
            _say(f"{name}: asking the index")
            direct[name] = _plans(record, place / f"direct-{name}", None, recording)
        for name, since in _IN_FULL.items():
            recording.add_in_full(name, since)
        for name in _SOURCE_ONLY:
            recording.add_source(name)
        releases = recording.releases()
        _write(recorded.INDEX, releases)
        recorded.write_shelf(releases, place / "shelf")
        with Index(place / "shelf") as index:
            for name, record in platforms.items():
                again = _plans(record, place / f"again-{name}", index.url, None)
                if again != direct[name]:
                    _say(f"{name}: over the records these are other plans than over the index")
                    _say(json.dumps([direct[name], again], indent=1))
                _write(recorded.PLACE / f"{name}.json", record | again)


def _record(seed: Seed, place: Path) -> dict[str, Any]:
    """The platform as the index has it, and what is written by hand over that."""
    bare = Platform(
        interpreter=interpreter(seed.python),
        distributions=(),
        accelerator=Accelerator(),
        torch=None,
    )
    public = Version(seed.torch).public
    found: list[dict[str, Any]] = []
    for locked, requires in _installed(bare, [f"torch=={public}", *seed.more], place):
        version = locked.version
        if locked.name == "torch" and seed.by_hand:
            version = seed.torch
        found.append({"name": locked.name, "version": version, "requires": list(requires)})
    if seed.nvidia is not None:
        found = [each for each in found if not _is_of_cuda(each["name"], seed.nvidia)]
        found += [{"name": n, "version": v, "requires": []} for n, v in seed.nvidia.items()]
        torch = next(each for each in found if each["name"] == "torch")
        torch["requires"] = [
            *(r for r in torch["requires"] if not _is_of_cuda(Requirement(r).name, seed.nvidia)),
            *(f"{name}=={version}" for name, version in seed.nvidia.items()),
        ]
    return {
        "source": "by hand" if seed.by_hand else "index",
        "python": seed.python,
        "torch": seed.torch if seed.by_hand else f"{public}+cu{(seed.cuda or '').replace('.', '')}",
        "cuda": seed.cuda,
        "cxx11-abi": "true" if seed.abi else "false",
        "driver": seed.driver,
        "gpus": [list(seed.gpu)] if seed.gpu else [],
        "distributions": sorted(found, key=lambda each: str(each["name"])),
    }


def _installed(
    bare: Platform, requirements: list[str], place: Path
) -> Iterator[tuple[Locked, tuple[str, ...]]]:
    scratch = place / "engine"
    scratch.mkdir(parents=True)
    source = Source(index=Indexes(), timeout=_TIMEOUT, offline=False)
    engine = recorded.OfAnotherPython(bare, source, cache=place / "cache", scratch=scratch)
    request = Request(requirements=tuple(requirements))
    outcome = engine.resolve(request)
    if not isinstance(outcome, Solved):
        raise SystemExit(f"{requirements} cannot be had: {outcome.solver_output}")
    located = engine.locate(outcome.pins, request)
    reader = Reader([place / "contents"], indexes=(), timeout=_TIMEOUT, remember=False)
    contents = reader.read(located)
    for each in located:
        yield each, contents[each.name].requires


def _plans(
    record: Mapping[str, Any], place: Path, index: str | None, recording: Recording | None
) -> dict[str, list[dict[str, Any]]]:
    """Both plans of a platform, by their keys in its record."""
    place.mkdir()
    found = {}
    for key, manifest in (("plan", recorded.worker()), ("companions", recorded.companions())):
        platform = recorded.platform_of(record)
        decided = recorded.decide_on(platform, manifest, place / key, index)
        if recording is not None:
            composition = decided.planner.composition
            recording.add(composition.lock.distributions, composition.contents)
        found[key] = recorded.rows(decided, manifest)
    return found


def _is_recorded(seed: Seed) -> bool:
    return (recorded.PLACE / f"{seed.name}.json").is_file()


def _is_of_cuda(name: str, by_hand: Mapping[str, str]) -> bool:
    """What a build for another CUDA, or without, has in other versions or not at all."""
    name = canonicalize_name(name)
    return name.startswith(("nvidia-", "cuda-")) or (name == "triton" and not by_hand)


def _is_asked_for(requirement: str, extras: Iterable[str]) -> bool:
    marker = Requirement(requirement).marker
    if marker is None or "extra" not in str(marker):
        return True
    return any(f'"{extra}"' in str(marker) for extra in extras)


def _runs_here(filename: str) -> bool:
    if not filename.endswith(".whl"):
        return False
    _, _, _, tags = parse_wheel_filename(filename)
    return any(
        (tag.interpreter in _PYTHONS or tag.interpreter.startswith("py") or tag.abi == "abi3")
        and not tag.abi.endswith("t")
        and (tag.platform == "any" or (tag.platform.endswith("x86_64") and "linux" in tag.platform))
        for tag in tags
    )


def _telling(paths: Iterable[str]) -> Iterator[str]:
    """Of the files of a wheel: regular packages, and libraries that tell what it was built for."""
    every = tuple(paths)
    found = territory(every)
    for place in found.regular:
        yield f"{place}/__init__.py"
    for place in found.directories:
        inside = any(place == other or place.startswith(f"{other}/") for other in found.regular)
        if not inside and not any(other.startswith(f"{place}/") for other in found.directories):
            yield f"{place}/_"
    libraries = [path for path in every if ".so" in path.rpartition("/")[2]]
    yield from libraries[:1]
    yield from (path for path in libraries if "cuda" in path or "nv" in path or "cublas" in path)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _write(file: Path, document: object) -> None:
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
