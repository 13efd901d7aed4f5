"""A PEP 517 build backend small enough to ship in a test index, so that sdists build offline.

The source tree it builds is made by `tests.support.wheels.write_sdist`: `wheel/` holds the
wheel's content without its RECORD, and `wheel.txt` the wheel's file name. Runs on its own
inside a build environment, hence the standard library only.
"""

import base64
import csv
import hashlib
import io
import shutil
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

Settings = Mapping[str, object] | None
_TREE = Path("wheel")
_NAME = Path("wheel.txt")


def build_wheel(
    wheel_directory: str,
    config_settings: Settings = None,
    metadata_directory: str | None = None,
) -> str:
    """PEP 517: zip the tree, add its RECORD (PEP 427), and return the wheel's file name."""
    name = _NAME.read_text(encoding="utf-8").strip()
    record = f"{_dist_info().name}/RECORD"
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    with zipfile.ZipFile(Path(wheel_directory, name), "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in _TREE.rglob("*") if path.is_file()):
            member, content = path.relative_to(_TREE).as_posix(), path.read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            writer.writerow((member, f"sha256={digest.decode()}", len(content)))
            archive.write(path, member)
        writer.writerow((record, "", ""))
        archive.writestr(record, rows.getvalue())
    return name


def prepare_metadata_for_build_wheel(
    metadata_directory: str,
    config_settings: Settings = None,
) -> str:
    """PEP 517: copy the dist-info directory and return its name."""
    source = _dist_info()
    shutil.copytree(source, Path(metadata_directory, source.name))
    return source.name


def build_sdist(
    sdist_directory: str,
    config_settings: Settings = None,
) -> str:
    """PEP 517: pack the source tree as it stands and return the archive's file name."""
    stem = _dist_info().name.removesuffix(".dist-info")
    name = f"{stem}.tar.gz"
    with tarfile.open(Path(sdist_directory, name), "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.add(".", stem)
    return name


def _dist_info() -> Path:
    (found,) = _TREE.glob("*.dist-info")
    return found
