"""Real wheels, sdists and installed distributions, tiny and made by code.

Everything a packaging tool may meet in the wild can be written here: valid archives, archives
that lie, and site directories as killed installs and Linux distributions leave them.
"""

import base64
import csv
import gzip
import hashlib
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.tags import parse_tag
from packaging.utils import canonicalize_name
from packaging.version import Version

_EPOCH = 1_577_836_800  # 2020-01-01T00:00:00Z; zip archives know no earlier date than 1980
_ZIP_DATE = (2020, 1, 1, 0, 0, 0)
_GENERATOR = "preheat-tests"


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """One release of one project: what its wheel holds and what its metadata promises."""

    name: str
    version: str
    files: Mapping[str, str | bytes]
    requires: Sequence[str] = ()
    extras: Mapping[str, Sequence[str]] = field(default_factory=dict)
    console_scripts: Mapping[str, str] = field(default_factory=dict)
    tag: str = "py3-none-any"
    data_scripts: Mapping[str, str | bytes] = field(default_factory=dict)
    requires_python: str | None = None

    @property
    def stem(self) -> str:
        """The `name-version` that starts file names (binary distribution format, PEP 625)."""
        name = canonicalize_name(self.name).replace("-", "_")
        return f"{name}-{Version(self.version)}"

    @property
    def dist_info(self) -> str:
        """The name of its metadata directory."""
        return f"{self.stem}.dist-info"

    @property
    def wheel_name(self) -> str:
        """The file name of its wheel (PEP 427)."""
        return f"{self.stem}-{self.tag}.whl"

    @property
    def sdist_name(self) -> str:
        """The file name of its source distribution (PEP 625)."""
        return f"{self.stem}.tar.gz"


# -- archives ------------------------------------------------------------------------------


def write_wheel(project: Project, directory: Path) -> Path:
    """Write the project's wheel (PEP 427); the same project gives the same bytes."""
    return incomplete_wheel(project, directory, missing=())


def write_sdist(project: Project, directory: Path, setup_py: str | None = None) -> Path:
    """Write the project's source distribution (PEP 517, PEP 625).

    By default it is built by `tinybackend()`, which the index must offer. With `setup_py` it
    has that script and no pyproject.toml, and needs `setuptools`: `tiny_setuptools()` will do.
    Its metadata is version 2.1, so a resolver cannot trust PKG-INFO (PEP 643) and must build.
    """
    content = _wheel_members(project)
    members = {f"wheel/{path}": data for path, data in content.items()}
    members["wheel.txt"] = project.wheel_name.encode()
    members["PKG-INFO"] = content[f"{project.dist_info}/METADATA"]
    if setup_py is None:
        members["pyproject.toml"] = (
            b'[build-system]\nrequires = ["tinybackend"]\nbuild-backend = "tinybackend"\n'
        )
    else:
        members["setup.py"] = setup_py.encode()
    path = _ready(directory) / project.sdist_name
    path.write_bytes(_tar_gz(project.stem, members))
    return path


def tinybackend(version: str = "1.0") -> Project:
    """The build backend of `write_sdist`'s archives, as a project to offer in the index."""
    source = Path(__file__).with_name("tinybackend.py").read_text(encoding="utf-8")
    return Project(name="tinybackend", version=version, files={"tinybackend.py": source})


def tiny_setuptools(version: str = "80.0.0") -> Project:
    """A stand-in for setuptools: runs the sdist's `setup.py`, then builds with tinybackend.

    A `setup.py` that imports what the build environment lacks fails as the real one does.
    """
    build_meta = (
        "import runpy, sys\n"
        "import tinybackend\n"
        "def build_wheel(*args, **kwargs):\n"
        "    runpy.run_path('setup.py', run_name='__main__')\n"
        "    return tinybackend.build_wheel(*args, **kwargs)\n"
        "def prepare_metadata_for_build_wheel(*args, **kwargs):\n"
        "    runpy.run_path('setup.py', run_name='__main__')\n"
        "    return tinybackend.prepare_metadata_for_build_wheel(*args, **kwargs)\n"
        "build_sdist = tinybackend.build_sdist\n"
        "__legacy__ = sys.modules[__name__]\n"
    )
    files = {
        "setuptools/__init__.py": "def setup(**keywords):\n    pass\n",
        "setuptools/build_meta.py": build_meta,
    }
    return Project(name="setuptools", version=version, files=files, requires=("tinybackend",))


# -- archives that lie ---------------------------------------------------------------------


def corrupt(wheel: Path) -> None:
    """Put another valid wheel in its place: only a hash published before can tell."""
    with zipfile.ZipFile(wheel) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    record = next(name for name in members if name.endswith(".dist-info/RECORD"))
    del members[record]
    victim = next(iter(members))
    members[victim] += b"\n# changed after publication\n"
    _write_zip(wheel, members, record, _record(members, record))


