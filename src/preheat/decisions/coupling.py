"""Whether what is compiled against torch goes with the platform's torch and its CUDA.

What is refused here cannot work, as far as its version, its metadata or the names in its wheel
tell; where they do not tell, an import or a check does. Many wheels bring a CUDA of their own and
work beside another, or hold code for several (ctranslate2, bitsandbytes, xgboost): only what is an
extension of torch has to be for torch's CUDA.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from preheat.decisions.building import label_refusal, target_of
from preheat.decisions.requirements import holding
from preheat.words.coupling import COMPANIONS, FOR_CUDA_ALONE
from preheat.words.lock import Contents, Locked
from preheat.words.manifest import BuildLimits, Package
from preheat.words.platform import Platform, Torch
from preheat.words.proof import Proof

# libcudart.faf08d9a.so.13, libnvjpeg-1a359ba7.so.13.0.1.86, libcudart.so.12: of these libraries
# the number after .so is CUDA's major version (auditwheel puts a part of a hash before it).
_BUNDLED = re.compile(
    r"(?:^|/)(lib(?:cudart|nvrtc|nvjpeg|cublas|cublasLt|nvJitLink)[-.](?:[0-9a-f]{8}\.)?"
    r"so\.(\d+)[\d.]*)$"
)
_LIBRARY = re.compile(r"\.so(?:\.[\d.]+)?$")
_CUDA_LABEL = re.compile(r"cu(\d\d)\d?(?!\d)")
_TORCH_LABEL = re.compile(r"(?:torch|pt)\d")
_OF_CUDA = re.compile(r"nvidia-[a-z0-9-]+-cu(\d\d)")
# Projects that publish one name for each CUDA: cupy-cuda12x, faiss-gpu-cu12. NVIDIA's own are
# libraries, which others ask for and may do without (xgboost).
_NAMED = re.compile(r"(?!nvidia-|cuda-)[a-z0-9-]+-cu(?:da)?(\d\d)\d?x?")

_MISSING = re.compile(r"(lib[\w+-]+)\.so(?:\.([\d.]+))?: cannot open shared object file")
_BY_CUDA_MAJOR = re.compile(r"lib(?:cudart|nvrtc|nvjpeg|cublas|cublasLt|nvJitLink)")
_OTHER_CUDA = re.compile(
    r"lib(?:torch_cuda|c10_cuda|cufft|cufile|cupti|curand|cusolver|cusparse|cusparseLt|nvToolsExt"
    r"|nccl|nvshmem\w*)"
)
_REFUSED_FILE = re.compile(r"Could not load this library: (/\S+)")
_UNDEFINED = re.compile(r"undefined symbol: (\w*(?:c10|2at|5torch)\w*)")
# What a label says of torch does not depend on what a build may take.
_NO_LIMITS = BuildLimits()


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """What tells which CUDA a wheel was compiled for.

    Attributes:
        majors: of CUDA; a wheel may hold code for several.
        told_by: what says so, to go in brackets.
    """

    majors: frozenset[str]
    told_by: str


def partners(platform: Platform, leave: Iterable[str] = ()) -> dict[str, str]:
    """Canonical name of each companion to the specifier of what goes with the platform's torch.

    What torch itself requires goes before what is known of its release.

    Args:
        platform: whose torch.
        leave: names that are left out: protected, or overridden by the manifest.
    """
    torch = _minor(platform)
    if torch is None:
        return {}
    stated = _stated_by_torch(platform)
    left_out = frozenset(leave)
    return {
        name: stated.get(name) or companion.specifier(torch)
        for name, companion in COMPANIONS.items()
        if name not in left_out
    }


def remarks(
    locked: Iterable[Locked], platform: Platform, avoided: Mapping[str, str]
) -> dict[str, str]:
    """Remarks on companions that are not the newest, or not made for this torch alone, by name.

    Args:
        locked: what was chosen.
        platform: whose torch.
        avoided: name to why another release was left out.
    """
    torch = _minor(platform)
    if torch is None:
        return {}
    stated = _stated_by_torch(platform)
    found = {}
    for each in locked:
        companion = COMPANIONS.get(each.name)
        if each.name in avoided:
            found[each.name] = f"{each.name} {each.version}, since {avoided[each.name]}"
        if companion is None or each.name in stated or torch <= max(companion.pairs):
            continue
        since = ".".join(map(str, max(companion.pairs)))
        own = f"none is for {torch[0]}.{torch[1]} alone: its import decides"
        remark = f"{each.name} {each.version} is for torch {since} and later, as {own}"
        found[each.name] = "; ".join(filter(None, [found.get(each.name), remark]))
    return found


def blamed(
    failed: Iterable[Locked], package: Package, said: str, platform: Platform
) -> Locked | None:
    """The companion of torch whose older releases are worth trying after a failure.

    It is one that is not bound to a single torch, and that either is what the package asks for or
    is named in the failure. None where there is none.

    Args:
        failed: what the layer holds that failed.
        package: whose layer.
        said: its reason and its traceback.
        platform: whose torch.
    """
    torch = _minor(platform)
    for each in failed:
        companion = COMPANIONS.get(each.name)
        if companion is None or torch is None or not companion.spans(torch):
            continue
        if _is_oldest(each, companion.specifier(torch)):
            continue
        if each.name in package.names or each.name in said:
            return each
    return None


def before(companion: Locked) -> str:
    """The constraint that allows only releases older than that one."""
    return f"{companion.name}<{Version(companion.version).public}"


def misfit(locked: Locked, contents: Contents, platform: Platform) -> str | None:
    """The sentence that says why a wheel cannot work with the platform's torch; None if it may.

    Args:
        locked: the distribution.
        contents: what its archive holds.
        platform: with its torch and what that brings of CUDA.
    """
    if platform.torch is None or locked.name == "torch" or not locked.archive.is_wheel:
        return None
    if not _is_extension(locked, contents, platform):
        return None
    label = _local(locked.version)
    why = _wrong_cuda(locked, _build(label, contents, platform), platform, platform.torch)
    if why is None and _TORCH_LABEL.search(label):
        why = label_refusal(locked.version, target_of(platform, _NO_LIMITS))
    return f"{locked.name} {locked.version} {why}" if why else None


def _wrong_cuda(
    locked: Locked, build: Build | None, platform: Platform, torch: Torch
) -> str | None:
    """What is wrong with the CUDA that a wheel was compiled for; None if nothing is known to be."""
    runtime = platform.cuda.runtime
    here = f"and the platform's torch {torch.version}"
    if build is None:
        alone = runtime is None and locked.name in FOR_CUDA_ALONE
        return f"is for CUDA alone, {here} is one without CUDA" if alone else None
    what = f"is a build for CUDA {_listed(build.majors)} ({build.told_by}), {here}"
    if runtime is None:
        return f"{what} is one without CUDA"
    matches = runtime.value.split(".")[0] in build.majors
    return None if matches else f"{what} brings CUDA {runtime.value}"


def avoiding(locked: Locked) -> str:
    """The constraint that excludes that version, and no other.

    A version without a local part stands for all of its local versions too (PEP 440); those are
    preferred by every resolver, so they have been left out before.
    """
    return f"{locked.name}!={locked.version}"


def useless(package: Package, platform: Platform) -> str | None:
    """Why a package that is for CUDA by its name is of no use here; None if it may be."""
    cuda, torch = platform.cuda, platform.torch
    if torch is None or cuda.runtime or cuda.driver or cuda.compute_capability:
        return None
    for name in package.names:
        named = _NAMED.fullmatch(name)
        if named:
            return (
                f"{name} is for CUDA {named[1]}, as its name says; the platform's torch "
                f"{torch.version} is a build without CUDA, and no GPU is visible"
            )
    return None


def explained(proof: Proof, platform: Platform) -> Proof:
    """The proof, its failure said in a sentence where it names a CUDA library or torch's symbol."""
    if proof.ok or platform.torch is None:
        return proof
    words = f"{proof.trace}\n{proof.reason}"
    why = next(_reasons(words, platform, platform.torch.version), None)
    if why is None:
        return proof
    refused = _REFUSED_FILE.search(words)
    subject = refused[1] if refused else "a library that it loads"
    return replace(proof, reason=f"{proof.reason.partition(': ')[0]}: {subject} {why}")


