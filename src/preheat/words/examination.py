"""What `preheat doctor` saw of a container, before it is judged; sizes are bytes of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from preheat.words.platform import Distribution, Platform, Volume


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """One copy of a distribution on the platform's path, hidden ones and leftovers too.

    Attributes:
        depth: which entry of the path it lies in, from 0.
        visible: whether an import takes this copy.
        installer: what INSTALLER says: ``pip``, ``uv``, ``conda``; empty without that file.
        size: of its files.
        compiled: whether it holds extension modules.
        truncated: up to five files whose size is not what RECORD says.
        shared: names of other distributions in the same directory that list one of its files: of
            the truncated ones, and for NVIDIA's libraries of all.
        was: of a leftover's metadata, the name and version that it belonged to.
    """

    distribution: Distribution
    depth: int
    visible: bool = True
    installer: str = ""
    size: int = 0
    compiled: bool = False
    truncated: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    was: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Twins:
    """Two or more metadata directories of one name in one site directory."""

    name: str
    location: str
    metadata: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Companion:
    """What a distribution that was built with torch says of its build.

    Attributes:
        version: with its local part, from its ``version.py``.
        cuda: ``12.8``; None for a build without.
    """

    name: str
    version: str
    cuda: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemLibraries:
    """CUDA libraries in a directory outside of Python that wheels on the path bring as well.

    Attributes:
        names: the file names that lie in both places; where empty, only other versions do.
        files: the real files.
        preferred: the directory is on LD_LIBRARY_PATH.
        packages: of the system's package manager that own the files; empty where none does.
    """

    directory: str
    names: tuple[str, ...]
    files: tuple[str, ...]
    size: int
    preferred: bool
    packages: tuple[str, ...] = ()


class Locking(str, Enum):
    """What became of an attempt to lock one file twice."""

    EXCLUDES = "excludes"
    ONE_PROCESS = "two processes hold it at once"
    NOT_AT_ALL = "one process holds it twice at once"
    REFUSED = "the filesystem refuses to lock"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What happened when a file was made where the store is, or in its nearest parent.

    Attributes:
        place: the directory it was made in.
        error: errno of the refusal; None where it could be made.
        links: whether a hardlink of it could be made.
        mount: the mount point that the place lies on.
    """

    place: str
    mount: str
    error: int | None = None
    locking: Locking | None = None
    links: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerFiles:
    """One published layer, as its own files tell.

    Attributes:
        path: its directory.
        package: whose layer; empty where its facts are lost.
        wrong: what is not as it was published; empty where it is whole.
        distributions: name and version of each.
        in_use: the last start of this interpreter put it on the path.
    """

    path: str
    package: str
    wrong: str
    distributions: tuple[tuple[str, str], ...]
    in_use: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Copies:
    """One distribution in one version that lies in several places.

    Attributes:
        places: directories, the platform's first.
        size: what all copies but one take, hardlinked files counted once.
    """

    name: str
    version: str
    places: tuple[str, ...]
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreState:
    """The store and the volumes around it.

    Attributes:
        local: where its layers are on this machine; the same, unless they are packed.
        volumes: by role: ``store``, ``staging`` and ``layers`` in it, ``temp``.
        linked: those of its directories that are symlinks.
        clean_below, keep_free: the settings.
        packs: packed layers, each a file.
        builds: packages of the manifest that may be built from source.
    """

    root: str
    local: str
    trial: Trial
    volumes: Mapping[str, Volume]
    clean_below: int
    keep_free: int
    linked: tuple[str, ...] = ()
    builds: int = 0
    layers: tuple[LayerFiles, ...] = ()
    packs: tuple[LayerFiles, ...] = ()
    copies: tuple[Copies, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Tools:
    """What a mending command may use.

    Attributes:
        python: the platform's interpreter.
        prefix: its ``sys.prefix``: what lies elsewhere, its installers leave alone.
        pip: whether it has pip.
        managed: PEP 668: installers ask for a flag.
        uv: preheat's own.
        index: an index that the settings name; without credentials.
        options: what preheat's own commands must be given to mean the same place.
    """

    python: str
    prefix: str
    pip: bool
    managed: bool
    uv: str
    index: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Unexamined:
    """A part that could not be looked at, and why."""

    part: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """Everything that was seen; what could not be is None or empty, and in ``unexamined``.

    Attributes:
        manifest_error: what is wrong with manifest or settings.
        interpreter_error: why the interpreter does not answer.
        temp_error: why there is no temporary directory.
    """

    tools: Tools
    manifest_error: str = ""
    interpreter_error: str = ""
    temp_error: str = ""
    platform: Platform | None = None
    installed: tuple[Installed, ...] = ()
    twins: tuple[Twins, ...] = ()
    companions: tuple[Companion, ...] = ()
    libraries: tuple[SystemLibraries, ...] = ()
    library_path: str = ""
    store: StoreState | None = None
    unexamined: tuple[Unexamined, ...] = field(default=())
