"""Whether what is planned can be finished on the volumes it touches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from preheat.words.plan import Need
from preheat.words.platform import Volume

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
    """What an installation brings: bytes and inodes in the store, archives fetched, builds run."""

    disk: int = 0
    inodes: int = 0
    files: int = 0
    directories: int = 0
    distributions: int = 0
    builds: int = 0

    def __add__(self, other: Load) -> Load:
        return Load(
            disk=self.disk + other.disk,
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
    """The volumes of the store, the engine's cache and temp, and the reserve on the store's."""

    volumes: Sequence[Volume]
    keep_free: int

    def needs(self, load: Load) -> tuple[Need, ...]:
        """What the load takes from each volume; roles on one device share one budget."""
        devices: dict[int, list[Volume]] = {}
        for volume in self.volumes:
            devices.setdefault(volume.device, []).append(volume)
        store = self._role("store")
        found = []
        for volumes in devices.values():
            roles = {volume.role for volume in volumes}
            wanted = inodes = 0
            if load.distributions:
                if "store" in roles:
                    wanted += load.disk
                    inodes += load.inodes
                if "cache" in roles:
                    wanted += _CACHE_BASE + _CACHE_PER_DISTRIBUTION * load.distributions
                    # Files are linked, directories never.
                    wanted += load.directories * volumes[0].directory
                    inodes += _CACHE_INODES_BASE + load.directories
                    if volumes[0].kind == "tmpfs":
                        # It charges an inode for every further name of a file (shmem_link).
                        inodes += load.files
                    inodes += _CACHE_INODES_PER_DISTRIBUTION * load.distributions
                    if store.device != volumes[0].device:
                        # No hardlink crosses a filesystem: the cache holds its own copy.
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
                    reserve=self.keep_free if "store" in roles else 0,
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
        """The same volumes, the store's so small that the load just does not fit.

        A quota that statvfs does not show is known only by what it refused.
        """
        store = next(need for need in self.needs(load) if "store" in need.role.split(", "))
        most = store.bytes + store.reserve - 1
        device = self._role("store").device
        volumes = tuple(
            replace(volume, free=min(volume.free, most)) if volume.device == device else volume
            for volume in self.volumes
        )
        return replace(self, volumes=volumes)

    def refusal(self, load: Load) -> str | None:
        """The sentence that says what is short, or None where the load can be finished."""
        for need in self.needs(load):
            if not need.fits:
                return (
                    f"does not fit on {need.path}: with it {_mb(need.bytes)} are needed, and "
                    f"{_mb(max(0, need.free - need.reserve))} can be taken "
                    f"({_mb(need.free)} free, {_mb(need.reserve)} stay free by space.keep-free)"
                )
            left = self.inodes(need)
            if left is not None and need.inodes > left:
                return (
                    f"does not fit on {need.path}: with it {need.inodes} files are needed, and "
                    f"{left} inodes are free"
                )
        return None

    def is_short(self, need: Need) -> bool:
        """Whether that need's volume cannot give it."""
        left = self.inodes(need)
        return not need.fits or (left is not None and need.inodes > left)

    def inodes(self, need: Need) -> int | None:
        """Inodes that are left on that need's volume; None where there is no fixed number."""
        return next(v.inodes for v in self.volumes if v.path == need.path)

    def _role(self, role: str) -> Volume:
        return next(volume for volume in self.volumes if volume.role == role)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
