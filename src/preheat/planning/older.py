"""An older release of what goes with torch, where the newest one turns out not to work here."""

from __future__ import annotations

from dataclasses import replace

from preheat.decisions.coupling import before, misfit
from preheat.edges.engine.engine import Engine
from preheat.edges.index.wheels import Reader
from preheat.planning.resolve import Resolution, composition, declared_of
from preheat.planning.state import State
from preheat.words.engine import Solved
from preheat.words.errors import ResolutionError
from preheat.words.lock import Locked
from preheat.words.platform import Platform


def older_release(state: State, companion: Locked, why: str, reader: Reader) -> State | None:
    """With the next older release of one distribution, all else as it is; None where none is.

    Args:
        state: by now.
        companion: what failed.
        why: how, in a sentence.
        reader: reads what the older one holds.
    """
    old = state.composition
    resolution = Resolution(lock=old.lock, contents=dict(old.contents), request=state.request)
    try:
        found = _older(resolution, companion, state.platform, state.engine, reader)
    except ResolutionError:
        return None
    if found is None:
        return None
    older = found.lock.find(companion.name)
    remark = f"{older.name} {older.version}, since with {companion.version} {why}" if older else ""
    whole = composition(found, old.packages, state.platform)
    return state.with_release(whole, companion.name, remark)


def _older(
    resolution: Resolution,
    companion: Locked,
    platform: Platform,
    engine: Engine,
    reader: Reader,
) -> Resolution | None:
    """The resolution with the next older release of one distribution that may work here.

    None where there is none.

    Raises:
        ResolutionError: an archive cannot be found, or the index does not answer.
    """
    others = [f"{d.name}=={d.version}" for d in resolution.lock.distributions if d != companion]
    bounds = (*resolution.request.constraints, *others, before(companion))
    request = replace(resolution.request, constraints=bounds)
    outcome = engine.resolve(request)
    if not isinstance(outcome, Solved):
        return None
    located = engine.locate(outcome.pins, request)
    contents = {**resolution.contents, **reader.read(located)}
    contents |= declared_of(located, contents, request, engine)
    lock = replace(resolution.lock, distributions=located)
    older = replace(resolution, lock=lock, contents=contents)
    found = lock.find(companion.name)
    if found is not None and misfit(found, contents[found.name], platform):
        return _older(older, found, platform, engine, reader)
    return older
