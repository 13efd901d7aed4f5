"""What the platform's CUDA libraries mean for a resolution: which of NVIDIA's versions go with it.

Two things that the engine cannot know. It takes a requirement on `nvidia-cudnn-cu13==9.19.0.56` for
unmet by the platform's 9.20, which NVIDIA promises to serve it. And where the platform's libraries
are no distributions, it takes the newest wheels, which hold libraries that the platform's release
does not have yet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from preheat.decisions.stand_ins import (
    asked_of,
    bound_to,
    is_candidate,
    stems,
    suffices,
)
from preheat.edges.engine.engine import Engine
from preheat.edges.index.wheels import Reader
from preheat.edges.platform.cuda_libraries import Search
from preheat.planning.resolve import Question, Resolution, composition, resolve
from preheat.words.manifest import Package, StatedCuda


def resolve_around(
    question: Question, engine: Engine, reader: Reader, stated: StatedCuda
) -> Resolution:
    """As `resolve` does, and once more where the platform's libraries may serve better.

    Args:
        question: what is asked.
        engine: resolves.
        reader: reads what archives hold.
        stated: the settings about CUDA.

    Raises:
        ResolutionError: the index does not answer.
    """
    found = resolve(question, engine, reader)
    unpinned = _refusing(question, found)
    if unpinned:
        question = replace(question, unpinned=unpinned)
        question, found = _with_unpinned(question, found, engine, reader)
    bounds = tuple(_bounds(question, found, stated))
    if not bounds:
        return found
    question = replace(question, exclusions=(*question.exclusions, *bounds))
    nearer = resolve(question, engine, reader)
    lost = nearer.refused.keys() | nearer.unanswered.keys()
    return found if lost - found.refused.keys() - found.unanswered.keys() else nearer


def _refusing(question: Question, found: Resolution) -> frozenset[str]:
    """NVIDIA's distributions of the platform that the solver names where it refuses a package."""
    own = (name for name in question.held if is_candidate(name, question.protect))
    return frozenset(
        name
        for name in own
        if any(name in solver_output for solver_output in found.solver_outputs.values())
    )


def _with_unpinned(
    question: Question, strict: Resolution, engine: Engine, reader: Reader
) -> tuple[Question, Resolution]:
    """Without the bounds that only exact versions meet, if all that is taken then is served."""
    before = replace(question, unpinned=frozenset())
    found = resolve(question, engine, reader)
    unserved = {p.name for p in question.packages if not _is_served(p, question, found)}
    if unserved:
        # What the platform's version is too old for was refused rightly.
        left = tuple(p for p in question.packages if p.name not in unserved)
        found = resolve(replace(question, packages=left), engine, reader)
    gained = strict.refused.keys() - found.refused.keys() - unserved
    lost = found.refused.keys() | found.unanswered.keys() | unserved
    unfit = any(not _is_served(p, question, found) for p in question.packages)
    if unfit or not gained or lost - strict.refused.keys():
        return before, strict
    kept = {name: why for name, why in strict.refused.items() if name in unserved}
    lock = replace(
        found.lock,
        packages=strict.lock.packages,
        refused=tuple(sorted({**found.refused, **kept}.items())),
    )
    solver_outputs = {
        **found.solver_outputs,
        **{name: strict.solver_outputs[name] for name in kept},
    }
    return question, replace(found, lock=lock, solver_outputs=solver_outputs)


def _is_served(package: Package, question: Question, found: Resolution) -> bool:
    """Whether the platform's versions are new enough for a package that was taken."""
    if package.name in found.refused or package.name not in found.lock.packages:
        return True
    whole = composition(found, [package], question.platform)
    texts = (*package.requires, *(t for n in whole.needs(package) for t in _declared(found, n)))
    return all(
        suffices(question.held[name], asked_of(name, texts))
        for name in whole.needs(package)
        if name in question.unpinned
    )


def _declared(found: Resolution, name: str) -> tuple[str, ...]:
    contents = found.contents.get(name)
    return contents.requires if contents else ()


def _bounds(question: Question, found: Resolution, stated: StatedCuda) -> Iterator[str]:
    """Constraints that have wheels of the platform's own releases taken."""
    wheels = [d for d in found.lock.distributions if is_candidate(d.name, question.protect)]
    wanted = frozenset(stem for each in wheels for stem in stems(found.contents[each.name]))
    if not wanted:
        return
    search = Search(platform=question.platform, environ=os.environ, stated=stated, stems=wanted)
    directories = search.directories()
    for each in wheels:
        bound = bound_to(each, found.contents[each.name], directories)
        if bound:
            yield bound
