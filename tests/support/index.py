"""A package index on the loopback interface, real in every byte and faulty on demand.

It speaks the simple repository API as HTML (PEP 503) and JSON (PEP 691, PEP 700), offers
metadata beside its wheels (PEP 658, PEP 714) and answers range requests (RFC 9110, section 14),
so that uv, pip and our own reader of wheels run against it unchanged.
"""

import base64
import io
import re
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.message import Message
from fnmatch import fnmatchcase
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, TypeAlias, cast
from urllib.parse import quote, unquote, urlsplit

import pytest
from packaging.utils import canonicalize_name

from tests.support import simple_api
from tests.support.simple_api import Published
from tests.support.wheels import Project, write_sdist, write_wheel

UPLOADED = datetime(2020, 1, 1, tzinfo=timezone.utc)

_CHUNK = 1 << 16
_PACE = 0.05  # seconds between two writes of a slow answer
_IDLE = 60.0  # seconds after which a silent client is given up
_Socket: TypeAlias = "socket.socket | tuple[bytes, socket.socket]"  # as socketserver has it


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request as the index saw it; `status` is None while it is unanswered."""

    method: str
    path: str
    range: str | None
    status: int | None
    bytes_sent: int


class Index:
    """A context-managed index of the wheels and sdists in a directory.

    `ranges`, `suffix_ranges` (of a file's end, which are refused with 404 else), `core_metadata`
    (the `.metadata` files) and `json` may be switched at any time.
    Fault patterns are `fnmatch` patterns over the whole path, unquoted: `/simple/NAME/`,
    `/files/FILENAME` and `/files/FILENAME.metadata`. Of several that match, the last set wins.

    `bandwidth`, in bytes a second, is what all connections share; None for what the machine gives.
    """

    def __init__(
        self,
        directory: Path,
        *,
        ranges: bool = True,
        user: str | None = None,
        password: str | None = None,
        bandwidth: float | None = None,
    ) -> None:
        self.ranges = ranges
        self._line = _Line(bandwidth)
        self.suffix_ranges = True
        self.core_metadata = True
        self.json = True
        self._directory = directory
        self._credentials = None if user is None else (user, password or "")
        self._shelf: dict[str, Published] = {}
        self._log = _Log()
        self._faults = _Faults()
        self._server: _Server | None = None

    def __enter__(self) -> "Index":
        """Add what the directory holds already, and start to serve."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._directory.iterdir()):
            if path.name.endswith((".whl", ".tar.gz")):
                self.add(path)
        self._server = _Server(self._answer, self._log, self._faults, self._line)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close, and raise what went wrong in the index itself unless the test failed already."""
        self.close()
        if error is None and self._log.errors:
            raise self._log.errors[0]

    def close(self) -> None:
        """Stop serving, hang up on every client and wait for every thread. May be repeated."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    # -- what is offered

    def add(self, path: Path, uploaded: datetime = UPLOADED) -> Published:
        """Publish a wheel or sdist with the hash, size and metadata that it has now."""
        file = simple_api.published(path, uploaded)
        self._shelf = {**self._shelf, file.filename: file}  # readers keep the mapping they have
        return file

    def publish(self, *projects: Project) -> tuple[Path, ...]:
        """Write the projects' wheels into the directory and add them."""
        paths = tuple(write_wheel(project, self._directory) for project in projects)
        for path in paths:
            self.add(path)
        return paths

    def publish_sdist(self, project: Project, setup_py: str | None = None) -> Path:
        """Write the project's sdist into the directory and add it."""
        path = write_sdist(project, self._directory, setup_py)
        self.add(path)
        return path

    @property
    def published(self) -> Mapping[str, Published]:
        """All files offered, by file name."""
        return self._shelf

    @property
    def url(self) -> str:
        """The address of the simple API, without credentials."""
        return f"http://{self._authority}/simple/"

    @property
    def url_with_credentials(self) -> str:
        """The address as users write it where an index is private."""
        user, password = self._credentials or ("", "")
        return f"http://{quote(user, safe='')}:{quote(password, safe='')}@{self._authority}/simple/"

    def file_url(self, filename: str) -> str:
        """Return the address of a published file."""
        return f"http://{self._authority}{self._shelf[filename].address}"

    # -- what goes wrong

    def fail(self, pattern: str, status: int = 500, times: int | None = None) -> None:
        """Answer with this error status, so many times or for ever."""
        self._faults.arm(_Fault(pattern=pattern, kind="fail", status=status, left=times))

    def hang(self, pattern: str, times: int | None = None) -> None:
        """Take the request and say nothing until the index closes."""
        self._faults.arm(_Fault(pattern=pattern, kind="hang", left=times))

    def slow(self, pattern: str, bytes_per_second: int) -> None:
        """Send the body at this rate."""
        if bytes_per_second <= 0:
            raise ValueError("bytes_per_second must be positive; for silence there is hang()")
        self._faults.arm(_Fault(pattern=pattern, kind="slow", rate=bytes_per_second))

    def truncate(self, pattern: str, times: int | None = None) -> None:
        """Announce the whole length, send half of it and hang up."""
        self._faults.arm(_Fault(pattern=pattern, kind="truncate", left=times))

    def stall(self, pattern: str, times: int | None = None) -> None:
        """Send half of it, then nothing until the index closes."""
        self._faults.arm(_Fault(pattern=pattern, kind="stall", left=times))

    def heal(self) -> None:
        """Forget every fault set so far; a request that hangs goes on hanging."""
        self._faults.clear()

    # -- what happened

    @property
    def requests(self) -> tuple[Request, ...]:
        """Every request so far, in order of arrival."""
        return self._log.requests()

    @property
    def bytes_sent(self) -> int:
        """The bytes of all bodies sent so far; headers do not count."""
        return sum(request.bytes_sent for request in self.requests)

    def requests_for(self, name: str) -> tuple[Request, ...]:
        """Return the requests for this file, or for this project's files; not for `.metadata`."""
        return tuple(
            request
            for request in self.requests
            if (file := self._file_at(request.path)) is not None and file.belongs_to(name)
        )

    def downloaded(self, name: str) -> bool:
        """Say whether as much as all of this file, or of one of this project's, was sent."""
        sent: dict[str, int] = {}
        for request in self.requests_for(name):
            filename = request.path.removeprefix("/files/")
            sent[filename] = sent.get(filename, 0) + request.bytes_sent
        return any(count >= self._shelf[filename].size for filename, count in sent.items())

    def forget_requests(self) -> None:
        """Start the record anew."""
        self._log.clear()

    # -- answers

    @property
    def _authority(self) -> str:
        if self._server is None:
            raise RuntimeError("the index is not open: use it in a with statement")
        return f"127.0.0.1:{self._server.server_port}"

    def _answer(self, path: str, headers: Message) -> "_Answer":
        if not self._admits(headers.get("Authorization", "")):
            challenge = {"WWW-Authenticate": 'Basic realm="index"'}
            return _plain(HTTPStatus.UNAUTHORIZED, challenge)
        if path.startswith("/simple/"):
            return self._page(path.removeprefix("/simple/"), headers.get("Accept", "*/*"))
        if not self.suffix_ranges and headers.get("Range", "").startswith("bytes=-"):
            return _plain(HTTPStatus.NOT_FOUND)
        if (file := self._file_at(path)) is not None:
            return _file_answer(file.path, headers) if self.ranges else _whole(file.path)
        beside = self._file_at(path.removesuffix(".metadata"))
        if self.core_metadata and beside is not None and beside.metadata_sha256 is not None:
            return _page_answer(beside.metadata or b"", "text/plain")
        return _plain(HTTPStatus.NOT_FOUND)

    def _page(self, name: str, accept: str) -> "_Answer":
        as_json = self.json and simple_api.JSON in accept
        kind = simple_api.JSON if as_json else simple_api.HTML
        kind = kind if kind in accept else "text/html"
        shelf = self._shelf.values()
        if not name:
            root = simple_api.json_root if as_json else simple_api.html_root
            return _page_answer(root(sorted({file.project for file in shelf})), kind)
        project = canonicalize_name(name.strip("/"))
        if name != f"{project}/":
            return _plain(HTTPStatus.MOVED_PERMANENTLY, {"Location": f"/simple/{project}/"})
        files = [file for file in shelf if file.project == project]
        if not files:
            return _plain(HTTPStatus.NOT_FOUND)
        page = simple_api.json_page if as_json else simple_api.html_page
        return _page_answer(page(project, files, core_metadata=self.core_metadata), kind)

    def _admits(self, authorization: str) -> bool:
        """Say whether these are the credentials asked for, by the Basic scheme (RFC 7617)."""
        if self._credentials is None:
            return True
        expected = base64.b64encode(":".join(self._credentials).encode()).decode()
        return authorization == f"Basic {expected}"

    def _file_at(self, path: str) -> Published | None:
        return self._shelf.get(path.removeprefix("/files/")) if path.startswith("/files/") else None


# -- answers, whole and in part ------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """What to send: `length` bytes from where `body` stands."""

    body: BinaryIO
    length: int
    status: int = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


def _plain(status: int, headers: Mapping[str, str] | None = None) -> _Answer:
    text = f"{status}\n".encode()
    return _Answer(body=io.BytesIO(text), length=len(text), status=status, headers=headers or {})


def _page_answer(page: bytes, kind: str) -> _Answer:
    return _Answer(body=io.BytesIO(page), length=len(page), headers={"Content-Type": kind})


def _whole(path: Path) -> _Answer:
    headers = {"Content-Type": "application/octet-stream"}
    return _Answer(body=path.open("rb"), length=path.stat().st_size, headers=headers)


def _file_answer(path: Path, request: Message) -> _Answer:
    """Answer with the file or the single range of it asked for (RFC 9110, section 14)."""
    state = path.stat()
    size, tag = state.st_size, f'"{state.st_mtime_ns:x}-{state.st_size:x}"'
    headers = {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "ETag": tag,
    }
    asked = request.get("Range") if request.get("If-Range", tag) == tag else None
    match _asked_range(asked, size):
        case None:
            return _Answer(body=path.open("rb"), length=size, headers=headers)
        case range(start=start, stop=stop) if start < stop:
            body = path.open("rb")
            body.seek(start)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            status = HTTPStatus.PARTIAL_CONTENT
            return _Answer(body=body, length=stop - start, status=status, headers=headers)
        case _:
            headers["Content-Range"] = f"bytes */{size}"
            return _plain(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers)


def _asked_range(header: str | None, size: int) -> range | None:
    """Return the offsets asked for, empty if none exist; None asks for the whole.

    Several ranges in one header are answered with the whole, as the standard allows.
    """
    parts = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if parts is None:
        return None
    first, last = parts.groups()
    if first and last:
        return None if int(last) < int(first) else range(int(first), min(int(last) + 1, size))
    if first:
        return range(int(first), size)
    return range(max(size - int(last), 0), size) if last else None


# -- faults and the record -----------------------------------------------------------------


@dataclass(kw_only=True, slots=True)
class _Fault:
    pattern: str
    kind: Literal["fail", "hang", "slow", "truncate", "stall"]
    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    rate: int | None = None
    left: int | None = None


class _Faults:
    """The faults set, each with the number of times that it still strikes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[_Fault] = []

    def arm(self, fault: _Fault) -> None:
        with self._lock:
            self._armed.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._armed.clear()

    def strike(self, path: str) -> _Fault | None:
        """Return the fault for this request and count it."""
        with self._lock:
            for fault in reversed(self._armed):
                if fault.left != 0 and fnmatchcase(path, fault.pattern):
                    fault.left = None if fault.left is None else fault.left - 1
                    return fault
        return None


@dataclass(kw_only=True, slots=True)
class _Exchange:
    """A request under way."""

    method: str
    path: str
    range: str | None
    status: int | None = None
    bytes_sent: int = 0


class _Log:
    """What was asked of the index, and what went wrong inside it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._exchanges: list[_Exchange] = []
        self.errors: list[BaseException] = []

    def open(self, method: str, path: str, asked_range: str | None) -> _Exchange:
        exchange = _Exchange(method=method, path=path, range=asked_range)
        with self._lock:
            self._exchanges.append(exchange)
        return exchange

    def requests(self) -> tuple[Request, ...]:
        with self._lock:
            return tuple(
                Request(
                    method=exchange.method,
                    path=exchange.path,
                    range=exchange.range,
                    status=exchange.status,
                    bytes_sent=exchange.bytes_sent,
                )
                for exchange in self._exchanges
            )

    def clear(self) -> None:
        with self._lock:
            self._exchanges.clear()


# -- the server ----------------------------------------------------------------------------


def offering(*projects: Project) -> Callable[[Path], Iterator[Index]]:
    """A fixture: an index of the test's own, which it may break, with those projects."""

    @pytest.fixture
    def index(tmp_path: Path) -> Iterator[Index]:
        with Index(tmp_path / "index") as index:
            index.publish(*projects)
            yield index

    return index


class _Line:
    """What all connections share: so many bytes a second, one chunk after the other."""

    def __init__(self, bandwidth: float | None) -> None:
        self._bandwidth = bandwidth
        self._lock = threading.Lock()
        self._free = 0.0

    def carry(self, count: int) -> None:
        """Wait until that many bytes have gone through."""
        if self._bandwidth is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now) + count / self._bandwidth
            left = self._free - now
        time.sleep(left)


