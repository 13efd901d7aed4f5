"""A bucket, over the wire to moto's server; and answers that hold their files themselves."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from f5_tts_worker.settings import BucketSettings, Secret
from f5_tts_worker.storage import Bucket, Inline, MissingError, StorageError
from worker.tests.support.s3 import BUCKET, s3


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 with one bucket."""
    with s3() as address:
        yield address


def bucket(endpoint: str, name: str = BUCKET) -> Bucket:
    """The bucket as the worker's settings name it."""
    return Bucket(
        BucketSettings(
            name=name,
            endpoint_url=endpoint,
            region="us-east-1",
            access_key="key",
            secret_key=Secret("secret"),
        )
    )


def test_what_is_stored_is_read_by_its_link_without_a_key(endpoint: str) -> None:
    url = bucket(endpoint).put("outputs/job-1/audio.wav", b"RIFF")
    answer = requests.get(url, timeout=10)
    assert answer.content == b"RIFF"
    assert answer.headers["Content-Type"] == "audio/wav"


def test_a_link_is_good_for_an_hour(endpoint: str) -> None:
    assert "X-Amz-Expires=3600" in bucket(endpoint).link("outputs/job-1/audio.wav")


def test_a_large_file_is_stored_in_parts_and_whole(endpoint: str, tmp_path: Path) -> None:
    file = tmp_path / "voice.wav"
    file.write_bytes(bytes(range(256)) * 80_000)  # 20 MB: boto3 sends parts above 8
    bucket(endpoint).upload(file, "voices/large.wav")
    assert bucket(endpoint).get("voices/large.wav") == file.read_bytes()


def test_every_object_is_listed_with_size_and_date(endpoint: str) -> None:
    stored = bucket(endpoint)
    for number in range(3):
        stored.put(f"many/{number}.txt", b"x" * number)
    rows = list(stored.list("many/"))
    assert [(row.key, row.size) for row in rows] == [
        ("many/0.txt", 0),
        ("many/1.txt", 1),
        ("many/2.txt", 2),
    ]
    assert all(row.modified[:2] == "20" for row in rows)


def test_what_is_not_there_is_told_apart_from_other_errors(endpoint: str) -> None:
    with pytest.raises(MissingError, match=r"voices/nobody\.wav"):
        bucket(endpoint).get("voices/nobody.wav")


def test_a_bucket_that_is_not_there_is_an_error_without_the_secret(endpoint: str) -> None:
    with pytest.raises(StorageError, match="NoSuchBucket") as refused:
        bucket(endpoint, "no-such-bucket").put("a.wav", b"")
    assert "secret" not in str(refused.value)


def test_a_store_that_does_not_answer_is_an_error() -> None:
    with pytest.raises(StorageError, match="cannot store a"):
        bucket("http://127.0.0.1:9").put("a.wav", b"")


def test_a_store_that_is_busy_is_asked_again() -> None:
    with busy_store(refusals=2) as (address, asked):
        bucket(address).put("a.wav", b"RIFF")
        assert asked == [503, 503, 200]


def test_a_store_that_stays_busy_is_an_error_in_the_end() -> None:
    with busy_store(refusals=99) as (address, asked):
        with pytest.raises(StorageError, match=r"cannot store a\.wav: the bucket answers 503"):
            bucket(address).put("a.wav", b"RIFF")
        assert len(asked) == 5


@contextmanager
def busy_store(refusals: int) -> Iterator[tuple[str, list[int]]]:
    """A store that is too busy for so many requests; yields its address and its answers."""
    asked: list[int] = []

    class Busy(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(503 if len(asked) < refusals else 200)
            self.send_response(asked[-1])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def test_an_answer_holds_files_up_to_its_limit() -> None:
    inline = Inline(10)
    assert base64.b64decode(inline.encode(b"12345")) == b"12345"
    inline.encode(b"12345")
    with pytest.raises(StorageError, match="S3_BUCKET"):
        inline.encode(b"1")
