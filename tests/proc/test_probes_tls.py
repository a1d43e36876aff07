"""TLS and HTTPS probes against real servers: every certificate, and servers that speak no TLS."""

from __future__ import annotations

import datetime
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from probe_servers import Server, answering, page, probe, serving
from waiting import TIMEOUT_SCALE

from lbfast.health.probes import server_name
from lbfast.health.spec import ProbeSpec, ProbeType


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with serving() as start:
        yield start


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("pacs.example", common_name="pacs").configure_cert(context)
    return context


def test_tls_sees_the_certificate(serve: Callable[..., Server], tls_context: ssl.SSLContext) -> None:
    ends: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        with tls_context.wrap_socket(sock, server_side=True) as tls:
            ends.append(tls.recv(10))  # b"" only after a close_notify

    server = serve(handle)
    result = probe(ProbeType.TLS, server.port)
    assert result.ok
    assert result.reason == "TLS handshake done, TLSv1.3"
    assert result.certificate is not None
    assert result.certificate.names == ("pacs.example",)
    assert server.done.acquire(timeout=10)
    assert (ends, server.errors) == ([b""], [])


def test_https_with_sni(serve: Callable[..., Server], tls_context: ssl.SSLContext, authority: trustme.CA) -> None:
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("pacs.example").configure_cert(context)
    context.sni_callback = lambda _sock, name, _context: names.append(name)
    server = serve(answering(page(b"READY"), wrap=context))
    for settings in (
        {},
        {"host": "pacs.example:8443"},
        {"host": "a.example", "sni": "b.example"},
        {"host": "10.1.2.3"},
    ):
        result = probe(ProbeType.HTTPS, server.port, expected_text="READY", **settings)
        assert (result.ok, result.reason) == (True, "HTTP 200, text found")
    assert names == [None, "pacs.example", "b.example", None]


def test_https_large_answer_in_many_records(serve: Callable[..., Server], tls_context: ssl.SSLContext) -> None:
    server = serve(answering(page(b"x" * 60_000 + b"READY"), wrap=tls_context))
    assert probe(ProbeType.HTTPS, server.port, expected_text="READY").ok


@pytest.mark.parametrize("kind", [ProbeType.TLS, ProbeType.HTTPS])
def test_server_that_speaks_no_tls(serve: Callable[..., Server], kind: ProbeType) -> None:
    server = serve(lambda sock: (sock.recv(1000), sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")))
    result = probe(kind, server.port)
    assert not result.ok
    assert 'does not speak TLS, it said "HTTP/1.1 400 Bad Request' in result.reason


def test_tls_handshake_refused(serve: Callable[..., Server]) -> None:
    server = serve(lambda sock: (sock.recv(1000), sock.sendall(b"\x15\x03\x03\x00\x02\x02\x28")))
    result = probe(ProbeType.TLS, server.port)
    assert not result.ok
    assert result.reason.startswith("TLS handshake: ")
    assert "handshake failure" in result.reason


def test_tls_closed_reset_silent(serve: Callable[..., Server]) -> None:
    closed = probe(ProbeType.TLS, serve(lambda sock: sock.recv(1000)).port)
    assert closed.reason == "TLS handshake: the server closed the connection"

    def reset(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    assert probe(ProbeType.TLS, serve(reset).port).reason == "TLS handshake: reading: Connection reset by peer"
    # Long enough for the connect: the reason names what was under way.
    timeout_ms = int(2_000 * TIMEOUT_SCALE)
    silent = probe(ProbeType.TLS, serve(lambda sock: sock.recv(1000) and sock.recv(1)).port, timeout_ms=timeout_ms)
    assert silent.reason == f"TLS handshake: no answer within {timeout_ms} ms"


def test_expired_and_self_signed_count_as_up(serve: Callable[..., Server], tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old pacs")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 5)
    certificate = (
        builder.not_valid_before(datetime.datetime(2010, 1, 1))
        .not_valid_after(datetime.datetime(2011, 1, 1))
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "old.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    result = probe(ProbeType.HTTPS, serve(answering(page(), wrap=context)).port)
    assert result.ok
    assert result.certificate is not None
    assert (result.certificate.subject, result.certificate.issuer) == ("CN=old pacs", "CN=old pacs")
    assert result.certificate.not_after == 1_293_840_000


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1 is deprecated")
def test_old_tls_versions_are_still_servers(serve: Callable[..., Server], authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1
    authority.issue_cert("old.example").configure_cert(context)
    result = probe(ProbeType.HTTPS, serve(answering(page(), wrap=context)).port)
    assert (result.ok, result.reason) == (True, "HTTP 200")


def test_server_name() -> None:
    def name(**settings: Any) -> str | None:
        return server_name(ProbeSpec(ProbeType.TLS, "10.0.0.1", 443, **settings))

    assert name() is None
    assert name(host="a.example:8443") == "a.example"
    assert name(host="[2001:db8::1]:443") is None
    assert name(host="192.0.2.4") is None
    assert name(host="a.example", sni="b.example") == "b.example"
