"""A MooseFS volume of this machine's own, and hosts that share it: a network volume in small.

Every host has a network and mounts of its own: a cable (veth) leads from it to the master's
bridge, and its own `mfsmount` puts the volume at the same path on all of them. With their
processes all of it is gone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.hosts import Host, missing_tools, no_hosts, patience, spawn, start_host

CHUNK = 64 << 20
"""Bytes that must be left of a quota on sizes before MooseFS begins a file: it counts whole chunks
then, and what was written later."""

_NEEDED = ("mfsmaster", "mfschunkserver", "mfsmount", "mfssetquota", "ss")
_EMPTY = Path("/var/lib/mfs/metadata.mfs.empty")
_NETWORK = "10.213.77"
_MASTER = f"{_NETWORK}.1"
_RESERVED = "16MiB"  # what a chunkserver leaves free on its disk; 256 MiB unless told


def no_moosefs() -> str | None:
    """Why there can be no such volume here."""
    missing = missing_tools(_NEEDED)
    if reason := no_hosts():
        return reason
    if missing or not _EMPTY.is_file():
        return (
            f"needs {', '.join(missing) or _EMPTY} "
            "(in Debian: moosefs-master, moosefs-chunkserver, moosefs-client)"
        )
    if not os.path.exists("/dev/fuse"):
        return "needs /dev/fuse"
    bridge = ("unshare", "--net", "ip", "link", "add", "bridge", "type", "bridge")
    if subprocess.run(bridge, capture_output=True, check=False).returncode:
        return "needs bridges between network namespaces"
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """The volume: the machine that serves it, and the hosts that have it mounted.

    Attributes:
        path: where every host has it, and the master too.
    """

    path: Path
    master: Host
    hosts: tuple[Host, ...]

    def limit(self, directory: Path, size: int) -> None:
        """Set a hard quota on a directory: bytes of chunks, one copy of each counted."""
        self.master.must("mfssetquota", "-S", str(size), directory)


@contextlib.contextmanager
def moosefs(root: Path, hosts: int = 1, subfolder: str = "") -> Iterator[Volume]:
    """Serve a volume from directories below `root`, mounted by so many hosts at `root`/volume.

    The hosts mount the subfolder, which is made; the master always mounts all of it. Hosts may
    not set quotas: a tenant may not either.

    Raises:
        RuntimeError: a server did not come up; what it said is in the text.
    """
    path = root / "volume"
    path.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        master = start_host(stack, "master", root / "master-host.log")
        master.must("ip", "link", "add", "bridge", "type", "bridge")
        master.must("ip", "address", "add", f"{_MASTER}/24", "dev", "bridge")
        master.must("ip", "link", "set", "bridge", "up")
        _serve(stack, root, master)
        _mount(stack, master, path, "/")
        if subfolder:
            master.must("mkdir", "--mode=777", path / subfolder)
        others = []
        for number in range(2, hosts + 2):
            host = start_host(stack, f"host{number}", root / f"host{number}.log")
            _plug(master, host, number)
            _mount(stack, host, path, f"/{subfolder}")
            others.append(host)
        yield Volume(path=path, master=master, hosts=tuple(others))


def _plug(master: Host, host: Host, number: int) -> None:
    """A cable from the host to the master's bridge."""
    # The id of the host's process means something outside of the master's namespaces only.
    ends = ("link", "add", f"cable{number}", "type", "veth", "peer", "eth0")
    command = ("nsenter", f"--target={master.process}", "--net", "ip", *ends)
    subprocess.run((*command, "netns", str(host.process)), check=True, capture_output=True)
    master.must("ip", "link", "set", f"cable{number}", "master", "bridge", "up")
    host.must("ip", "address", "add", f"{_NETWORK}.{number}/24", "dev", "eth0")
    host.must("ip", "link", "set", "eth0", "up")


def _serve(stack: contextlib.ExitStack, root: Path, master: Host) -> None:
    """A master and one chunkserver, as root since `root` may be closed to others."""
    meta, chunks, settings = root / "meta", root / "chunks", root / "settings"
    for place in (meta, chunks, settings):
        place.mkdir()
    shutil.copy(_EMPTY, meta / "metadata.mfs")
    common = f"WORKING_USER = root\nWORKING_GROUP = root\nDATA_PATH = {meta}\nNICE_LEVEL = 0\n"
    texts = {
        "exports.cfg": f"{_MASTER} / rw,admin,maproot=0:0\n* / rw,alldirs,maproot=0:0\n",
        "topology.cfg": "",
        "disks.cfg": f"{chunks} -{_RESERVED}\n",
        "master.cfg": f"{common}EXPORTS_FILENAME = {settings}/exports.cfg\n"
        f"TOPOLOGY_FILENAME = {settings}/topology.cfg\n",
        "chunkserver.cfg": f"{common}HDD_CONF_FILENAME = {settings}/disks.cfg\n"
        f"MASTER_HOST = {_MASTER}\nMASTER_RECONNECTION_DELAY = 1\n",
    }
    for name, text in texts.items():
        (settings / name).write_text(text)
    for server, port in (("master", 9421), ("chunkserver", 9422)):
        command = (f"mfs{server}", "-f", "-n", "-c", str(settings / f"{server}.cfg"), "start")
        log = root / f"{server}.log"
        spawn(stack, master.command(*command), log)
        for _ in patience(f"the {server} does not listen", log):
            if f":{port} " in master.must("ss", "-ltn"):
                break


def _mount(stack: contextlib.ExitStack, host: Host, path: Path, subfolder: str) -> None:
    log = path.parent / f"{host.name}-mount.log"
    options = ("-f", "-H", _MASTER, "-S", subfolder, "-o", "mfsnice=0")
    spawn(stack, host.command("mfsmount", path, *options), log)
    for _ in patience(f"{host.name} has no volume", log):
        said = host.run("stat", "--file-system", "--format=%T %b", path).stdout.split()
        # Before the chunkserver has registered the volume has no blocks, and takes none.
        if len(said) == 2 and said[0].startswith("fuse") and said[1] != "0":
            break
