"""What archives occupy on a disk, told from their directories before they are fetched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from preheat.words.footprint import Footprint
from preheat.words.lock import Contents
from preheat.words.platform import Volume

# A code object's size against its source: 180 + factor * source ** 0.95, fitted for each version
# over 13,000 files of the 126 distributions that transformers, google-cloud-speech, whisperx and
# f5-tts bring. Bytecode is a fifth of a layer, and the sum of a layer comes out within 2 %.
_PYC_FIXED = 180
_PYC_EXPONENT = 0.95
_PYC_FACTOR = {"3.10": 1.31, "3.11": 2.14, "3.12": 1.95, "3.13": 1.95}
_PYC_FACTOR_ELSE = 1.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """How a volume counts: its block, its directories, and whether bytecode comes along.

    Attributes:
        python: ``3.11``; None where no bytecode is kept. Else every module's is counted: what a
            start does not write, Python may write when the module is first used.
    """

    block: int
    directory: int
    python: str | None

    @classmethod
    def of(cls, volume: Volume, *, version: str, bytecode: str) -> Measure:
        """The measure of that volume for that interpreter version."""
        minor = ".".join(version.split(".")[:2])
        python = None if bytecode == "none" else minor
        return cls(block=volume.block, directory=volume.directory, python=python)

    def footprint(self, contents: Iterable[Contents]) -> Footprint:
        """What these archives occupy together once they lie in one directory."""
        payload = disk = files = modules = 0
        exact = True
        parents: set[str] = set()
        compiled: set[str] = set()
        for each in contents:
            exact = exact and each.exact
            files += len(each.files)
            for path, size in each.files:
                payload += size
                disk += self._blocks(size)
                parent = path.rpartition("/")[0]
                parents.add(parent)
                if self.python and path.endswith(".py") and not path.startswith("bin/"):
                    disk += self._blocks(self._bytecode(size))
                    modules += 1
                    compiled.add(parent)
        directories = {f"{parent}/__pycache__" for parent in compiled}
        for place in parents:
            parent = place
            while parent and parent not in directories:
                directories.add(parent)
                parent = parent.rpartition("/")[0]
        disk += len(directories) * self.directory
        plain = sum(not each.endswith("__pycache__") for each in directories)
        return Footprint(
            payload=payload,
            disk=disk,
            inodes=files + modules + len(directories),
            files=files,
            directories=plain,
            exact=exact,
        )

    def _blocks(self, size: int) -> int:
        return -(-size // self.block) * self.block

    def _bytecode(self, source: int) -> int:
        factor = _PYC_FACTOR.get(self.python or "", _PYC_FACTOR_ELSE)
        return int(_PYC_FIXED + factor * source**_PYC_EXPONENT)
