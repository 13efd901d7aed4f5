"""The simple repository API's pages, and what an index knows about a file: pure but for reads."""

import email
import hashlib
import html
import json
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from packaging.utils import (
    NormalizedName,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A file as it was when it was added; the file itself may change afterwards."""

    path: Path
    project: NormalizedName
    version: str
    sha256: str
    size: int
    uploaded: datetime
    metadata: bytes | None

    @property
    def filename(self) -> str:
        """The name it is offered under."""
        return self.path.name

    @property
    def address(self) -> str:
        """Its path on the index's host, quoted."""
        return f"/files/{quote(self.filename)}"

    @property
    def metadata_sha256(self) -> str | None:
        """The hash of the metadata offered beside a wheel (PEP 658); sdists offer none."""
        if self.metadata is None or not self.filename.endswith(".whl"):
            return None
        return hashlib.sha256(self.metadata).hexdigest()

    @property
    def requires_python(self) -> str | None:
        """What its metadata asks of the interpreter."""
        if self.metadata is None:
            return None
        return email.message_from_bytes(self.metadata).get("Requires-Python")

    def belongs_to(self, name: str) -> bool:
        """Say whether `name` is its file name or, in any spelling, its project's name."""
        return name == self.filename or canonicalize_name(name) == self.project


def published(path: Path, uploaded: datetime) -> Published:
    """Describe a wheel or sdist as it is now."""
    version: object
    if path.name.endswith(".whl"):
        project, version, _, _ = parse_wheel_filename(path.name)
    else:
        project, version = parse_sdist_filename(path.name)
    content = path.read_bytes()
    return Published(
        path=path,
        project=project,
        version=str(version),
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        uploaded=uploaded,
        metadata=_metadata_in(path),
    )


def html_page(title: str, files: Iterable[Published], *, core_metadata: bool) -> bytes:
    """Render a project's page (PEP 503, with the attributes of PEP 658 and PEP 714)."""
    anchors = []
    for file in files:
        attributes = {"href": f"{file.address}#sha256={file.sha256}"}
        if file.requires_python is not None:
            attributes["data-requires-python"] = file.requires_python
        if core_metadata and file.metadata_sha256 is not None:
            attributes["data-core-metadata"] = f"sha256={file.metadata_sha256}"
            attributes["data-dist-info-metadata"] = f"sha256={file.metadata_sha256}"
        rendered = " ".join(f'{key}="{html.escape(value)}"' for key, value in attributes.items())
        anchors.append(f"<a {rendered}>{html.escape(file.filename)}</a><br>")
    return _html(title, anchors)


def json_page(project: str, files: Iterable[Published], *, core_metadata: bool) -> bytes:
    """Render a project's page (PEP 691, with versions, sizes and times of PEP 700)."""
    offered = tuple(files)
    page = {
        "meta": {"api-version": "1.1"},
        "name": project,
        "versions": sorted({file.version for file in offered}),
        "files": [_json_file(file, core_metadata=core_metadata) for file in offered],
    }
    return json.dumps(page, indent=1).encode()


def html_root(projects: Iterable[str]) -> bytes:
    """Render the list of projects (PEP 503)."""
    return _html("Simple index", [f'<a href="/simple/{name}/">{name}</a><br>' for name in projects])


def json_root(projects: Iterable[str]) -> bytes:
    """Render the list of projects (PEP 691)."""
    page = {"meta": {"api-version": "1.1"}, "projects": [{"name": name} for name in projects]}
    return json.dumps(page, indent=1).encode()


def _json_file(file: Published, *, core_metadata: bool) -> dict[str, object]:
    described: dict[str, object] = {
        "filename": file.filename,
        "url": file.address,
        "hashes": {"sha256": file.sha256},
        "size": file.size,
        "upload-time": file.uploaded.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "yanked": False,
    }
    if file.requires_python is not None:
        described["requires-python"] = file.requires_python
    if core_metadata and file.metadata_sha256 is not None:
        described["core-metadata"] = {"sha256": file.metadata_sha256}
        described["dist-info-metadata"] = {"sha256": file.metadata_sha256}
    return described


def _html(title: str, lines: Iterable[str]) -> bytes:
    head = (
        "<!DOCTYPE html>",
        '<html><head><meta name="pypi:repository-version" content="1.1">',
        f"<title>{html.escape(title)}</title></head><body>",
    )
    return "\n".join((*head, *lines, "</body></html>", "")).encode()


def _metadata_in(path: Path) -> bytes | None:
    """Return the METADATA of a wheel or the PKG-INFO of an sdist, None if it cannot be read."""
    try:
        if path.name.endswith(".whl"):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                return archive.read(next(n for n in names if n.endswith(".dist-info/METADATA")))
        with tarfile.open(path) as archive:
            member = archive.extractfile(f"{path.name.removesuffix('.tar.gz')}/PKG-INFO")
            return None if member is None else member.read()
    except (zipfile.BadZipFile, tarfile.TarError, KeyError, StopIteration):
        return None
