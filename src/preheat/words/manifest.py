"""The manifest: which packages a worker wants warmed, in order of importance, and how.

A manifest is `preheat.toml`, or the table `[tool.preheat]` of a `pyproject.toml`. Every key is
described once, here: the JSON Schema, the reference page and the error messages are made from it.
`manifest_types` says how each kind of value is written, `manifest_parser` makes a manifest of a
decoded document.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from preheat.words.display import shown
from preheat.words.frozen_map import FrozenMap
from preheat.words.manifest_table import CONFIG, Origin, Redacted
from preheat.words.manifest_types import (
    Accelerator,
    Alternatives,
    Bytecode,
    CapabilityName,
    Check,
    Directories,
    Duration,
    Flag,
    LayerForm,
    Limit,
    MarkerText,
    MaybeRequirements,
    Modules,
    Name,
    NamePatterns,
    Names,
    Part,
    PathsOrUrls,
    PathText,
    Requirements,
    Size,
    Specifier,
    Url,
    Urls,
    Versions,
    VersionText,
    is_module,
)
from preheat.words.notation import Several
from preheat.words.problem import Problem

REPEATED = "preheat_repeated"
"""The type of the error for a name that two packages have, among those that pydantic raises."""


@dataclass(frozen=True, kw_only=True, slots=True, config=CONFIG)
class Condition:
    """`[package.when]`: what the platform must have for a package to be wanted there at all."""

    accelerator: Accelerator | None = Field(
        default=None,
        description='"cuda": only where an NVIDIA GPU is usable; "none": only where none is. '
        "Not stated: both.",
    )
    compute_capability: Specifier | None = Field(
        default=None,
        description="The CUDA compute capability that a GPU must have, as a version specifier: "
        '">=8.0". Without a GPU it is not met.',
    )
    cuda: Specifier | None = Field(
        default=None,
        description="The CUDA version that the platform's torch was built for, as a version "
        'specifier: ">=12". Without CUDA it is not met.',
    )
    marker: MarkerText | None = Field(
        default=None,
        description="An environment marker (PEP 508) that must hold for the platform's "
        "interpreter: \"python_version >= '3.11'\".",
    )


@dataclass(frozen=True, kw_only=True, slots=True, config=CONFIG)
class BuildLimits:
    """`[package.build-limits]`: what a build against the platform may take, and does take."""

    time: Limit = Field(
        default=1800.0,
        description="How long a build may go on. It is ended then, and not tried again until "
        "retry-after has passed.",
    )
    memory: Size = Field(
        default=5 * 10**9,
        description="How much memory one compiler takes. As many run at once as there is memory "
        "for; where there is not enough for one, nothing is built.",
    )
    disk: Size = Field(
        default=2 * 10**9,
        description="How much of the store's disk a build takes while it goes on.",
    )
    cpu_time: Limit | None = Field(
        default=None,
        description="How long one processor would build for one GPU architecture, if that is "
        "known: a build that cannot end in `time` is then not begun.",
    )
    cuda: Flag = Field(
        default=True,
        description="Whether it compiles CUDA where torch has it: then it needs the nvcc of "
        "torch's CUDA, and is compiled for the GPUs that are here.",
    )


@dataclass(frozen=True, kw_only=True, slots=True, repr=False, config=CONFIG)
class Package(Redacted):
    """`[[package]]`: something that the worker wants to import, and what it takes to get it."""

    name: Name = Field(
        description="What the package is called here, in reports and in capabilities. Each name "
        "once; case, and the difference between -, _ and ., do not count."
    )
    requires: Requirements = Field(
        description='What to install, as requirements (PEP 508): ["transformers>=4.48.1"].'
    )
    imports: Modules = Field(
        description="The modules that must import, dotted ones too, before the package counts as "
        'ready: ["google.cloud.speech"].'
    )
    check: Check = Field(
        default="",
        description="Python code to run after the imports, in the same process; an exception is a "
        "failure. A dotted name alone is a module that is run, as by `python -m`.",
    )
    check_gpu: Flag = Field(
        default=False,
        description="Whether to run imports and check once more with the GPU visible, where the "
        "platform has one. The first run never sees it.",
    )
    required: Flag = Field(
        default=False,
        description="Whether the worker cannot live without the package: if it is not ready, "
        "preheat ends with exit status 3. Where `when` does not hold it is not wanted and not "
        "missed.",
    )
    when: Condition = Field(
        default_factory=Condition,
        description="What the platform must have for the package to be wanted; where it has not, "
        "the package is skipped with that reason.",
    )
    build_isolation: Flag = Field(
        default=True,
        description="Whether its source distributions are built in an environment of their own "
        "(PEP 517). false: against the platform, with what is installed there.",
    )
    build: Flag | None = Field(
        default=None,
        description="Whether its own requirements may be built from source distributions. Not "
        "stated: the same as build-isolation, for what is compiled against the platform can take "
        "very long.",
    )
    build_requires: MaybeRequirements = Field(
        default=(),
        description="Requirements (PEP 508) that its build needs besides the platform, with "
        'build-isolation = false: ["setuptools", "ninja"]. They are in no layer.',
    )
    build_limits: BuildLimits = Field(
        default_factory=BuildLimits,
        description="What a build without isolation may take, and what it is known to take.",
    )
    exclude: Names = Field(
        default=(),
        description="Distributions that are never installed for it, though something it needs "
        "declares them.",
    )
    override: MaybeRequirements = Field(
        default=(),
        description="Requirements (PEP 508) that replace, for this package, whatever others "
        "declare for the same distribution.",
    )
    bake: Part | None = Field(
        default=None,
        description="Where `preheat bake` puts its layer: in the image, whatever the budget is, or "
        "on the volume. Not stated: in the image, as far as the budget goes.",
    )
    import_timeout: Limit | None = Field(
        default=None,
        description="How long its imports and its check may take. Not stated: the import-timeout "
        "of the whole manifest.",
    )

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """`requires`, parsed."""
        return tuple(map(Requirement, self.requires))

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names of the distributions that `requires` names."""
        return tuple(canonicalize_name(each.name) for each in self.requirements)

    @property
    def overrides(self) -> tuple[Requirement, ...]:
        """`override`, parsed."""
        return tuple(map(Requirement, self.override))

    @property
    def may_build(self) -> bool:
        """Whether source distributions of its own requirements may be built."""
        return self.build_isolation if self.build is None else self.build

    @property
    def builds_on_platform(self) -> bool:
        """Whether its source distributions are built against the platform."""
        return self.may_build and not self.build_isolation

    @property
    def check_module(self) -> str | None:
        """The module that `check` names, or None where it is code or empty."""
        return self.check if is_module(self.check) else None


