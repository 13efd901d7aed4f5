"""The verdicts of a store: what was proved before, good or bad, one file for each key."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from preheat.edges.disk.atomic import write_atomically
from preheat.words.plan import Verdict

_SUFFIX = ".json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdicts:
    """The verdicts that a store has.

    Attributes:
        places: directories of them: the store's own, which is written, then the image's.
    """

    places: Sequence[Path]

    def get(self, key: str) -> Verdict | None:
        """The verdict of that key, where there is one; it may have expired."""
        for place in self.places:
            with contextlib.suppress(OSError, ValueError, TypeError):
                return Verdict(**json.loads((place / f"{key}{_SUFFIX}").read_text()))
        return None

    def standing(self, now: float) -> dict[str, Verdict]:
        """Every verdict by key, without failures that have expired.

        Args:
            now: unix time.
        """
        found: dict[str, Verdict] = {}
        # The store's own come last, over the image's, which are older.
        for text in (text for place in reversed(self.places) for text in _texts(place)):
            with contextlib.suppress(ValueError, TypeError):
                verdict = Verdict(**json.loads(text))
                if verdict.ok or verdict.expires > now:
                    found[verdict.key] = verdict
        return found

    def keep(self, verdict: Verdict) -> None:
        """Writes a verdict, over an older one of its key.

        Raises:
            StoreError: the disk refuses.
        """
        text = json.dumps(asdict(verdict))
        write_atomically(self.places[0] / f"{verdict.key}{_SUFFIX}", text.encode())


def _texts(directory: Path) -> Iterator[str]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    for name in names:
        if name.endswith(_SUFFIX):
            with contextlib.suppress(OSError):
                yield (directory / name).read_text(encoding="utf-8")
