"""Whether an import that was made before there were layers may count as made over them.

A process imports the platform's torch while the layers are still being made, and later proves all
of them together: that saves the longest of its imports. It may do so only if torch would have
found the same files with the layers on the path.
"""

from __future__ import annotations

from collections.abc import Iterable

from preheat.words.proof import EVERYTHING, Brought, Libraries, Looked


def same_over(looked: Looked, brought: Brought) -> bool:
    """Whether the layers hold nothing of what the import found or looked up.

    `missed` tells what the import looked for in vain and a layer brings.
    """
    return not (
        brought.has_pth
        or looked.found & brought.modules
        or looked.distributions & brought.distributions
        or looked.groups & (brought.groups | {EVERYTHING})
    )


def missed(looked: Looked, brought: Brought) -> tuple[str, ...]:
    """Modules that the import looked for in vain and a layer brings: over it, they would load."""
    return tuple(sorted((looked.modules - looked.found) & brought.modules))


def in_any_order(libraries: Libraries, others: Iterable[Libraries]) -> bool:
    """Whether shared libraries come from the same files, in whatever order packages load them.

    The loader takes a library of one name once (DT_SONAME, ld.so(8)): where two packages bring
    different files of it, the second one gets the first one's.
    """
    return all(
        libraries[name] == files
        for each in others
        for name, files in each.items()
        if name in libraries
    )
