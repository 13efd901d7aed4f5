"""Whether a store keeps its layers packed, and what packing one takes."""

from __future__ import annotations

from dataclasses import dataclass

from preheat.words.platform import Volume

SHARE = 0.4
"""The share of a layer's bytes on disk that its pack takes, estimated on the safe side: it was 0.21
for transformers and what it needs, and 0.27 for an environment of 782 MB."""

# Unpacking takes some 0.15 ms for each of a layer's files (1.7 s for 10,000). Used in place, one in
# five is imported, and costs six operations: two looks at directories, stat, open, read, close.
_SLOW_SECONDS = 0.15e-3 * 5 / 6
# A volume that is slower than the local disk by this factor is not a local disk.
_SLOW_FACTOR = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A directory that layers could be in.

    Attributes:
        look: seconds that one operation on a file takes there.
    """

    volume: Volume
    look: float


def hydrating_is_faster(store: Site, local: Site) -> bool:
    """Whether a layer is imported sooner when it is first unpacked to the local disk.

    Always from a network filesystem: even over the loopback interface it takes no longer (3.9 s
    and 4.6 s, see ``bench/volume``), and how slow a real network will be cannot be told. From any
    other volume, what was measured decides. Never where the local disk is on the same device or on
    a network.
    """
    if store.volume.device == local.volume.device or not local.volume.quota_known:
        return False
    if not store.volume.quota_known:
        return True
    return store.look > _SLOW_SECONDS and store.look > _SLOW_FACTOR * local.look
