"""Which releases of torch's companions go with which torch, where their metadata does not say it.

A companion is compiled against one torch. Most say which one in their metadata (torchvision and
xformers pin it, torchaudio did until 2.10), and then the resolver does the rest. But its newest
releases that say nothing, or very old ones from before there were pins, would be chosen for any
torch. So what upstream's own tables say is stated here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Companion:
    """What goes with which torch.

    Attributes:
        source: where upstream says so.
        pairs: torch's major and minor version to the specifier of what goes with it. The last one
            holds for every later torch as well, by upstream's word, or since nothing else is known.
    """

    source: str
    pairs: Mapping[tuple[int, int], str]

    def spans(self, torch: tuple[int, int]) -> bool:
        """Whether what goes with that torch is for later ones as well."""
        return torch >= max(self.pairs)

    def specifier(self, torch: tuple[int, int]) -> str:
        """What goes with that torch; a specifier that nothing meets where there is nothing."""
        below = [pair for pair in self.pairs if pair <= torch]
        return self.pairs[max(below)] if below else "<0"


COMPANIONS: Mapping[str, Companion] = {
    "torchaudio": Companion(
        source="https://docs.pytorch.org/audio/2.11.0/installation.html; 2.11.0 and later are "
        "built on torch's stable ABI, and 2.11.0 does not say in its metadata for which torch",
        pairs={
            **{(2, minor): f"==2.{minor}.*" for minor in range(11)},
            (2, 11): ">=2.11",
        },
    ),
    "torchvision": Companion(
        source="the README of torchvision 0.29.2; from 0.29.1 on its metadata says torch>=2.14",
        pairs={
            **{(2, minor): f"==0.{minor + 15}.*" for minor in range(14)},
            (2, 14): ">=0.29",
        },
    ),
    "torchcodec": Companion(
        source="the README of torchcodec 0.17.0; its metadata says nothing of torch",
        pairs={
            (2, 4): ">=0.0.3,<0.1",
            (2, 5): "==0.1.*",
            (2, 6): "==0.2.*",
            (2, 7): ">=0.3,<0.6",
            (2, 8): ">=0.6,<0.8",
            (2, 9): ">=0.8,<0.10",
            (2, 10): "==0.10.*",
            (2, 11): ">=0.11",
            (2, 12): ">=0.12",
        },
    ),
    "triton": Companion(
        source="what PyPI's torch of that version requires; builds without CUDA do not say it",
        pairs={
            (2, 4): "==3.0.*",
            (2, 5): "==3.1.*",
            (2, 6): "==3.2.*",
            (2, 7): "==3.3.*",
            (2, 8): "==3.4.*",
            (2, 9): "==3.5.*",
            (2, 10): "==3.6.*",
            (2, 11): "==3.6.*",
            (2, 12): "==3.7.*",
            (2, 13): "==3.7.*",
            (2, 14): "==3.8.*",
            (2, 15): ">=3.9",
        },
    ),
    "xformers": Companion(
        source="its metadata, which pins torch, or says torch>=2.10 from 0.0.35 on",
        pairs={
            (2, 4): ">=0.0.27.post1,<0.0.28.post2",
            (2, 5): ">=0.0.28.post2,<0.0.29.post2",
            (2, 6): ">=0.0.29.post2,<0.0.30",
            (2, 7): ">=0.0.30,<0.0.32",
            (2, 8): "==0.0.32.*",
            (2, 9): "==0.0.33.*",
            (2, 10): ">=0.0.34",
            (2, 11): ">=0.0.35",
        },
    ),
}
"""By canonical name."""

FOR_CUDA_ALONE: Mapping[str, str] = {
    "xformers": "https://github.com/facebookresearch/xformers, Installing xFormers: its wheels are "
    "for CUDA and ROCm; beside a torch without, it imports, and its operators fail",
}
"""Canonical names of companions that have nothing for a torch without CUDA, each with the source.

Neither their metadata nor the names in their wheels say so.
"""
