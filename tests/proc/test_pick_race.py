"""First connections of a client at the same moment, on two workers: never split over real servers."""

from __future__ import annotations

import os
import signal
import socket
from collections import defaultdict
from contextlib import ExitStack

from data_plane import BlackHole, DataPlane
from servers import DeafPort, TcpServer, silent_server
from waiting import freeze, wait_for

from lbfast.model.state import EventKind, Reason


def burst(plane: DataPlane, clients: int, each: int) -> None:
    """All workers asleep, all connects queued, then everything at once."""
    for pid in plane.pids:
        freeze(pid)
    for client in range(clients):
        for _ in range(each):
            sock = socket.socket()
            sock.bind((f"127.4.0.{client + 1}", 0))
            sock.setblocking(False)
            sock.connect_ex((plane.address, plane.port))
            plane._clients.append(sock)
    for pid in plane.pids:
        os.kill(pid, signal.SIGCONT)


def homes(plane: DataPlane, count: int) -> dict[str, set[int]]:
    found = defaultdict(set)
    for event in plane.wait_events(count, 20, kind=EventKind.OPEN):
        found[event["client"]].add(event["real"])
    return found


def three_servers(stack: ExitStack) -> list[TcpServer]:
    return [stack.enter_context(silent_server()) for _ in range(3)]


def test_150_clients_with_6_first_connections_each() -> None:
    with ExitStack() as stack:
        reals = three_servers(stack)
        plane = stack.enter_context(DataPlane(reals, workers=2))
        burst(plane, 150, 6)
        found = homes(plane, 900)
        assert len(found) == 150
        assert [c for c, reals_of_client in found.items() if len(reals_of_client) > 1] == []
        counts = [sum(reals_of_client == {n} for reals_of_client in found.values()) for n in range(3)]
        # Both workers choose at the same moment, from counts that the other one is changing.
        assert max(counts) - min(counts) <= 20, counts
        reasons = {e["reason"] for e in plane.read_events()}
        assert reasons <= {Reason.NEW, Reason.PENDING, Reason.TABLE}
        assert Reason.PENDING in reasons
        assert all(plane.worker(i)["accepted"] > 100 for i in range(2))
        assert {(e["holds"], e["state"]) for e in plane.stick.entries()} == {(6, "bound")}


def test_the_same_with_a_server_that_refuses() -> None:
    """Whoever fails first decides anew; the others of the client find the entry moved and follow."""
    with ExitStack() as stack:
        deaf = DeafPort()
        stack.callback(deaf.stop)
        reals = three_servers(stack)[:2]
        plane = stack.enter_context(DataPlane([deaf, *reals], workers=2))
        burst(plane, 100, 6)
        found = homes(plane, 600)
        assert [c for c, reals_of_client in found.items() if len(reals_of_client) > 1] == []
        assert {real for reals_of_client in found.values() for real in reals_of_client} == {1, 2}
        assert any(e["reason"] == Reason.REDISPATCH for e in plane.read_events())
        assert {(e["holds"], e["state"]) for e in plane.stick.entries()} == {(6, "bound")}


def test_the_same_with_a_black_hole() -> None:
    with ExitStack() as stack:
        hole = stack.enter_context(BlackHole())
        reals = three_servers(stack)[:2]
        plane = stack.enter_context(DataPlane([hole, *reals], workers=2, connect_timeout_ms=200))
        burst(plane, 40, 6)
        found = homes(plane, 240)
        assert [c for c, reals_of_client in found.items() if len(reals_of_client) > 1] == []
        wait_for(lambda: {(e["holds"], e["state"]) for e in plane.stick.entries()} == {(6, "bound")})


def test_clients_behind_one_mask_are_one_client() -> None:
    with ExitStack() as stack:
        reals = three_servers(stack)
        plane = stack.enter_context(DataPlane(reals, workers=2, mask_v4=24))
        burst(plane, 100, 2)  # 127.4.0.1 ... 127.4.0.100
        wait_for(lambda: sum(plane.counters.real(i)["opened"] for i in range(3)) == 200)
        (entry,) = plane.stick.entries()
        assert (entry["client"], entry["holds"]) == ("127.4.0.0", 200)
