"""The worker's side of RunPod's loop: one handler for all endpoints, and the checks before it.

The handler only waits; what takes time runs in threads, so heartbeats, progress and cancelling go
on while a voice is made.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import runpod
from runpod.serverless.modules.rp_logger import RunPodLogger

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
from f5_tts_worker.speaking import Speaker, text_key
from f5_tts_worker.starting import Started, is_of_this_machine
from f5_tts_worker.storage import Bucket, Inline, StorageError
from f5_tts_worker.synthesis import VoiceUnfitError, Watch, read_audio, trim_reference
from f5_tts_worker.voices import Network, VoiceError, fetch_voice, voice_key

_LEAST_FREE: Final = 50_000_000
"""Bytes of temporary space without which no job can be served."""
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
    if free < _LEAST_FREE:
        raise RuntimeError(f"{free} bytes are free for temporary files, {_LEAST_FREE} are needed")


class Handler:
    """Answers jobs, whatever came of the start."""

    def __init__(self, started: Started, metrics: Metrics, network: Network) -> None:
        self._started = started
        self._metrics = metrics
        self._network = network
        settings = started.settings
        self._bucket = Bucket(settings.bucket) if settings and settings.bucket else None
        self._threads = ThreadPoolExecutor(
            max_workers=settings.concurrency if settings else 1, thread_name_prefix="job"
        )
        self._speaker = _speaker(started, self._bucket, network)

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
        failure = self._started.failure
        if failure is not None:
            raise JobError(f"this worker's start failed at {failure.stage}: {failure.message}")
        wanted = read_input(job["input"])
        if isinstance(wanted, TtsInput):
            return await self._speak(job, wanted)
        work: Callable[[], Answer]
        if isinstance(wanted, UploadInput):
            work = lambda: self._upload(wanted)  # noqa: E731  # one of three, each with its input
        elif isinstance(wanted, DownloadInput):
            work = lambda: self._download(wanted)  # noqa: E731
        else:
            work = lambda: self._list_voices(wanted)  # noqa: E731
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _speak(self, job: Mapping[str, Any], wanted: TtsInput) -> Answer:
        speaker = self._speaker
        assert speaker is not None  # noqa: S101  # there is one where the start did not fail
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

    # -- the other endpoints

    def _upload(self, wanted: UploadInput) -> Answer:
        bucket = self._needed_bucket()
        assert self._started.settings is not None  # noqa: S101
        key = f"{voice_key(wanted.voice_name)}.wav"
        with tempfile.TemporaryDirectory(dir=self._started.settings.voices) as place:
            file = fetch_voice(wanted.voice_file_url, Path(place), network=self._network)
            samples, rate = read_audio(file)
            used = trim_reference(samples, rate, "").seconds
            bucket.upload(file, key)
            size = file.stat().st_size
        if wanted.ref_text is not None:
            bucket.put(text_key(key), wanted.ref_text.encode())
        return {
            "status": "uploaded",
            "voice_name": wanted.voice_name,
            "size": size,
            "duration": round(len(samples) / rate, 3),
            "used_duration": round(used, 3),
        }

    def _list_voices(self, _: ListVoicesInput) -> Answer:
        rows = [
            {"name": Path(each.key).stem, "size": each.size, "modified": each.modified}
            for each in self._needed_bucket().list("voices/")
            if not each.key.endswith((".txt", "/"))
        ]
        return {"status": "completed", "voices": rows, "count": len(rows)}

    def _download(self, wanted: DownloadInput) -> Answer:
        bucket = self._needed_bucket()
        start = f"outputs/{wanted.job_id}/{wanted.type}."
        found = next(
            (
                each
                for each in bucket.list(start)
                if wanted.format is None or each.key == f"{start}{wanted.format}"
            ),
            None,
        )
        if found is None:
            asked = f" as {wanted.format}" if wanted.format else ""
            raise JobError(f"job_id: {wanted.job_id} left no {wanted.type}{asked}")
        ending = found.key.rsplit(".", 1)[-1]
        answer: Answer = {
            "status": "completed",
            "job_id": wanted.job_id,
            "format": ending,
            "size": found.size,
        }
        if wanted.base64:
            assert self._started.settings is not None  # noqa: S101
            inline = Inline(self._started.settings.inline_limit)
            return {**answer, "base64": inline.encode(bucket.get(found.key))}
        return {**answer, "url": bucket.link(found.key)}

    def _needed_bucket(self) -> Bucket:
        if self._bucket is None:
            raise JobError("endpoint: needs a bucket, and S3_BUCKET is not set on this worker")
        return self._bucket


_KNOWN: Final = ("tts", "upload", "list_voices", "download")


def _speaker(started: Started, bucket: Bucket | None, network: Network) -> Speaker | None:
    settings = started.settings
    if settings is None or started.synthesizer is None or started.timing is None:
        return None
    return Speaker(
        synthesizer=started.synthesizer,
        timing=started.timing,
        bucket=bucket,
        inline_limit=settings.inline_limit,
        voices=settings.voices,
        unavailable=started.unavailable,
        attention=started.attention,
        network=network,
    )
