"""What differs between two runs that did the same, taken out of what they said and left.

Masked are times, byte counts, paths, digests, and the versions of this machine's Python, C library,
driver and filesystems. Kept are every key, every word, and whether a count of bytes is zero. A
digest gets a number where it is first met, so that one that comes back is seen to be the same one.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TIMES = {"seconds", "started"}
_BYTES = {
    *("actual", "after", "before", "bytes", "bytes_actual", "bytes_predicted", "bytes_spared"),
    *("download", "free", "inodes", "lacking", "payload"),
    *("removable", "size"),
}
# Zero or not by chance: what else happens on the machine counts, and what was fetched for a package
# whose turn came again is not told a second time.
_MEASURED = {"fetched", "freed", "memory", "tiers"}
_ROUNDED = {"disk_mb", "download_mb", "mb", "peak_memory_mb", "seconds"}  # in events
_OF_THE_MACHINE = {
    *("abi", "driver", "facts", "gpus", "kind", "libc", "links", "python", "quota_known", "shared"),
}

# The running interpreter's, which is the platform's too.
_SHORT = f"{sys.version_info[0]}.{sys.version_info[1]}"
_TAG = f"cpython-{sys.version_info[0]}{sys.version_info[1]}"

_DATE = r"\d{4}-\d\d-\d\d(?:T| at )\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00| UTC)"
_DIGEST = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{8,64}(?![0-9A-Za-z])")
_IN_A_SENTENCE = (
    (re.compile(rf"{_TAG}(?:-[\w-]+)?"), "cpython"),
    (re.compile(r"-cp\d+-cp\d+-linux_\w+(?=\.whl)"), "-<tag>"),
    (re.compile(rf"python{re.escape(_SHORT)}"), "python"),
    (re.compile(r"(?<![^\s'])/\S+/bin/uv\b|<prefix>/bin/uv\b"), "<uv>"),
    (
        re.compile(r"(the index does not answer: |^\s*)(?:error|cause): .*"),
        r"\1<the engine's words>",
    ),
    (re.compile(_DATE), "<date>"),
    (re.compile(r"(?<![\w.])[\d,]*\.?\d+ (?:[kMGTP]?i?B|bytes)\b"), "<size>"),
    (re.compile(r"(?<![\w.])\d+\.\d+ (?:ms|s)\b"), "<seconds> s"),
)
_IN_A_ROW = (
    (re.compile(r"^platform: .*"), "platform: <of the machine>"),
    (re.compile(r"\(((?:store|cache|temp)[^;()]*); [\w.]+\)"), r"(\1; <kind>)"),
    (re.compile(r"\([\w.]+, <size> free\)"), "(<kind>, <size> free)"),
    (re.compile(r"\b\d+ files of "), "<n> files of "),
    (re.compile(r"(?:<size>|- MB) fetched"), "<size> fetched"),  # see _MEASURED
    (re.compile(r"(?<![\w.])[\d,]*\d\.\d+(?![\w.])"), "<n>"),
    # So short a time is not shown.
    (re.compile(r"((?:platform|reused|installed|skipped|failed)(?: -| <n>){2}) -"), r"\1 <n>"),
    (re.compile(r"^(stages: probe <seconds> s)(.*)(, fingerprint <seconds> s)"), r"\1\3\2"),
)
# Of these stages nothing waits for the end of the second, which may come before others' or after.
_FIRST = {"probe": 0, "fingerprint": 1}


@dataclass(frozen=True, kw_only=True)
class Masks:
    """The masks of one recording.

    Attributes:
        places: a word for each text that names a place here; longer texts count first.
        digests: those that were met, in order.
    """

    places: dict[str, str]
    digests: list[str] = field(default_factory=list)

    def sentence(self, text: str) -> str:
        """A text; a number without a unit stays."""
        for place in sorted(self.places, key=len, reverse=True):
            text = text.replace(place, self.places[place])
        for pattern, word in _IN_A_SENTENCE:
            text = pattern.sub(word, text)
        return _DIGEST.sub(self._digest, text)

    def lines(self, text: str) -> list[str]:
        """What was printed for people: no blank lines, and no blanks that align columns."""
        rows = (" ".join(line.split()) for line in text.splitlines())
        # A line about CUDA is there only where there is any.
        return [self._row(row) for row in rows if row and not row.startswith("CUDA: ")]

    def document(self, value: object, key: str = "") -> Any:
        """The document with every key."""
        if key in _OF_THE_MACHINE or (key == "cuda" and isinstance(value, list)):
            return "<of the machine>"
        if isinstance(value, Mapping):
            kept = key if key in _TIMES | {"tiers"} else ""
            return {self.sentence(k): self.document(v, kept or k) for k, v in value.items()}
        if isinstance(value, list):
            if key == "stages":
                value = sorted(value, key=lambda stage: _FIRST.get(stage["name"], len(_FIRST)))
            # A key is that of the values in the list, and not of theirs.
            return [self.document(each, "" if isinstance(each, dict) else key) for each in value]
        if isinstance(value, str):
            return self._trace(value) if key == "trace" else self.sentence(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._number(value, key)
        return value

    def event(self, line: Mapping[str, Any]) -> str:
        """A line of the log: its name, then what it says."""
        facts = {key: value for key, value in line.items() if key not in ("time", "event")}
        said = (f"{k}={'<n>' if k in _ROUNDED else _plain(v)}" for k, v in facts.items())
        return self.sentence(" ".join([str(line["event"]), *said]))

    def tree(self, root: Path) -> list[str]:
        """Every path below a directory; of a JSON file also the keys at its top."""
        return sorted({self._entry(path, root) for path in root.rglob("*")})

    def _entry(self, path: Path, root: Path) -> str:
        # A path that holds several digests is sorted by them: they get no numbers here.
        name = _DIGEST.sub("<digest>", str(path.relative_to(root)).replace(_TAG, "cpython"))
        if path.suffix == ".json" and isinstance(document := json.loads(path.read_text()), dict):
            return f"{name}: {', '.join(_DIGEST.sub('<digest>', key) for key in document)}"
        return f"{name}/" if path.is_dir() else name

    def _row(self, row: str) -> str:
        row = self.sentence(row)
        for pattern, word in _IN_A_ROW:
            row = pattern.sub(word, row)
        return row

    def _number(self, value: float, key: str) -> object:
        if key in _TIMES:
            return "<time>"
        return "<bytes>" if key in _MEASURED or (value and key in _BYTES) else value

    def _digest(self, found: re.Match[str]) -> str:
        if found[0] not in self.digests:
            self.digests.append(found[0])
        return f"<digest {self.digests.index(found[0]) + 1}>"

    def _trace(self, text: str) -> str:
        last = text.strip().splitlines()[-1:]
        return f"<ends in: {self.sentence(last[0])}>" if last else ""


def events(stderr: str) -> Iterator[dict[str, Any]]:
    """What `PREHEAT_LOG=json` wrote, without what only long stages say."""
    for line in stderr.splitlines():
        if line.startswith('{"time"'):
            event: dict[str, Any] = json.loads(line)
            if event["event"] != "progress":
                yield event


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
