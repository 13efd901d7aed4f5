"""How archives are asked for over HTTP: with whose credentials, and how often again."""

from __future__ import annotations

import netrc
import os
import random
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

import httpx
from tenacity import Retrying, stop_after_attempt, stop_before_delay, wait_exponential_jitter
from tenacity.retry import retry_base, retry_if_exception

# Before the second try; doubled for each further one, with as much again by chance.
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 8.0
TRIES = 4
_BUSY = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)


def credentials(indexes: Iterable[str]) -> Mapping[str, httpx.Auth]:
    """Host to credentials, from the indexes' own addresses and from netrc."""
    found: dict[str, httpx.Auth] = {}
    try:
        for host, (login, _, password) in netrc.netrc(os.environ.get("NETRC")).hosts.items():
            found[host] = httpx.BasicAuth(login, password or "")
    except (OSError, netrc.NetrcParseError):
        pass
    for address in indexes:
        place = urlsplit(address)
        if place.username and place.hostname:
            found[place.hostname] = httpx.BasicAuth(
                unquote(place.username), unquote(place.password or "")
            )
    return found


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
