"""Listeners: options, one socket for each worker, all or nothing, and what the errors say."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from harness import fd_census

from lbfast.config.layout import ListenerSpec
from lbfast.config.store import parse
from lbfast.model.service import VirtualService
from lbfast.supervisor.listeners import Listener, ListenFaults, close_listeners, open_listeners

CONFIG = """
[[virtual_service]]
label = "A"
address = "127.0.0.1"
ports = "80"
keepalive_idle = "7s"
tcp_user_timeout = "9s"
congestion_control = "reno"
  [[virtual_service.real_server]]
  label = "R"
  address = "127.0.0.2"
"""
SERVICE = parse(CONFIG).config.virtual_services[0]


def spec(port: int, address: str = "127.0.0.1") -> ListenerSpec:
    return ListenerSpec(0, "A", address, port)


def open_all(specs: list[ListenerSpec], workers: int = 2, service: VirtualService = SERVICE) -> list[Listener]:
    return open_listeners(specs, {"A": (3, service)}, workers)


@pytest.fixture
def port() -> Iterator[int]:
    """A port held by a bound socket that does not listen and allows company."""
    with closing(socket.socket()) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture(autouse=True)
def _all_closed() -> Iterator[None]:
    before = fd_census(os.getpid())
    yield
    assert fd_census(os.getpid()) == before


def test_every_worker_gets_clients(port: int) -> None:
    listeners = open_all([spec(port)])
    socks = [socket.socket(fileno=os.dup(fd)) for fd in listeners[0].fds]
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(64)]
    counts = []
    for sock in socks:
        accepted = list[socket.socket]()
        try:
            while True:
                accepted.append(sock.accept()[0])
        except BlockingIOError:
            pass
        counts.append(len(accepted))
        for each in accepted:
            each.close()
    for each in (*clients, *socks):
        each.close()
    close_listeners(listeners)
    assert sum(counts) == 64
    assert min(counts) > 0


def test_accepted_sockets_inherit_the_options(port: int) -> None:
    listeners = open_all([spec(port)], workers=1)
    assert not os.get_inheritable(listeners[0].fds[0])
    with (
        socket.socket(fileno=os.dup(listeners[0].fds[0])) as listening,
        socket.create_connection(("127.0.0.1", port)),
        listening.accept()[0] as sock,
    ):
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        tcp = [socket.TCP_NODELAY, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
        assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in tcp] == [1, 7, 10, 6]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 9000
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 8).startswith(b"reno")
    close_listeners(listeners)


def test_a_client_that_speaks_first_is_taken_up_when_it_speaks(port: int) -> None:
    first = SERVICE.model_copy(update={"client_speaks_first": True})
    listeners = open_all([spec(port)], workers=1, service=first)
    with (
        socket.socket(fileno=os.dup(listeners[0].fds[0])) as listening,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        with pytest.raises(BlockingIOError):
            listening.accept()
        client.sendall(b"hello")
        select.select([listening], [], [], 10)
        with listening.accept()[0] as sock:
            assert sock.recv(5) == b"hello"
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 0, "the acknowledgement is not held back"
    close_listeners(listeners)


@pytest.mark.parametrize("reuse_port", [False, True])
def test_port_of_another_listener_is_refused_with_its_owner(reuse_port: bool) -> None:
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        with pytest.raises(ListenFaults) as refused:
            open_all([spec(stranger.getsockname()[1])])
    fault = refused.value.faults[0]
    assert (fault.service, fault.key) == (3, "ports")
    assert "already in use" in fault.found
    assert f"process {os.getpid()} (" in fault.found


def test_wildcard_listener_of_another_is_in_the_way_too() -> None:
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("0.0.0.0", 0))
        stranger.listen()
        with pytest.raises(ListenFaults, match=f"already in use by process {os.getpid()}"):
            open_all([spec(stranger.getsockname()[1])])


def test_all_or_nothing_and_every_fault_at_once(port: int) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        taken = stranger.getsockname()[1]
        with pytest.raises(ListenFaults) as refused:
            open_all([spec(port), spec(taken), spec(port, "192.0.2.254")])
    assert [fault.key for fault in refused.value.faults] == ["ports", "address"]
    assert "not on this machine" in refused.value.faults[1].found
    with socket.socket() as again, pytest.raises(ConnectionRefusedError):
        again.connect(("127.0.0.1", port))


def test_ipv6_leaves_ipv4_alone() -> None:
    listeners = open_all([spec(0, "::")], workers=1)
    with socket.socket(fileno=os.dup(listeners[0].fds[0])) as sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    close_listeners(listeners)
