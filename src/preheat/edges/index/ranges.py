"""Archives on an index, read in part: HTTP range requests behind the interface of a file."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from dataclasses import dataclass

import httpx

from preheat.edges.index import transport

_TAIL_BYTES = 64 * 1024


class Ranges:
    """Opens archives that lie on an index; a context.

    Args:
        indexes: addresses that may carry credentials; they are used for their own origins only.
        timeout: seconds for each request.
    """

    def __init__(self, indexes: Iterable[str], timeout: float) -> None:
        self._credentials = transport.credentials(indexes)
        # HTTP/1.1: over HTTP/2 threads damage each other's headers (encode/httpx#3566).
        self._client = httpx.Client(transport=transport.direct(), timeout=timeout)

    def __enter__(self) -> Ranges:
        return self

    def __exit__(self, *raised: object) -> None:
        self._client.close()

    def open(self, url: str, size: int | None) -> io.RawIOBase:
        """An archive as a seekable file; its tail is asked for at once.

        Args:
            url: of the archive.
            size: bytes, where they are known.

        Raises:
            OSError: the index does not answer, or serves no ranges; each read may raise it too.
        """
        auth = self._credentials.of(url)
        return _RangeFile(_Remote(client=self._client, url=url, auth=auth), size)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Remote:
    """An archive on an index, and how to ask for parts of it."""

    client: httpx.Client
    url: str
    auth: httpx.Auth | None

    def fetch(self, wanted: str) -> tuple[int, bytes, int]:
        """A span; asked for again where the network or the server fails for a moment.

        Returns:
            Where it begins, the bytes, and how long the archive is.

        Raises:
            OSError: it cannot be had.
        """
        patience = self.client.timeout.read
        try:
            for attempt in transport.again(time.sleep, seconds=patience):
                with attempt:
                    return self._fetch_once(wanted)
        except httpx.HTTPError as error:
            raise OSError(str(error)) from error
        raise OSError("no answer")

    def _fetch_once(self, wanted: str) -> tuple[int, bytes, int]:
        with self.client.stream(
            "GET",
            self.url,
            headers={"Range": wanted, "Accept-Encoding": "identity"},
            auth=self.auth or httpx.USE_CLIENT_DEFAULT,
            follow_redirects=True,
        ) as answer:
            if answer.status_code != httpx.codes.PARTIAL_CONTENT:
                # 200 would be the whole archive: the stream is closed unread.
                answer.raise_for_status()
                raise OSError("the index does not serve ranges")
            span = answer.headers["Content-Range"].removeprefix("bytes ")
            range_, _, size = span.partition("/")
            return int(range_.split("-")[0]), answer.read(), int(size)


class _RangeFile(io.RawIOBase):
    """A remote archive as a seekable file that holds its tail and asks for the rest by range."""

    def __init__(self, remote: _Remote, size: int | None) -> None:
        self._remote = remote
        self._position = 0
        wanted = f"bytes=-{_TAIL_BYTES}"
        if size is not None:
            wanted = f"bytes={max(0, size - _TAIL_BYTES)}-{size - 1}"
        self._start, self._held, self._size = remote.fetch(wanted)

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._position + size)
        if end <= self._position:
            return b""
        if self._position < self._start or end > self._start + len(self._held):
            self._hold(self._position, end)
        begin = self._position - self._start
        chunk = self._held[begin : begin + end - self._position]
        self._position += len(chunk)
        return chunk

    def _hold(self, start: int, end: int) -> None:
        """Makes the held bytes cover that span; what lies just before the tail is joined to it."""
        if start < self._start <= end:
            _, before, _ = self._remote.fetch(f"bytes={start}-{self._start - 1}")
            self._start, self._held = start, before + self._held
        else:
            # Some way on: a local header and its data are read in small steps.
            last = min(self._size, max(end, start + _TAIL_BYTES))
            self._start, self._held, _ = self._remote.fetch(f"bytes={start}-{last - 1}")
