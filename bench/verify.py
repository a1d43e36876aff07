"""Does a peer pass on exactly what was sent?  Small and large answers, TLS, echo and upload, byte by byte."""

from __future__ import annotations

import http.client
import socket
import ssl
import zlib
from collections.abc import Callable
from pathlib import Path

from bench.origins import SMALL

TIMEOUT = 10.0


class WrongBytes(Exception):
    """What came is not what was sent."""


def get(port: int, path: str, context: ssl.SSLContext | None = None) -> bytes:
    if context is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT, context=context)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise WrongBytes(f"GET {path}: status {answer.status}, expected 200")
    return body


def trusting(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    return context


def echo(port: int, message: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock:
        sock.sendall(message)
        came = b""
        while len(came) < len(message):
            piece = sock.recv(65536)
            if not piece:
                break
            came += piece
        return came


def upload(port: int, data: bytes) -> tuple[int, int]:
    """Bytes and CRC-32 that the sink counted."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(64):
            answer += piece
    return int.from_bytes(answer[:8], "big"), int.from_bytes(answer[8:], "big")


def expect(what: str, came: object, sent: object) -> None:
    if came != sent:
        described = f"{len(came)} bytes" if isinstance(came, bytes) else repr(came)
        raise WrongBytes(f"{what}: {described} came, not what was sent")


def verify(ports: dict[str, int], files: Path, with_large: bool) -> None:
    """WrongBytes or OSError when anything is not as sent."""
    context = trusting(files / "cert.pem")
    expect("GET /s", get(ports["plain"], "/s"), SMALL.encode())
    expect("GET /s over TLS", get(ports["tls"], "/s", context), SMALL.encode())
    expect("echo", echo(ports["echo"], b"are you there?"), b"are you there?")
    one, large = (files / "1m").read_bytes(), (files / "20m").read_bytes() if with_large else b""
    expect("GET /1m", get(ports["plain"], "/1m"), one)
    expect("GET /1m over TLS", get(ports["tls"], "/1m", context), one)
    if with_large:
        expect("GET /20m", get(ports["plain"], "/20m"), large)
    data = b"C" + (large or one)
    expect(f"upload of {len(data)} bytes", upload(ports["sink"], data), (len(data), zlib.crc32(data)))


def answers(ports: dict[str, int], files: Path) -> bool:
    """Do all services lead to their servers?  (A peer may accept before its first probe has ended.)"""
    asks: tuple[Callable[[], object], ...] = (
        lambda: get(ports["plain"], "/s"),
        lambda: get(ports["tls"], "/s", trusting(files / "cert.pem")),
        lambda: expect("echo", echo(ports["echo"], b"?"), b"?"),
        lambda: expect("upload", upload(ports["sink"], b"N")[0], 1),
    )
    try:
        for ask in asks:
            ask()
    except (OSError, WrongBytes, http.client.HTTPException):
        return False
    return True
