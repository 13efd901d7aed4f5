"""Whether a store keeps its layers packed, and what packing one takes."""

from __future__ import annotations

from dataclasses import dataclass

from preheat.words.platform import Volume

SHARE = 0.4
"""An estimate of what packing leaves of a layer's bytes on disk, on the safe side: 0.21 of those of
transformers and what it needs, 0.27 of an environment of 782 MB."""

# Unpacking takes some 0.15 ms for each of a layer's files (1.7 s for 10,000). Used in place, one in
# five is imported, and costs six operations: two looks at directories, stat, open, read, close.
_SLOW = 0.15e-3 * 5 / 6
# What is so much slower than the local disk is no disk.
_TIMES_SLOWER = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A directory that layers could be in.

    Attributes:
        look: seconds that one operation on a file takes there.
    """

    volume: Volume
    look: float


def hydrating_is_faster(store: Site, local: Site) -> bool:
    """Whether a layer is imported sooner when it is unpacked to the local disk before.

    On a network filesystem it is not slower even where the network is the loopback interface (3.9 s
    and 4.6 s, see ``bench/volume``), and how slow a real one will be tomorrow no start can tell.
    Elsewhere what was measured decides. It never is where the local disk is the same one, or as
    slow.
    """
    if store.volume.device == local.volume.device or not local.volume.quota_known:
        return False
    if not store.volume.quota_known:
        return True
    return store.look > _SLOW and store.look > _TIMES_SLOWER * local.look
