"""What is wrong with a store, its volumes and its layers."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from preheat.decisions.health import remedies
from preheat.decisions.health.cuda import LEAST_WASTE_BYTES
from preheat.decisions.health.phrases import base_name, listed, size_in_brackets
from preheat.words.diagnosis import Finding, FindingCode, Harm
from preheat.words.examination import LayerFiles, Locking, StoreState, Tools
from preheat.words.quantities import in_mb
from preheat.words.store import Directory

PARTS = (Directory.STAGING.dirname, Directory.LAYERS.dirname)
"""Directories of a store that have to be on one filesystem."""

TEMP_LEAST_BYTES = 100_000_000
"""What proofs and the engine may need in the temporary directory."""
TEMP_BYTES_PER_BUILD = 60_000_000
"""What one isolated build unpacks there."""

_FEW_INODES = 10_000


def not_writable(store: StoreState, tools: Tools) -> Iterator[Finding]:
    """No file could be made where the layers are to be."""
    trial = store.trial
    if trial.error is None:
        return
    yield Finding(
        code=FindingCode.STORE_NOT_WRITABLE,
        harm=Harm.START,
        what=f"the store {store.root} cannot be written: {_refusal(trial.error)} in {trial.place}",
        why="a start that has anything to install ends with exit status 4",
        mend=_allowed(store, tools, trial.error),
    )


def _refusal(error: int) -> str:
    words = {
        errno.EACCES: "permission denied",
        errno.EPERM: "permission denied",
        errno.EROFS: "the filesystem is read-only",
        errno.ENOSPC: "no space is left",
        errno.EDQUOT: "the quota is used up",
        errno.ENOTDIR: "it is not a directory",
    }
    return words.get(error, errno.errorcode.get(error, str(error)))


def _allowed(store: StoreState, tools: Tools, error: int) -> str:
    place = store.trial.place
    if error == errno.EROFS:
        return remedies.command("mount", "-o", "remount,rw", store.trial.mount)
    if error in (errno.ENOSPC, errno.EDQUOT):
        return remedies.preheat(tools, "clean")
    if error == errno.ENOTDIR:
        return remedies.command("mv", "--", place, f"{place}.not-a-store")
    if error in (errno.EACCES, errno.EPERM):
        owner = remedies.command("chown", "-R")
        return f'{owner} "$(id -u):$(id -g)" {remedies.quoted(place)}  # as root'
    return remedies.by_hand(
        "repair the filesystem, or name a store on another one",
        remedies.export("PREHEAT_STORE", "/var/tmp/preheat"),  # noqa: S108  # a mere proposal
    )


def locks(store: StoreState, tools: Tools) -> Iterator[Finding]:
    """Locks that do not hold, or may not hold between hosts."""
    volume, locking = store.volumes.get("store"), store.trial.locking
    elsewhere = remedies.by_hand(
        "name a directory on a local disk", remedies.export("PREHEAT_STORE", _proposal(store))
    )
    if locking not in (None, Locking.EXCLUDES):
        yield Finding(
            code=FindingCode.NO_LOCKS,
            harm=Harm.COST,
            what=f"a lock on a file in {store.trial.place} does not hold: {locking.value}",
            why="whether a start in another container lives is then told by the age of its lease: "
            "others wait for a dead one, or do its work again. Published layers are right all the "
            "same",
            mend=elsewhere,
        )
    elif volume is not None and locking is not None and not volume.quota_known:
        yield Finding(
            code=FindingCode.LOCKS_MAY_BE_LOCAL,
            harm=Harm.NOTE,
            what=f"the store {store.root} is on a network filesystem ({volume.kind}): locks hold "
            "on this host, and perhaps on this host only",
            why="two hosts may then do the same work; published layers are right all the same. A "
            "quota may leave less than the free space that is shown",
            mend=remedies.by_hand(
                "nothing has to be done; to have it local, at the price of a store for each host",
                remedies.export("PREHEAT_STORE", _proposal(store)),
            ),
        )


def _proposal(store: StoreState) -> str:
    temp = store.volumes.get("temp")
    here = store.volumes.get("store")
    if temp is not None and here is not None and temp.device != here.device:
        return f"{temp.path.rstrip('/')}/preheat"
    return "/var/tmp/preheat"  # noqa: S108  # a mere proposal


def space(store: StoreState, tools: Tools) -> Iterator[Finding]:
    """Less free space, or fewer inodes, than a start wants."""
    volume = store.volumes.get("store")
    if volume is None:
        return
    wanted = max(store.clean_below, store.keep_free)
    if volume.free < wanted:
        short = volume.free < store.keep_free
        yield Finding(
            code=FindingCode.SPACE,
            harm=Harm.USE if short else Harm.COST,
            what=f"{volume.path} has {in_mb(volume.free)} free, "
            + (
                f"and {in_mb(store.keep_free)} have to stay free (space.keep-free)"
                if short
                else f"less than {in_mb(store.clean_below)} (space.clean-below)"
            ),
            why="nothing can be installed that the store does not have: it is skipped"
            if short
            else "each cold start cleans caches first, and downloads again what was in them",
            mend=remedies.preheat(tools, "clean", "--need", f"{-(-wanted // 10**6)}MB"),
        )
    if volume.inodes is not None and volume.inodes < _FEW_INODES:
        yield Finding(
            code=FindingCode.SPACE,
            harm=Harm.USE,
            what=f"{volume.path} has {volume.inodes:,} free inodes",
            why="a heavy package has thousands of files: it is skipped",
            mend=remedies.preheat(tools, "clean"),
        )


def temp(store: StoreState, tools: Tools) -> Iterator[Finding]:
    """A temporary directory in which a proof or a build ends with a full disk."""
    volume, other = store.volumes.get("temp"), store.volumes.get("store")
    wanted = TEMP_LEAST_BYTES + TEMP_BYTES_PER_BUILD * store.builds
    if volume is None or volume.free >= wanted:
        return
    roomier = other is not None and other.device != volume.device and other.free >= wanted
    if roomier and other is not None:
        made = f'export TMPDIR="$(mktemp -d -p {remedies.quoted(other.path)})"'
    else:
        made = remedies.preheat(tools, "clean")
    yield Finding(
        code=FindingCode.TEMP_SMALL,
        harm=Harm.USE,
        what=f"the temporary directory {volume.path} has {in_mb(volume.free)} free",
        why=f"proofs and builds want {in_mb(wanted)} there; with less, packages fail with "
        "`No space left on device`",
        mend=made,
    )


def hardlinks(store: StoreState) -> Iterator[Finding]:
    """A filesystem on which what the engine has fetched must be copied into layers."""
    if store.trial.error is not None or store.trial.links:
        return
    yield Finding(
        code=FindingCode.NO_HARDLINKS,
        harm=Harm.COST,
        what=f"no hardlink can be made in {store.trial.place}",
        why="the engine copies from its cache into the layer: an installation writes everything "
        "twice, and needs twice the space",
        mend=remedies.by_hand(
            "name a store on a filesystem that has hardlinks",
            remedies.export("PREHEAT_STORE", _proposal(store)),
        ),
    )


def split(store: StoreState) -> Iterator[Finding]:
    """A part of the store on another filesystem: nothing can be linked or renamed into it."""
    packed = store.local != store.root
    # Where layers are packed, the store is elsewhere by design, and these two stay together.
    here = store.volumes.get("layers" if packed else "store")
    for part in PARTS[:1] if packed else PARTS:
        volume = store.volumes.get(part)
        if here is None or volume is None or volume.device == here.device:
            continue
        place = f"{store.local}/{part}"
        linked = part in store.linked
        yield Finding(
            code=FindingCode.STORE_SPLIT,
            harm=Harm.START,
            what=f"{place} is on another filesystem ({volume.kind}) than the store ({here.kind})",
            why="a layer is made in staging, by hardlinks from the engine's cache, and published "
            "by a rename: neither crosses a filesystem",
            mend=remedies.command("rm", "--", place)
            if linked
            else remedies.command("umount", place),
        )


def damaged_layers(store: StoreState, tools: Tools) -> Iterator[Finding]:
    """Layers that are not as they were published."""
    for pack in store.packs:
        if pack.wrong:
            yield Finding(
                code=FindingCode.DAMAGED_LAYER,
                harm=Harm.COST,
                what=pack.wrong,
                why="the start that needs it makes its layer again",
                mend=remedies.remove([pack.path]),
            )
    for layer in store.layers:
        if layer.wrong:
            whose = (
                f"the layer {_short(layer)} of {layer.package}"
                if layer.package
                else (f"the layer {_short(layer)}")
            )
            yield Finding(
                code=FindingCode.DAMAGED_LAYER,
                # Without its facts it counts as absent, unless a pointer names it.
                harm=Harm.START if layer.in_use or layer.package else Harm.COST,
                what=f"{whose} is damaged: {layer.wrong}",
                why="the next start takes it for whole, and its imports fail"
                if layer.in_use or layer.package
                else "no start uses it: it only takes space",
                mend=remedies.then(
                    remedies.remove([layer.path]), remedies.preheat(tools, "warm", "--cold")
                )
                if layer.in_use
                else remedies.remove([layer.path]),
            )


def duplicates(store: StoreState) -> Iterator[Finding]:
    """Distributions that lie on disk several times in one version."""
    size = sum(each.size for each in store.copies)
    if size < LEAST_WASTE_BYTES:
        return
    largest = sorted(store.copies, key=lambda each: (-each.size, each.name))
    layers = {layer.path: layer for layer in store.layers}
    spare = sorted(
        {
            place
            for each in store.copies
            for place in each.places[1:]
            if place in layers and not layers[place].in_use
        }
    )
    names = [f"{each.name} {each.version}{size_in_brackets(each.size)}" for each in largest]
    what = f"{len(largest)} distributions lie in several places: {listed(names)}"
    if len(largest) == 1:
        what = f"{names[0]} lies in several places: {', '.join(largest[0].places)}"
    yield Finding(
        code=FindingCode.DUPLICATES,
        harm=Harm.COST,
        what=what,
        why=f"{in_mb(size)} could be free"
        + ("; the last start of this interpreter does not use the layers below" if spare else ""),
        # Layers never change, so that equal files in them may be one.
        mend=remedies.remove(spare)
        if spare
        else remedies.command("hardlink", "-t", f"{store.local}/layers"),
    )


def _short(layer: LayerFiles) -> str:
    return base_name(layer.path)[:8]
