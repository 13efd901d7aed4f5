"""An installation by uv into one directory, taken up again where the network breaks."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import tomli_w

from preheat.edges.disk.deletion import erase
from preheat.edges.engine import failures
from preheat.edges.engine.uv import Cancellation, Limits, Uv, repeat
from preheat.words.engine import Request
from preheat.words.lock import Archive, Locked
from preheat.words.manifest import Index

# The relay gives up on a request first: it resumes what stalls, where uv would begin anew.
_RELAYED_TIMEOUT_FACTOR = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Installation:
    """What is installed where.

    Attributes:
        uv: the engine as a program.
        source: its arguments that say where archives come from.
        index: where archives come from, with the credentials.
        distributions: what to install, and nothing besides.
        target: an empty directory.
        request: what they were resolved for.
    """

    uv: Uv
    source: Sequence[str]
    index: Index
    distributions: Sequence[Locked]
    target: Path
    request: Request
    cancellation: Cancellation = field(default_factory=Cancellation)

    def run(self, limits: Limits) -> None:
        """Fetches, checks against sha256, unpacks and links.

        Raises:
            InstallError: an archive is damaged, or a build fails. After this and each of the
                following, the target is worth nothing.
            ArchiveChanged: a hash or a size differs.
            DiskFull: there is no room for it.
            Transient: the index stops answering, the machine fails, or it was interrupted.
            TimedOut: it took too long.
        """
        answer = self._install(limits)
        if _may_pass(answer):
            answer = self._install_relayed(limits) or answer
        if answer.returncode != 0:
            raise failures.error(answer.stderr, answer.returncode)
        (self.target / ".lock").unlink(missing_ok=True)

    def _install(self, limits: Limits) -> subprocess.CompletedProcess[str]:
        how = "hardlink" if links(self.uv.cache, self.target) else "copy"
        return self.uv.run(
            ["pip", "install", "--quiet", "--no-deps", "--target", str(self.target)],
            ["--preview-features", "pylock", "--link-mode", how],
            [*repeat("--no-build-isolation-package", self.request.no_isolation)],
            [*repeat("--only-binary", self.request.wheels_only)],
            [*self.source, "-r", str(self._write_pylock())],
            limits=limits,
            cancellation=self.cancellation,
        )

    def _install_relayed(self, limits: Limits) -> subprocess.CompletedProcess[str] | None:
        """Installs once more, after a fault of the network, through a relay that resumes transfers.

        Returns:
            The last answer; None where there was no time for one.
        """
        # Rarely needed, and what speaks HTTP takes a while to load.
        from preheat.edges.engine.relay import Relay
        from preheat.edges.index import transport

        known = transport.credentials([*self.index.extra, self.index.url or ""])
        pause = transport.pause(1)
        if limits.ends is not None and time.monotonic() + pause >= limits.ends:
            return None
        self.cancellation.requested.wait(pause)
        self.cancellation.raise_if_requested()
        for left in self.target.iterdir():
            erase(left)
        with Relay(self.distributions, known, limits.request) as relay:
            relayed = [relay.relayed(each) for each in self.distributions]
            longer = replace(limits, request=limits.request * _RELAYED_TIMEOUT_FACTOR)
            answer = replace(self, distributions=relayed)._install(longer)
            answer.stderr = relay.unrelayed(answer.stderr)
        return answer

    def _write_pylock(self) -> Path:
        file = self.uv.scratch / f"pylock.{self.target.name}.toml"
        packages = [
            {"name": each.name, "version": each.version, **archive_table(each.archive)}
            for each in self.distributions
        ]
        document = {"lock-version": "1.0", "created-by": "preheat", "packages": packages}
        file.write_bytes(tomli_w.dumps(document).encode())
        return file


def links(cache: Path, target: Path) -> bool:
    """Whether a file of the cache can have a second name in the target, found by trying."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache, prefix=".link-") as probe:
        link = target / ".link-probe"
        try:
            os.link(probe.name, link)
        except OSError:
            return False
        link.unlink()
        return True


def archive_table(archive: Archive) -> dict[str, object]:
    """The PEP 751 table of an archive: ``wheels`` with one entry, or ``sdist``."""
    place = urlsplit(archive.url)
    entry: dict[str, object] = {"name": archive.filename}
    if place.scheme == "file":
        entry["path"] = unquote(place.path)
    else:
        entry["url"] = archive.url
    if archive.size is not None:
        entry["size"] = archive.size
    entry["hashes"] = {"sha256": archive.sha256}
    return {"wheels": [entry]} if archive.is_wheel else {"sdist": entry}


def _may_pass(answer: subprocess.CompletedProcess[str]) -> bool:
    """Whether the network failed and nothing else, so that a second try may succeed."""
    return answer.returncode != 0 and failures.is_network_fault(answer.stderr)
