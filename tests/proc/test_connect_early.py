"""Clients that go, or half-close, while their real server is still being connected."""

from __future__ import annotations

import errno
import os
import signal
import socket

import pytest
from data_plane import BlackHole, DataPlane, RealPort
from servers import read_all, reset
from waiting import freeze, wait_for

from lbfast.model.state import Ended, EndedBy, EventKind, Phase


@pytest.mark.parametrize(("leave", "ended"), [(reset, Ended.RESET), (socket.socket.close, Ended.CLOSE)])
def test_gone_while_connecting(leave, ended: Ended) -> None:  # type: ignore[no-untyped-def]
    """The server side is closed and the reservation released at once, not at the connect timeout."""
    with BlackHole() as hole, DataPlane([hole], connect_timeout_ms=60_000) as plane:
        client = plane.connect("127.0.0.9")
        wait_for(lambda: plane.real_connections() == [1])
        assert plane.stick.get("127.0.0.9")["state"] == "pending"
        leave(client)
        (event,) = plane.wait_events(kind=EventKind.REFUSE)
        assert (event["ended"], event["by"]) == (ended, EndedBy.CLIENT)
        assert event["duration_ms"] < 30_000
        assert plane.real_connections() == [0]
        assert plane.stick.get("127.0.0.9") is None
        client_side, server_side = plane.borrow()
        assert client_side + server_side == []


def test_said_something_and_half_closed_while_connecting() -> None:
    """A client that sends its request and FIN at once is not gone: it waits for the answer."""
    with RealPort() as real, DataPlane([real]) as plane:
        freeze(plane.pids[0])  # so that FIN is there before the connect ends
        client = plane.connect()
        client.sendall(b"request")
        client.shutdown(socket.SHUT_WR)
        os.kill(plane.pids[0], signal.SIGCONT)
        server = plane.accept()
        assert read_all(server) == b"request"
        server.sendall(b"answer")
        server.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"answer"


def test_half_closed_with_bytes_while_a_connect_hangs() -> None:
    with BlackHole() as hole, DataPlane([hole], connect_timeout_ms=60_000, retries=0) as plane:
        with hole:
            client = plane.connect(timeout=20)
            wait_for(lambda: plane.real_connections() == [1])
            client.sendall(b"request")
            client.shutdown(socket.SHUT_WR)
        # Nobody listens there any more: the next SYN, a second after the first, is refused.
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        (event,) = plane.wait_events(kind=EventKind.REFUSE)
        assert (event["ended"], event["by"], event["errno"]) == (Ended.CONNECT, EndedBy.LBFAST, errno.ECONNREFUSED)


def test_the_second_client_does_not_wait_for_the_first_ones_reservation() -> None:
    """A released reservation: the next connection of the client is a first contact again."""
    with BlackHole() as hole, DataPlane([hole], connect_timeout_ms=60_000) as plane:
        first, second = plane.connect("127.0.0.9"), plane.connect("127.0.0.9")
        wait_for(lambda: plane.real_connections() == [2])
        assert plane.stick.get("127.0.0.9")["holds"] == 2
        reset(first)
        plane.wait_events(kind=EventKind.REFUSE)
        assert plane.stick.get("127.0.0.9")["holds"] == 1
        # The slot is given back after the record was written.
        wait_for(lambda: [c["phase"] for c in plane.slabs[0].connections()] == [Phase.CONNECT])
        reset(second)
        plane.wait_events(2, kind=EventKind.REFUSE)
        assert plane.stick.get("127.0.0.9") is None


def test_early_bytes_wait_in_the_kernel() -> None:
    """What a client says before its server is connected arrives complete and in order."""
    with BlackHole() as hole, RealPort() as real, DataPlane([hole, real], connect_timeout_ms=200, scheduler=1) as plane:
        data = os.urandom(200_000)
        clients = [plane.connect(f"127.0.0.{n}") for n in (9, 10)]
        for client in clients:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        assert [read_all(real.accept()), read_all(real.accept())] == [data, data]
