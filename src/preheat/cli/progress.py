"""Shows a start while it goes on, on standard error: bars on a terminal, lines in a log."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TextIO

from preheat.words.errors import ManifestError
from preheat.words.listener import Listener
from preheat.words.quantities import in_gb, in_mb

_SECONDS_BETWEEN_LINES = 10
_KINDS = ("bars", "text", "json", "none")


@contextmanager
def listener(environment: Mapping[str, str], stream: TextIO | None = None) -> Iterator[Listener]:
    """The listener that fits: ``PREHEAT_LOG`` is ``bars``, ``text``, ``json`` or ``none``.

    Raises:
        ManifestError: it is none of them.

    Without it: bars on a terminal, one ``key=value`` line for each event elsewhere.
    """
    stream = stream or sys.stderr
    kind = environment.get("PREHEAT_LOG") or ("bars" if stream.isatty() else "text")
    if kind not in _KINDS:
        raise ManifestError(
            f"environment PREHEAT_LOG: found {kind!r}; allowed: {', '.join(_KINDS)}"
        )
    if kind == "bars":
        with _bars() as bars:
            yield bars
    elif kind == "none":
        yield Silent()
    else:
        yield Lines(stream, as_json=kind == "json")


class Silent:
    """Shows nothing."""

    def event(self, name: str, /, **facts: object) -> None:
        """Nothing."""

    def progress(self, stage: str, done: float, total: float, *, free: int | None = None) -> None:
        """Nothing."""


class Lines:
    """One line for each event; a stage says when it began, and every ten seconds how far it is."""

    def __init__(self, stream: TextIO, *, as_json: bool) -> None:
        self._stream = stream
        self._as_json = as_json
        self._said: dict[str, float] = {}

    def event(self, name: str, /, **facts: object) -> None:
        """Writes the event with its time."""
        when = datetime.now(timezone.utc)
        stamp = when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self._as_json:
            line = json.dumps({"time": stamp, "event": name, **facts})
        else:
            known = ((k, v) for k, v in facts.items() if v not in (None, "", [], ()))
            line = " ".join([stamp, f"preheat {name}", *(f"{k}={_plain(v)}" for k, v in known)])
        self._stream.write(line + "\n")
        self._stream.flush()

    def progress(self, stage: str, done: float, total: float, *, free: int | None = None) -> None:
        """Writes the beginning of a stage, and what was done of a long one."""
        if done >= total:
            self._said.pop(stage, None)
            return
        now = datetime.now(timezone.utc).timestamp()
        if stage not in self._said:
            self._said[stage] = now
            self.event("stage", name=stage)
        elif now - self._said[stage] >= _SECONDS_BETWEEN_LINES:
            self._said[stage] = now
            left = None if free is None else round(free / 1e6)
            self.event("progress", name=stage, percent=round(100 * done / total), free_mb=left)


@contextmanager
def _bars() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bars(progress)


class _Bars:
    """A bar for each stage, and a lasting line for each package."""

    def __init__(self, progress: object) -> None:
        from rich.progress import Progress, TaskID

        assert isinstance(progress, Progress)  # noqa: S101  # rich is imported only here
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def event(self, name: str, /, **facts: object) -> None:
        """Prints what will be of interest after the bars are gone."""
        from rich.text import Text

        words = [str(facts.get("package", "")), str(facts.get("version") or "")]
        if name == "planned":
            words = [f"{facts['download_mb']} MB to fetch, {facts['disk_mb']} MB on disk"]
        line = Text(f"{name:>10}  ", style="bold")
        line.append(" ".join(word for word in words if word), style="default")
        reason = facts.get("reason")
        if reason and name in ("skipped", "failed", "index-unreachable", "not-importable"):
            line.append(f": {reason}", style="yellow")
        self._progress.console.print(line)

    def progress(self, stage: str, done: float, total: float, *, free: int | None = None) -> None:
        """Moves the stage's bar; a finished one goes."""
        if done >= total:
            task = self._tasks.pop(stage, None)
            if task is not None:
                self._progress.remove_task(task)
            return
        if stage not in self._tasks:
            known = total > 1
            self._tasks[stage] = self._progress.add_task(
                stage, total=total if known else None, detail=""
            )
        detail = f"{done / 1e6:,.0f} of {in_mb(total)}" if total > 1 else ""
        if free is not None:
            detail += f", {in_gb(free)} free"
        self._progress.update(self._tasks[stage], completed=done, detail=detail)


def _plain(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return json.dumps(text) if " " in text or '"' in text or "\n" in text else text
