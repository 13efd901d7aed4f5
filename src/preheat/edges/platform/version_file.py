"""The ``version.py`` that a build writes into its package, read without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def constants_in(file: str) -> dict[str, object]:
    """The constants that a module assigns at its top level; none where it cannot be read."""
    try:
        with open(file, encoding="utf-8") as handle:
            tree = ast.parse(handle.read())
    except (OSError, SyntaxError, ValueError):
        return {}
    return dict(_assigned(tree))


def _assigned(tree: ast.Module) -> Iterator[tuple[str, object]]:
    for node in tree.body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Assign):
            targets = node.targets
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                yield target.id, value.value
