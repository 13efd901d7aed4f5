"""Disk, time and outcome of every start and job, as numbers that Prometheus reads.

Scraped from a port, or written as a text file for a collector (node_exporter's textfile format).
"""

from __future__ import annotations

import shutil
import tempfile
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    start_http_server,
    write_to_textfile,
)

from f5_tts_worker.logs import say

if TYPE_CHECKING:
    from f5_tts_worker.settings import Settings
    from f5_tts_worker.starting import Started

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)


class Metrics:
    """One worker's numbers."""

    def __init__(self, settings: Settings | None) -> None:
        self._file = settings.metrics_file if settings else None
        self._data = settings.data if settings else None
        self.registry = CollectorRegistry()
        self._stage = Gauge(
            "f5_tts_worker_start_stage_seconds",
            "What each stage of the start took",
            ["stage"],
            registry=self.registry,
        )
        self._ready = Gauge(
            "f5_tts_worker_ready", "1 where the start succeeded, else 0", registry=self.registry
        )
        self._package = Gauge(
            "f5_tts_worker_package_available",
            "1 where a package of the manifest can be used, else 0",
            ["package"],
            registry=self.registry,
        )
        self._jobs = Counter(
            "f5_tts_worker_jobs", "Jobs that ended", ["endpoint", "outcome"], registry=self.registry
        )
        self._seconds = Histogram(
            "f5_tts_worker_job_seconds",
            "Wall time of jobs",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._audio = Counter(
            "f5_tts_worker_audio_seconds", "Audio that was made", registry=self.registry
        )
        self._free = Gauge(
            "f5_tts_worker_free_bytes",
            "What the filesystem has free",
            ["of"],
            registry=self.registry,
        )
        if settings and settings.metrics_port:
            start_http_server(settings.metrics_port, registry=self.registry)

    def start(self, started: Started) -> None:
        """Count a start."""
        for stage in started.stages:
            self._stage.labels(stage.name).set(stage.seconds)
        for name in started.packages:
            self._package.labels(name).set(name not in started.unavailable)
        self._ready.set(started.failure is None)
        self._publish()

    def job(self, endpoint: str, outcome: str, seconds: float) -> None:
        """Count a job that ended: served, refused, failed or cancelled."""
        self._jobs.labels(endpoint, outcome).inc()
        self._seconds.labels(endpoint).observe(seconds)
        self._publish()

    def audio(self, seconds: float) -> None:
        """Count audio that was made."""
        self._audio.inc(seconds)

    def free(self) -> dict[str, int]:
        """Bytes free where the worker writes, now."""
        places = {"temp": tempfile.gettempdir()}
        if self._data is not None and self._data.exists():
            places["data"] = str(self._data)
        return {name: shutil.disk_usage(place).free for name, place in places.items()}

    def _publish(self) -> None:
        for name, free in self.free().items():
            self._free.labels(name).set(free)
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_to_textfile(str(self._file), self.registry)
        except OSError as error:
            # A full disk must not fail the job that it counts.
            say("metrics-not-written", file=str(self._file), reason=str(error))