@dataclass(frozen=True, kw_only=True, slots=True, config=CONFIG)
class Space:
    """`[space]`: how much of the disk is left alone, in bytes."""

    clean_below: Size = Field(
        default=10**9, description="Clean caches when less than this is free, before installing."
    )
    keep_free: Size = Field(
        default=500 * 10**6,
        description="How much stays free after everything is installed; what does not fit above "
        "it is not installed.",
    )
    clean: Directories = Field(
        default=(),
        description="More directories whose contents are caches, given up last of all. Absolute "
        "paths; ~ is not read.",
    )


@dataclass(frozen=True, kw_only=True, slots=True, repr=False, config=CONFIG)
class Index(Redacted):
    """`[index]`: where distributions come from. Nothing else is asked for them."""

    url: Url | None = Field(
        default=None,
        description="The package index (PEP 503 or 691). Not stated: the engine's own "
        "configuration, or else PyPI.",
    )
    extra: Urls = Field(default=(), description="More indexes, asked before `url`.")
    find_links: PathsOrUrls = Field(
        default=(),
        description="Directories, or pages with links, that hold distributions. A relative "
        "path starts at the manifest's directory.",
    )


@dataclass(frozen=True, kw_only=True, slots=True, config=CONFIG)
class StatedCuda:
    """`[cuda]`: what holds in place of what was read of the platform, for machines unlike this."""

    driver: VersionText | None = Field(
        default=None, description="The NVIDIA driver's version. Not stated: what the driver says."
    )
    runtime: VersionText | None = Field(
        default=None,
        description="The CUDA that torch was built for. Not stated: what its version.py says.",
    )
    toolkit: PathText | None = Field(
        default=None,
        description="The directory of the CUDA toolkit, with bin/nvcc in it. Not stated: "
        "CUDA_HOME, CUDA_PATH, the nvcc on PATH, or else /usr/local/cuda.",
    )
    cudnn: VersionText | None = Field(
        default=None,
        description="cuDNN's version. Not stated: that of NVIDIA's wheel, or else of its header.",
    )
    nccl: VersionText | None = Field(
        default=None,
        description="NCCL's version. Not stated: that of NVIDIA's wheel, or else of its header.",
    )
    cxx11_abi: Flag | None = Field(
        default=None,
        description="Whether torch was compiled with the newer std::string of libstdc++. Not "
        "stated: what torch's CMake file or its library says.",
    )
    compute_capability: Versions = Field(
        default=(),
        description="The compute capability of each GPU. Stated, it is also what `when` is "
        "compared with, so that a store can be filled on a machine without a GPU. Not stated: what "
        "the driver says.",
    )


