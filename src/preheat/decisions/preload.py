"""Whether an import that was made before there were layers would have been the same over them.

A process that has imported the platform's torch already, while the layers were still being made,
saves the proof of all of them together the longest of its imports. It may go on only if nothing
shows that torch would have met anything else with the layers on the path.
"""

from __future__ import annotations

from collections.abc import Iterable

from preheat.words.proof import EVERYTHING, Brought, Libraries, Looked


def same_over(looked: Looked, brought: Brought) -> bool:
    """Whether the layers hide nothing that was found, and have no say in what was looked up.

    What was looked for in vain and is there now is another matter: see `missed`.
    """
    return not (
        brought.hooked
        or looked.found & brought.modules
        or looked.distributions & brought.distributions
        or looked.groups & (brought.groups | {EVERYTHING})
    )


def missed(looked: Looked, brought: Brought) -> tuple[str, ...]:
    """Modules that were looked for in vain and that a layer brings: the import would load them."""
    return tuple(sorted((looked.modules - looked.found) & brought.modules))


def in_any_order(libraries: Libraries, others: Iterable[Libraries]) -> bool:
    """Whether the loader takes the same files whoever comes first.

    It loads a library of one name once (DT_SONAME, ld.so(8)): where two sides take it from
    different files, the second gets the first one's.
    """
    return all(
        libraries[name] == files
        for each in others
        for name, files in each.items()
        if name in libraries
    )
