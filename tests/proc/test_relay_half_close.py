"""Half-close in every order, with bytes under way and bytes held, and its timeout."""

from __future__ import annotations

import hashlib
import os
import socket
import threading

import pytest
from data_plane import DataPlane, RealPort
from servers import read_all
from waiting import wait_for

from lbfast.model.state import Ended, EndedBy, EventKind


def in_thread(sock: socket.socket, data: bytes) -> threading.Thread:
    thread = threading.Thread(target=sock.sendall, args=(data,))
    thread.start()
    return thread


def read_exactly(sock: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size and (data := sock.recv(min(1 << 18, size - len(received)))):
        received += data
    return bytes(received)


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_megabyte_after_half_close(first: str) -> None:
    data = os.urandom(1 << 20)
    with RealPort() as real, DataPlane([real]) as plane:
        pair = plane.pair()
        closer, other = pair if first == "client" else reversed(pair)
        closer.sendall(b"all I say")
        closer.shutdown(socket.SHUT_WR)
        assert read_all(other) == b"all I say"
        thread = in_thread(other, data)
        assert read_exactly(closer, len(data)) == data
        thread.join()
        assert plane.connections == 1
        other.shutdown(socket.SHUT_WR)
        assert closer.recv(1) == b""
        (event,) = plane.wait_events(kind=EventKind.CLOSE)
        assert (event["ended"], event["by"]) == (Ended.CLOSE, EndedBy.CLIENT if first == "client" else EndedBy.SERVER)


def test_both_at_once() -> None:
    with RealPort() as real, DataPlane([real]) as plane:
        client, server = plane.pair()
        client.sendall(b"to the server")
        server.sendall(b"to the client")
        client.shutdown(socket.SHUT_WR)
        server.shutdown(socket.SHUT_WR)
        assert (read_all(client), read_all(server)) == (b"to the client", b"to the server")
        assert plane.wait_events(kind=EventKind.CLOSE)[0]["ended"] == Ended.CLOSE


@pytest.mark.parametrize("size", [100_000, 12_000_000])
@pytest.mark.parametrize("max_pipes", [0, 8])
def test_end_of_stream_behind_held_bytes(size: int, max_pipes: int) -> None:
    """The receiver sleeps until the relay holds bytes and the FIN is behind them: bytes first, then FIN."""
    data = os.urandom(size)
    with RealPort() as real, DataPlane([real], max_pipes=max_pipes) as plane:
        client, server = plane.pair()
        thread = in_thread(client, data)
        if size > 1_000_000:  # more than the kernel's buffers take
            wait_for(lambda: plane.total("blocks" if max_pipes == 0 else "pipes") == 1, what="bytes to be held")
            received = read_exactly(server, size - 50_000)
            thread.join()
        else:
            thread.join()
            received = b""
        client.shutdown(socket.SHUT_WR)
        received += read_all(server)
        assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
        server.sendall(b"thanks")
        server.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"thanks"
        assert plane.wait_events(kind=EventKind.CLOSE)[0]["ended"] == Ended.CLOSE


def test_half_close_timeout_runs_from_the_last_byte() -> None:
    with RealPort() as real, DataPlane([real], half_close_ms=3_000) as plane:
        client, server = plane.pair()
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        for number in range(5):  # the last tick comes after 3.2 s: later than the timeout
            threading.Event().wait(0.8 if number else 0)
            server.sendall(b"tick")
            assert client.recv(4) == b"tick"
            assert plane.connections == 1
        (event,) = plane.wait_events(timeout=20, kind=EventKind.CLOSE)
        assert (event["ended"], event["by"]) == (Ended.HALF_CLOSE, EndedBy.LBFAST)
        assert event["duration_ms"] >= 6_200
        assert client.recv(1) == b""


@pytest.mark.parametrize(
    ("setting", "ended"), [("client_idle_ms", Ended.CLIENT_IDLE), ("server_idle_ms", Ended.SERVER_IDLE)]
)
def test_idle_timeouts(setting: str, ended: Ended) -> None:
    with RealPort() as real, DataPlane([real], **{setting: 3_000}) as plane:
        client, server = plane.pair()
        for _ in range(3):
            client.sendall(b"a")
            server.sendall(server.recv(1))
            assert client.recv(1) == b"a"
        (event,) = plane.wait_events(timeout=20, kind=EventKind.CLOSE)
        assert (event["ended"], event["by"]) == (ended, EndedBy.LBFAST)
        assert event["duration_ms"] >= 3_000
        assert (client.recv(1), server.recv(1)) == (b"", b"")


def test_an_idle_end_is_no_orderly_end_while_bytes_are_held() -> None:
    """The client stops reading in mid-answer: what it gets must not look complete."""
    with RealPort() as real, DataPlane([real], client_idle_ms=3_000, half_close_ms=400) as plane:
        client, server = plane.pair()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        thread = threading.Thread(target=send_until_reset, args=(server,))
        thread.start()
        (event,) = plane.wait_events(timeout=20, kind=EventKind.CLOSE)
        thread.join()
        assert event["ended"] == Ended.CLIENT_IDLE
        with pytest.raises(ConnectionResetError):
            read_all(client)


def send_until_reset(sock: socket.socket) -> None:
    try:
        while True:
            sock.sendall(b"z" * 65_536)
    except OSError:
        return
