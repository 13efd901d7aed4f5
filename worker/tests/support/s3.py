"""An S3 on the loopback interface, spoken to over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import requests
from moto.server import ThreadedMotoServer

BUCKET = "voices-and-more"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "very-secret"}


@contextmanager
def s3() -> Iterator[str]:
    """Serve one empty bucket; yields the address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client(address).create_bucket(Bucket=BUCKET)
    try:
        yield address
    finally:
        # All servers of one process share what they hold.
        requests.post(f"{address}/moto-api/reset", timeout=10).raise_for_status()
        server.stop()


def settings(address: str) -> dict[str, str]:
    """What a worker is told of it."""
    return {
        "S3_BUCKET": BUCKET,
        "S3_ENDPOINT_URL": address,
        "AWS_REGION": "us-east-1",
        **KEYS,
    }


def client(address: str) -> Any:
    """A client of the test's own."""
    return boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
