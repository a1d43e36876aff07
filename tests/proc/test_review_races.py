"""Settings that change under the workers' hands, entries cleared in between, slots that change their tenant."""

from __future__ import annotations

import os
import socket
import threading
import time
from itertools import cycle

import pytest
from data_plane import BlackHole, DataPlane, RealPort
from servers import named_server, reset
from waiting import wait_for

from lbfast.model.state import Ended, EventKind, Health, Phase, Scheduler


def _call(plane: DataPlane, until: float) -> None:
    while time.monotonic() < until:
        try:
            plane.connect().close()
        except OSError:
            pass  # refused while no real server may take it


@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_settings_that_flicker_kill_no_worker(scheduler: Scheduler) -> None:
    """Weight 0, an empty list, no source address, no slow start: none may become a divisor between two looks."""
    with named_server("A") as one, named_server("B") as two:
        with DataPlane([one, two], scheduler=scheduler, workers=2, sources=["127.0.0.1"], stick=None) as plane:
            until = time.monotonic() + 0.5
            callers = [threading.Thread(target=_call, args=(plane, until)) for _ in range(2)]
            for caller in callers:
                caller.start()
            for odd in cycle((True, False)):
                if time.monotonic() > until:
                    break
                for real in (0, 1):
                    plane.table.set_weight(real, 0 if odd else 100)
                    plane.change_real(real, slow_start_ms=0 if odd else 10_000)
                    plane.table.set_health(real, Health.DOWN if odd else Health.UP, "flickers")
                plane.change(reals=[] if odd else [0, 1], sources=[] if odd else ["127.0.0.1", "127.0.0.2"])
            for caller in callers:
                caller.join()
            assert all(os.waitpid(pid, os.WNOHANG) == (0, 0) for pid in plane.pids)


def test_the_source_address_stays_while_other_settings_change() -> None:
    with RealPort() as real, DataPlane([real], sources=["127.0.0.7"]) as plane:
        done = threading.Event()

        def rewrite() -> None:
            while not done.is_set():
                plane.change(retries=2)

        writer = threading.Thread(target=rewrite)
        writer.start()
        try:
            seen = set()
            for _ in range(200):
                client, server = plane.pair()
                seen.add(server.getpeername()[0])
                client.close()
                server.close()
        finally:
            done.set()
            writer.join()
        assert seen == {"127.0.0.7"}


def test_a_client_cleared_while_connecting_gets_an_entry_that_lasts() -> None:
    """Its hold died with the cleared entry; the entry of the next attempt needs one of its own."""
    with BlackHole() as hole, RealPort() as good:
        with DataPlane([hole, good], connect_timeout_ms=60_000) as plane:
            assert plane.stick is not None
            plane.table.set_weight(1, 1)
            with hole:
                client = plane.connect()
                wait_for(lambda: plane.real_connections()[0] == 1, 5, "the connect to the black hole")
                assert plane.stick.remove("127.0.0.1")
            server = good.accept(20)  # nobody listens there any more: the next SYN, a second later, is refused
            client.sendall(b"hello")
            assert server.recv(5) == b"hello"
            entry = wait_for(lambda: plane.stick and plane.stick.get("127.0.0.1"), 5, "an entry")
            assert (entry["real"], entry["holds"]) == (1, 1)
            wait_for(lambda: plane.stick and (plane.stick.get("127.0.0.1") or {}).get("state") == "bound", 5, "bound")


def test_a_slot_with_a_new_tenant_keeps_the_count_of_the_old_ones_connections() -> None:
    with RealPort() as old, DataPlane([old]) as plane:
        client, server = plane.pair()
        plane.change_real(0, id=b"another tenant's")
        assert plane.real_connections() == [1]
        assert plane.table.real(0)["health"] == Health.UNKNOWN
        plane.table.set_health(0, Health.UP, "again")
        client.close()
        server.close()
        wait_for(lambda: plane.real_connections() == [0], 5, "the count to be given back")


def _phases(plane: DataPlane) -> list[int]:
    return [connection["phase"] for connection in plane.slabs[0].connections()]


def test_a_reset_of_both_sides_ends_at_once() -> None:
    """No waiting for acknowledgements from a client that is gone as well."""
    with RealPort() as real, DataPlane([real]) as plane:
        client, server = plane.pair()
        server.sendall(b"x" * 500_000)  # more than the client's kernel takes, less than lbfast's
        wait_for(lambda: plane.counters.real(0)["bytes_out"] == 500_000, 5, "all to be passed on")
        reset(server)
        wait_for(lambda: _phases(plane) == [Phase.LINGER], 5, "the server's reset to be noticed")
        reset(client)
        wait_for(lambda: plane.connections == 0, 5, "the end")


def test_a_listener_that_was_shut_down_does_not_spin() -> None:
    with named_server("A") as real, DataPlane([real]) as plane:
        plane.listeners[0].shutdown(socket.SHUT_RDWR)
        wait_for(lambda: plane.worker()["accept_errors"] >= 2, 5, "two looks at the dead listener")
        start, before = time.monotonic(), plane.worker()["accept_errors"]
        wait_for(lambda: time.monotonic() - start > 0.2, 5, "some time in which it could spin")
        errors = plane.worker()["accept_errors"] - before
        assert errors < 500 * (time.monotonic() - start)


def test_a_worker_that_dies_while_connecting_leaves_a_refusal() -> None:
    """An end without a beginning would puzzle whoever pairs open and close records."""
    with BlackHole() as hole, RealPort() as good, DataPlane([good, hole]) as plane:
        plane.table.set_weight(1, 0)
        first = plane.connect()
        good.accept()
        wait_for(lambda: plane.real_connections() == [1, 0], 5, "the first to be relayed")
        assert plane.stick is not None
        plane.stick.clear()
        plane.table.set_weight(0, 0)
        plane.table.set_weight(1, 100)
        second = plane.connect()
        wait_for(lambda: plane.real_connections() == [1, 1], 5, "the second to be connecting")
        assert plane.kill() == 2
        ends = {e["kind"]: e["ended"] for e in plane.read_events() if e["kind"] != EventKind.OPEN}
        assert ends == {EventKind.CLOSE: Ended.WORKER_DIED, EventKind.REFUSE: Ended.WORKER_DIED}
        assert (plane.real_connections(), plane.holds()) == ([0, 0], 0)
        first.close()
        second.close()
