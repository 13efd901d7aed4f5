"""What is wrong with torch, what was built with it, and its CUDA libraries."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from preheat.decisions.health import remedies
from preheat.decisions.health.bounds import (
    accepts,
    as_version,
    bounds,
    major,
    required_from,
    requiring,
)
from preheat.decisions.health.phrases import label, listed, require, size_in_brackets
from preheat.words.diagnosis import Finding, FindingCode, Harm
from preheat.words.examination import Companion, Examination, Installed
from preheat.words.platform import Distribution, RecordState, Torch

LEAST_WASTE_BYTES = 10_000_000
"""What wastes less is not told."""

# A toolkit to compile with brings some libraries, of fewer bytes; cuDNN and cuBLAS are far larger.
_MORE_THAN_A_TOOLKIT_BYTES = 200_000_000
_NVIDIA = re.compile(r"nvidia-(.+?)(?:-cu(\d+))?")


def cuda_twins(seen: Examination) -> list[tuple[Installed, Installed]]:
    """Pairs of one NVIDIA library for two CUDAs: the one to keep, and the other."""
    families: dict[str, list[Installed]] = {}
    for each in seen.installed:
        match = _NVIDIA.fullmatch(each.distribution.name)
        if match and each.visible and each.distribution.state is not RecordState.TILDE:
            families.setdefault(match[1], []).append(each)
    wanted = required_from(seen, "torch")
    pairs = []
    for copies in families.values():
        # Torch's own first; without torch the newer one.
        ranked = sorted(copies, key=lambda e: as_version(e.distribution.version), reverse=True)
        ranked.sort(key=lambda e: e.distribution.name not in wanted)
        pairs += [(ranked[0], other) for other in ranked[1:]]
    return pairs


def cuda_twice(seen: Examination) -> Iterator[Finding]:
    """cu12 beside cu13: gigabytes twice, and some of them in the same files."""
    pairs = cuda_twins(seen)
    if not pairs:
        return
    spare = [other for _, other in pairs]
    names = sorted(each.distribution.name for each in spare)
    needy = requiring(seen, names)
    kept = {keep.distribution.name: keep for keep, other in pairs if _same_files(keep, other)}
    told = ", ".join(
        f"{label(other.distribution)} beside {label(keep.distribution)}"
        for keep, other in pairs[:3]
    )
    more = f" and {len(pairs) - 3} more" if len(pairs) > 3 else ""
    why = "a process that loads both mixes them, which crashes in use"
    if kept:
        why += f"; {', '.join(sorted(kept))} and its twin write the same files"
    if needy:
        why += f". {', '.join(needy)} {require(needy)} what goes: install a build for one CUDA"
    repairs = [
        remedies.reinstall(
            seen.tools, name, each.distribution.version or "", each.distribution.location
        )
        for name, each in sorted(kept.items())
    ]
    yield Finding(
        code=FindingCode.CUDA_TWICE,
        harm=Harm.USE,
        what=f"CUDA libraries are there for two CUDAs: {told}{more}"
        f"{size_in_brackets(sum(each.size for each in spare))}",
        why=why,
        mend=remedies.then(
            remedies.uninstall(seen.tools, [*names, *needy], spare[0].distribution.location),
            *repairs,
        ),
    )


def _same_files(one: Installed, other: Installed) -> bool:
    return other.distribution.name in one.shared or one.distribution.name in other.shared


def system_cuda(seen: Examination) -> Iterator[Finding]:
    """CUDA of the image beside CUDA of the wheels."""
    for each in seen.libraries:
        if each.preferred and each.names:
            rest = [p for p in seen.library_path.split(":") if p and p != each.directory]
            yield Finding(
                code=FindingCode.SYSTEM_CUDA,
                harm=Harm.USE,
                what=f"LD_LIBRARY_PATH puts {listed(each.names)} of {each.directory} before the "
                "wheels' own",
                why="torch was built with the libraries of its wheels; another cuDNN or cuBLAS "
                "under the same name fails in use",
                mend=remedies.export("LD_LIBRARY_PATH", ":".join(rest)),
            )
        elif each.size >= _MORE_THAN_A_TOOLKIT_BYTES:
            packages = " ".join(each.packages)
            purge = f"apt-get purge {packages}" if packages else remedies.remove(each.files)
            yield Finding(
                code=FindingCode.SYSTEM_CUDA,
                harm=Harm.COST,
                what=f"{each.directory} holds CUDA libraries that the wheels bring as well"
                f"{size_in_brackets(each.size)}",
                why="torch loads those of its wheels; the others only fill the image, unless a "
                "program outside of Python uses them",
                mend=remedies.by_hand(
                    "where the image is built (removing files from a running container frees "
                    "nothing of its image)",
                    purge,
                ),
            )


def torch_mixed(seen: Examination) -> Iterator[Finding]:
    """A torch whose files, metadata or libraries are not of one build."""
    torch = seen.platform.torch if seen.platform else None
    found = seen.platform.find("torch") if seen.platform else None
    if torch is None or found is None or found.version is None:
        return
    written, declared = torch.version.partition("+")[0], found.version.partition("+")[0]
    if written != declared:
        yield Finding(
            code=FindingCode.TORCH_MIXED,
            harm=Harm.START,
            what=f"torch in {found.location} says it is {torch.version}, its metadata "
            f"{found.version}",
            why="torch was replaced, and the replacement stopped half-way: its files are of two "
            "versions",
            mend=remedies.reinstall(seen.tools, "torch", found.version, found.location),
        )
    for bound in (bound for each in _parts(found) for bound in bounds(seen, found, each)):
        name = canonicalize_name(bound.name)
        part = seen.platform.find(name) if seen.platform else None
        if part is not None and not accepts(bound, part.version):
            yield Finding(
                code=FindingCode.TORCH_MIXED,
                harm=Harm.USE,
                what=f"torch {torch.version} was built with {name}{bound.specifier}, and "
                f"{part.version} is there",
                why="the library was replaced by an installation of something else; torch may "
                "fail when it calls it",
                mend=_exact(seen, bound, part.location),
            )


def _parts(torch: Distribution) -> tuple[str, ...]:
    """Names of the libraries that a torch pins."""
    names = {
        canonicalize_name(re.split(r"[^\w.-]", text, maxsplit=1)[0]) for text in torch.requires
    }
    return tuple(sorted(n for n in names if n.startswith(("nvidia-", "cuda-")) or n == "triton"))


def _exact(seen: Examination, bound: Requirement, location: str) -> str:
    pins = [s.version for s in bound.specifier if s.operator == "==" and "*" not in s.version]
    if pins:
        return remedies.reinstall(seen.tools, canonicalize_name(bound.name), pins[0], location)
    return remedies.install(seen.tools, f"{bound.name}{bound.specifier}")


def companions(seen: Examination) -> Iterator[Finding]:
    """What was built with another torch than the one that is there."""
    torch = seen.platform.torch if seen.platform else None
    found = seen.platform.find("torch") if seen.platform else None
    if torch is None:
        return
    # What installers compare is the metadata's version, which often lacks the local part.
    here = (found.version if found else None) or torch.version
    builds = {each.name: each for each in seen.companions}
    for each in seen.installed:
        one = each.distribution
        if not each.visible or not each.compiled or not one.state.present or one.name == "torch":
            continue
        refused = [b for b in bounds(seen, one, "torch") if not accepts(b, torch.version)]
        if refused:
            yield Finding(
                code=FindingCode.COMPANION,
                harm=Harm.START,
                what=f"{label(one)} was built with torch{refused[0].specifier}, and torch "
                f"{torch.version} is there",
                why="its extension modules fail when they are imported",
                mend=remedies.install(seen.tools, f"torch=={here}", f"{one.name}!={one.version}"),
            )
        elif one.name in builds:
            yield from _other_cuda(seen, builds[one.name], torch)


def _other_cuda(seen: Examination, build: Companion, torch: Torch) -> Iterator[Finding]:
    if build.cuda == torch.cuda:
        return
    both = bool(build.cuda and torch.cuda)
    same_major = both and major(build.cuda) == major(torch.cuda)
    yield Finding(
        code=FindingCode.COMPANION,
        # Without CUDA it imports, and fails on a GPU; for another CUDA it does not even import.
        harm=Harm.USE if same_major or build.cuda is None else Harm.START,
        what=f"{build.name} {build.version} is a build {_for(build.cuda)}, torch {torch.version} "
        f"one {_for(torch.cuda)}",
        why="both have to be of one build: calls between them fail"
        + ("" if same_major or build.cuda is None else ", and so may the import"),
        mend=remedies.build_of(seen.tools, build.name, build.version, torch.cuda),
    )


def _for(cuda: str | None) -> str:
    return f"for CUDA {cuda}" if cuda else "without CUDA"


def driver(seen: Examination) -> Iterator[Finding]:
    """A torch that the driver cannot serve, or that does not use the GPU which is there."""
    if seen.platform is None or seen.platform.torch is None:
        return
    torch, accelerator = seen.platform.torch, seen.platform.accelerator
    able = accelerator.cuda
    if torch.cuda and able and major(able) < major(torch.cuda):
        yield Finding(
            code=FindingCode.DRIVER,
            harm=Harm.USE,
            what=f"torch {torch.version} needs a driver for CUDA {torch.cuda}; driver "
            f"{accelerator.driver} can do {able}",
            why="torch finds no GPU then; a driver belongs to the host: run on one with a newer "
            "driver, or take a torch for this one",
            mend=remedies.torch_for(seen.tools, able),
        )
    if torch.cuda is None and accelerator.gpus and "rocm" not in torch.version:
        yield Finding(
            code=FindingCode.CPU_TORCH,
            harm=Harm.USE,
            what=f"torch {torch.version} is a build without CUDA, and {accelerator.gpus[0].name} "
            "is here",
            why="everything runs on the CPU: the image's torch was replaced, or the image is not "
            "the one for GPUs",
            mend=remedies.torch_for(seen.tools, able),
        )
