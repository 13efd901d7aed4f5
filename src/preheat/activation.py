"""Puts layers on the path of a running interpreter.

This file stands alone: the warm start runs it inside the worker, every child process runs a copy
of it as ``sitecustomize``, and every proof runs it too. So what was proved is what happens. It
may import nothing that an interpreter has not loaded by itself.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def activate(
    layers: Sequence[str], sites: Sequence[str], with_pth: Sequence[str] = ()
) -> list[str]:
    """Puts layers before the first of the platform's site directories, in their order.

    ``site.addsitedir`` would append, and the platform's numpy would win over the layer's.

    Args:
        layers: directories, the first one wins.
        sites: the platform's site directories, as they were when the layers were proved.
        with_pth: those of the layers that hold ``.pth`` files.

    Returns:
        The directories that were put on the path, ``.pth`` lines included.

    Raises:
        LookupError: none of the sites is on this path: another interpreter, or ``-S``.
    """
    places = [sys.path.index(site) for site in sites if site in sys.path]
    if sites and not places:
        raise LookupError("none of the platform's site directories is on this path")
    new = [layer for layer in layers if layer not in sys.path]
    where = min(places, default=len(sys.path))
    sys.path[where:where] = new
    for layer in with_pth:
        if layer in new:
            new += _process_pth(layer)
    return new


def _process_pth(layer: str) -> list[str]:
    """Runs the layer's ``.pth`` files; directories that they name follow their layer."""
    import site

    before = list(sys.path)
    known = {os.path.normcase(os.path.abspath(place)) for place in before}
    for name in sorted(os.listdir(layer)):
        if name.endswith(".pth"):
            site.addpackage(layer, name, known)
    added = [place for place in sys.path if place not in before]
    if added:
        rest = [place for place in sys.path if place not in added]
        where = rest.index(layer) + 1
        rest[where:where] = added
        sys.path[:] = rest
    return added


def as_sitecustomize(here: str) -> None:
    """Activates in a child at its start, if it is the Python that the layers were made for.

    ``here`` holds ``path``, lines of ``kind value``: the cache tag, sites, layers, and those with
    ``.pth`` files (``hooked``). Any other interpreter, or one without these sites, starts as usual.
    """
    facts: dict[str, list[str]] = {"tag": [], "site": [], "layer": [], "hooked": []}
    try:
        with open(os.path.join(here, "path"), encoding="utf-8") as file:
            for line in file.read().split("\n"):
                kind, _, value = line.partition(" ")
                if kind in facts:
                    facts[kind].append(value)
        if facts["tag"] == [sys.implementation.cache_tag]:
            activate(facts["layer"], facts["site"], facts["hooked"])
        shared = os.environ.get("PREHEAT_INTERNAL_LEASE")
        if shared and facts["layer"] and facts["layer"][0] in sys.path:
            # Other machines see that this process lives by its lease on the shared volume.
            lease = __import__("_preheat_lease")
            lease.keep_renewing(shared, lease.USE_LEASE_SECONDS)
    except (OSError, LookupError):
        pass
    _chain(here)


def _chain(here: str) -> None:
    """Hands over to the ``sitecustomize`` that ours stands in front of, if there is one."""
    ours = sys.modules.pop("sitecustomize", None)
    sys.path[:] = [place for place in sys.path if os.path.abspath(place or ".") != here]
    try:
        __import__("sitecustomize")
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        if ours is not None:
            sys.modules.setdefault("sitecustomize", ours)
