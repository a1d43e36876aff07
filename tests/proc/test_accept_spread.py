"""Long-lived connections over two workers: handed over until they are even, wherever the kernel queued them."""

from __future__ import annotations

import os
import resource
import signal
import socket

import pytest
from data_plane import DataPlane
from servers import silent_server
from waiting import freeze, wait_for

from lbfast.model.state import EventKind


def many(plane: DataPlane, count: int) -> list[socket.socket]:
    return [plane.connect(f"127.1.{n // 250}.{n % 250 + 1}") for n in range(count)]


def test_a_thousand_long_lived_connections() -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 4_000:
        pytest.skip("needs 4,000 descriptors")
    with silent_server() as real, DataPlane([real], workers=2) as plane:
        many(plane, 1_000)
        wait_for(lambda: plane.counters.real(0)["opened"] == 1_000)
        loads = [plane.worker(i)["connections"] for i in range(2)]
        assert sum(loads) == 1_000
        assert max(loads) <= 1.1 * 500, loads
        assert plane.total("handed_over") == plane.total("taken_over")


def test_a_connection_that_was_handed_over_works() -> None:
    """Worker 1 sleeps until worker 0 alone has been dialled: then it gets its share by hand."""
    with silent_server() as real, DataPlane([real], workers=2) as plane:
        plane.listeners[1].close()  # the kernel gives everything to worker 0: the test's own copy ...
        os.kill(plane.pids[1], signal.SIGKILL)  # ... and the worker's were the last ones
        os.waitpid(plane.pids[1], 0)
        plane.pids[1] = 0
        plane.listeners[1] = plane.listeners[0].dup()
        plane.kill(0)
        plane.start(0)
        start_without_listener(plane, 1)
        many(plane, 200)
        wait_for(lambda: plane.counters.real(0)["opened"] == 200)
        loads = [plane.worker(i)["connections"] for i in range(2)]
        assert max(loads) <= 1.1 * 100 + 16, loads
        assert plane.worker(0)["handed_over"] == plane.worker(1)["taken_over"] > 50
        plane._idle_fds = [100, 100]
        events = plane.wait_events(200, kind=EventKind.OPEN)
        assert len({e["client"] for e in events}) == 200


def start_without_listener(plane: DataPlane, index: int) -> None:
    """A worker that gets connections from others only."""
    listening = plane.listeners[index]
    plane.listeners[index] = socket.socket()
    plane.listeners[index].listen()
    plane.start(index)
    listening.close()


def test_nobody_hands_over_to_a_worker_that_does_not_turn() -> None:
    with silent_server() as real, DataPlane([real], workers=2) as plane:
        freeze(plane.pids[1])
        try:
            stale = plane.worker(1)["progress_ms"]
            wait_for(lambda: plane.worker(0)["progress_ms"] > stale + 1_100)
            many(plane, 120)  # about half wait in the queue of the stopped one
            wait_for(lambda: plane.worker(0)["connections"] > 40)
            assert plane.worker(0)["handed_over"] == 0
        finally:
            os.kill(plane.pids[1], signal.SIGCONT)
        wait_for(lambda: plane.counters.real(0)["opened"] == 120)
