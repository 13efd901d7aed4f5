"""Whether an installation fits on the volumes that it writes to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from preheat.decisions.packing import SHARE
from preheat.words.plan import Need
from preheat.words.platform import Volume
from preheat.words.quantities import in_mb

# Bytes and inodes that the engine's cache takes while it installs: pointers and metadata. Archives
# are linked from there, and index pages are there already. The base is for proofs, too.
_CACHE_BYTES = 2_000_000
_CACHE_BYTES_PER_DISTRIBUTION = 100_000
_CACHE_INODES = 200
_CACHE_INODES_PER_DISTRIBUTION = 10
# Bytes in temp: an isolated build unpacks setuptools and its like there, and the source itself.
_TEMP_BYTES_PER_BUILD = 60_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What an installation writes, added up over packages.

    Attributes:
        disk, inodes: bytes and inodes of layers that are made or unpacked.
        made: bytes of layers that are made, and will be packed where the store keeps packs.
        files, directories: of the archives of one package, the largest one.
        distributions: how many are installed.
        builds: how many of them are built from source.
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
    """The load of packages whose archives are all in the engine's cache at the same time."""
    every = tuple(loads)
    return replace(
        sum(every, Load()),
        files=sum(load.files for load in every),
        directories=sum(load.directories for load in every),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """The volumes that an installation writes to.

    Layers are made on the volume ``store``. Where the store keeps them packed they are made on
    ``local`` instead, and ``store`` takes the packs, which a startup can do without.

    Attributes:
        volumes: by role: ``store``, ``cache``, ``temp``, and ``local`` where layers are packed.
        keep_free: bytes that stay free where layers are made or packed.
    """

    volumes: Sequence[Volume]
    keep_free: int

    def needs(self, load: Load) -> tuple[Need, ...]:
        """What the load takes from each device; roles on one device share its free space."""
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
                    wanted += _CACHE_BYTES + _CACHE_BYTES_PER_DISTRIBUTION * load.distributions
                    # Files are linked, directories never.
                    wanted += load.directories * volumes[0].directory
                    inodes += _CACHE_INODES + load.directories
                    if volumes[0].kind == "tmpfs":
                        # It charges an inode for every further name of a file (shmem_link).
                        inodes += load.files
                    inodes += _CACHE_INODES_PER_DISTRIBUTION * load.distributions
                    if not self.links:
                        # The cache holds its own copy.
                        wanted += load.disk
                        inodes += load.inodes
                if "temp" in roles:
                    wanted += _TEMP_BYTES_PER_BUILD * load.builds
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
        """Volumes without end, to tell what everything would take."""
        endless = tuple(replace(volume, free=2**62, inodes=None) for volume in self.volumes)
        return replace(self, volumes=endless)

    def without_room_for(self, load: Load) -> Room:
        """Volumes of which the layers' own has one byte too little for the load.

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
        """The sentence that says what is short; None where the load fits."""
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
        """Whether files are linked from the engine's cache into layers, and take no space twice."""
        return self._holder.links

    def takes_packs(self, size: int) -> bool:
        """Whether the store's volume takes the packs of layers of that many bytes."""
        needs = self.needs(Load(made=size))
        return all(need.fits for need in needs if "store" in need.role.split(", "))

    def is_short(self, need: Need) -> bool:
        """Whether the volume has too few bytes or inodes for that need."""
        left = self.inodes(need)
        return not need.fits or (left is not None and need.inodes > left)

    def inodes(self, need: Need) -> int | None:
        """Inodes that are free on that need's volume; None where it has no fixed number."""
        return next(v.inodes for v in self.volumes if v.path == need.path)

    @property
    def _holder(self) -> Volume:
        """The volume where layers are made."""
        found = {volume.role: volume for volume in self.volumes}
        return found.get("local") or found["store"]
