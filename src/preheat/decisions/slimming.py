"""How much can go: the largest set that a proof does without, found with few proofs."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def removable(candidates: Sequence[str], holds: Callable[[frozenset[str]], bool]) -> frozenset[str]:
    """Names that can go together.

    All at once where that holds; else halves, each beside what may go already. Few proofs where
    few names are needed after all: about two for each of them and each halving.

    Args:
        candidates: names; those that should rather go come first.
        holds: whether everything is still kept without those names.
    """
    return _more(tuple(candidates), frozenset(), holds)


def _more(
    candidates: tuple[str, ...], gone: frozenset[str], holds: Callable[[frozenset[str]], bool]
) -> frozenset[str]:
    """What may go of the candidates, beside what is gone."""
    if not candidates or not holds(gone.union(candidates)):
        if len(candidates) <= 1:
            return frozenset()
        middle = len(candidates) // 2
        first = _more(candidates[:middle], gone, holds)
        return first | _more(candidates[middle:], gone | first, holds)
    return frozenset(candidates)
