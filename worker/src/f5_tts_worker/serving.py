"""The worker's side of RunPod's loop: one handler for all endpoints, and the checks before it.

The handler only waits; what takes time runs in threads, so heartbeats, progress and cancelling go
on while a voice is made.
"""

from __future__ import annotations

import asyncio
import os
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import runpod
from runpod.serverless.modules.rp_logger import RunPodLogger

from f5_tts_worker.bucket_endpoints import BucketEndpoints
from f5_tts_worker.jobs import (
    DownloadInput,
    JobError,
    ListVoicesInput,
    TtsInput,
    UploadInput,
    read_input,
)
from f5_tts_worker.logs import say
from f5_tts_worker.metrics import Metrics
from f5_tts_worker.reporting import Reporter
from f5_tts_worker.speaking import Speaker
from f5_tts_worker.starting import Started, is_of_this_machine
from f5_tts_worker.storage import Bucket, StorageError
from f5_tts_worker.synthesis import VoiceUnfitError, Watch
from f5_tts_worker.voices import Network, VoiceError

_LEAST_FREE_BYTES: Final = 50_000_000
"""Temporary space without which no job can be served."""
_REFUSED: Final = (JobError, StorageError, VoiceError, VoiceUnfitError)

Answer = dict[str, object]


def serve(started: Started, network: Network | None = None) -> None:
    """Serve jobs until the platform ends this worker.

    Where the start failed: a fault of this machine ends the worker by a fitness check, so that the
    platform replaces it; any other is the answer to every job.

    Args:
        started: what came of the start.
        network: how voices' URLs are reached; by default as this machine reaches any.
    """
    _keep_answers_out_of_the_log()
    metrics = Metrics(started.settings)
    metrics.start(started)
    handler = Handler(started, metrics, network or Network())

    def this_machine_can_serve() -> None:
        check_fitness(started, metrics)

    runpod.serverless.register_fitness_check(this_machine_can_serve)
    concurrency = started.settings.concurrency if started.settings else 1
    runpod.serverless.start(
        {"handler": handler.handle, "concurrency_modifier": lambda _: concurrency}
    )


def _keep_answers_out_of_the_log() -> None:
    """The SDK logs every answer by default, its links and voices included."""
    if not os.environ.get("RUNPOD_LOG_LEVEL") and not os.environ.get("RUNPOD_DEBUG_LEVEL"):
        RunPodLogger().set_level("INFO")


def check_fitness(started: Started, metrics: Metrics) -> None:
    """Whether jobs should come to this machine.

    Raises:
        RuntimeError: another machine may do better.
    """
    if started.failure is not None and started.failure.replace:
        raise RuntimeError(f"{started.failure.stage}: {started.failure.message}")
    free = metrics.free()["temp"]
    if free < _LEAST_FREE_BYTES:
        raise RuntimeError(
            f"{free} bytes are free for temporary files, {_LEAST_FREE_BYTES} are needed"
        )


class Handler:
    """Answers jobs, whatever came of the start."""

    def __init__(self, started: Started, metrics: Metrics, network: Network) -> None:
        self._metrics = metrics
        self._endpoints = _endpoints(started, network)
        settings = started.settings
        self._threads = ThreadPoolExecutor(
            max_workers=settings.concurrency if settings else 1, thread_name_prefix="job"
        )

    async def handle(self, job: Mapping[str, Any]) -> Answer:
        """Serve one job; what goes wrong is its answer, under the key that RunPod expects."""
        begin = time.perf_counter()
        given = job.get("input")
        endpoint = given.get("endpoint", "tts") if isinstance(given, dict) else "unknown"
        endpoint = endpoint if endpoint in _KNOWN else "unknown"
        outcome = "failed"
        reason: str | None = None
        try:
            answer = await self._serve(job)
            outcome = "served"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except _REFUSED as error:
            outcome, reason = "refused", str(error)
            answer = {"error": reason}
        except Exception as error:  # noqa: BLE001  # whatever it is, the job is to be answered
            reason = f"{type(error).__name__}: {error}"
            say("job-error", job=job["id"], trace=traceback.format_exc())
            answer = {"error": reason}
            if is_of_this_machine(error):
                # A GPU that failed once fails every job after it in the same process.
                answer["refresh_worker"] = True
        finally:
            seconds = time.perf_counter() - begin
            self._metrics.job(endpoint, outcome, seconds)
            free = self._metrics.free()
            say(
                "job",
                job=job["id"],
                endpoint=endpoint,
                outcome=outcome,
                seconds=round(seconds, 3),
                reason=reason,
                free_bytes=free,
            )
        return answer

    async def _serve(self, job: Mapping[str, Any]) -> Answer:
        endpoints = self._endpoints
        if isinstance(endpoints, str):
            raise JobError(endpoints)
        work: Callable[[], Answer]
        match read_input(job["input"]):
            case TtsInput() as wanted:
                return await self._speak(job, wanted, endpoints.speaker)
            case UploadInput() as wanted:
                work = partial(endpoints.of_bucket.upload, wanted)
            case DownloadInput() as wanted:
                work = partial(endpoints.of_bucket.download, wanted)
            case ListVoicesInput():
                work = endpoints.of_bucket.list_voices
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _speak(self, job: Mapping[str, Any], wanted: TtsInput, speaker: Speaker) -> Answer:
        async with Reporter(job) as reporter:
            watch = Watch(lambda fraction: reporter.reach("speaking", fraction))

            def work() -> Answer:
                return speaker.serve(str(job["id"]), wanted, watch, reporter.hand_over)

            try:
                answer = await asyncio.get_running_loop().run_in_executor(self._threads, work)
            except asyncio.CancelledError:
                watch.cancel()
                raise
        self._metrics.audio(float(str(answer["duration"])))
        return answer


_KNOWN: Final = ("tts", "upload", "list_voices", "download")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Endpoints:
    """What serves jobs on a worker that has started."""

    speaker: Speaker
    of_bucket: BucketEndpoints


def _endpoints(started: Started, network: Network) -> _Endpoints | str:
    """What serves jobs; or why none can be served, where the start failed."""
    if started.failure is not None:
        failure = started.failure
        return f"this worker's start failed at {failure.stage}: {failure.message}"
    settings = started.settings
    if settings is None or started.synthesizer is None or started.timing is None:
        return "this worker has not started"
    bucket = Bucket(settings.bucket) if settings.bucket else None
    speaker = Speaker(
        synthesizer=started.synthesizer,
        timing=started.timing,
        bucket=bucket,
        inline_limit=settings.inline_limit,
        voices=settings.voices,
        unavailable=started.unavailable,
        attention=started.attention,
        network=network,
    )
    return _Endpoints(
        speaker=speaker,
        of_bucket=BucketEndpoints(settings=settings, bucket=bucket, network=network),
    )
