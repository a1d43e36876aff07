"""A worker dies between a socket that changes hands and the number that counts it: the numbers are made true again."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from data_plane import DataPlane
from servers import silent_server
from stopped_at import Trap, number_of
from waiting import wait_for

from lbfast.supervisor.reckoning import Reckoning
from lbfast.supervisor.seats import Inbox
from lbfast.supervisor.timers import Timers

GIVER, TAKER = 0, 1


def start_taker(plane: DataPlane) -> None:
    """It gets connections from the giver only."""
    shared = plane.listeners[0]
    with socket.create_server(("127.0.0.1", 0)) as plane.listeners[0]:
        plane.start(TAKER)
    plane.listeners[0] = shared


def drift(plane: DataPlane) -> int:
    return plane.total("handed_over") - plane.total("taken_over")


@pytest.mark.parametrize(("call", "victim", "lost"), [("sendmsg", GIVER, -1), ("recvmsg", TAKER, 1)])
def test_death_between_a_socket_and_its_number(call: str, victim: int, lost: int) -> None:
    number = number_of(call)
    if number is None:
        pytest.skip("the numbers of system calls of this machine are not known")
    with silent_server() as real, DataPlane([real], workers=1, spare=1) as plane:
        for client in range(40):
            plane.connect(f"127.1.9.{client + 1}")
        wait_for(lambda: plane.counters.real(0)["opened"] == 40, what="all of them on the giver")
        start_taker(plane)
        trap = Trap(plane.pids[victim])
        with ThreadPoolExecutor(1) as pool:
            # At the same time: only kill_behind lets a trapped loop turn, and a taker that stands still gets nothing.
            connects = pool.submit(lambda: [plane.connect(f"127.1.10.{client + 1}") for client in range(12)])
            trap.kill_behind(number)
            connects.result()
        plane.reap(victim)
        plane.start(GIVER) if victim == GIVER else start_taker(plane)
        wait_for(lambda: plane.worker(victim)["pid"] == plane.pids[victim], what="its successor")
        wait_for(lambda: drift(plane) == lost, what="all but the one that was not counted to be taken")

        timers = Timers()
        inboxes = [Inbox(ends[0].fileno(), ends[1].fileno()) for ends in plane.inboxes]
        reckoning = Reckoning(
            lambda: plane.counters,
            lambda: inboxes,
            lambda seconds, action: timers.at(time.monotonic() + seconds, action),
        )
        reckoning.begin(victim)
        wait_for(lambda: _run(timers), 20, "a moment at which nothing is under way")
        assert drift(plane) == 0
        plane._idle_fds = [200, 200]


def _run(timers: Timers) -> bool:
    timers.run_due(time.monotonic())
    return timers.timeout(time.monotonic()) is None


def test_nothing_is_reckoned_while_something_is_under_way() -> None:
    """A message lies in an inbox, or a loop has not turned: neither is the moment."""
    with silent_server() as real, DataPlane([real], workers=1, spare=1) as plane:
        inboxes = [Inbox(ends[0].fileno(), ends[1].fileno()) for ends in plane.inboxes]
        pending: list[Callable[[], None]] = []
        reckoning = Reckoning(lambda: plane.counters, lambda: inboxes, lambda _seconds, action: pending.append(action))
        plane.counters.reckon(1, 1)  # as if one had been counted twice
        plane.inboxes[1][1].send(b"for nobody yet")
        reckoning.begin(1)
        loops = plane.worker(0)["loops"]
        wait_for(lambda: plane.worker(0)["loops"] > loops + 1, what="some turns")
        for _ in range(3):
            pending.pop()()
        assert drift(plane) == -1
        plane.inboxes[1][0].recv(100)
        plane.counters.vacate(1)
        wait_for(lambda: pending.pop()() or not pending, what="the moment")
        assert drift(plane) == 0