def damage(archive: Path) -> None:
    """Invert one byte of what it holds, as a bad disk or network would; the size stays."""
    content = bytearray(archive.read_bytes())
    where = len(content) // 2
    if archive.name.endswith(".whl"):
        with zipfile.ZipFile(archive) as wheel:
            member = max(wheel.infolist(), key=lambda member: member.compress_size)
        # Behind the local header: 30 bytes, the name, and no extra field as we write it.
        where = member.header_offset + 30 + len(member.filename) + member.compress_size // 2
    content[where] ^= 0xFF
    archive.write_bytes(content)


def escaping_wheel(project: Project, directory: Path, member: str = "../../evil.txt") -> Path:
    """Write a wheel of which one member's path leads out of the place of installation."""
    return write_wheel(replace(project, files={**project.files, member: "escaped\n"}), directory)


def incomplete_wheel(project: Project, directory: Path, missing: Sequence[str]) -> Path:
    """Write a wheel whose RECORD also names the files in `missing`, which it does not hold."""
    members = _wheel_members(project)
    record = f"{project.dist_info}/RECORD"
    claimed = members | dict.fromkeys(missing, b"lost\n")
    path = _ready(directory) / project.wheel_name
    _write_zip(path, members, record, _record(claimed, record))
    return path


# -- installed distributions ---------------------------------------------------------------


def install_tree(project: Project, site_dir: Path, scripts_dir: Path | None = None) -> Path:
    """Write the project as installed (PEP 376, PEP 627) and return its dist-info directory.

    Scripts are written, for the interpreter beside them, only where `scripts_dir` is given.
    """
    content = {path: _encoded(data) for path, data in project.files.items()}
    content |= _dist_info_members(project)
    content[f"{project.dist_info}/INSTALLER"] = b"pip\n"
    for path, data in content.items():
        _write(site_dir / path, data)
    if scripts_dir is not None:
        for name, data in _launchers(project, scripts_dir).items():
            script = scripts_dir / name
            _write(script, data)
            script.chmod(0o755)
            content[Path(os.path.relpath(script, site_dir)).as_posix()] = data
    record = f"{project.dist_info}/RECORD"
    _write(site_dir / record, _record(content, record))
    return site_dir / project.dist_info


def install_egg_info(project: Project, site_dir: Path) -> Path:
    """Write the project as Debian installs a setuptools one: an `.egg-info` directory."""
    egg_info = _write_files(project, site_dir) / f"{project.stem}.egg-info"
    names = sorted({PurePosixPath(path).parts[0].removesuffix(".py") for path in project.files})
    _write(egg_info / "PKG-INFO", _metadata(project))
    _write(egg_info / "dependency_links.txt", b"\n")
    _write(egg_info / "top_level.txt", "".join(f"{name}\n" for name in names).encode())
    if project.requires:
        _write(egg_info / "requires.txt", "".join(f"{r}\n" for r in project.requires).encode())
    return egg_info


def install_egg_info_file(project: Project, site_dir: Path) -> Path:
    """Write the project as distutils installed it: an `.egg-info` that is one file."""
    egg_info = _write_files(project, site_dir) / f"{project.stem}.egg-info"
    _write(egg_info, _metadata(project))
    return egg_info


def leave_renamed(project: Project, site_dir: Path) -> tuple[Path, ...]:
    """Rename what was installed to `~name`, as a pip killed while it replaces it leaves it."""
    names = {PurePosixPath(path).parts[0] for path in project.files} | {project.dist_info}
    return tuple(
        (site_dir / name).rename(site_dir / f"~{name[1:]}")
        for name in sorted(names)
        if (site_dir / name).exists()
    )


def lose_metadata(dist_info: Path) -> None:
    """Remove METADATA: `importlib.metadata` still finds the distribution, of version None."""
    (dist_info / "METADATA").unlink()


def lose_files(dist_info: Path, pattern: str = "*.py") -> tuple[Path, ...]:
    """Remove the installed files whose path in RECORD matches, and leave RECORD as it is."""
    with (dist_info / "RECORD").open(encoding="utf-8", newline="") as rows:
        recorded = [row[0] for row in csv.reader(rows)]
    lost = tuple(
        dist_info.parent / path
        for path in recorded
        if fnmatchcase(path, pattern) and not path.startswith(f"{dist_info.name}/")
    )
    for path in lost:
        path.unlink()
    return lost


def lose_record(dist_info: Path) -> None:
    """Remove RECORD, as Debian's own Python packages come: nothing there can be verified."""
    (dist_info / "RECORD").unlink()
    (dist_info / "INSTALLER").write_bytes(b"debian\n")