def _reasons(words: str, platform: Platform, torch: str) -> Iterator[str]:
    runtime, cudnn = platform.cuda.runtime, platform.cuda.cudnn
    brings = f"brings CUDA {runtime.value}" if runtime else "is a build without CUDA"
    here = f"the platform's torch {torch} {brings}"
    for library, version in _MISSING.findall(words):
        name = f"{library}.so.{version}".rstrip(".")
        wanted = version.split(".")[0]
        if library.startswith("libcudnn") and wanted:
            have = f"cuDNN {cudnn.value}" if cudnn else "none"
            yield f"is for cuDNN {wanted} ({name}), and the platform has {have}"
        elif _BY_CUDA_MAJOR.fullmatch(library) and wanted:
            if runtime is None or runtime.value.split(".")[0] != wanted:
                yield f"is a build for CUDA {wanted} ({name}), and {here}"
        elif _OTHER_CUDA.fullmatch(library) and runtime is None:
            yield f"is a build for CUDA ({name}), and {here}"
    symbol = _UNDEFINED.search(words)
    if symbol:
        yield f"was compiled against another torch than the platform's {torch} (no {symbol[1]})"


def _build(label: str, contents: Contents, platform: Platform) -> Build | None:
    """What the version says; else what the wheel brings along; else what it requires."""
    labelled = _CUDA_LABEL.search(label)
    if labelled:
        return Build(majors=frozenset({labelled[1]}), told_by=f"its version says {labelled[0]}")
    held = [found for path, _ in contents.files if (found := _BUNDLED.search(path))]
    if held:
        # CUDA's runtime is the one that people know.
        held.sort(key=lambda found: (not found[1].startswith("libcudart"), found[1]))
        named = {found[2]: found[1] for found in reversed(held)}
        return Build(majors=frozenset(named), told_by=f"it holds {_listed(named.values())}")
    wanted = {
        of_cuda[1]: requirement.name
        for requirement in holding(contents.requires, platform.interpreter.markers)
        if (of_cuda := _OF_CUDA.fullmatch(canonicalize_name(requirement.name)))
    }
    if wanted:
        return Build(majors=frozenset(wanted), told_by=f"it requires {_listed(wanted.values())}")
    return None


