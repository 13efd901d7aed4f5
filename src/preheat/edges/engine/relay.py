"""A server on the loopback interface that resumes broken transfers.

Where the network breaks, the engine begins an archive anew. It then fetches from here instead: one
transfer for the engine, as many requests to the index as it takes. Only the archives of one
installation are served, to whoever knows an address that cannot be guessed.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import secrets
import socket
import socketserver
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, cast
from urllib.parse import quote, urlsplit

import httpx
from tenacity.nap import sleep_using_event

from preheat.edges.index import transport
from preheat.words.lock import Archive, Locked

# A transfer that got this far counts its tries anew.
_PROGRESS_BYTES = 1 << 15
_CONNECT_SECONDS = 10.0
# Threads end in that time once nobody talks to them; one that still connects ends by itself.
_JOIN_SECONDS = 2.0


class _NotHereError(Exception):
    """The relay cannot serve that archive; the engine may ask for it itself."""


class _ChangedError(Exception):
    """What the index serves now is not what was begun."""


class _ClosingError(Exception):
    """The relay is ending."""


class Relay:
    """Serves archives for the length of a ``with`` statement.

    Args:
        distributions: whose archives may be asked for.
        credentials: of the origins that want them; they never leave for another one.
        timeout: seconds for one request to an index, and for getting an archive to move again.
    """

    def __init__(
        self,
        distributions: Iterable[Locked],
        credentials: transport.Credentials,
        timeout: float,
    ) -> None:
        self.timeout = timeout
        self._credentials = credentials
        self._token = secrets.token_urlsafe(24)
        self._archives: dict[str, Archive] = {}
        for number, each in enumerate(distributions):
            if urlsplit(each.archive.url).scheme in ("http", "https"):
                path = f"/{self._token}/{number}/{quote(each.archive.filename)}"
                self._archives[path] = each.archive
        self._paths = {archive.url: path for path, archive in self._archives.items()}
        self._sockets: set[socket.socket] = set()
        self.closing = threading.Event()

    def __enter__(self) -> Relay:
        limits = httpx.Limits(max_connections=None)
        times = httpx.Timeout(self.timeout, connect=min(self.timeout, _CONNECT_SECONDS))
        self.client = httpx.Client(limits=limits, timeout=times)
        try:
            self._server = _Server(self)
        except BaseException:
            self.client.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing.set()
        self._server.stop(self._sockets)
        self.client.close()

    def relayed(self, each: Locked) -> Locked:
        """The distribution with the relay's address; as it is where there is none."""
        path = self._paths.get(each.archive.url)
        if path is None:
            return each
        url = f"http://{self._server.authority}{path}"
        return replace(each, archive=replace(each.archive, url=url))

    def unrelayed(self, text: str) -> str:
        """The text with the archives' own addresses."""
        for path, archive in self._archives.items():
            text = text.replace(f"http://{self._server.authority}{path}", archive.url)
        return text.replace(self._token, "")

    def archive(self, path: str) -> Archive | None:
        """The archive that lies there."""
        return self._archives.get(path)

    def sleep(self, seconds: float) -> None:
        """Waits that long; ends the transfer where the relay ends meanwhile."""
        sleep_using_event(self.closing)(seconds)
        if self.closing.is_set():
            raise _ClosingError

    @contextlib.contextmanager
    def ask(self, transfer: _Transfer) -> Iterator[httpx.Response]:
        """The index's answer about what is still missing."""
        url = transfer.archive.url
        auth = self._credentials.of(url) or httpx.USE_CLIENT_DEFAULT
        with self.client.stream(
            "GET",
            url,
            headers=transfer.headers(),
            auth=auth,
            follow_redirects=True,
            extensions={"trace": self._watch},
        ) as answer:
            yield answer

    def _watch(self, event: str, info: Mapping[str, Any]) -> None:
        """Keeps the sockets, since nothing else ends a read that another thread waits in."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            connection = info["return_value"].get_extra_info("socket")
            if connection is not None:
                self._sockets.add(connection)
                if self.closing.is_set():
                    _hang_up(connection)


@dataclass(kw_only=True, slots=True)
class _Transfer:
    """One archive on its way.

    Attributes:
        sent: bytes that the engine has.
        total: the archive's length, once an answer has told it.
        validator: what tells this archive from a later one at the same place (RFC 9110, 8.8).
        spliced: whether it was put together from several answers.
    """

    archive: Archive
    sent: int = 0
    total: int = -1
    validator: str = ""
    spliced: bool = False
    digest: Any = field(default_factory=hashlib.sha256)

    def headers(self) -> dict[str, str]:
        """What to ask with."""
        headers = {"Accept-Encoding": "identity"}
        if self.sent:
            headers["Range"] = f"bytes={self.sent}-"
            if self.validator:
                headers["If-Range"] = self.validator
        return headers

    def chunks(self, answer: httpx.Response) -> Iterator[bytes]:
        """The part of the answer that the engine has not got yet.

        Raises:
            httpx.HTTPError: it breaks off, or the server is busy.
            _NotHereError: the server refuses, or does not say how long the archive is.
            _ChangedError: it is about another archive than the answers before.
        """
        if transport.is_busy(answer.status_code):
            answer.raise_for_status()
        skip = self._begin(answer)
        again = hashlib.sha256()
        for got in answer.iter_raw():
            chunk = got
            if skip:
                known, chunk = chunk[:skip], chunk[skip:]
                again.update(known)
                skip -= len(known)
                if not skip and again.digest() != self.digest.digest():
                    raise _ChangedError
            if chunk:
                self.digest.update(chunk)
                yield self._checked(chunk)
        if self.sent < self.total:
            raise httpx.RemoteProtocolError("the archive ended early")

    def _begin(self, answer: httpx.Response) -> int:
        """How many bytes of the answer are known already."""
        begun = self.total >= 0
        validator = answer.headers.get("ETag", "")
        if not validator or validator.startswith("W/"):
            # A weak one does not vouch for bytes.
            validator = answer.headers.get("Last-Modified", "")
        span = f"bytes {self.sent}-{self.total - 1}/{self.total}"
        match answer.status_code:
            case HTTPStatus.OK:
                total = int(answer.headers.get("Content-Length", self.archive.size or -1))
                skip = self.sent
            case HTTPStatus.PARTIAL_CONTENT if answer.headers.get("Content-Range") == span:
                total, skip = self.total, 0
            case _:
                raise _ChangedError if begun else _NotHereError
        if total < 0 or "Content-Encoding" in answer.headers:
            raise _NotHereError
        if begun and (total, validator) != (self.total, self.validator):
            raise _ChangedError
        self.spliced = self.spliced or self.sent > 0
        self.total, self.validator = total, validator
        return skip

    def _checked(self, chunk: bytes) -> bytes:
        """The chunk; the last one of a patched archive only if all of it is what was locked."""
        last = self.sent + len(chunk) >= self.total
        if last and self.spliced and self.digest.hexdigest() != self.archive.sha256:
            raise _ChangedError
        return chunk


class _Server(ThreadingHTTPServer):
    """One thread to accept, one for each archive; after `stop` nobody has to wait for any."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self._threads: set[threading.Thread] = set()
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)
        self._accepting = threading.Thread(
            target=self.serve_forever, args=(0.05,), name="relay", daemon=True
        )
        self._accepting.start()

    @property
    def authority(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.server_port}"

    def stop(self, upstream: set[socket.socket]) -> None:
        """Hangs up on everyone."""
        self.shutdown()
        self._accepting.join()
        for connection in (*tuple(self._connections), *tuple(upstream)):
            _hang_up(connection)
        end = time.monotonic() + _JOIN_SECONDS
        for thread in tuple(self._threads):
            thread.join(max(0, end - time.monotonic()))
        socketserver.TCPServer.server_close(self)

    def server_bind(self) -> None:
        """Binds without asking the resolver for the host's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.socket.getsockname()[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serves in a thread that `stop` knows of before it begins."""
        self._connections.add(request)
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        self._threads.add(thread)
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        """The end of one transfer."""
        super().shutdown_request(request)
        self._connections.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: the engine sees that the transfer broke, and reports it."""


class _Handler(BaseHTTPRequestHandler):
    """One archive to one connection."""

    def do_GET(self) -> None:
        """The archive, whole, however often the index breaks off."""
        relay = cast(_Server, self.server).relay
        archive = relay.archive(self.path)
        if archive is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        transfer = _Transfer(archive=archive)
        try:
            while transfer.sent != transfer.total:
                self._send_more(relay, transfer)
        except (_NotHereError, httpx.HTTPError, httpx.InvalidURL) as error:
            if transfer.total < 0:
                self._refuse(error, archive)
        except (_ChangedError, _ClosingError, OSError):
            # The engine misses the rest, and discards what it got.
            return

    def _refuse(self, error: Exception, archive: Archive) -> None:
        """Before anything was sent, the engine is told what the index said, or to ask it itself."""
        if isinstance(error, httpx.HTTPStatusError):
            self._answer(HTTPStatus(error.response.status_code), {})
        elif isinstance(error, _NotHereError | httpx.ConnectError):
            # Perhaps the engine knows a way: it has a trust store and proxies of its own.
            self._answer(HTTPStatus.TEMPORARY_REDIRECT, {"Location": archive.url})
        else:
            self._answer(HTTPStatus.BAD_GATEWAY, {})

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: addresses may hold credentials."""

    def _send_more(self, relay: Relay, transfer: _Transfer) -> None:
        """Sends all that is missing, or enough of it to count the tries anew."""
        begun = transfer.sent
        if begun:
            relay.sleep(transport.FIRST_PAUSE_SECONDS * random.uniform(1, 2))  # noqa: S311  # no secret
        for attempt in transport.again(relay.sleep, seconds=relay.timeout):
            with attempt:
                try:
                    self._send_from(relay, transfer)
                except httpx.TransportError:
                    if transfer.sent - begun < _PROGRESS_BYTES:
                        raise

    def _send_from(self, relay: Relay, transfer: _Transfer) -> None:
        with relay.ask(transfer) as answer:
            waits = transfer.total < 0
            for chunk in transfer.chunks(answer):
                if waits:
                    length = {"Content-Length": str(transfer.total)}
                    # The engine is to keep it, should another archive break.
                    self._answer(HTTPStatus.OK, {**length, "Cache-Control": "max-age=86400"})
                    waits = False
                self.wfile.write(chunk)
                transfer.sent += len(chunk)

    def _answer(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not by the TLS layer's own method, which would wait for its turn.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
