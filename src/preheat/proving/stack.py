"""Layers on the path of a proof: those that are published, then those that are still staged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from preheat.edges.proof.runner import Stack
from preheat.edges.store import staged_layer
from preheat.edges.store.store import Store
from preheat.words.layer import LayerPath
from preheat.words.plan import Step
from preheat.words.platform import Interpreter


def stack_of(store: Store, interpreter: Interpreter, layers: Sequence[str]) -> Stack:
    """Published layers as they lie on a path, by their digests.

    Raises:
        StoreError: one is not there.
    """
    paths = tuple(store.on_path(store.facts(digest)) for digest in layers)
    return Stack(interpreter=interpreter, layers=paths)


def with_staged(stack: Stack, step: Step, place: Path, store: Store) -> Stack:
    """With one more layer on top, which lies in staging and will lie in the store.

    The bytecode of its modules is kept, whoever imports them before it is published.

    Args:
        stack: what lies beneath.
        step: what the layer is made for.
        place: where it lies.
        store: where it will lie.
    """
    staged = LayerPath(path=str(place), has_pth=staged_layer.has_pth(place), digest=step.layer)
    kept = ((str(place), str(store.layer(step.layer))),) if step.bytecode == "imported" else ()
    return replace(
        stack,
        layers=(*stack.layers, staged),
        kept=(*stack.kept, *kept),
        loads={**stack.loads, **loads(step, place)},
    )


def loads(step: Step, layer: Path) -> Mapping[str, tuple[tuple[str, str], ...]]:
    """What must load for that step: the links in its layer, each with the library itself.

    In place of a copy, a link loads as the copy did, or did not.
    """
    links = (link for link in step.links if not link.sha256)
    return {step.package.name: tuple((str(layer / e.path), e.target) for e in links)}
