"""Queues of listening sockets, asked of the real kernel; and the counters of /proc/net/netstat."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from lbfast.control.backlog import Queue, read_overflows, read_queues


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_what_waits_is_counted_for_each_address_and_port(address: str) -> None:
    with ExitStack() as stack:
        listeners = []
        port = 0
        for _ in range(2):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = stack.enter_context(socket.socket(family))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((address, port))
            listener.listen(7)
            port = listener.getsockname()[1]
            listeners.append(listener)
        assert read_queues()[address][port] == Queue(0, 0, 7)
        for _ in range(5):
            stack.enter_context(socket.create_connection((address, port)))
        found = read_queues()[address][port]
        assert (found.queued, found.limit) == (5, 7)
        assert 3 <= found.fullest <= 5
    assert port not in read_queues().get(address, {})


def test_overflows_are_those_of_the_kernel() -> None:
    text = "TcpExt: SyncookiesSent Other ListenOverflows ListenDrops\nTcpExt: 5 1 7 9\nIpExt: A\nIpExt: 3\n"
    assert read_overflows(text) == {"listen_overflows": 7, "listen_drops": 9, "syn_cookies": 5}
    assert read_overflows("") == {"listen_overflows": 0, "listen_drops": 0, "syn_cookies": 0}
    assert min(read_overflows().values()) >= 0
