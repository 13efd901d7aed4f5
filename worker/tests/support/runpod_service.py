"""RunPod's side of a serverless worker, on the loopback interface.

It speaks the calls that the SDK makes (read in runpod 1.12.0: rp_job, rp_http, rp_ping): job-take
and job-take-batch, job-done, job-stream, job-stop, ping.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

PATIENCE = 0.3  # seconds that a call is held open where there is nothing to say
KEY = "key-of-the-worker"

Answer = dict[str, Any]


@dataclass
class _Seen:
    """What the worker has said, and what it is still to be told. One lock guards all of it."""

    waiting: list[Answer] = field(default_factory=list)
    taken: dict[str, float] = field(default_factory=dict)
    stopping: list[str] = field(default_factory=list)
    done: dict[str, Answer] = field(default_factory=dict)
    messages: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    parts: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    pings: list[dict[str, str]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


class RunPodService:
    """A context-managed service for one worker."""

    def __init__(self) -> None:
        self._seen = _Seen()
        self._change = threading.Condition()
        self._number = 0
        self._server = _Server(self)

    def __enter__(self) -> RunPodService:
        """Start to serve."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop serving; what the worker may never do fails the test."""
        self._server.shutdown()
        self._server.server_close()
        if error is None:
            assert self._seen.faults == []

    @property
    def environment(self) -> dict[str, str]:
        """What RunPod tells a worker of itself."""
        base = f"http://127.0.0.1:{self._server.server_address[1]}"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_POD_ID": "worker1",
            "RUNPOD_AI_API_KEY": KEY,
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }

    # -- what a client does

    def submit(self, given: object) -> str:
        """Put a job into the queue and return its id."""
        with self._change:
            self._number += 1
            job = f"job-{self._number}"
            self._seen.waiting.append({"id": job, "input": given})
            self._change.notify_all()
        return job

    def cancel(self, job: str) -> None:
        """Ask for a job to be stopped."""
        with self._change:
            self._seen.stopping.append(job)
            self._change.notify_all()

    def result(self, job: str, timeout: float = 60.0) -> Answer:
        """What the job's result was, as the worker posted it."""
        self._wait(lambda: job in self._seen.done, f"{job} is done", timeout)
        return self._seen.done[job]

    def output(self, job: str, timeout: float = 60.0) -> Answer:
        """The output of a job that must have ended well."""
        answer = self.result(job, timeout)
        assert "error" not in answer, answer["error"]
        output: Answer = answer["output"]
        return output

    def error(self, job: str, timeout: float = 60.0) -> str:
        """The error of a job that must have ended with one."""
        answer = self.result(job, timeout)
        assert "error" in answer, answer
        return str(answer["error"])

    def run(self, given: object, timeout: float = 60.0) -> Answer:
        """Submit a job and return its output."""
        return self.output(self.submit(given), timeout)

    def wait_until_taken(self, job: str, timeout: float = 60.0) -> None:
        """Wait until the worker has the job."""
        self._wait(lambda: job in self._seen.taken, f"{job} is taken", timeout)

    def wait_for_progress(self, job: str, timeout: float = 60.0) -> Answer:
        """The first message about how far the job is."""
        self._wait(lambda: bool(self._seen.messages[job]), f"{job} says how far it is", timeout)
        return self._seen.messages[job][0]

    def is_done(self, job: str) -> bool:
        """Whether there is a result."""
        with self._change:
            return job in self._seen.done

    # -- what was heard

    def progress(self, job: str) -> list[Answer]:
        """Every message about how far the job is."""
        with self._change:
            return list(self._seen.messages[job])

    def parts(self, job: str) -> list[Answer]:
        """What was handed over before the job ended."""
        with self._change:
            return list(self._seen.parts[job])

    def pings(self) -> list[dict[str, str]]:
        """The heartbeats' parameters."""
        with self._change:
            return list(self._seen.pings)

    def wait_for_ping(
        self, matching: Callable[[dict[str, str]], bool], timeout: float = 30
    ) -> None:
        """Wait for a heartbeat."""
        self._wait(lambda: any(map(matching, self._seen.pings)), "such a heartbeat comes", timeout)

    @property
    def keys(self) -> set[str]:
        """Every Authorization that was sent."""
        with self._change:
            return set(self._seen.keys)

    # -- what the worker does; called by the server's threads

    def take(self, most: int) -> list[Answer]:
        """Hand out jobs; holds the call open while there is none."""
        with self._change:
            self._change.wait_for(lambda: self._seen.waiting, PATIENCE)
            jobs, self._seen.waiting = self._seen.waiting[:most], self._seen.waiting[most:]
            for job in jobs:
                self._seen.taken[job["id"]] = time.monotonic()
            self._change.notify_all()
        return jobs

    def stops(self) -> list[str]:
        """Jobs to be stopped; holds the call open while there is none."""
        with self._change:
            self._change.wait_for(lambda: self._seen.stopping, PATIENCE)
            jobs, self._seen.stopping = self._seen.stopping, []
        return jobs

    def hear(self, call: str, job: str, content: Answer) -> None:
        """Keep what was posted."""
        with self._change:
            if job in self._seen.done:
                self._seen.faults.append(f"{call} of {job} after its result: {content}")
            if call == "job-stream":
                self._seen.parts[job].append(content)
            elif content.get("status") == "IN_PROGRESS":
                self._seen.messages[job].append(content["output"])
            else:
                self._seen.done[job] = content
            self._change.notify_all()

    def ping(self, parameters: dict[str, str]) -> None:
        """Keep a heartbeat."""
        with self._change:
            self._seen.pings.append(parameters)
            self._change.notify_all()

    def authorised(self, key: str | None) -> None:
        """Keep what the worker said it was."""
        with self._change:
            self._seen.keys.add(key or "")

    def _wait(self, holds: Callable[[], bool], what: str, timeout: float) -> None:
        with self._change:
            assert self._change.wait_for(holds, timeout), f"not within {timeout} s: {what}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, service: RunPodService) -> None:
        self.service = service
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:  # the name that http.server calls
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        service = self.server.service
        service.authorised(self.headers["Authorization"])
        call = address.path.split("/")[1]
        if call == "job-take":
            self._answer(next(iter(service.take(1)), None))
        elif call == "job-take-batch":
            self._answer(service.take(int(query["batch_size"])) or None)
        elif call == "job-stop":
            stops = service.stops()
            self._answer({"jobsToStop": stops} if stops else None)
        elif call == "ping":
            service.ping(query)
            self._answer({})
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        _, call, _, job = urlsplit(self.path).path.split("/")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.service.hear(call, job, json.loads(body))
        self._answer({})

    def _answer(self, content: object | None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(HTTPStatus.NO_CONTENT if content is None else HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The test's output is for the test."""
