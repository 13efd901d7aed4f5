"""Which distributions can be left out together, found with few proofs."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def removable(candidates: Sequence[str], holds: Callable[[frozenset[str]], bool]) -> frozenset[str]:
    """Names that can be left out together.

    All are tried at once; where that fails, each half, beside what may go already. It takes about
    two proofs for each name that is needed and each halving.

    Args:
        candidates: names, in the order in which they should go.
        holds: proves whether everything works without these names.
    """
    return _more(tuple(candidates), frozenset(), holds)


def _more(
    candidates: tuple[str, ...], gone: frozenset[str], holds: Callable[[frozenset[str]], bool]
) -> frozenset[str]:
    """Which of the candidates can be left out beside those that are gone."""
    if not candidates or not holds(gone.union(candidates)):
        if len(candidates) <= 1:
            return frozenset()
        middle = len(candidates) // 2
        first = _more(candidates[:middle], gone, holds)
        return first | _more(candidates[middle:], gone | first, holds)
    return frozenset(candidates)
