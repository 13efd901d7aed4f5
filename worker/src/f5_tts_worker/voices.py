"""Voices from callers' URLs. Whoever names a URL must not reach what only this machine can reach.

Every address that a name has must be public; the connection goes to an address that was checked,
not to the name once more, so that no second answer of its name server counts; TLS is verified
against the name. Each redirect begins anew. What arrives is limited while it arrives, decoded as
audio, and written again as WAV, so that nothing the server sent is used for anything else. Proxies
of the environment are not used: they would resolve the name themselves.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

import certifi
import numpy as np
import soundfile

_REDIRECTS = (301, 302, 303, 307, 308)
_BLOCK = 65_536
_LONGEST_URL = 4_096  # letters; presigned ones have about a thousand
_LONGEST_NAME = 100
_IN_NAMES = " ._-"
_INAUDIBLE = 1e-4  # of full scale: -80 dB
_MOST_CHANNELS = 8
_RATES = range(8_000, 192_001)

# IANA's registries of special-purpose addresses (2025), since what `is_global` says differs between
# Python's releases. Of IPv6 only global unicast is public; what carries IPv4 inside is not.
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
            *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24"),
            *("192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24"),
            *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
            *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
        ),
    )
)


class VoiceError(ValueError):
    """A voice cannot be used; the message says why, and no address of the inside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a voice may cost."""

    bytes: int = 20_000_000
    """Of the file as it is sent."""
    seconds: float = 30.0
    """For everything between the first connection and the last byte; name servers come on top."""
    redirects: int = 5
    shortest: float = 0.5
    """Seconds of audio."""
    longest: float = 600.0
    """Seconds of audio, however small the file is."""


def resolve(host: str, port: int) -> Sequence[str]:
    """Ask this machine's resolver for every address of a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(each[4][0]) for each in found))


def connect(address: tuple[str, int], timeout: float) -> socket.socket:
    """Open a connection to an address."""
    return socket.create_connection(address, timeout)


@cache
def _trust() -> ssl.SSLContext:
    """The machine's authorities, and Mozilla's, for images that have none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """How names become addresses, addresses connections, and connections trusted."""

    resolve: Callable[[str, int], Sequence[str]] = resolve
    connect: Callable[[tuple[str, int], float], socket.socket] = connect
    trust: ssl.SSLContext = field(default_factory=_trust)


def voice_key(name: str) -> str:
    """Return the key of a voice, in any bucket or directory: `voices/` and its name.

    Raises:
        VoiceError: the name is empty, too long, or holds what could lead elsewhere.
    """
    plain = unicodedata.normalize("NFC", name)
    if not 0 < len(plain) <= _LONGEST_NAME:
        raise VoiceError(f"a voice's name has 1 to {_LONGEST_NAME} letters")
    if not all(letter.isalnum() or letter in _IN_NAMES for letter in plain):
        raise VoiceError(f"the voice's name {name!r} may hold letters, digits, blanks and . _ -")
    if not plain[0].isalnum() or plain != plain.strip():
        raise VoiceError(f"the voice's name {name!r} must begin with a letter or a digit")
    return f"voices/{plain}"


def fetch_voice(
    url: str, into: Path, limits: Limits | None = None, network: Network | None = None
) -> Path:
    """Fetch a voice and return a WAV file of it, 16 bit, below the directory `into`.

    Raises:
        VoiceError: the URL is not allowed, the server does not deliver, or a limit is passed.
        OSError: the file cannot be written.
    """
    limits, network = limits or Limits(), network or Network()
    raw = into / "voice.download"
    wav = into / "voice.wav"
    try:
        _download(url, raw, limits, network)
        _decode(raw, wav, limits)
    except BaseException:
        wav.unlink(missing_ok=True)
        raise
    finally:
        raw.unlink(missing_ok=True)
    return wav


def is_public(address: str) -> bool:
    """Whether an address is reached over the internet by everybody."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # with a scope ("fe80::1%eth0"), it is a local one
        return False
    if parsed.version == 6 and parsed not in _GLOBAL_UNICAST:
        return False  # also IPv4-mapped, IPv4-compatible and NAT64 ones
    return parsed.is_global and not any(
        parsed in network for network in _SPECIAL if network.version == parsed.version
    )


def _download(url: str, raw: Path, limits: Limits, network: Network) -> None:
    deadline = time.monotonic() + limits.seconds
    for _ in range(limits.redirects + 1):
        parts = _checked(url)
        hop = _Hop(parts, _addresses(parts, network), network, deadline)
        try:
            location = hop.run(raw, limits.bytes)
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() >= deadline:
                raise VoiceError(f"{hop.host} took more than {limits.seconds:g} s") from error
            raise VoiceError(f"{hop.host} cannot be read from: {_kind(error)}") from error
        if location is None:
            return
        url = urljoin(url, location)
    raise VoiceError(f"the voice's URL is redirected more than {limits.redirects} times")


def _checked(url: str) -> SplitResult:
    """Split a URL that may be asked."""
    if len(url) > _LONGEST_URL or not url.isprintable() or " " in url or "\\" in url:
        raise VoiceError("the voice's URL is too long, or has characters that no URL has")
    try:
        parts = urlsplit(url)
        port, host = parts.port, (parts.hostname or "").encode("idna").decode()
    except ValueError as error:  # UnicodeError is one
        raise VoiceError(f"the voice's URL cannot be read: {error}") from error
    if parts.scheme != "https":
        raise VoiceError(f"a voice's URL must begin with https:// (also after redirects): {host}")
    if not host or port == 0:
        raise VoiceError("the voice's URL names no server")
    if parts.username is not None or parts.password is not None:
        raise VoiceError("a voice's URL must not hold a user name or password")
    if not url.isascii():
        raise VoiceError("a voice's URL must be encoded: no letters beyond ASCII")
    return parts


