"""Scheduler, timer wheel, event ring and the relay of one buffer, each beside its plain-Python twin.

The compiled side does all turns in one call, as the worker's loop does; the twin does the same in a Python loop.
"""

from __future__ import annotations

import bisect
import heapq
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from bench.doors import load_cshim
from lbfast._ring import Ring
from lbfast._table import Table
from lbfast.config.layout import plan_layout
from lbfast.config.publish import publish
from lbfast.model.appliance import Config
from lbfast.model.state import Health, Scheduler

cshim = load_cshim()
COUNTS = (3, 100, 1000)
PICKS = 1000
SIZES = (256, 32768)


def table_with(scheduler: Scheduler, count: int) -> tuple[Table, int]:
    """A table as a configuration with so many real servers makes it, all up; and the slot of the service."""
    reals = [
        {"label": str(n), "id": str(UUID(int=n + 2)), "address": f"10.1.{n >> 8}.{n & 255}", "port": 443}
        for n in range(count)
    ]
    service = {
        "label": "picked",
        "id": str(UUID(int=1)),
        "address": "10.9.9.9",
        "ports": "443",
        "scheduler": str(scheduler),
    }
    config = Config.model_validate({"virtual_service": [{**service, "real_server": reals}]})
    layout, table = plan_layout(config), Table.create()
    publish(table, config, layout)
    for slot in layout.reals.values():
        table.set_health(slot, Health.UP, "")
    return table, layout.services["picked"]


@dataclass
class TwinReal:
    """What a plain-Python scheduler looks at."""

    weight: int
    connections: int
    online: bool
    up: bool


def twin_wlc(reals: list[TwinReal], cursor: int) -> int:
    """Fewest connections by weight; equal loads take turns."""
    best, chosen = 0.0, -1
    for step in range(len(reals)):
        at = (cursor + step) % len(reals)
        real = reals[at]
        if not real.online or not real.up or real.weight == 0:
            continue
        score = real.connections / real.weight
        if chosen < 0 or score < best:
            best, chosen = score, at
    return chosen


@pytest.mark.parametrize("count", COUNTS, ids="{:,}".format)
@pytest.mark.benchmark(group=f"pick {PICKS} times", max_time=0.3, min_rounds=3, warmup=False)
class TestPick:
    @pytest.mark.parametrize("scheduler", list(Scheduler), ids=str)
    def test_compiled(self, benchmark: Any, count: int, scheduler: Scheduler) -> None:
        table, service = table_with(scheduler, count)
        total = benchmark(lambda: cshim.sched_turns(table, service, "10.0.0.1", PICKS, 10_000_000))
        assert total > 0  # -1 each if nobody could be chosen

    def test_twin_wlc(self, benchmark: Any, count: int) -> None:
        reals = [TwinReal(100, 0, True, True) for _ in range(count)]
        chosen = benchmark(lambda: [twin_wlc(reals, turn) for turn in range(PICKS)])
        assert len(set(chosen)) == min(count, PICKS)


def twin_wheel(timers: int, turns: int) -> int:
    """A heap with lazy removal, as asyncio has it."""
    now, fired = 1000, 0
    due = {slot: now + 1 + slot % 60_000 for slot in range(timers)}
    heap = [(at, slot) for slot, at in due.items()]
    heapq.heapify(heap)
    for turn in range(turns):
        now += 1
        moved = turn * 7919 % timers
        due[moved] = now + 30_000
        heapq.heappush(heap, (due[moved], moved))
        while heap and heap[0][0] <= now:
            at, slot = heapq.heappop(heap)
            if due[slot] == at:
                fired += 1
                due[slot] = now + 60_000
                heapq.heappush(heap, (due[slot], slot))
    return fired


@pytest.mark.parametrize("timers", [1000, 10_000], ids="{:,}".format)
@pytest.mark.benchmark(group="timers: 10,000 ms, one moved in each", max_time=0.3, min_rounds=3, warmup=False)
class TestTimers:
    def test_compiled(self, benchmark: Any, timers: int) -> None:
        assert benchmark(cshim.wheel_turns, timers, 10_000) > 0

    def test_twin_heap(self, benchmark: Any, timers: int) -> None:
        assert benchmark(twin_wheel, timers, 10_000) > 0


@pytest.mark.benchmark(group="10,000 events written", max_time=0.3, min_rounds=3, warmup=False)
class TestRing:
    def test_compiled(self, benchmark: Any) -> None:
        ring = Ring.create(0)

        def work() -> int:
            ring.skip(0)
            return int(cshim.ring_turns(ring, 10_000))

        assert benchmark(work) == 10_000
        assert ring.lost == 0

    def test_twin_deque(self, benchmark: Any) -> None:
        events: deque[dict[str, int]] = deque(maxlen=16_384)

        def work() -> int:
            events.clear()
            for turn in range(10_000):
                events.append({"conn": turn, "kind": 2, "bytes_in": 1000})
            return len(events)

        assert benchmark(work) == 10_000


@pytest.mark.benchmark(group="10,000 events read", max_time=0.3, min_rounds=3, warmup=False)
def test_ring_read(benchmark: Any) -> None:
    ring = Ring.create(0)

    def fill() -> None:
        ring.skip(0)
        cshim.ring_turns(ring, 10_000)

    events = benchmark.pedantic(lambda: ring.read(10_000), setup=fill, rounds=5)
    conns = [event["id"] for event in events]
    assert bisect.bisect_left(conns, 9_999) == 9_999


@pytest.fixture
def wires() -> Iterator[list[socket.socket]]:
    """Client's end, our client side, our server side, server's end: two TCP connections over loopback."""
    ends: list[socket.socket] = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
        ends += [near, far]
    for end in ends:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ends[1].setblocking(False)
    ends[2].setblocking(False)
    yield ends
    for end in ends:
        end.close()


@pytest.mark.parametrize("size", SIZES, ids="{:,} bytes".format)
@pytest.mark.benchmark(group="relay 100 buffers", max_time=0.3, min_rounds=3, warmup=False)
class TestRelay:
    """Both include the two ends' own send and recv: the same four system calls, from C and from Python."""

    def test_compiled(self, benchmark: Any, wires: list[socket.socket], size: int) -> None:
        client, side, other, server = (wire.fileno() for wire in wires)
        relay = cshim.Relay(table_with(Scheduler.WLC, 1)[0], side, other)
        data = bytearray(b"x" * size)
        assert benchmark(lambda: relay.turns(client, server, data, 100)) >= 100 * size * 0.9

    def test_twin(self, benchmark: Any, wires: list[socket.socket], size: int) -> None:
        client, side, other, server = wires
        data, buffer = bytearray(b"x" * size), bytearray(32_768)
        view = memoryview(buffer)

        def work() -> int:
            total = 0
            for _ in range(100):
                client.send(data)
                got = side.recv_into(view)
                other.send(view[:got])
                total += server.recv_into(data)
            return total

        assert benchmark(work) >= 100 * size * 0.9
