"""The platform's CUDA libraries, and which of NVIDIA's wheels they replace."""

from __future__ import annotations

from dataclasses import dataclass

from preheat.words.lock import Locked


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """A shared library that the platform has.

    Attributes:
        name: what the loader asks for, ``libcudnn.so.9``.
        path: the file itself, symlinks resolved.
        version: ``9.20.0.48``; None where nothing tells.
        size: in bytes.
    """

    name: str
    path: str
    version: str | None = None
    size: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class LibraryDirectory:
    """Libraries that lie together, so that those which load each other are of one version."""

    path: str
    libraries: tuple[Library, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A symbolic link in a layer, where a wheel would have put a library.

    Attributes:
        path: below the layer, ``nvidia/cudnn/lib/libcudnn.so.9``.
        target: the platform's file.
        sha256: of that file, where it takes the place of one that is installed: an equal one.
    """

    path: str
    target: str
    sha256: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StandIn:
    """A distribution of NVIDIA's libraries that no layer holds, and the links that replace it.

    Attributes:
        version: of the wheel, or of the distribution that the platform has.
        place: directory of the platform's libraries.
        size: bytes of files that no layer holds because of it.
        wheel: what would be installed; None where the platform has a distribution of that name.
    """

    name: str
    version: str
    place: str
    size: int
    links: tuple[Link, ...]
    wheel: Locked | None = None
