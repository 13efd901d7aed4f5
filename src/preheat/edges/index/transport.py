"""How archives are asked for over HTTP: with whose credentials, and how often again."""

from __future__ import annotations

import netrc
import os
import random
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies

import httpx
from tenacity import Retrying, stop_after_attempt, stop_before_delay, wait_exponential_jitter
from tenacity.retry import retry_base, retry_if_exception

# Before the second try; doubled for each further one, with as much again by chance.
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 8.0
TRIES = 4
_BUSY = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)


_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """Who asks, told to nobody but those that it is meant for.

    Attributes:
        by_origin: from the indexes' own addresses, for their scheme, host and port.
        by_host: from netrc, which knows of hosts alone.
    """

    by_origin: Mapping[tuple[str, str, int | None], httpx.Auth] = field(default_factory=dict)
    by_host: Mapping[str, httpx.Auth] = field(default_factory=dict)

    def of(self, url: str) -> httpx.Auth | None:
        """Those for that address; None where nobody has any."""
        place = urlsplit(url)
        return self.by_origin.get(_origin(place)) or self.by_host.get(place.hostname or "")


def credentials(indexes: Iterable[str]) -> Credentials:
    """From the indexes' own addresses, and from netrc."""
    by_host: dict[str, httpx.Auth] = {}
    try:
        for host, (login, _, password) in netrc.netrc(os.environ.get("NETRC")).hosts.items():
            by_host[host] = httpx.BasicAuth(login, password or "")
    except (OSError, netrc.NetrcParseError):
        pass
    by_origin: dict[tuple[str, str, int | None], httpx.Auth] = {}
    for place in map(urlsplit, indexes):
        if place.username and place.hostname:
            by_origin[_origin(place)] = httpx.BasicAuth(
                unquote(place.username), unquote(place.password or "")
            )
    return Credentials(by_origin=by_origin, by_host=by_host)


def _origin(place: SplitResult) -> tuple[str, str, int | None]:
    """Scheme, host and port (RFC 6454)."""
    try:
        port = place.port or _PORTS.get(place.scheme)
    except ValueError:
        # A page may link to anything.
        port = None
    return place.scheme, place.hostname or "", port


class LookedUpOnce(httpx.BaseTransport):
    """Asks the name service once for each host, however many connections there are to it.

    In containers, lookups that leave in one burst get lost, and a resolver asks again after five
    seconds. Each host has connections of its own: one address may serve several.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._addresses: dict[str, list[str]] = {}
        self._transports: dict[str, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Goes to the first of the host's addresses that takes a connection."""
        host = request.url.host
        transport, addresses = self._known(host, request.url.port)
        while True:
            address = addresses[0]
            asked = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                # The Host among them is still the name.
                headers=request.headers,
                stream=request.stream,
                extensions={"sni_hostname": host, **request.extensions},
            )
            try:
                return transport.handle_request(asked)
            except httpx.ConnectError:
                with self._turn:
                    # Another thread may have found out before.
                    if addresses == [address]:
                        raise
                    if addresses[0] == address:
                        addresses.pop(0)

    def close(self) -> None:
        """Hangs up."""
        for transport in self._transports.values():
            transport.close()

    def _known(self, host: str, port: int | None) -> tuple[httpx.HTTPTransport, list[str]]:
        with self._turn:
            if host not in self._transports:
                try:
                    found = socket.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
                except OSError as error:
                    raise httpx.ConnectError(str(error)) from error
                self._addresses[host] = [str(row[4][0]) for row in found]
                self._transports[host] = httpx.HTTPTransport()
            return self._transports[host], self._addresses[host]


def direct() -> httpx.BaseTransport | None:
    """The transport for a client that asks much of one host; None behind a proxy, who looks up."""
    return None if getproxies() else LookedUpOnce()


def is_busy(status: int) -> bool:
    """Whether that status tells of the server's state, and not of the archive."""
    return status >= httpx.codes.INTERNAL_SERVER_ERROR or status in _BUSY


def is_passing(error: BaseException) -> bool:
    """Whether the same request may well succeed a moment later."""
    if isinstance(error, httpx.HTTPStatusError):
        return is_busy(error.response.status_code)
    hopeless = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
    return isinstance(error, httpx.TransportError) and not isinstance(error, hopeless)


def pause(attempt: int) -> float:
    """Seconds to wait before the next try of something large: growing, and uneven."""
    jitter = random.uniform(0, FIRST_PAUSE_SECONDS)  # noqa: S311  # no secret
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**attempt) + jitter


def again(
    sleep: Callable[[float], None],
    *,
    seconds: float | None,
    tries: int = TRIES,
    when: retry_base | None = None,
) -> Retrying:
    """Tries, with growing and uneven pauses in between; the last error is raised as it is.

    Args:
        sleep: waits that many seconds, or less where waiting has become useless.
        seconds: no try begins later than this after the first; None where nothing presses.
        tries: how many at the most.
        when: what is tried again; not stated, what `is_passing`.
    """
    stop = stop_after_attempt(tries)
    return Retrying(
        sleep=sleep,
        stop=stop if seconds is None else stop | stop_before_delay(seconds),
        wait=wait_exponential_jitter(
            multiplier=FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS, jitter=FIRST_PAUSE_SECONDS
        ),
        retry=when or retry_if_exception(is_passing),
        reraise=True,
    )
