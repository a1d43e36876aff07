"""Workers killed under load again and again: counts, holds and queues are right afterwards."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading

from data_plane import DataPlane, RealPort
from servers import echo_server
from waiting import freeze, wait_for

from lbfast.model.state import Ended, EventKind


class Load:
    """Clients that connect, talk and go, and count what they met; failures of killed connections are theirs to bear."""

    def __init__(self, plane: DataPlane, threads: int = 4) -> None:
        self.plane = plane
        self.served = 0
        self.refused = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]

    def _run(self, number: int) -> None:
        rng = random.Random(number)
        while not self._stop.is_set():
            try:
                with socket.create_connection(
                    (self.plane.address, self.plane.port), 10, (f"127.3.{number}.{rng.randint(1, 50)}", 0)
                ) as sock:
                    for _ in range(rng.randint(0, 3)):
                        sock.sendall(b"x" * rng.choice([1, 5_000]))
                        sock.recv(10_000)
                    self.served += 1
            except ConnectionRefusedError:
                self.refused += 1
            except OSError:
                continue

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_killed_under_load_many_times() -> None:
    with echo_server() as first, echo_server() as second, DataPlane([first, second], workers=2) as plane:
        kept = [plane.connect(f"127.0.4.{n + 1}") for n in range(20)]
        wait_for(lambda: sum(plane.counters.real(i)["opened"] for i in range(2)) == 20)
        with Load(plane) as load:
            for turn in range(30):
                before = load.served
                wait_for(lambda: load.served > before + 5, what="load")  # noqa: B023
                plane.kill(turn % 2)
                check_of_the_living(plane)
                plane.start(turn % 2)
        assert load.refused == 0
        for sock in kept:
            sock.close()
        wait_for(lambda: plane.connections == 0)
        assert plane.real_connections() == [0, 0]
        assert plane.holds() == 0


def check_of_the_living(plane: DataPlane) -> None:
    """While one worker is dead, totals are the other's own counts; looked at when it is still."""

    def agrees() -> bool:
        own = [w for w, pid in enumerate(plane.pids) if pid]
        freeze(plane.pids[own[0]])
        try:
            records = list(plane.slabs[own[0]].connections())
            counted = plane.worker(own[0])["connections"]
            totals = (plane.connections, plane.counters.service(0)["connections"])
            return totals == (counted, counted) and sum(plane.real_connections()) <= len(records)
        finally:
            os.kill(plane.pids[own[0]], signal.SIGCONT)

    wait_for(agrees, 5, "the counts of the living")


def test_a_dead_worker_gives_everything_back_and_tells() -> None:
    with RealPort() as real, DataPlane([real], workers=2, persistence_timeout_ms=60_000) as plane:
        pairs = [plane.pair(f"127.0.5.{n + 1}") for n in range(30)]
        opened = plane.wait_events(30, kind=EventKind.OPEN)
        of_first = [e for e in opened if e["worker"] == 0]
        assert plane.kill(0) == len(of_first) == plane.kill(1) * 0 + len(of_first)
        closed = plane.wait_events(30, kind=EventKind.CLOSE)
        assert {e["ended"] for e in closed} == {Ended.WORKER_DIED}
        assert sorted(e["client"] for e in closed) == sorted(e["client"] for e in opened)
        assert (plane.connections, plane.real_connections(), plane.holds()) == (0, [0], 0)
        assert len(plane.stick) == 30  # the clients keep their server
        assert all(entry["closed_ms"] > 0 for entry in plane.stick.entries())
        for index in range(2):
            plane.start(index)
        _client, _server = plane.pair("127.0.5.1")
        assert plane.read_events()[-1]["reason"] == 1
        assert len(pairs) == 30


def test_queued_connections_survive() -> None:
    """The listening socket is the supervisor's: what its dead worker had not accepted, the next one serves."""
    with RealPort() as real, DataPlane([real]) as plane:
        freeze(plane.pids[0])
        clients = [plane.connect(f"127.0.6.{n + 1}") for n in range(50)]
        for client in clients:
            client.sendall(b"patience")
        assert plane.kill(0) == 0
        plane.start(0)
        for _ in clients:
            assert real.accept().recv(8) == b"patience"


def test_sockets_under_way_between_workers_survive() -> None:
    """Handed over, but not yet taken, when the receiver dies: the next worker finds them in its inbox."""
    with RealPort() as real, DataPlane([real], workers=2) as plane:
        freeze(plane.pids[1])
        progress = plane.worker(1)["progress_ms"]
        clients = [plane.connect(f"127.0.7.{n + 1}") for n in range(90)]
        wait_for(lambda: plane.worker(0)["progress_ms"] > progress + 300)
        plane.kill(1)
        plane.start(1)
        for client in clients:
            client.sendall(b"x")
        for _ in clients:
            assert real.accept().recv(1) == b"x"


def test_killed_while_connecting_releases_reservations() -> None:
    from data_plane import BlackHole

    with BlackHole() as hole, DataPlane([hole], connect_timeout_ms=60_000) as plane:
        for number in range(10):
            plane.connect(f"127.0.8.{number + 1}")
        wait_for(lambda: plane.real_connections() == [10])
        assert plane.kill(0) == 10
        assert (plane.connections, plane.real_connections(), len(plane.stick)) == (0, [0], 0)
