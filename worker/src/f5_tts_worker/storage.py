"""Where voices are kept and answers are put: a bucket, or the answer itself."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from f5_tts_worker.settings import BucketSettings

LINK_SECONDS: Final = 3600
"""How long a presigned URL is good for."""

CONTENT_TYPES: Final = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "csv": "text/csv",
    "json": "application/json",
    "ass": "text/x-ssa",
}

_NOT_THERE: Final = ("NoSuchKey", "404", "NotFound")


class StorageError(Exception):
    """The bucket cannot be used, or an answer is too long to be sent without one."""


class MissingError(StorageError):
    """There is no such object."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """An object of the bucket."""

    key: str
    size: int
    """Bytes."""
    modified: str
    """ISO 8601."""


class Bucket:
    """A bucket of any S3. Transient faults are tried again with growing, uneven pauses."""

    def __init__(self, settings: BucketSettings) -> None:
        self._name = settings.name
        # boto3 is typed by a package of its own that is not worth its size here.
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=settings.endpoint_url,
            region_name=settings.region,
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key.reveal() if settings.secret_key else None,
            config=Config(
                signature_version="s3v4",
                retries={"mode": "standard", "total_max_attempts": 5},
                connect_timeout=10,
                read_timeout=60,
            ),
        )

    def put(self, key: str, content: bytes) -> str:
        """Store an object; its content type follows its ending.

        Returns:
            A URL that reads it, for an hour.

        Raises:
            StorageError: the bucket refuses or does not answer.
        """
        kind = CONTENT_TYPES.get(key.rsplit(".", 1)[-1], "application/octet-stream")
        with _telling(f"cannot store {key}"):
            self._client.put_object(Bucket=self._name, Key=key, Body=content, ContentType=kind)
        return self.link(key)

    def upload(self, file: Path, key: str) -> None:
        """Store a file, in parts where it is large.

        Raises:
            StorageError: the bucket refuses or does not answer.
        """
        kind = CONTENT_TYPES.get(key.rsplit(".", 1)[-1], "application/octet-stream")
        with _telling(f"cannot store {key}"):
            self._client.upload_file(str(file), self._name, key, ExtraArgs={"ContentType": kind})

    def get(self, key: str) -> bytes:
        """Read an object.

        Raises:
            MissingError: it is not there.
            StorageError: the bucket refuses or does not answer.
        """
        with _telling(f"cannot read {key}"):
            answer = self._client.get_object(Bucket=self._name, Key=key)
            content: bytes = answer["Body"].read()
        return content

    def list(self, prefix: str) -> Iterator[Stored]:
        """Every object whose key starts so.

        Raises:
            StorageError: the bucket refuses or does not answer.
        """
        with _telling(f"cannot list {prefix}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._name, Prefix=prefix
            )
            rows = [row for page in pages for row in page.get("Contents", ())]
        for row in rows:
            yield Stored(key=row["Key"], size=row["Size"], modified=row["LastModified"].isoformat())

    def link(self, key: str) -> str:
        """A URL that reads an object for an hour; made here, without asking anybody."""
        with _telling(f"cannot sign a link to {key}"):
            url: str = self._client.generate_presigned_url(
                "get_object",
                Params={"Bucket": self._name, "Key": key},
                ExpiresIn=LINK_SECONDS,
            )
        return url


class Inline:
    """What one answer carries itself, in base64, where there is no bucket."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0

    def encode(self, content: bytes) -> str:
        """Base64 of one more file of the answer.

        Raises:
            StorageError: together with the others it is over the limit.
        """
        self._used += len(content)
        if self._used > self._limit:
            raise StorageError(
                f"the answer holds {self._used} bytes and may hold {self._limit}, since no bucket "
                "is set: send a shorter text, ask for mp3 or ogg, or set S3_BUCKET"
            )
        return base64.b64encode(content).decode()


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """Turn what boto3 raises into an error for a job's answer, without what was sent."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _NOT_THERE:
            raise MissingError(f"{what}: it is not there") from error
        raise StorageError(f"{what}: the bucket answers {code}") from error
    except (BotoCoreError, Boto3Error) as error:
        raise StorageError(f"{what}: {type(error).__name__}") from error
