"""PROXY headers on the wire: written for the server, read from trusted senders only."""

from __future__ import annotations

import socket
import struct
import time

import pytest
from data_plane import DataPlane, RealPort
from servers import read_all

from lbfast._proxy import parse, render
from lbfast.model.state import Ended, EndedBy, EventKind

TRUST = {"accept_proxy_from": ["127.0.0.0/8", "::1/128"]}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_server_sees_the_client(version: int, address: str) -> None:
    with RealPort() as real, DataPlane([real], address=address, send_proxy=version) as plane:
        client, server = plane.pair()
        client.sendall(b"hello")
        data = b""
        while not data.endswith(b"hello"):
            data += server.recv(200)
        found = parse(data)
        assert found is not None
        assert data[found[0] :] == b"hello"
        assert found[1:] == (6 if ":" in address else 4, address, client.getsockname()[1], address, plane.port)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("piece", [1, 7, 1_000])
def test_a_header_in_pieces_and_what_follows_it(version: int, piece: int) -> None:
    header = render(version, "192.0.2.7", 4711, "198.51.100.1", 443)
    with RealPort() as real, DataPlane([real], **TRUST) as plane:
        client = plane.connect()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = header + b"first words"
        for at in range(0, len(data), piece):
            client.send(data[at : at + piece])
        client.shutdown(socket.SHUT_WR)
        assert read_all(plane.accept()) == b"first words"
        (event,) = plane.wait_events(kind=EventKind.OPEN)
        assert (event["client"], event["client_port"]) == ("192.0.2.7", 4711)
        assert plane.stick.get("192.0.2.7")["holds"] == 1
        assert plane.stick.get("127.0.0.1") is None


def test_the_named_client_is_passed_on() -> None:
    with RealPort() as real, DataPlane([real], send_proxy=1, **TRUST) as plane:
        client = plane.connect()
        client.sendall(render(2, "2001:db8::7", 4711, "2001:db8::1", 443))
        line = plane.accept().recv(107)
        assert line.startswith(b"PROXY TCP6 2001:db8:0:0:0:0:0:7 0:0:0:0:0:ffff:7f00:1 ")
        assert b" 4711 " in line


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"])
def test_a_header_that_names_nobody(header: bytes) -> None:
    with RealPort() as real, DataPlane([real], **TRUST) as plane:
        client = plane.connect("127.0.0.9")
        client.sendall(header + b"x")
        assert plane.accept().recv(5) == b"x"
        assert plane.wait_events(kind=EventKind.OPEN)[0]["client"] == "127.0.0.9"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff" + bytes(100),
    ],
)
def test_malformed_is_refused(data: bytes) -> None:
    with RealPort() as real, DataPlane([real], **TRUST) as plane:
        client = plane.connect()
        client.sendall(data)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        (event,) = plane.wait_events(kind=EventKind.REFUSE)
        assert (event["ended"], event["by"]) == (Ended.PROXY, EndedBy.CLIENT)
        assert not real.is_called()


@pytest.mark.parametrize(("data", "ended"), [(b"PROXY TCP4 1.2", Ended.PROXY), (b"", Ended.CLOSE)])
def test_cut_short_is_refused(data: bytes, ended: Ended) -> None:
    with RealPort() as real, DataPlane([real], **TRUST) as plane:
        client = plane.connect()
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert plane.wait_events(kind=EventKind.REFUSE)[0]["ended"] == ended
        assert not real.is_called()


@pytest.mark.parametrize("data", [b"", b"PROXY TCP4 192"])
def test_too_slow_is_refused(data: bytes) -> None:
    with RealPort() as real, DataPlane([real], proxy_timeout_ms=200, **TRUST) as plane:
        started = time.monotonic()
        client = plane.connect()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):  # by a test that is late, when it sends already
            client.sendall(data)
            client.recv(1)
        assert time.monotonic() - started > 0.19
        assert plane.wait_events(kind=EventKind.REFUSE)[0]["ended"] == Ended.PROXY
        assert not real.is_called()


def test_gone_before_the_header() -> None:
    with RealPort() as real, DataPlane([real], **TRUST) as plane:
        client = plane.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert plane.wait_events(kind=EventKind.REFUSE)[0]["ended"] == Ended.RESET


def test_an_untrusted_senders_header_is_just_bytes() -> None:
    header = render(1, "192.0.2.7", 4711, "198.51.100.1", 443)
    with RealPort() as real, DataPlane([real], accept_proxy_from=["127.0.0.66/32"]) as plane:
        client, server = plane.pair("127.0.0.9")
        client.sendall(header)
        assert server.recv(200) == header
        assert plane.stick.get("127.0.0.9")["holds"] == 1


def test_lists_apply_to_the_named_client() -> None:
    with RealPort() as real, DataPlane([real], deny=["192.0.2.0/24"], **TRUST) as plane:
        client = plane.connect()
        client.sendall(render(1, "192.0.2.7", 4711, "198.51.100.1", 443))
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert plane.wait_events(kind=EventKind.REFUSE)[0]["ended"] == Ended.DENIED
