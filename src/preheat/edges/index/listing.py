"""Which files indexes and flat directories offer for one name.

The Simple API as HTML or JSON (PEP 503, PEP 691), pages with links, and directories.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from preheat.edges.index import transport
from preheat.words.manifest import Index

_ACCEPT = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, */*;q=0.1"
)


def wheel_versions(name: str, index: Index, timeout: float | None) -> tuple[set[str], bool]:
    """Versions that wheels of that name have, and whether there is a source distribution.

    An index that does not answer offers nothing here; the engine asks it too, and reports that.

    Args:
        name: canonical.
        index: whose `extra`, `url` and `find_links` are asked.
        timeout: seconds for each request; None where nothing remote may be asked.
    """
    files = [file for place in index.find_links for file in _listed(place, timeout, index)]
    for base in filter(None, (*index.extra, index.url)):
        files += _remote(f"{base.rstrip('/')}/{name}/", timeout, index)
    versions, source = set(), False
    for file in files:
        with contextlib.suppress(InvalidWheelFilename, InvalidSdistFilename):
            if file.endswith(".whl"):
                found, version, _, _ = parse_wheel_filename(file)
                if canonicalize_name(found) == name:
                    versions.add(str(version))
            elif canonicalize_name(parse_sdist_filename(file)[0]) == name:
                source = True
    return versions, source


def _listed(place: str, timeout: float | None, index: Index) -> list[str]:
    if urlsplit(place).scheme in ("http", "https"):
        return _remote(place, timeout, index)
    with contextlib.suppress(OSError):
        return os.listdir(Path(unquote(urlsplit(place).path)))
    return []


def _remote(url: str, timeout: float | None, index: Index) -> list[str]:
    if timeout is None or urlsplit(url).scheme not in ("http", "https"):
        return []
    known = transport.credentials([*index.extra, index.url or ""])
    auth = known.of(url)
    try:
        with httpx.Client(transport=transport.direct(), timeout=timeout) as client:
            answer = client.get(
                url,
                headers={"Accept": _ACCEPT},
                auth=auth or httpx.USE_CLIENT_DEFAULT,
                follow_redirects=True,
            )
            answer.raise_for_status()
            return list(_files(answer))
    except (httpx.HTTPError, ValueError):
        return []


def _files(answer: httpx.Response) -> Iterator[str]:
    if "json" in answer.headers.get("Content-Type", ""):
        yield from (str(file["filename"]) for file in answer.json()["files"])
        return
    page = _Links()
    page.feed(answer.text)
    yield from _names(page.links)


def _names(links: Iterable[str]) -> Iterator[str]:
    for link in links:
        yield unquote(urlsplit(link).path.rpartition("/")[2])


class _Links(HTMLParser):
    """Where the anchors of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]