class _Server(ThreadingHTTPServer):
    """One thread to accept, one per connection; `stop` leaves neither thread nor socket."""

    daemon_threads = False  # daemon threads are not waited for by server_close
    request_queue_size = 128

    def __init__(
        self, answer: Callable[[str, Message], _Answer], log: _Log, faults: _Faults, line: "_Line"
    ) -> None:
        self.answer = answer
        self.log = log
        self.faults = faults
        self.line = line
        self.closing = threading.Event()
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="index")
        self._thread.start()

    def stop(self) -> None:
        """Wake who waits, hang up on who reads or writes, and join them all."""
        self.closing.set()
        self.shutdown()
        self._thread.join()
        for connection in tuple(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def server_bind(self) -> None:
        """Bind without asking the resolver for the host's name, as HTTPServer would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.socket.getsockname()[1]

    def process_request(self, request: _Socket, client_address: object) -> None:
        """Remember the connection, in the accepting thread, before its own thread starts."""
        self._open.add(cast(socket.socket, request))
        super().process_request(request, client_address)

    def shutdown_request(self, request: _Socket) -> None:
        """Close the connection."""
        super().shutdown_request(request)
        self._open.discard(cast(socket.socket, request))

    def handle_error(self, request: _Socket, client_address: object) -> None:
        """Keep what is a mistake of the index; clients come and go as they like."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, (ConnectionError, TimeoutError)):
            self.log.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with persistent connections."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: 40 ms apart with it
    timeout = _IDLE

    def do_GET(self) -> None:
        """Answer, or do what the fault for this path asks."""
        server = cast(_Server, self.server)
        path = unquote(urlsplit(self.path).path)
        exchange = server.log.open(self.command, path, self.headers.get("Range"))
        answer = server.answer(path, self.headers)
        with answer.body:
            fault = None if answer.status == HTTPStatus.UNAUTHORIZED else server.faults.strike(path)
            if fault is None:
                self._send(answer, exchange)
            elif fault.kind == "fail":
                self._send(_plain(fault.status), exchange)
            elif fault.kind == "hang":
                server.closing.wait()
                self.close_connection = True
            else:
                self._send(answer, exchange, fault)

    def do_HEAD(self) -> None:
        """Answer as to GET, without the body."""
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: `Index.requests` is the record."""

    def _send(self, answer: _Answer, exchange: _Exchange, fault: _Fault | None = None) -> None:
        server = cast(_Server, self.server)
        exchange.status = int(answer.status)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(answer.length))
        self.end_headers()
        if self.command == "HEAD":
            return
        truncated = fault is not None and fault.kind in ("truncate", "stall")
        rate = None if fault is None else fault.rate
        length = answer.length // 2 if truncated else answer.length
        for chunk in _chunks(answer.body, length, rate):
            server.line.carry(len(chunk))
            exchange.bytes_sent += len(chunk)  # before the client can see it and ask for the sum
            self.wfile.write(chunk)
            if rate is not None and server.closing.wait(len(chunk) / rate):
                truncated = True
                break
        if fault is not None and fault.kind == "stall":
            self.wfile.flush()
            server.closing.wait()
        self.close_connection = self.close_connection or truncated


def _chunks(body: BinaryIO, length: int, rate: int | None) -> Iterator[bytes]:
    size = _CHUNK if rate is None else max(1, min(_CHUNK, int(rate * _PACE)))
    while length > 0 and (chunk := body.read(min(size, length))):
        length -= len(chunk)
        yield chunk
