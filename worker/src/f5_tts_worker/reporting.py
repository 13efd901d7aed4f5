"""Tells RunPod how far a job is, and hands over sentences as they are finished.

The SDK's own ``progress_update`` starts a thread for each message, so one may arrive after the
job's result and make it look unfinished. Here one task sends them in their order, and the result is
not given back before the last is sent.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Literal

from runpod.http_client import AsyncClientSession
from runpod.serverless.modules.rp_http import send_result, stream_result

BETWEEN: Final = 1.0
"""Seconds between two messages about how far a job is."""

_Message = tuple[Literal["progress", "part"], Mapping[str, object]]


class Reporter:
    """One job's messages. Its methods may be called from any thread; they do not wait."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._job = job
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[_Message | None] = asyncio.Queue()
        self._sender: asyncio.Task[None] | None = None
        self._next = 0.0
        # A job given on the command line has nobody to report to.
        self._heard = "RUNPOD_WEBHOOK_POST_OUTPUT" in os.environ

    async def __aenter__(self) -> Reporter:
        """Begin to send."""
        if self._heard:
            self._sender = asyncio.create_task(self._send())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Send what is left; nothing more where the job was cancelled."""
        if self._sender is None:
            return
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            self._sender.cancel()
            return
        self._messages.put_nowait(None)
        await self._sender

    def reach(self, stage: str, fraction: float) -> None:
        """Tell how far the job is; too soon after the last time, it is left out."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + BETWEEN
        self._put("progress", {"stage": stage, "percent": round(100 * fraction, 1)})

    def hand_over(self, part: Mapping[str, object]) -> None:
        """Send a part of the answer before the rest is there."""
        self._put("part", part)

    def _put(self, kind: Literal["progress", "part"], content: Mapping[str, object]) -> None:
        if self._heard:
            self._loop.call_soon_threadsafe(self._messages.put_nowait, (kind, content))

    async def _send(self) -> None:
        async with AsyncClientSession() as session:
            while (message := await self._messages.get()) is not None:
                kind, content = message
                if kind == "part":
                    await stream_result(session, {"output": content}, self._job)
                else:
                    progress = {"status": "IN_PROGRESS", "output": content}
                    await send_result(session, progress, self._job)
