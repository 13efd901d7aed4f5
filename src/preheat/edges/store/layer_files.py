"""The published layers of a store against their own files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import chain

from preheat import pointer
from preheat.edges.platform import inventory
from preheat.edges.store.pack import read_index
from preheat.edges.store.shelf import FACTS
from preheat.edges.store.store import Store
from preheat.words.errors import PackError, StoreError
from preheat.words.examination import LayerFiles
from preheat.words.layer import LayerFacts
from preheat.words.platform import Interpreter

_DIGEST = re.compile(r"[0-9a-f]{32,64}")


def layer_files(store: Store, interpreter: Interpreter | None) -> tuple[LayerFiles, ...]:
    """Every directory that is named like a layer, whole or not."""
    place = store.ready.directory
    try:
        # What has another name is nobody's layer, and not ours to judge.
        names = sorted(
            entry.name
            for entry in os.scandir(place)
            if _DIGEST.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        )
    except OSError:
        return ()
    whole = store.layers()
    used = set(_in_use(store, interpreter))
    return tuple(_layer(store, name, name in whole, used) for name in names)


def pack_files(store: Store) -> tuple[LayerFiles, ...]:
    """Every packed layer; of a damaged one it is said what is wrong, by its index alone."""
    return tuple(_pack(store, digest) for digest in sorted(store.packs.digests()))


def _pack(store: Store, digest: str) -> LayerFiles:
    file, package, wrong = store.packs.place(digest), "", ""
    distributions: tuple[tuple[str, str], ...] = ()
    try:
        index = read_index(file)
        package, distributions = index.facts.package, index.facts.distributions
    except PackError as error:
        wrong = error.message
    return LayerFiles(
        path=str(file), package=package, wrong=wrong, distributions=distributions, in_use=False
    )


def _layer(store: Store, digest: str, known: bool, used: set[str]) -> LayerFiles:
    path = str(store.layer(digest))
    package, wrong = "", f"{FACTS} is missing: it was not published whole, or files were removed"
    distributions: tuple[tuple[str, str], ...] = ()
    if known:
        try:
            facts = store.facts(digest)
            package, distributions = facts.package, facts.distributions
            wrong = next(chain(_faults(path, distributions), _astray(path, facts)), "")
        except StoreError as error:
            wrong = error.message
    return LayerFiles(
        path=path,
        package=package,
        wrong=wrong,
        distributions=distributions,
        in_use=path in used,
    )


def _faults(path: str, expected: tuple[tuple[str, str], ...]) -> Iterator[str]:
    found = {each.name: each for each in inventory.read([path])}
    for name, version in expected:
        one = found.get(name)
        if one is None:
            yield f"{name} {version} is gone"
        elif one.missing:
            yield f"{one.missing[0]} of {name} {version} is missing"
        elif not one.state.present:
            yield f"{name} {version}: {one.state.value}"
        else:
            short = inventory.truncated(one)
            if short:
                yield f"{short[0]} of {name} {version} is not of the size that RECORD says"


def _astray(path: str, facts: LayerFacts) -> Iterator[str]:
    for link, target in facts.links:
        if not os.path.exists(os.path.join(path, link)):
            yield f"{link} leads to the platform's {target}, which is gone"


def _in_use(store: Store, interpreter: Interpreter | None) -> Iterator[str]:
    """Layers that the last starts of this interpreter put on the path."""
    try:
        files = sorted(store.starts.iterdir())
    except OSError:
        return
    for file in files:
        facts = pointer.read_pointer(str(file))
        if facts and (interpreter is None or facts.get("prefix") == interpreter.prefix):
            yield from map(str, facts.get("layers", ()))