def _is_extension(locked: Locked, contents: Contents, platform: Platform) -> bool:
    """Whether it is compiled against torch: known to be, says so, or bound to one torch."""
    if locked.name in COMPANIONS or _TORCH_LABEL.search(_local(locked.version)):
        return True
    if not any(_LIBRARY.search(path) for path, _ in contents.files):
        return False
    about_torch = (text for text in contents.requires if "torch" in text.lower())
    return any(
        bound.operator in ("==", "===")
        for requirement in holding(about_torch, platform.interpreter.markers)
        if canonicalize_name(requirement.name) == "torch"
        for bound in requirement.specifier
    )


def _is_oldest(locked: Locked, specifier: str) -> bool:
    """Whether no older release of it goes with the platform's torch."""
    version = Version(Version(locked.version).public)
    least = [Version(each.version) for each in SpecifierSet(specifier) if each.operator == ">="]
    return any(version <= each for each in least)


def _stated_by_torch(platform: Platform) -> dict[str, str]:
    torch = platform.find("torch")
    return {
        canonicalize_name(requirement.name): str(requirement.specifier)
        for requirement in holding(torch.requires if torch else (), platform.interpreter.markers)
        if str(requirement.specifier)
    }


def _minor(platform: Platform) -> tuple[int, int] | None:
    """The major and minor version of the platform's torch."""
    if platform.torch is None:
        return None
    try:
        release = Version(platform.torch.version).release
    except InvalidVersion:
        return None
    return (*release, 0, 0)[0], (*release, 0, 0)[1]


def _local(version: str) -> str:
    try:
        return Version(version).local or ""
    except InvalidVersion:
        return ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
