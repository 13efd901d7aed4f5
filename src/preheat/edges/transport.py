"""How archives are asked for over HTTP: with whose credentials, and how often again."""

from __future__ import annotations

import netrc
import os
import random
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import unquote, urlsplit

import httpx
from tenacity import Retrying, stop_after_attempt, stop_before_delay, wait_exponential_jitter
from tenacity.retry import retry_base, retry_if_exception

# Seconds: before the second try, doubled for each further one, with as much again by chance.
BASE = 0.25
LONGEST = 8.0
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


def is_busy(status: int) -> bool:
    """Whether that status says something of the server's moment, and nothing of the archive."""
    return status >= httpx.codes.INTERNAL_SERVER_ERROR or status in _BUSY


def is_passing(error: BaseException) -> bool:
    """Whether the same request may well succeed a moment later."""
    if isinstance(error, httpx.HTTPStatusError):
        return is_busy(error.response.status_code)
    hopeless = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
    return isinstance(error, httpx.TransportError) and not isinstance(error, hopeless)


def pause(attempt: int) -> float:
    """Seconds to wait before the next try of something large: growing, and uneven."""
    return min(LONGEST, BASE * 2.0**attempt) + random.uniform(0, BASE)  # noqa: S311  # no secret


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
        wait=wait_exponential_jitter(multiplier=BASE, max=LONGEST, jitter=BASE),
        retry=when or retry_if_exception(is_passing),
        reraise=True,
    )
