"""The endpoints that keep and find voices and results in the bucket."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from f5_tts_worker.jobs import DownloadInput, JobError, UploadInput
from f5_tts_worker.settings import Settings
from f5_tts_worker.speaking import text_key
from f5_tts_worker.storage import Bucket, Inline
from f5_tts_worker.synthesis import read_audio, trim_reference
from f5_tts_worker.voices import Network, fetch_voice, voice_key


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketEndpoints:
    """Everything that these endpoints are served with.

    Every one of them raises JobError where the worker has no bucket.
    """

    settings: Settings
    bucket: Bucket | None
    network: Network

    def upload(self, wanted: UploadInput) -> dict[str, object]:
        """Put a voice into the bucket, with what it says where that is stated.

        Raises:
            VoiceError: it cannot be fetched.
            VoiceUnfitError: no voice can be made of it.
            StorageError: the bucket refuses.
        """
        bucket = self._needed_bucket()
        key = f"{voice_key(wanted.voice_name)}.wav"
        with tempfile.TemporaryDirectory(dir=self.settings.voices) as place:
            file = fetch_voice(wanted.voice_file_url, Path(place), network=self.network)
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

    def list_voices(self) -> dict[str, object]:
        """Every voice of the bucket.

        Raises:
            StorageError: the bucket refuses.
        """
        rows = [
            {"name": Path(each.key).stem, "size": each.size, "modified": each.modified}
            for each in self._needed_bucket().list("voices/")
            if not each.key.endswith((".txt", "/"))
        ]
        return {"status": "completed", "voices": rows, "count": len(rows)}

    def download(self, wanted: DownloadInput) -> dict[str, object]:
        """What an earlier job left in the bucket: a link to it, or its content.

        Raises:
            JobError: that job left no such thing.
            StorageError: the bucket refuses, or the content is too long for an answer.
        """
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
        answer: dict[str, object] = {
            "status": "completed",
            "job_id": wanted.job_id,
            "format": found.key.rsplit(".", 1)[-1],
            "size": found.size,
        }
        if wanted.base64:
            inline = Inline(self.settings.inline_limit)
            return {**answer, "base64": inline.encode(bucket.get(found.key))}
        return {**answer, "url": bucket.link(found.key)}

    def _needed_bucket(self) -> Bucket:
        if self.bucket is None:
            raise JobError("endpoint: needs a bucket, and S3_BUCKET is not set on this worker")
        return self.bucket
