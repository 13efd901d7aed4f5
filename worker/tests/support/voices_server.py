"""A TLS server on the loopback interface that plays one on the internet, with one voice."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import soundfile

from worker.tests.support.certificates import Authority

HOST = "voices.example.org"
VOICE = f"https://{HOST}/voice.wav"
RATE = 24_000


def voice() -> bytes:
    """Three seconds of a tone that rises, as a wav file."""
    times = np.arange(3 * RATE) / RATE
    samples = 0.4 * np.sin(2 * np.pi * (120 + 40 * times) * times)
    written = io.BytesIO()
    soundfile.write(written, samples, RATE, format="WAV")
    return written.getvalue()


@contextmanager
def voices_server(place: Path) -> Iterator[dict[str, str]]:
    """Serve until the test is over; yields what `tone_worker.py` needs to reach it."""
    place.mkdir(parents=True, exist_ok=True)
    authority = Authority.make(place)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Voices)
    server.socket = authority.server_context(HOST).wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield {
            "TEST_VOICES_PORT": str(server.server_address[1]),
            "TEST_VOICES_ROOT": str(authority.root),
        }
    finally:
        server.shutdown()
        server.server_close()


class _Voices(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # the name that http.server calls
        found = self.path == "/voice.wav"
        body = voice() if found else b"<html>not here</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The test's output is for the test."""
