"""What `preheat doctor` finds wrong with a container."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Harm(Enum):
    """What happens if nothing is done, the worst first."""

    START = "breaks a start"
    USE = "breaks in use"
    COST = "costs time or space"
    NOTE = "good to know"

    @property
    def rank(self) -> int:
        """Its place in the order: 0 is the worst."""
        return list(Harm).index(self)


class FindingCode(str, Enum):
    """Every kind of finding; its value is the stable name for scripts.

    Within one harm, findings are told in this order: what others depend on comes first.
    """

    MANIFEST = "manifest"
    INTERPRETER = "interpreter"
    TEMP_UNUSABLE = "temp-unusable"
    STORE_NOT_WRITABLE = "store-not-writable"
    STORE_SPLIT = "store-split"
    TORCH_MIXED = "torch-mixed"
    COMPANION = "torch-companion"
    DRIVER = "driver-too-old"
    CPU_TORCH = "torch-without-cuda"
    TWO_METADATA = "two-versions-installed"
    LOST = "uninstalled-half"
    HALF_INSTALLED = "half-installed"
    DAMAGED_LAYER = "damaged-layer"
    CUDA_TWICE = "cuda-twice"
    OVERWRITTEN = "overwritten"
    SYSTEM_CUDA = "cuda-of-the-system"
    SHADOWED = "shadowed"
    LAYER_SHADOWS = "layer-shadows"
    NO_LOCKS = "no-locks"
    SPACE = "little-space"
    TEMP_SMALL = "temp-small"
    NO_HARDLINKS = "no-hardlinks"
    LEFTOVERS = "leftovers"
    HIDDEN_COPIES = "hidden-copies"
    DUPLICATES = "duplicated-bytes"
    LOCKS_MAY_BE_LOCAL = "locks-may-be-local"
    UNEXAMINED = "unexamined"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        code: its kind.
        harm: what comes of it.
        what: the fact, in one sentence.
        why: why it matters.
        mend: the shell command that mends it, ready to be pasted. What a person must do first is a
            comment in it.
    """

    code: FindingCode
    harm: Harm
    what: str
    why: str
    mend: str
