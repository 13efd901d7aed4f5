"""Voices by URL, from a real TLS server on this machine that plays one on the internet.

Only two things are played: what a name resolves to, and where a checked address leads.
"""

from __future__ import annotations

import io
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from f5_tts_worker.voices import (
    Limits,
    Network,
    VoiceError,
    fetch_voice,
    is_public,
    resolve,
    voice_key,
)
from worker.tests.support.certificates import Authority

PUBLIC = "93.184.215.14"
OTHER = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
QUICK = Limits(seconds=1.0)


def audio(seconds: float = 1.0, form: str = "WAV", level: float = 0.5) -> bytes:
    """A tone."""
    samples = level * np.sin(np.arange(int(16_000 * seconds)) * 0.1)
    written = io.BytesIO()
    soundfile.write(written, samples, 16_000, format=form)
    return written.getvalue()


class Internet(BaseHTTPRequestHandler):
    """Answers by path; keeps no log."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # http.server's name
        path = urlsplit(self.path)
        getattr(self, path.path.strip("/").replace("-", "_"))(parse_qs(path.query))

    def log_message(self, *_: object) -> None:
        pass

    def send(self, body: bytes, *headers: tuple[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def voice(self, query: dict[str, list[str]]) -> None:
        (form,) = query.get("form", ["WAV"])
        self.send(audio(form=form))

    def redirect(self, query: dict[str, list[str]]) -> None:
        self.send(b"", ("Location", query["to"][0]), status=302)

    def loop(self, query: dict[str, list[str]]) -> None:
        self.send(b"", ("Location", "/loop"), status=302)

    def missing(self, _: object) -> None:
        self.send(b"", status=404)

    def text(self, _: object) -> None:
        self.send(b"<html>no audio</html>" * 100, ("Content-Type", "audio/wav"))

    def short(self, _: object) -> None:
        self.send(audio(0.1))

    def long(self, _: object) -> None:
        self.send(audio(90, "FLAC", level=0.0))

    def silent(self, _: object) -> None:
        self.send(audio(level=0.0))

    def no_numbers(self, _: object) -> None:
        samples = np.full(16_000, np.nan, dtype=np.float32)
        written = io.BytesIO()
        soundfile.write(written, samples, 16_000, format="WAV", subtype="FLOAT")
        self.send(written.getvalue())

    def announced(self, _: object) -> None:
        self.send(b"", ("Content-Length", "99999999999"))
        self.close_connection = True

    def endless(self, _: object) -> None:
        self.send(b"", ("Content-Length", ""), ("Connection", "close"))
        with_errors_ignored(lambda: [self.wfile.write(bytes(100_000)) for _ in range(1000)])
        self.close_connection = True

    def broken_off(self, _: object) -> None:
        whole = audio()
        self.send(whole[:2000], ("Content-Length", str(len(whole))))
        self.close_connection = True

    def zipped(self, _: object) -> None:
        self.send(audio(), ("Content-Encoding", "gzip"))

    def slow_body(self, _: object) -> None:
        self.send(b"", ("Content-Length", "1000000"))
        with_errors_ignored(self.drip)

    def slow_header(self, _: object) -> None:
        self.send_response(200)
        self.flush_headers()
        with_errors_ignored(self.drip)

    def drip(self) -> None:
        for _ in range(100):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.05)
        self.close_connection = True


def with_errors_ignored(work: Callable[[], object]) -> None:
    with suppress(OSError):  # the client left, as it should
        work()


@dataclass
class World:
    """The server, what its names resolve to, and who was connected to."""

    port: int
    trust: ssl.SSLContext
    names: dict[str, Iterator[Sequence[str]]] = field(default_factory=dict)
    reached: list[tuple[str, int]] = field(default_factory=list)

    def names_are(self, **names: Sequence[str]) -> None:
        for name, addresses in names.items():
            self.names[f"{name}.example"] = itertools.repeat(addresses)

    @property
    def network(self) -> Network:
        return Network(resolve=self.resolve, connect=self.connect, trust=self.trust)

    def resolve(self, host: str, port: int) -> Sequence[str]:
        return next(self.names[host]) if host in self.names else resolve(host, port)

    def connect(self, address: tuple[str, int], timeout: float) -> socket.socket:
        self.reached.append(address)
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def fetch(self, url: str, into: Path, limits: Limits | None = None) -> Path:
        return fetch_voice(url, into, limits, self.network)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def world(authority: Authority) -> Iterator[World]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Internet)
    server.daemon_threads = True
    context = authority.server_context("voices.example", "other.example", "mixed.example")
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that refuse
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    found = World(port=server.server_address[1], trust=authority.client_context())
    found.names_are(voices=[PUBLIC], other=[OTHER], inside=["10.1.2.3"], wrong=[PUBLIC])
    found.names_are(mixed=[PUBLIC, "192.168.1.1"], mixed6=[PUBLIC, "::1"])
    yield found
    server.shutdown()
    server.server_close()


# -- what is fetched ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_voice_is_written_as_wav_whatever_it_came_as(
    world: World, tmp_path: Path, form: str
) -> None:
    file = world.fetch(f"https://voices.example/voice?form={form}", tmp_path)
    info = soundfile.info(file)
    assert (info.format, info.subtype, info.samplerate) == ("WAV", "PCM_16", 16_000)
    assert info.duration == pytest.approx(1.0, abs=0.1)
    assert list(tmp_path.iterdir()) == [file]


def test_the_connection_goes_to_the_address_that_was_checked(world: World, tmp_path: Path) -> None:
    # A name server that answers differently the second time is never asked a second time.
    world.names["voices.example"] = iter([[PUBLIC], ["127.0.0.1"]])
    world.fetch("https://voices.example/voice", tmp_path)
    assert world.reached == [(PUBLIC, 443)]
    assert next(world.names["voices.example"]) == ["127.0.0.1"]


def test_a_redirect_to_another_public_server_is_followed(world: World, tmp_path: Path) -> None:
    world.fetch("https://voices.example/redirect?to=https://other.example:8443/voice", tmp_path)
    assert world.reached == [(PUBLIC, 443), (OTHER, 8443)]


def test_a_redirect_within_a_server_is_resolved_and_checked_again(
    world: World, tmp_path: Path
) -> None:
    world.names["voices.example"] = iter([[PUBLIC], ["127.0.0.1"]])
    with pytest.raises(VoiceError, match="not a public server"):
        world.fetch("https://voices.example/redirect?to=/voice", tmp_path)
    assert world.reached == [(PUBLIC, 443)]


def test_the_next_address_is_tried_where_the_first_does_not_answer(
    world: World, tmp_path: Path
) -> None:
    world.names_are(voices=[OTHER, PUBLIC])

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        if address[0] == OTHER:
            raise ConnectionRefusedError
        return world.connect(address, timeout)

    network = Network(resolve=world.resolve, connect=connect, trust=world.trust)
    fetch_voice("https://voices.example/voice", tmp_path, None, network)
    assert world.reached == [(PUBLIC, 443)]


# -- what is refused ---------------------------------------------------------------------------

INSIDE = [
    *("127.0.0.1", "169.254.169.254", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1"),
    *("0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.0.8", "198.18.0.1"),  # noqa: S104
    *("[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[ff02::1]", "[::ffff:127.0.0.1]"),
    *("[::ffff:10.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[2001:db8::1]", "[::7f00:1]"),
    *("2130706433", "0x7f000001", "017700000001", "127.1", "0x7f.1", "0177.0.0.1", "localhost"),
    *("2852039166", "0xa9fea9fe", "0251.0376.0251.0376"),  # 169.254.169.254
    *("inside.example", "mixed.example", "mixed6.example"),
]


@pytest.mark.parametrize("host", INSIDE)
def test_what_is_not_public_is_never_connected_to(world: World, tmp_path: Path, host: str) -> None:
    with pytest.raises(VoiceError, match=r"not a public server|cannot be resolved"):
        world.fetch(f"https://{host}/voice", tmp_path)
    assert world.reached == []


@pytest.mark.parametrize("host", INSIDE)
def test_a_redirect_to_what_is_not_public_is_not_followed(
    world: World, tmp_path: Path, host: str
) -> None:
    with pytest.raises(VoiceError, match=r"not a public server|cannot be resolved"):
        world.fetch(f"https://voices.example/redirect?to=https://{host}/voice", tmp_path)
    assert world.reached == [(PUBLIC, 443)]


def test_decimal_and_hexadecimal_addresses_are_resolved_as_a_browser_would() -> None:
    for host in ("2130706433", "0x7f000001", "127.1", "0177.0.0.1"):
        assert resolve(host, 443) == ("127.0.0.1",)


@pytest.mark.parametrize(
    "url",
    [
        *("http://voices.example/voice", "file:///etc/passwd", "ftp://voices.example/voice"),
        *("//voices.example/voice", "voices.example", "", "https://", "https:///voice"),
        *("https://user:secret@voices.example/voice", "https://voices.example:99999/voice"),
        *("https://voices.example:0/voice", "https://voices.example/a b", "https://a\nb/"),
        *("https://voices.example\\@10.0.0.1/", "https://[::1/voice", "https://voices..example/"),
        *("https://voices.example/\u00e9", "https://voices.example/" + "a" * 5000),
    ],
)
def test_a_url_that_is_not_plain_https_is_refused(world: World, tmp_path: Path, url: str) -> None:
    with pytest.raises(VoiceError, match="URL") as refused:
        world.fetch(url, tmp_path)
    assert "secret" not in str(refused.value)
    assert world.reached == []


@pytest.mark.parametrize("to", ["http://voices.example/voice", "file:///etc/passwd"])
def test_a_redirect_away_from_https_is_not_followed(world: World, tmp_path: Path, to: str) -> None:
    with pytest.raises(VoiceError, match="https"):
        world.fetch(f"https://voices.example/redirect?to={to}", tmp_path)
    assert len(world.reached) == 1


def test_redirects_without_end_are_given_up(world: World, tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="more than 5 times"):
        world.fetch("https://voices.example/loop", tmp_path)
    assert len(world.reached) == 6


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("missing", "answered 404"),
        ("text", "cannot be decoded"),
        ("short", "shorter than 0.5 s"),
        ("silent", "silent"),
        ("no-numbers", "no numbers"),
        ("announced", "larger than 20,000,000 bytes"),
        ("endless", "larger than 20,000,000 bytes"),
        ("broken-off", "broke off after 2000 of"),
        ("zipped", "compressed"),
    ],
)
def test_what_is_no_usable_voice_is_refused_and_leaves_nothing(
    world: World, tmp_path: Path, path: str, why: str
) -> None:
    with pytest.raises(VoiceError, match=why):
        world.fetch(f"https://voices.example/{path}", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_small_file_of_a_long_silence_is_refused_by_its_length(
    world: World, tmp_path: Path
) -> None:
    with pytest.raises(VoiceError, match="longer than 60 s"):
        world.fetch("https://voices.example/long", tmp_path, Limits(longest=60))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["slow-body", "slow-header"])
def test_a_server_that_drips_is_left_at_the_time_limit(
    world: World, tmp_path: Path, path: str
) -> None:
    begin = time.monotonic()
    with pytest.raises(VoiceError, match="took more than 1 s"):
        world.fetch(f"https://voices.example/{path}", tmp_path, QUICK)
    assert time.monotonic() - begin < 3


def test_a_server_that_never_shakes_hands_is_left_at_the_time_limit(
    world: World, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        world.port = silent.getsockname()[1]
        with pytest.raises(VoiceError, match="took more than 1 s"):
            world.fetch("https://voices.example/voice", tmp_path, QUICK)


def test_a_certificate_for_another_name_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="certificate is not valid"):
        world.fetch("https://wrong.example/voice", tmp_path)


def test_a_certificate_of_an_unknown_authority_is_refused(world: World, tmp_path: Path) -> None:
    network = Network(resolve=world.resolve, connect=world.connect)
    with pytest.raises(VoiceError, match="certificate is not valid"):
        fetch_voice("https://voices.example/voice", tmp_path, None, network)


def test_no_answer_tells_an_address_of_the_inside(world: World, tmp_path: Path) -> None:
    with pytest.raises(VoiceError) as refused:
        world.fetch("https://inside.example/voice", tmp_path)
    assert "10.1.2.3" not in str(refused.value)


@pytest.mark.parametrize("address", ["8.8.8.8", PUBLIC, OTHER, "2a00:1450:4001:830::200e"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4, network="100.64.0.0/10") | st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_no_private_address_is_public_nor_mapped_into_ipv6(address: object) -> None:
    assert not is_public(str(address))
    assert not is_public(f"::ffff:{address}")


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("anna", "voices/anna"),
        ("Anna 2.wav", "voices/Anna 2.wav"),
        ("J\u00fcrgen", "voices/J\u00fcrgen"),
        ("a\u0301", "voices/\u00e1"),
        ("\u58f0_1-b", "voices/\u58f0_1-b"),
    ],
)
def test_a_plain_name_is_a_key_below_voices(name: str, key: str) -> None:
    assert voice_key(name) == key


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../secret", "a/b", "a\\b", "/etc/passwd", "a\0", "a\nb", ".hidden"),
        *("voices/../x", "%2e%2e%2fa", "a" * 101, " a", "a ", "\u2024\u2024/a", "C:\\a", "~root"),
    ],
)
def test_a_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(VoiceError, match="name"):
        voice_key(name)


@given(st.text())
def test_no_name_leaves_its_directory(name: str) -> None:
    try:
        key = voice_key(name)
    except VoiceError:
        return
    assert Path("/bucket", key).resolve().parent == Path("/bucket/voices")
