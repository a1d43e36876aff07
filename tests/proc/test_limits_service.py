"""Limits of services, real servers and clients: exact over two workers; tables and pools that are full."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time

import pytest
from data_plane import DataPlane, RealPort
from servers import TcpServer, silent_server
from waiting import freeze, wait_for

from lbfast.model.state import AtLimit, Ended, EventKind, Reason


def storm(plane: DataPlane, count: int) -> list[socket.socket]:
    """Many clients at the same moment, not waiting for any of them."""
    socks = []
    for number in range(count):
        sock = socket.socket()
        sock.bind((f"127.2.{number // 250}.{number % 250 + 1}", 0))
        sock.setblocking(False)
        sock.connect_ex((plane.address, plane.port))
        plane._clients.append(sock)
        socks.append(sock)
    return socks


def still_open(socks: list[socket.socket]) -> int:
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLIN)
    return len(socks) - len(poll.poll(0))


class Watch:
    """Looks at a live count all the time; the largest it ever was."""

    def __init__(self, look) -> None:  # type: ignore[no-untyped-def]
        self.largest = 0
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.largest = max(self.largest, self._look())

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_reset_beyond_the_limit() -> None:
    with silent_server() as real:
        with DataPlane([real], workers=2, max_connections=50, at_limit=AtLimit.RESET) as plane:
            socks = storm(plane, 200)
            wait_for(lambda: plane.counters.service(0)["limited"] == 150)
            wait_for(lambda: plane.counters.real(0)["opened"] == 50)
            wait_for(lambda: still_open(socks) == 50)  # a refusal is counted before its reset is sent
            refused = plane.wait_events(150, kind=EventKind.REFUSE)
            assert {e["ended"] for e in refused} == {Ended.LIMIT}
            plane.close_clients()
            wait_for(lambda: plane.connections == 0)
            storm(plane, 50)  # nothing of the storm still counts
            wait_for(lambda: plane.counters.real(0)["opened"] == 100)


def test_the_fallback_server_beyond_the_limit() -> None:
    with silent_server() as real, silent_server() as sorry:
        settings = {"max_connections": 20, "at_limit": AtLimit.FALLBACK}
        with DataPlane([real], fallback=sorry, workers=2, **settings) as plane:
            storm(plane, 60)
            wait_for(lambda: plane.counters.real(1)["opened"] == 40)
            assert plane.counters.real(0)["opened"] == 20
            events = plane.wait_events(40, kind=EventKind.OPEN, reason=Reason.FALLBACK)
            assert {e["real"] for e in events} == {1}
            assert len(plane.stick) == 20  # the fallback server is never stored


def test_waiting_at_the_limit() -> None:
    """Beyond the limit clients wait in the kernel's queue and are served when there is room."""
    with silent_server() as real:
        with DataPlane([real], workers=2, max_connections=40, at_limit=AtLimit.QUEUE) as plane:
            with Watch(lambda: plane.connections) as watch:
                socks = storm(plane, 200)
                served: set[tuple[str, int]] = set()
                while len(served) < 200:
                    wait_for(lambda: plane.counters.real(0)["opened"] > len(served))  # noqa: B023
                    opened = {
                        (e["client"], e["client_port"]) for e in plane.read_events() if e["kind"] == EventKind.OPEN
                    }
                    for sock in socks:
                        if sock.fileno() >= 0 and sock.getsockname() in opened:
                            sock.close()
                    served |= opened
            # A place is counted, and given back when it is one too many, before accept: once for each worker.
            assert watch.largest <= 40 + 2, "more than the limit at once"
            assert plane.counters.service(0)["refused"] == 0
            assert plane.counters.service(0)["limited"] > 0


def test_waiting_at_the_limit_is_exact() -> None:
    """Two workers wake to full queues at the same moment, and hand over to each other: never one too many."""
    with silent_server() as real, silent_server() as other:
        with DataPlane([real, other], workers=2, max_connections=100, at_limit=AtLimit.QUEUE) as plane:
            for _ in range(5):
                before = plane.counters.service(0)["limited"]
                for pid in plane.pids:
                    freeze(pid)
                storm(plane, 400)
                for pid in plane.pids:
                    os.kill(pid, signal.SIGCONT)
                wait_for(lambda: plane.counters.service(0)["limited"] >= before + 10)  # noqa: B023
                # Handed over is not yet taken: the other worker may come late to its inbox.
                wait_for(lambda: plane.total("handed_over") == plane.total("taken_over") and plane.connections == 100)
                plane.kill(0), plane.kill(1)  # the quickest way to be rid of the queues, too
                renew_listeners(plane)
                plane.start(0), plane.start(1)


def renew_listeners(plane: DataPlane) -> None:
    """Fresh queues."""
    for index, sock in enumerate(plane.listeners):
        fresh = socket.socket()
        fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        fresh.bind((plane.address, plane.port))
        sock.close()
        fresh.listen(1024)
        fresh.setblocking(False)
        plane.listeners[index] = fresh


