"""Whether what is planned can be finished on the volumes it touches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from preheat.decisions.packing import SHARE
from preheat.words.plan import Need
from preheat.words.platform import Volume
from preheat.words.quantities import in_mb

# What the engine keeps while it installs: pointers and metadata; archives are linked, not kept.
# Its index pages are there already when room is counted. The base is for proofs, too.
_CACHE_BASE = 2_000_000
_CACHE_PER_DISTRIBUTION = 100_000
_CACHE_INODES_BASE = 200
_CACHE_INODES_PER_DISTRIBUTION = 10
# An isolated build unpacks setuptools and its like, and the source itself, into temp.
_TEMP_PER_BUILD = 60_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What an installation brings: bytes and inodes in the store, archives fetched, builds run.

    Attributes:
        disk, inodes: of layers that are made, or unpacked.
        made: bytes of those that are made, and will be packed where layers are.
        files, directories: of archives.
    """

    disk: int = 0
    made: int = 0
    inodes: int = 0
    files: int = 0
    directories: int = 0
    distributions: int = 0
    builds: int = 0

    def __add__(self, other: Load) -> Load:
        return Load(
            disk=self.disk + other.disk,
            made=self.made + other.made,
            inodes=self.inodes + other.inodes,
            # The engine's archives of one package are given back before the next one's come.
            files=max(self.files, other.files),
            directories=max(self.directories, other.directories),
            distributions=self.distributions + other.distributions,
            builds=self.builds + other.builds,
        )


def at_once(loads: Iterable[Load]) -> Load:
    """What they bring where the engine's archives of all of them are there at the same time."""
    every = tuple(loads)
    return replace(
        sum(every, Load()),
        files=sum(load.files for load in every),
        directories=sum(load.directories for load in every),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """The volumes of the store, the engine's cache and temp, and the reserve on the store's.

    Where layers are packed there is one more, ``local``: it holds what the store's does elsewhere.
    What the store's own holds then are packs, which a start can do without.
    """

    volumes: Sequence[Volume]
    keep_free: int

    def needs(self, load: Load) -> tuple[Need, ...]:
        """What the load takes from each volume; roles on one device share one budget."""
        devices: dict[int, list[Volume]] = {}
        for volume in self.volumes:
            devices.setdefault(volume.device, []).append(volume)
        holder = self._holder
        found = []
        for volumes in devices.values():
            roles = {volume.role for volume in volumes}
            wanted = inodes = 0
            if holder.role in roles:
                wanted += load.disk
                inodes += load.inodes
            if "store" in roles and holder.role != "store":
                wanted += int(SHARE * load.made)
                inodes += bool(load.made)
            if load.distributions:
                if "cache" in roles:
                    wanted += _CACHE_BASE + _CACHE_PER_DISTRIBUTION * load.distributions
                    # Files are linked, directories never.
                    wanted += load.directories * volumes[0].directory
                    inodes += _CACHE_INODES_BASE + load.directories
                    if volumes[0].kind == "tmpfs":
                        # It charges an inode for every further name of a file (shmem_link).
                        inodes += load.files
                    inodes += _CACHE_INODES_PER_DISTRIBUTION * load.distributions
                    if not self.links:
                        # The cache holds its own copy.
                        wanted += load.disk
                        inodes += load.inodes
                if "temp" in roles:
                    wanted += _TEMP_PER_BUILD * load.builds
            found.append(
                Need(
                    role=", ".join(volume.role for volume in volumes),
                    path=volumes[0].path,
                    bytes=wanted,
                    inodes=inodes,
                    free=volumes[0].free,
                    reserve=self.keep_free if roles & {"store", holder.role} else 0,
                    kind=volumes[0].kind,
                    quota_known=all(volume.quota_known for volume in volumes),
                )
            )
        return tuple(found)

    def boundless(self) -> Room:
        """The same volumes, as if nothing were short: to tell what everything would take."""
        endless = tuple(replace(volume, free=2**62, inodes=None) for volume in self.volumes)
        return replace(self, volumes=endless)

    def without_room_for(self, load: Load) -> Room:
        """The same volumes, that of the layers so small that the load just does not fit.

        A quota that statvfs does not show is known only by what it refused.
        """
        role, device = self._holder.role, self._holder.device
        need = next(need for need in self.needs(load) if role in need.role.split(", "))
        most = need.bytes + need.reserve - 1
        volumes = tuple(
            replace(volume, free=min(volume.free, most)) if volume.device == device else volume
            for volume in self.volumes
        )
        return replace(self, volumes=volumes)

    def refusal(self, load: Load) -> str | None:
        """The sentence that says what is short, or None where the load can be finished."""
        for need in self.needs(load):
            roles = need.role.split(", ")
            if "store" in roles and self._holder.role not in roles:
                # Packs are for the next worker.
                continue
            if not need.fits:
                return (
                    f"does not fit on {need.path}: with it {in_mb(need.bytes)} are needed, and "
                    f"{in_mb(max(0, need.free - need.reserve))} can be taken "
                    f"({in_mb(need.free)} free, {in_mb(need.reserve)} stay free by space.keep-free)"
                )
            left = self.inodes(need)
            if left is not None and need.inodes > left:
                return (
                    f"does not fit on {need.path}: with it {need.inodes} files are needed, and "
                    f"{left} inodes are free"
                )
        return None

    @property
    def links(self) -> bool:
        """Whether layers share files with the engine's cache, so that nothing is there twice."""
        return self._holder.links

    def takes_packs(self, size: int) -> bool:
        """Whether packs of layers of that size fit beside the reserve; there are none elsewhere."""
        needs = self.needs(Load(made=size))
        return all(need.fits for need in needs if "store" in need.role.split(", "))

    def is_short(self, need: Need) -> bool:
        """Whether that need's volume cannot give it."""
        left = self.inodes(need)
        return not need.fits or (left is not None and need.inodes > left)

    def inodes(self, need: Need) -> int | None:
        """Inodes that are left on that need's volume; None where there is no fixed number."""
        return next(v.inodes for v in self.volumes if v.path == need.path)

    @property
    def _holder(self) -> Volume:
        """The volume where layers are made."""
        found = {volume.role: volume for volume in self.volumes}
        return found.get("local") or found["store"]
