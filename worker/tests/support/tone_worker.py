"""The worker with a tone in place of F5-TTS: what is tested with it is all the rest.

It takes its time, as inference does, and can be stopped in the middle; the same seed gives the same
tone. It times its words itself, since a tone has none that could be heard; unless TEST_TIMING is
"real".
"""

from __future__ import annotations

import dataclasses
import os
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from f5_tts_worker.starting import initialize_models

if TYPE_CHECKING:
    from f5_tts_worker.attention_backend import Attention
    from f5_tts_worker.settings import Settings
    from f5_tts_worker.speech import Speech
    from f5_tts_worker.synthesis import Reference, Samples, Utterance, Watch
    from f5_tts_worker.voices import Network
    from f5_tts_worker.word_alignment import Spot

RATE = 24_000
STEP = 0.01  # seconds of work
PER_BYTE = 0.06  # seconds of tone


class Tone:
    """A tone for each piece of a text."""

    sample_rate = RATE
    device = "cpu"

    def attend(self, wanted: str | None) -> Attention:
        """A tone attends to nothing."""
        from f5_tts_worker.attention_backend import Attention

        return Attention(by="torch")

    def default_reference(self) -> Reference:
        """A tone too."""
        import numpy as np

        from f5_tts_worker.synthesis import Reference

        times = np.arange(2 * RATE) / RATE
        samples = np.asarray(0.3 * np.sin(2 * np.pi * 150 * times), dtype=np.float32)
        return Reference(samples=samples, sample_rate=RATE, text="A tone. ")

    def transcribe(self, samples: Samples, sample_rate: int) -> str:
        """A tone says nothing."""
        raise LookupError(f"{len(samples) / sample_rate:.1f} s of tone say nothing")

    def speak(self, utterance: Utterance, watch: Watch) -> Iterator[Samples]:
        """Work through the steps of each piece, then hand it over."""
        import numpy as np

        from f5_tts_worker.sentences import cut

        if "explode" in utterance.text:
            raise RuntimeError("it exploded")
        if "device dies" in utterance.text:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        pieces = cut(utterance.text, 100)
        for number, piece in enumerate(pieces):
            for step in range(utterance.nfe_step):
                watch.reach((number + step / utterance.nfe_step) / len(pieces))
                time.sleep(STEP)
            seconds = PER_BYTE * len(piece.encode()) / utterance.speed
            times = np.arange(int(seconds * RATE)) / RATE
            pitch = 200 + (utterance.seed + number) % 400
            yield np.asarray(0.3 * np.sin(2 * np.pi * pitch * times), dtype=np.float32)
        watch.reach(1.0)


class Evenly:
    """Spreads the words over the tone."""

    name = "whisperx"

    def place(self, speech: Speech, texts: Sequence[str]) -> list[Spot | None]:
        """Each word gets as much as every other."""
        from f5_tts_worker.word_alignment import Spot

        each = speech.duration / len(texts)
        return [
            Spot(start=number * each, end=(number + 0.9) * each, confidence=0.5)
            for number in range(len(texts))
        ]


def load_tone(_: Settings) -> Tone:
    """What stands in for the model."""
    return Tone()


def played_internet() -> Network | None:
    """An internet whose names all lead to the test's own server, where there is one."""
    from f5_tts_worker.voices import Network

    port = os.environ.get("TEST_VOICES_PORT")
    if port is None:
        return None
    return Network(
        resolve=lambda host, port: ("93.184.215.14",),
        connect=lambda _, timeout: socket.create_connection(("127.0.0.1", int(port)), timeout),
        trust=ssl.create_default_context(cafile=os.environ["TEST_VOICES_ROOT"]),
    )


if __name__ == "__main__":
    started = initialize_models(load=load_tone)

    from f5_tts_worker.serving import serve
    from f5_tts_worker.timing import WordTiming

    if os.environ.get("TEST_TIMING") != "real":
        started = dataclasses.replace(started, timing=WordTiming([Evenly()]))
    serve(started, played_internet())