def _addresses(parts: SplitResult, network: Network) -> Sequence[str]:
    """Every address of the URL's host, each of them public."""
    host, port = str(parts.hostname), parts.port or http.client.HTTPS_PORT
    try:
        addresses = network.resolve(host, port)
    except (OSError, UnicodeError) as error:
        raise VoiceError(f"the name {host} cannot be resolved") from error
    if not addresses or not all(is_public(address) for address in addresses):
        raise VoiceError(f"{host} is not a public server, or not only")
    return addresses


class _Hop(http.client.HTTPSConnection):
    """One request, to an address that was checked, which ends at the deadline come what may."""

    def __init__(
        self, parts: SplitResult, addresses: Sequence[str], network: Network, deadline: float
    ) -> None:
        host, port = str(parts.hostname), parts.port or http.client.HTTPS_PORT
        super().__init__(host, port, context=network.trust)
        path = parts.path or "/"
        self._target = f"{path}?{parts.query}" if parts.query else path
        self._addresses = addresses
        self._network = network
        self._deadline = deadline

    def connect(self) -> None:
        """Connect to the first address that answers, and verify the name."""
        for last, address in enumerate(self._addresses, 1 - len(self._addresses)):
            try:
                plain = self._network.connect((address, self.port), self._left())
                break
            except OSError:
                if last == 0:
                    raise
        # Shaking hands after the socket is known, so that the deadline can end that too.
        self.sock = self._network.trust.wrap_socket(
            plain, server_hostname=self.host, do_handshake_on_connect=False
        )
        self.sock.do_handshake()

    def run(self, raw: Path, most: int) -> str | None:
        """Write the answer's body to a file, or return where it is redirected to.

        Raises:
            VoiceError: the answer is no file, or too large a one.
            OSError: the connection fails, or the deadline passes.
            http.client.HTTPException: the answer is not HTTP.
        """
        watch = threading.Timer(self._left(), self._abort)
        watch.daemon = True
        watch.start()
        try:
            self.request("GET", self._target, headers={"Accept": "audio/*", "User-Agent": "f5-tts"})
            answer = self.getresponse()
            self._left()  # what the deadline cut off looks like the end of the headers
            location = answer.getheader("Location")
            if answer.status in _REDIRECTS and location:
                return location
            self._check(answer, most)
            self._save(answer, raw, most)
        finally:
            watch.cancel()
            self.close()
        return None

    def _check(self, answer: http.client.HTTPResponse, most: int) -> None:
        if answer.status != http.client.OK:
            raise VoiceError(f"{self.host} answered {answer.status} instead of a voice")
        if answer.getheader("Content-Encoding", "identity") != "identity":
            raise VoiceError(f"{self.host} sent a compressed answer, which was not asked for")
        if (answer.length or 0) > most:
            raise VoiceError(_too_large(most))

    def _save(self, answer: http.client.HTTPResponse, raw: Path, most: int) -> None:
        """Write what arrives, as long as it is allowed; what the server announced is no matter."""
        stated, arrived = answer.length, 0
        with raw.open("wb") as file:
            while block := answer.read1(_BLOCK):
                arrived += len(block)
                if arrived > most:
                    raise VoiceError(_too_large(most))
                file.write(block)
        self._left()  # and of the body
        if stated is not None and arrived < stated:
            raise VoiceError(f"{self.host} broke off after {arrived} of {stated} bytes")

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _abort(self) -> None:
        """End whatever waits for the server, in the middle of a handshake or of a header too."""
        sock = self.sock
        if sock is not None:
            with suppress(OSError):
                # TLS's own shutdown would change the state that the other thread reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _kind(error: Exception) -> str:
    """What went wrong, without addresses."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid for it ({error.verify_message})"
    return type(error).__name__


def _too_large(most: int) -> str:
    return f"the voice is larger than {most:,} bytes"


def _decode(raw: Path, wav: Path, limits: Limits) -> None:
    """Read a file as audio, whole, and write what was heard as WAV."""
    try:
        with soundfile.SoundFile(raw) as source:
            _check_form(source)
            frames, peak = _copy(source, wav, limits)
    except soundfile.LibsndfileError as error:
        raise VoiceError(
            "the voice cannot be decoded as audio; send wav, flac, ogg or mp3"
        ) from error
    if frames / source.samplerate < limits.shortest:
        raise VoiceError(f"the voice is shorter than {limits.shortest:g} s")
    if peak < _INAUDIBLE:
        raise VoiceError("the voice is silent")


def _check_form(source: soundfile.SoundFile) -> None:
    if not 1 <= source.channels <= _MOST_CHANNELS:
        raise VoiceError(f"the voice has {source.channels} channels, more than {_MOST_CHANNELS}")
    if source.samplerate not in _RATES:
        raise VoiceError(f"the voice has {source.samplerate} samples a second: 8,000 to 192,000")


def _copy(source: soundfile.SoundFile, wav: Path, limits: Limits) -> tuple[int, float]:
    """Decode block by block, since headers lie about the length; return frames and the peak."""
    most = limits.longest * source.samplerate
    frames, peak = 0, 0.0
    form = {"samplerate": source.samplerate, "channels": source.channels}
    with soundfile.SoundFile(wav, "w", format="WAV", subtype="PCM_16", **form) as target:
        while len(block := source.read(_BLOCK, dtype="float32", always_2d=True)):
            frames += len(block)
            if frames > most:
                raise VoiceError(f"the voice is longer than {limits.longest:g} s")
            if not np.isfinite(block).all():
                raise VoiceError("the voice holds samples that are no numbers")
            peak = max(peak, float(np.abs(block).max()))
            target.write(np.clip(block, -1.0, 1.0))
    return frames, peak