def lose_modules(project: Project, site_dir: Path) -> None:
    """Remove all that the project brings to import and leave its metadata behind."""
    for name in {PurePosixPath(path).parts[0] for path in project.files}:
        path = site_dir / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


# -- the parts -----------------------------------------------------------------------------


def _wheel_members(project: Project) -> dict[str, bytes]:
    """Everything in the wheel but RECORD, dist-info last as PEP 427 recommends."""
    members = {path: _encoded(data) for path, data in project.files.items()}
    for name, data in project.data_scripts.items():
        members[f"{project.stem}.data/scripts/{name}"] = _encoded(data)
    return members | _dist_info_members(project)


def _dist_info_members(project: Project) -> dict[str, bytes]:
    members = {
        f"{project.dist_info}/METADATA": _metadata(project),
        f"{project.dist_info}/WHEEL": _wheel_file(project),
    }
    if project.console_scripts:
        members[f"{project.dist_info}/entry_points.txt"] = _entry_points(project)
    return members


def _metadata(project: Project) -> bytes:
    """Core metadata 2.1 (PEP 566)."""
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {project.name}",
        f"Version: {project.version}",
        f"Summary: {project.name}, made for a test",
    ]
    if project.requires_python is not None:
        lines.append(f"Requires-Python: {project.requires_python}")
    lines += [f"Requires-Dist: {Requirement(line)}" for line in project.requires]
    for extra, requirements in project.extras.items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f"Requires-Dist: {_only_with(extra, line)}" for line in requirements]
    return "\n".join((*lines, "")).encode()


def _only_with(extra: str, line: str) -> str:
    """Return the requirement with `extra == ...` added to its marker (PEP 508)."""
    requirement = Requirement(line)
    marker, requirement.marker = requirement.marker, None
    condition = f'extra == "{extra}"' if marker is None else f'({marker}) and extra == "{extra}"'
    return f"{requirement} ; {condition}"


def _wheel_file(project: Project) -> bytes:
    """The WHEEL file (PEP 427), compressed tag sets expanded as PEP 425 asks."""
    purelib = "true" if project.tag.endswith("-none-any") else "false"
    tags = sorted(str(tag) for tag in parse_tag(project.tag))
    lines = ["Wheel-Version: 1.0", f"Generator: {_GENERATOR}", f"Root-Is-Purelib: {purelib}"]
    return "\n".join((*lines, *(f"Tag: {tag}" for tag in tags), "")).encode()


def _entry_points(project: Project) -> bytes:
    """The entry points specification's file, console scripts only."""
    lines = (f"{name} = {target}" for name, target in project.console_scripts.items())
    return "\n".join(("[console_scripts]", *lines, "")).encode()


def _launchers(project: Project, scripts_dir: Path) -> dict[str, bytes]:
    """What an installer writes to the scripts directory, by name."""
    shebang = f"#!{scripts_dir.absolute() / 'python'}".encode()
    scripts = {
        name: _encoded(data).replace(b"#!python", shebang, 1)
        for name, data in project.data_scripts.items()
    }
    for name, target in project.console_scripts.items():
        module, _, function = target.partition(":")
        body = f"\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
        scripts[name] = shebang + body.encode()
    return scripts


def _record(members: Mapping[str, bytes], record: str) -> bytes:
    """The RECORD (PEP 376, PEP 427) of these members; RECORD itself has neither hash nor size."""
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    for path, content in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
        writer.writerow((path, f"sha256={digest.decode()}", len(content)))
    writer.writerow((record, "", ""))
    return rows.getvalue().encode()


def _write_zip(path: Path, members: Mapping[str, bytes], record: str, rows: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (*members.items(), (record, rows)):
            member = zipfile.ZipInfo(name, _ZIP_DATE)
            member.create_system = 3  # Unix, on every machine: the bytes must not depend on it
            mode = 0o755 if ".data/scripts/" in name else 0o644
            member.external_attr = (0o100000 | mode) << 16
            archive.writestr(member, content, zipfile.ZIP_DEFLATED)


def _tar_gz(root: str, members: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=_EPOCH) as compressed,
        tarfile.open(mode="w", fileobj=compressed, format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in members.items():
            member = tarfile.TarInfo(f"{root}/{name}")
            member.size, member.mtime = len(content), _EPOCH
            member.mode = 0o755 if ".data/scripts/" in name else 0o644
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _write_files(project: Project, site_dir: Path) -> Path:
    for path, data in project.files.items():
        _write(site_dir / path, _encoded(data))
    return site_dir


def _write(path: Path, content: bytes) -> None:
    _ready(path.parent)
    path.write_bytes(content)


def _ready(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _encoded(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data
