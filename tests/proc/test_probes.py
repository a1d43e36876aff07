"""Connect and HTTP probes against real servers: friendly, wrong and hostile ones."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from probe_servers import Handler, Server, answering, head_of, page, probe, refused_port, serving
from waiting import TIMEOUT_SCALE

from lbfast.health.outcome import ProbeResult
from lbfast.health.probes import Prober
from lbfast.health.spec import ProbeSpec, ProbeType
from lbfast.health.trace import Trace


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with serving() as start:
        yield start


# connect


def test_connect_closes_politely(serve: Callable[..., Server]) -> None:
    ends: list[bytes] = []
    server = serve(lambda sock: ends.append(sock.recv(10)))
    result = probe(ProbeType.CONNECT, server.port)
    assert (result.ok, result.reason, result.certificate, result.is_local) == (True, "connected", None, False)
    assert server.done.acquire(timeout=10)
    assert ends == [b""]
    assert server.errors == []


def test_connect_over_ipv6(serve: Callable[..., Server]) -> None:
    server = serve(lambda sock: None, family=socket.AF_INET6)
    assert probe(ProbeType.CONNECT, server.port, address="::1").ok
    port = refused_port()
    assert probe(ProbeType.CONNECT, port, address="::1").reason == f"connect to [::1]:{port}: Connection refused"


def test_connect_refused() -> None:
    port = refused_port()
    result = probe(ProbeType.CONNECT, port)
    assert (result.ok, result.reason) == (False, f"connect to 127.0.0.1:{port}: Connection refused")


def test_connect_timeout() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:  # fill the accept queue: further SYNs are dropped
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        result = probe(ProbeType.CONNECT, port, timeout_ms=150)
        for sock in waiting:
            sock.close()
    assert (result.ok, result.reason) == (False, "connect: no answer within 150 ms")
    assert 140 <= result.duration_ms < 5_000


def test_source_address(serve: Callable[..., Server]) -> None:
    server = serve(lambda sock: None)
    assert probe(ProbeType.CONNECT, server.port, source_address="127.0.0.9").ok
    assert server.done.acquire(timeout=10)
    assert server.peers == ["127.0.0.9"]
    result = probe(ProbeType.CONNECT, server.port, source_address="192.0.2.77")
    assert not result.ok
    assert "source address 192.0.2.77: Cannot assign requested address (it is not an address of" in result.reason
    assert not result.is_local


def test_shortage_here_is_not_the_servers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*_args: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    async def run() -> ProbeResult:
        prober = Prober()
        monkeypatch.setattr("lbfast.health.wire.socket.socket", no_socket)
        try:
            return await prober.probe(ProbeSpec(ProbeType.CONNECT, "127.0.0.1", 1))
        finally:
            monkeypatch.undo()

    result = asyncio.run(run())
    assert result.is_local
    assert result.reason == "probe could not be made: socket: Too many open files"


def test_none_asks_nobody() -> None:
    result = probe(ProbeType.NONE, refused_port())
    assert (result.ok, result.reason) == (True, "not checked")


# http


def test_http_request_and_answer(serve: Callable[..., Server]) -> None:
    seen: list[bytes] = []
    server = serve(answering(page(), seen))
    result = probe(ProbeType.HTTP, server.port, path="/health?full=1", host="pacs.example:8080")
    assert (result.ok, result.reason) == (True, "HTTP 200")
    assert server.done.acquire(timeout=10)
    assert server.errors == []
    lines = seen[0].split(b"\r\n")
    assert lines[0] == b"GET /health?full=1 HTTP/1.1"
    assert b"Host: pacs.example:8080" in lines
    assert b"Connection: close" in lines
    assert b"Accept-Encoding: identity" in lines


def test_http_head_has_no_body(serve: Callable[..., Server]) -> None:
    seen: list[bytes] = []
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    server = serve(answering(raw, seen))
    assert probe(ProbeType.HTTP, server.port, method="HEAD").ok
    assert seen[0].startswith(b"HEAD / HTTP/1.1\r\nHost: 127.0.0.1\r\n")


@pytest.mark.parametrize(
    ("status", "expected", "reason"),
    [
        ("204 No Content", {200, 204}, "HTTP 204"),
        ("401 Unauthorized", {401}, "HTTP 401"),
        ("302 Found", {302}, "HTTP 302"),
        ("503 Sorry", {200}, "!HTTP 503 Sorry, expected 200"),
        ("404 Not Found", set(range(200, 300)) | {401}, "!HTTP 404 Not Found, expected 200-299,401"),
        ("302 Found", {200}, "!HTTP 302 redirects to nowhere (no Location), expected 200"),
    ],
)
def test_http_status(serve: Callable[..., Server], status: str, expected: set[int], reason: str) -> None:
    server = serve(answering(f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode()))
    result = probe(ProbeType.HTTP, server.port, expected_status=frozenset(expected))
    assert (result.ok, result.reason) == (not reason.startswith("!"), reason.lstrip("!"))


def test_redirect_names_its_target_and_is_not_followed(serve: Callable[..., Server]) -> None:
    server = serve(answering(page(b"", "302 Found", "Location: https://pacs.example/login?\x07next=/")))
    result = probe(ProbeType.HTTP, server.port)
    assert not result.ok
    assert "\x07" not in result.reason
    server = serve(answering(page(b"", "302 Found", "Location: https://pacs.example/login?next=/")))
    result = probe(ProbeType.HTTP, server.port)
    assert result.reason == "HTTP 302 redirects to https://pacs.example/login?next=/, expected 200-299"
    assert len(server.peers) == 1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"expected_text": "READY"}, "HTTP 200, text found"),
        ({"expected_text": "READy"}, "!HTTP: text 'READy' not found in 21 characters"),
        ({"expected_regex": re.compile(r"queue=\d+$")}, "HTTP 200, text found"),
        ({"expected_regex": re.compile(r"^queue")}, "!HTTP: regex '^queue' not found in 21 characters"),
    ],
)
@pytest.mark.parametrize("coding", ["plain", "chunked", "gzip", "deflate", "until close"])
def test_http_text(serve: Callable[..., Server], settings: dict[str, Any], reason: str, coding: str) -> None:
    body = b"state: READY queue=17"
    packer = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
    packed = packer.compress(body) + packer.flush()
    raw = {
        "plain": page(body),
        "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n%s\r\n10\r\n%s\r\n0\r\n\r\n"
        % (body[:5], body[5:]),
        "gzip": page(packed, "200 OK", "Content-Encoding: gzip"),
        "deflate": page(packed, "200 OK", "Content-Encoding: deflate"),
        "until close": b"HTTP/1.0 200 OK\r\n\r\n" + body,
    }[coding]
    result = probe(ProbeType.HTTP, serve(answering(raw)).port, **settings)
    assert (result.ok, result.reason) == (not reason.startswith("!"), reason.lstrip("!"))


def test_gzip_bomb_and_foreign_encodings(serve: Callable[..., Server]) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(bytes(50_000_000)) + packer.flush()
    result = probe(
        ProbeType.HTTP, serve(answering(page(bomb, "200 OK", "Content-Encoding: gzip"))).port, expected_text="x"
    )
    assert "not found" in result.reason
    for encoding, reason in (("br", 'encoding "br" although identity'), ("gzip", "does not decompress")):
        server = serve(answering(page(b"nonsense", "200 OK", f"Content-Encoding: {encoding}")))
        result = probe(ProbeType.HTTP, server.port, expected_text="x")
        assert not result.ok
        assert reason in result.reason


def flood(head: bytes, piece: bytes, pause_s: float = 0) -> Handler:
    """``head``, then ``piece`` without end, until the probe has had enough."""

    def handle(sock: socket.socket) -> None:
        head_of(sock)
        sock.sendall(head)
        gone = threading.Event()
        while True:
            sock.sendall(piece)
            if pause_s:
                gone.wait(pause_s)

    return handle


@pytest.mark.parametrize(
    ("head", "piece", "settings", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Pad: " + b"x" * 1_000 + b"\r\n", {}, "headers do not end within 32768 bytes"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 4_096, {}, "headers do not end within 32768 bytes"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, {}, "headers do not end within 32768 bytes"),
        (b"", b"y" * 1_000, {}, 'does not speak HTTP/1, it said "yyyy'),
        (b"HTTP/1.0 200 OK\r\n\r\n", b"z" * 4_096, {"expected_text": "READY"}, "not found in the first 65536 bytes"),
    ],
)
def test_endless_answers(
    serve: Callable[..., Server], head: bytes, piece: bytes, settings: dict[str, Any], reason: str
) -> None:
    result = probe(ProbeType.HTTP, serve(flood(head, piece)).port, **settings)
    assert not result.ok
    assert reason in result.reason


def test_endless_body_does_not_matter_when_only_the_status_is_asked(serve: Callable[..., Server]) -> None:
    for pause_s in (0, 0.02):
        result = probe(ProbeType.HTTP, serve(flood(b"HTTP/1.0 200 OK\r\n\r\n", b"z" * 100, pause_s)).port)
        assert (result.ok, result.reason) == (True, "HTTP 200")
        assert result.duration_ms < 4_000 * TIMEOUT_SCALE


def test_slow_bytes_end_at_the_timeout(serve: Callable[..., Server]) -> None:
    server = serve(flood(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.02))
    timeout_ms = int(2_000 * TIMEOUT_SCALE)  # long enough for the connect: the reason names what was under way
    result = probe(ProbeType.HTTP, server.port, timeout_ms=timeout_ms)
    assert (result.ok, result.reason) == (False, f"HTTP GET /: no answer within {timeout_ms} ms")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "HTTP: the server closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 'the server does not speak HTTP/1, it said "SSH-2.0-OpenSSH_9.2'),
        (b"HTTP/1.1 OK\r\n\r\n", "HTTP: bad answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "HTTP: bad answer"),
        (b"HTTP/1.1 200 OK\r\nX: half", "HTTP: bad answer"),
    ],
)
def test_wrong_answers(serve: Callable[..., Server], raw: bytes, reason: str) -> None:
    result = probe(ProbeType.HTTP, serve(answering(raw)).port)
    assert not result.ok
    assert reason in result.reason
    assert result.reason.isprintable()


def test_body_that_breaks_off(serve: Callable[..., Server]) -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nREADY"
    result = probe(ProbeType.HTTP, serve(answering(raw)).port, expected_text="READY")
    assert "HTTP: the body breaks off after 5 bytes" in result.reason


def test_reset_in_the_answer(serve: Callable[..., Server]) -> None:
    def handle(sock: socket.socket) -> None:
        head_of(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    result = probe(ProbeType.HTTP, serve(handle).port)
    assert (result.ok, result.reason) == (False, "reading: Connection reset by peer")


def test_regex_that_never_ends(serve: Callable[..., Server]) -> None:
    server = serve(answering(page(b"a" * 5_000)))
    started, alarm = time.monotonic(), signal.getsignal(signal.SIGALRM)
    result = probe(ProbeType.HTTP, server.port, expected_regex=re.compile(r"(a+)+$b"))
    assert result.reason == "HTTP: regex '(a+)+$b' is too slow on this page, simplify it"
    assert time.monotonic() - started < 5 * TIMEOUT_SCALE
    assert signal.getsignal(signal.SIGALRM) is alarm


# step by step


def steps_of(kind: ProbeType, port: int, **settings: Any) -> list[tuple[str, bool, str]]:
    trace = Trace()
    spec = ProbeSpec(type=kind, port=port, address="127.0.0.1", timeout_ms=int(5_000 * TIMEOUT_SCALE), **settings)
    asyncio.run(Prober().probe(spec, trace))
    times = [step.at_ms for step in trace.steps]
    assert times == sorted(times)
    return [(str(step.phase), step.ok, step.seen) for step in trace.steps]


def test_a_trace_tells_each_step(serve: Callable[..., Server]) -> None:
    port = serve(answering(page(b"all is well", "200 Fine", "Content-Type: text/plain"))).port
    assert steps_of(ProbeType.HTTP, port, path="/up", expected_text="well") == [
        ("connect", True, f"connected to 127.0.0.1:{port}"),
        ("request", True, "GET /up sent, Host 127.0.0.1"),
        ("status", True, "HTTP/1.1 200 Fine, Content-Type text/plain"),
        ("status", True, "status 200 is one of 200-299"),
        ("body", True, "11 bytes read"),
        ("body", True, "text found"),
    ]


def test_the_last_step_of_a_trace_is_what_failed(serve: Callable[..., Server]) -> None:
    missing = serve(answering(page(b"", "404 Not Found"))).port
    assert steps_of(ProbeType.HTTP, missing)[-2:] == [
        ("status", True, "HTTP/1.1 404 Not Found"),
        ("status", False, "HTTP 404 Not Found, expected 200-299"),
    ]
    plain = serve(answering(page(b"nothing"))).port
    assert steps_of(ProbeType.HTTP, plain, expected_text="well")[-1] == (
        ("body", False, "HTTP: text 'well' not found in 7 characters")
    )
    port = refused_port()
    refusal = f"connect to 127.0.0.1:{port}: Connection refused"
    assert steps_of(ProbeType.HTTPS, port) == [("connect", False, refusal)]
