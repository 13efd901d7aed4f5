"""Google's Speech-to-Text on the loopback interface: over TLS, made of its client's own types."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.cloud import speech as api

from worker.tests.support.certificates import Authority

Hear = Callable[[Any, grpc.ServicerContext], Sequence[Any]]
"""The words that are heard in a request."""


@dataclass(kw_only=True, slots=True)
class SpeechService:
    """A service: where it is, whom its client must trust, and what it was asked so far."""

    address: str
    root: Path
    requests: list[Any] = field(default_factory=list)

    @property
    def trusted(self) -> dict[str, str]:
        """What a client is told that must trust it; gRPC reads this once in a process."""
        return {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(self.root)}


@contextmanager
def speech_service(place: Path, hear: Hear) -> Iterator[SpeechService]:
    """Serve until the test is over, with a certificate of an authority of the test's own."""
    authority = Authority.make(place)
    certificate, key = authority.issue("localhost")
    served = SpeechService(address="", root=authority.root)

    def recognize(request: Any, context: grpc.ServicerContext) -> Any:
        served.requests.append(request)
        alternative = api.SpeechRecognitionAlternative(words=hear(request, context))
        return api.RecognizeResponse(results=[{"alternatives": [alternative]}])

    handler = grpc.unary_unary_rpc_method_handler(
        recognize,
        request_deserializer=api.RecognizeRequest.deserialize,
        response_serializer=api.RecognizeResponse.serialize,
    )
    server = grpc.server(ThreadPoolExecutor(2))
    name = "google.cloud.speech.v1.Speech"
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, {"Recognize": handler})]
    )
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    served.address = f"localhost:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    try:
        yield served
    finally:
        server.stop(None).wait()


def heard_word(text: str, start: float, end: float, confidence: float) -> Any:
    """One word that was heard, to a hundredth of a second."""
    return api.WordInfo(
        word=text, start_time=_duration(start), end_time=_duration(end), confidence=confidence
    )


def evenly(texts: Sequence[str]) -> Hear:
    """Hears those words, each as long as the others, in whatever the audio is."""

    def hear(request: Any, _: grpc.ServicerContext) -> Sequence[Any]:
        seconds = len(request.audio.content) / 2 / request.config.sample_rate_hertz
        each = seconds / len(texts)
        return [
            heard_word(text, number * each, (number + 0.9) * each, 0.75)
            for number, text in enumerate(texts)
        ]

    return hear


def _duration(seconds: float) -> dict[str, int]:
    hundredths = round(seconds * 100)
    return {"seconds": hundredths // 100, "nanos": hundredths % 100 * 10**7}