@dataclass(frozen=True, kw_only=True, slots=True, repr=False, config=CONFIG)
class Manifest(Redacted):
    """What a worker wants warmed, and how: the whole file."""

    package: Annotated[
        tuple[Package, ...], Several(allowed="tables that start with [[package]]")
    ] = Field(default=(), description="The packages, the most important first.")
    capabilities: Annotated[
        FrozenMap[CapabilityName, Alternatives],
        Several(allowed="a table of arrays of names", kinds=(Mapping,)),
    ] = Field(
        default_factory=FrozenMap,
        json_schema_extra={"additionalProperties": False},
        description="What the worker wants done, each with the packages that can do it, the best "
        "first. A name that is no package of the manifest is looked for on the platform.",
    )
    space: Space = Field(default_factory=Space, description="How much of the disk is left alone.")
    index: Index = Field(default_factory=Index, description="Where distributions come from.")
    cuda: StatedCuda = Field(
        default_factory=StatedCuda,
        description="What holds in place of what was read of the platform's CUDA.",
    )
    store: PathText | None = Field(
        default=None,
        description="The directory where layers are kept; ~ is the home directory, and a relative "
        "path starts at the manifest's directory. Not stated: `preheat` on the network volume "
        "where the platform mounts one, or else in the user's cache directory.",
    )
    layers: LayerForm = Field(
        default="auto",
        description="How the store keeps layers: packed, each as one file that every machine "
        "unpacks to a disk of its own; or as the directories that go on the path. auto: packed "
        "where the store is on a network filesystem or its volume is slow, and `local` is on "
        "another one that is neither.",
    )
    local: PathText | None = Field(
        default=None,
        description="The directory on this machine's own disk where packed layers are unpacked; ~ "
        "is the home directory, and a relative path starts at the manifest's directory. Not "
        "stated: `preheat-layers` in the user's cache directory.",
    )
    image: PathText | None = Field(
        default=None,
        description="The directory in the worker's image where `preheat bake` put layers: it is "
        "only read, and layers that are in it are made nowhere else. ~ is the home directory, and "
        "a relative path starts at the manifest's directory.",
    )
    protected: NamePatterns = Field(
        default=("torch", "torchvision", "torchaudio", "triton", "nvidia-*", "cuda-*"),
        description="Distributions of the platform that are never replaced, shadowed or fetched "
        "again. Stating it replaces the default.",
    )
    offline: Flag = Field(
        default=False, description="Whether to use only what is already on this machine."
    )
    compile: Bytecode = Field(
        default="all",
        description="Of which modules a layer holds bytecode (PEP 552): of all; of those that the "
        "promised imports and the checks load, which makes a cold start faster where processors "
        "are few, and what is planned an upper bound; or of none.",
    )
    retry_after: Duration = Field(
        default=6 * 3600.0,
        description="How long a failure is remembered; until then the package is not tried again, "
        "unless it is required.",
    )
    import_timeout: Limit = Field(
        default=300.0,
        description="How long the imports and the check of one package may take.",
    )
    index_timeout: Limit = Field(
        default=30.0, description="How long an index may take to answer one request."
    )
    deadline: Limit | None = Field(
        default=None,
        description="How long a start may take; optional packages that cannot be ready by then "
        "are skipped. Not stated: as long as it needs.",
    )
    origin: SkipJsonSchema[Origin] = dataclasses.field(
        default=Origin(), init=False, compare=False, repr=False
    )

    @model_validator(mode="after")
    def _each_name_once(self) -> Manifest:
        for problem in repeated_names([package.name for package in self.package]):
            raise PydanticCustomError(REPEATED, "{problem}", {"problem": str(problem)})
        return self


def repeated_names(names: Sequence[str | None]) -> Iterator[Problem]:
    """Yield the problem of each package that has the name of an earlier one; None has no name."""
    first: dict[str, int] = {}
    for position, name in enumerate(names):
        if name is None:
            continue
        before = first.setdefault(canonicalize_name(name), position)
        if before != position:
            yield Problem(
                where=f"package[{position}] {shown(name)}: name",
                found=f"{shown(name)}, which package[{before}] is already called",
                allowed="each name once",
            )
