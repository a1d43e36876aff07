"""Source addresses and ports towards the servers: bound, spread, exhausted; a connect that meets itself; dead peers."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from data_plane import DataPlane, RealPort
from waiting import wait_for

from lbfast._table import Table
from lbfast.model.state import Ended, EventKind, Reason

CLONE_NEWNET = 0x40000000


@contextmanager
def own_network() -> Iterator[None]:
    """This thread (and what it forks) in a network of its own, with loopback."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        assert libc.setns(home, CLONE_NEWNET) == 0
        os.close(home)


def few_ports(first: int, last: int) -> None:
    """From now on connects of this network share so few local ports."""
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"{first} {last}")


def connect_from(plane: DataPlane, port: int):  # type: ignore[no-untyped-def]
    """A client with a port outside the small range."""
    import socket

    sock = socket.socket()
    sock.settimeout(5)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.connect((plane.address, plane.port))
    plane._clients.append(sock)
    return sock


def test_sources_take_turns() -> None:
    sources = ["127.0.0.51", "127.0.0.52", "::1"]
    with RealPort() as real, DataPlane([real], sources=sources) as plane:
        seen = [plane.pair()[1].getpeername()[0] for _ in range(6)]
        assert set(seen) == {"127.0.0.51", "127.0.0.52"}
        assert 2 <= seen.count("127.0.0.51") <= 4


def test_an_ipv6_source() -> None:
    with RealPort("::1") as real, DataPlane([real], sources=["127.0.0.51", "::1"]) as plane:
        assert plane.pair()[1].getpeername()[0] == "::1"


def test_no_source_of_the_servers_family() -> None:
    with RealPort() as real, DataPlane([real], sources=["::1"]) as plane:
        assert plane.is_refused()
        (event,) = plane.wait_events(kind=EventKind.REFUSE)
        assert (event["ended"], event["errno"]) == (Ended.RESOURCE, errno.EADDRNOTAVAIL)
        assert plane.total("no_ports") == 1
        assert plane.table.failures(0)[0] == 0  # the server is not to blame


def test_a_source_that_is_not_ours() -> None:
    with RealPort() as real, DataPlane([real], sources=["192.0.2.77", "127.0.0.52"]) as plane:
        assert [plane.pair()[1].getpeername()[0] for _ in range(3)] == ["127.0.0.52"] * 3


@pytest.mark.root
def test_ports_run_out_and_come_back() -> None:
    with own_network(), RealPort(port=4000) as real, DataPlane([real]) as plane:
        few_ports(30_001, 30_002)
        held = [connect_from(plane, port) for port in (20_001, 20_002)]
        for _ in held:
            real.accept()
        with pytest.raises(ConnectionResetError):
            connect_from(plane, 20_003).recv(1)
        (event,) = plane.wait_events(kind=EventKind.REFUSE)
        assert (event["ended"], event["errno"]) == (Ended.RESOURCE, errno.EADDRNOTAVAIL)
        assert (plane.total("no_ports"), plane.table.failures(0)[0]) == (1, 0)
        loops = plane.total("loops")
        held[0].setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # linger 0: no TIME_WAIT keeps the port
        held[0].close()
        plane.wait_events(kind=EventKind.CLOSE)
        connect_from(plane, 20_004).sendall(b"again")
        assert real.accept().recv(5) == b"again"
        assert plane.total("loops") - loops < 50


@pytest.mark.root
def test_another_source_has_ports_of_its_own() -> None:
    with own_network(), RealPort(port=4000) as real:
        with DataPlane([real], sources=["127.0.0.51", "127.0.0.52"]) as plane:
            few_ports(30_001, 30_001)
            for port in (20_001, 20_002):
                connect_from(plane, port)
            peers = {real.accept().getpeername() for _ in range(2)}
            assert peers == {("127.0.0.51", 30_001), ("127.0.0.52", 30_001)}
            with pytest.raises(ConnectionResetError):
                connect_from(plane, 20_003).recv(1)
            assert plane.total("no_ports") == 1


@pytest.mark.root
def test_another_server_has_ports_of_its_own() -> None:
    """A source port is taken per destination: with none left towards one server, another may still be reached."""
    with own_network(), RealPort(port=4000) as first, RealPort(port=4001) as second:
        with DataPlane([first, second]) as plane:
            few_ports(30_001, 30_001)
            clients = [connect_from(plane, port) for port in (20_001, 20_002)]
            first.accept()
            second.accept()
            assert [plane.table.failures(slot)[0] for slot in (0, 1)] == [0, 0]
            assert plane.holds() == 2
            (moved,) = plane.wait_events(kind=EventKind.OPEN, reason=Reason.REDISPATCH)
            assert plane.total("no_ports") == 1
            assert moved["attempts"] == 2
            with pytest.raises(ConnectionResetError):
                connect_from(plane, 20_003).recv(1)
            (event,) = plane.wait_events(kind=EventKind.REFUSE)
            assert (event["ended"], plane.total("no_ports")) == (Ended.RESOURCE, 3)
            assert len(clients) == 2


@pytest.mark.root
def test_a_connect_that_meets_itself() -> None:
    """The kernel gives the very port that is asked for, and TCP connects the socket to itself: refused, not relayed."""

    class Deaf:
        address = "127.0.0.1"
        port = 30_001

    with own_network(), RealPort(port=4000) as real, DataPlane([Deaf(), real], scheduler=1) as plane:
        few_ports(30_001, 30_001)
        plane.table = Table.attach(plane.table.fd)  # one that has not read the range yet
        plane.change_real(0)
        clients = [connect_from(plane, 20_001)]
        server = real.accept()
        clients[0].sendall(b"not an echo")
        assert server.recv(20) == b"not an echo"
        (event,) = plane.wait_events(kind=EventKind.CONNECT_FAIL)
        assert (event["real"], event["errno"]) == (0, errno.ECONNREFUSED)


@pytest.mark.root
@pytest.mark.skipif(not shutil.which("nft"), reason="needs the `nft` program (nftables)")
def test_a_server_that_vanishes_without_a_word() -> None:
    """Keepalive, set once the connection has lived a while, gives it up: the client learns by a reset."""
    settings = {"keepalive": True, "keepalive_idle_s": 1, "keepalive_interval_s": 1, "keepalive_count": 1}
    with own_network(), RealPort() as real:
        with DataPlane([real], client_idle_ms=20_000, server_idle_ms=3_000, user_timeout_ms=0, **settings) as plane:
            client, server = plane.pair()
            wait_for(lambda: server.send(b"a") and client.recv(1) and has_keepalive(plane), 20)
            plane.change(server_idle_ms=60_000)
            server.send(b"b")
            client.recv(1)
            wait_for(lambda: plane.slabs[0].connections())
            drop_everything_from(server)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            (event,) = plane.wait_events(kind=EventKind.CLOSE)
            assert (event["ended"], event["errno"]) == (Ended.DEAD, errno.ETIMEDOUT)


def has_keepalive(plane: DataPlane) -> bool:
    import socket

    client_side, server_side = plane.borrow()
    is_set = bool(server_side and server_side[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
    for sock in client_side + server_side:
        sock.close()
    return is_set


def drop_everything_from(server) -> None:  # type: ignore[no-untyped-def]
    rule = (
        f"table ip t {{ chain c {{ type filter hook output priority 0; tcp sport {server.getsockname()[1]} drop; }}; }}"
    )
    subprocess.run(["nft", "-f", "-"], input=rule, text=True, check=True)