def test_waiting_at_the_limit_is_no_spin() -> None:
    with silent_server() as real, DataPlane([real], max_connections=1, at_limit=AtLimit.QUEUE) as plane:
        socks = storm(plane, 3)
        wait_for(lambda: plane.counters.service(0)["limited"] > 0)
        start = time.monotonic()
        loops, rests = plane.total("loops"), plane.counters.service(0)["limited"]
        wait_for(lambda: plane.counters.service(0)["limited"] >= rests + 10)
        turned = plane.total("loops") - loops
        assert turned < 500 * (time.monotonic() - start)  # a rest takes 20 ms, looked at every 10
        for sock in socks:
            sock.close()


def test_a_real_servers_limit_is_exact() -> None:
    with silent_server() as small, silent_server() as large:
        with DataPlane([small, large], workers=2, scheduler=1) as plane:
            plane.change_real(0, max_connections=7)
            with Watch(lambda: plane.real_connections()[0]) as watch:
                storm(plane, 300)
                wait_for(lambda: sum(plane.counters.real(i)["opened"] for i in range(2)) == 300)
            assert plane.real_connections() == [7, 293]
            # The count goes one up before it is found to be too much, for each worker that tries.
            assert watch.largest <= 7 + 2
            wait_for(lambda: small.accepted == 7)


def test_a_known_client_of_a_full_server_makes_a_detour() -> None:
    with RealPort() as first, RealPort() as second, DataPlane([first, second]) as plane:
        plane.pair("127.0.0.9")
        home = plane.stick.get("127.0.0.9")["real"]
        plane.change_real(home, max_connections=1)
        plane.pair("127.0.0.9")
        (event,) = plane.wait_events(kind=EventKind.OPEN, reason=Reason.FULL)
        assert (event["real"], event["previous"]) == (1 - home, home)
        assert plane.stick.get("127.0.0.9")["real"] == home  # it returns when there is room


@pytest.mark.parametrize("persistence", [0, 1])
def test_connections_per_client(persistence: int) -> None:
    with silent_server() as real:
        with DataPlane([real], workers=2, client_limit=5, persistence=persistence) as plane:
            socks = []
            for _ in range(40):
                sock = socket.socket()
                sock.bind(("127.0.0.9", 0))
                sock.setblocking(False)
                sock.connect_ex((plane.address, plane.port))
                plane._clients.append(sock)
                socks.append(sock)
            wait_for(lambda: plane.counters.service(0)["client_limited"] == 35)
            wait_for(lambda: plane.counters.real(0)["opened"] == 5)
            refused = plane.wait_events(35, kind=EventKind.REFUSE)
            assert {e["ended"] for e in refused} == {Ended.CLIENT_LIMIT}
            other = plane.connect("127.0.0.10")
            wait_for(lambda: plane.counters.real(0)["opened"] == 6)
            assert other.fileno() >= 0


def test_connections_per_client_only_reported() -> None:
    with silent_server() as real:
        with DataPlane([real], workers=2, client_limit=5, client_limit_report_only=True) as plane:
            for _ in range(20):
                plane.connect("127.0.0.9")
            wait_for(lambda: plane.counters.real(0)["opened"] == 20)
            assert plane.counters.service(0)["client_limited"] == 15
            assert plane.counters.service(0)["refused"] == 0


def test_a_stick_table_full_of_held_entries() -> None:
    """New clients are served, unstored, with reason and counter; when the others leave they are stored."""
    with silent_server() as real, DataPlane([real], stick=14) as plane:
        storm(plane, 60)
        wait_for(lambda: plane.counters.real(0)["opened"] == 60)
        stored = len(plane.stick)
        assert 0 < stored <= plane.stick.capacity
        unstored = plane.wait_events(60 - stored, kind=EventKind.OPEN, reason=Reason.UNSTORED)
        assert plane.total("stick_full") == len(unstored) == 60 - stored
        plane.close_clients()
        wait_for(lambda: plane.connections == 0)
        plane.connect("127.9.9.9")
        wait_for(lambda: plane.stick.get("127.9.9.9"))


def test_one_source_opening_everything_leaves_the_others_alone() -> None:
    accepted: list[str] = []

    def handle(sock: socket.socket) -> None:
        accepted.append(sock.getpeername()[0])
        while sock.recv(1000):
            sock.sendall(b"ok")

    with TcpServer(handle) as real, DataPlane([real], client_limit=10, slab=64) as plane:
        for _ in range(200):
            sock = socket.socket()
            sock.bind(("127.0.0.9", 0))
            sock.setblocking(False)
            sock.connect_ex((plane.address, plane.port))
            plane._clients.append(sock)
        wait_for(lambda: plane.counters.service(0)["client_limited"] == 190)
        honest = plane.connect("127.0.0.10")
        honest.sendall(b"?")
        assert honest.recv(2) == b"ok"
