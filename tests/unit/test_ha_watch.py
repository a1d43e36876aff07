"""When a worker counts as hung: busy, idle, unused and dead ones."""

from __future__ import annotations

import os
from typing import Any

from lbfast.ha.ping import Pings
from lbfast.ha.plan import HaPlan
from lbfast.ha.watch import IDLE_MS, Watch
from lbfast.model.pair import HaSettings


class Counters:
    """Seats as a test sets them."""

    def __init__(self, *seats: dict[str, Any]) -> None:
        self.seats = list(seats)

    @property
    def workers(self) -> int:
        return len(self.seats)

    def worker(self, index: int) -> Any:
        return self.seats[index]


class NoTable:
    def real(self, slot: int) -> Any:
        raise AssertionError(f"real server {slot}: there are none")


def hung(counters: Counters, elapsed_ms: int) -> tuple[int, ...]:
    watch = Watch(HaPlan(HaSettings(), (), 1), counters, NoTable(), Pings([]))
    watch.look(0, 0, is_holding=False, is_in_maintenance=False)
    return watch.look(elapsed_ms, elapsed_ms, is_holding=False, is_in_maintenance=False).hung


def seat(connections: int = 0, pid: int = 0) -> dict[str, Any]:
    return {"pid": pid or os.getpid(), "progress_ms": 7, "connections": connections}


def test_a_busy_worker_must_turn_and_an_idle_one_may_sleep() -> None:
    counters = Counters(seat(connections=3), seat())
    assert hung(counters, 499) == ()
    assert hung(counters, 500) == (0,)
    assert hung(counters, 500 + IDLE_MS) == (0, 1)


def test_empty_seats_and_dead_workers_are_not_hung() -> None:
    assert hung(Counters({**seat(), "pid": 0}, seat(connections=1, pid=2**22 + 1)), 100_000) == ()
