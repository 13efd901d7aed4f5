"""Where layers are kept when nobody says so: on a network volume, or else in the user's cache.

Packed layers are unpacked in the user's cache. A temporary directory would be local more often, but
its names are predictable, and others could plant layers there.

RunPod mounts a network volume at `/runpod-volume` in serverless workers and at `/workspace` in
pods (https://docs.runpod.io/storage/network-volumes). Elsewhere `/workspace` is often used for
other things, so it counts only in a pod, and only where something is mounted. Cached models are
mounted below `/runpod-volume/huggingface-cache`, also where there is no network volume
(https://docs.runpod.io/serverless/endpoints/model-caching): that directory alone lies on the
container's disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

NAME = "preheat"

_CACHED_MODELS = "huggingface-cache"
_ON_RUNPOD = ("RUNPOD_POD_ID", "RUNPOD_ENDPOINT_ID")


def default_store(environ: Mapping[str, str], root: Path = Path("/")) -> tuple[Path, str] | None:
    """Return the store's directory and, in words, what it is; None where there is no place.

    `environ` tells the platform and the user's directories (XDG Base Directory Specification),
    `root` is where volumes are looked for. Nothing is created.
    """
    volume = _network_volume(environ, root)
    if volume is not None:
        return volume / NAME, f"network volume {volume}"
    cache = _user_cache(environ)
    return None if cache is None else (cache / NAME, "user cache directory")


def default_local(environ: Mapping[str, str]) -> tuple[Path, str] | None:
    """Return where packed layers are unpacked and, in words, what it is; None if there is no place.

    It is in the user's cache, beside the store if that is there too. Nothing is created.
    """
    cache = _user_cache(environ)
    return None if cache is None else (cache / f"{NAME}-layers", "user cache directory")


def _network_volume(environ: Mapping[str, str], root: Path) -> Path | None:
    serverless = root / "runpod-volume"
    on_runpod = any(environ.get(name) for name in _ON_RUNPOD)
    if os.path.ismount(serverless):
        return serverless
    if on_runpod and serverless.is_dir() and not _holds_cached_models_alone(serverless):
        return serverless
    pod = root / "workspace"
    return pod if environ.get("RUNPOD_POD_ID") and os.path.ismount(pod) else None


def _holds_cached_models_alone(directory: Path) -> bool:
    """Whether nothing but cached models lies there, or what preheat left there beside them."""
    try:
        names = set(os.listdir(directory))
    except OSError:
        return False
    return _CACHED_MODELS in names and names <= {_CACHED_MODELS, NAME}


def _user_cache(environ: Mapping[str, str]) -> Path | None:
    stated = environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(stated):  # the specification: a relative one is to be ignored
        return Path(stated)
    # A predictable name in a directory that everyone writes to would let others plant layers.
    home = environ.get("HOME") or os.path.expanduser("~")
    return Path(home, ".cache") if os.path.isabs(home) else None
