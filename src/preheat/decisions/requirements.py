"""Requirements as metadata states them (PEP 508)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from packaging.requirements import InvalidRequirement, Requirement


def holding(texts: Iterable[str], markers: Mapping[str, str]) -> Iterator[Requirement]:
    """Those that hold in an environment, extras aside; what breaks the grammar holds nowhere.

    Args:
        texts: requirements, verbatim.
        markers: the environment, as `Interpreter.markers` has it.
    """
    environment = {**markers, "extra": ""}
    for text in texts:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate(environment):
            yield requirement
