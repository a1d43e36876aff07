"""Event records, the stream with its followers, the rate limit, and bounded work at any rate."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest
from control_world import World, ring_event

from lbfast.control.events import FOLLOWER_QUEUE, KEEP, PER_TURN, PER_TURN_QUIET, RingDrain
from lbfast.control.rate_limit import RateLimit
from lbfast.control.records import connection_record
from lbfast.model.state import Ended, EndedBy, EventKind, Reason


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def drain_of(world: World) -> RingDrain:
    return RingDrain(world.shared.rings, lambda: world.catalog, world.stream)


def test_open_record(world: World) -> None:
    record = connection_record(ring_event(previous=1, reason=Reason.DOWN, attempts=2), world.catalog)  # type: ignore[arg-type]
    at = record.pop("at")
    assert record == {
        "event": "open", "id": "0-1", "service": "Symphony", "client": "10.1.2.3", "client_port": 40_000, "port": 443,
        "real": "Symphony Server 1", "reason": "down", "previous": "Symphony Server 2", "attempts": 2, "connect_ms": 2,
    }  # fmt: skip
    assert at[:4] == "2026"
    assert at[-6] in "+-"


def test_close_and_refuse_records(world: World) -> None:
    close = connection_record(
        ring_event(kind=EventKind.CLOSE, ended=Ended.RESET, by=EndedBy.SERVER, bytes_in=1, bytes_out=2, duration_ms=3),
        world.catalog,
    )  # type: ignore[arg-type]
    assert (close["ended"], close["by"], close["bytes_in"], close["duration_ms"]) == ("reset", "server", 1, 3)
    refuse = connection_record(
        ring_event(kind=EventKind.REFUSE, real=-1, reason=0, ended=Ended.CONNECT, errno=errno.ECONNREFUSED),
        world.catalog,
    )  # type: ignore[arg-type]
    assert not {"real", "reason", "previous", "connect_ms"} & set(refuse)
    assert refuse["error"] == "Connection refused"


@pytest.mark.parametrize("kind", list(EventKind))
def test_every_kind_with_every_word_and_unknown_slots(world: World, kind: EventKind) -> None:
    for ended in Ended:
        event = ring_event(kind=kind, ended=ended, by=ended % 4, reason=ended % 13, service=77, real=88, previous=99)
        record = connection_record(event, world.catalog)  # type: ignore[arg-type]
        assert record["service"] == "removed service #77"
        assert record["real"] == "removed server #88"
    assert connection_record(ring_event(kind=kind, reason=200), world.catalog)["reason"] == "200"  # type: ignore[arg-type]


def test_rings_are_merged_in_order_of_time(world: World) -> None:
    for number in range(6):
        world.shared.rings[number % 2].write(at=1000.0 + number, id=number)
    assert drain_of(world).turn("now") == 6
    assert [record["id"] for record in world.call("events")["events"]] == [f"0-{number}" for number in range(6)]
    assert len(world.log.records) == 6


def test_events_keeps_the_newest(world: World) -> None:
    for _ in range(3):
        for number in range(700):
            world.shared.rings[0].write(id=number)
        drain_of(world).turn("now")
    assert len(world.call("events", limit=1000)["events"]) == KEEP
    assert world.call("events", limit=1)["events"][0]["id"] == "0-699"
    assert len(world.call("events")["events"]) == 100
    assert world.call("events", limit=0) == {"events": []}


def test_log_is_limited_and_says_how_many_it_left_out(world: World) -> None:
    drain = drain_of(world)
    for _ in range(5):
        for number in range(500):
            world.shared.rings[0].write(id=number)
        drain.turn("now")
    assert len(world.log.records) == 1000
    world.engine.announce("an act")  # acts are logged beyond the limit
    assert world.log.records[-1]["message"] == "an act"
    world.time.pass_seconds(31)
    drain.turn("now")
    assert world.log.records[-1]["suppressed"] == 1500
    assert world.log.records[-1]["message"] == (
        "1500 records of connections were not logged: the limit is 1000 in 30 s"
    )
    world.shared.rings[0].write(id=9)
    drain.turn("now")
    assert world.log.records[-1]["id"] == "0-9"


def test_decoding_is_bounded_when_nobody_takes_the_records(world: World) -> None:
    drain = drain_of(world)
    for number in range(16_000):
        world.shared.rings[0].write(id=number)
    assert drain.turn("now") <= 1000
    for _ in range(10):
        for ring in world.shared.rings:
            for number in range(8_000):
                ring.write(id=number)
        before = sum(ring.decoded for ring in world.shared.rings)
        drain.turn("now")
        assert sum(ring.decoded for ring in world.shared.rings) - before <= PER_TURN_QUIET
    assert world.call("events", limit=1)["events"][0]["id"] == "0-7999"  # the newest were kept
    total = 16_000 + 160_000
    world.time.pass_seconds(31)
    drain.turn("now")
    assert world.log.records[-1]["suppressed"] == total - 1000


def test_a_follower_gets_more_and_learns_what_was_skipped(world: World) -> None:
    async def run() -> tuple[int, int]:
        follower = world.stream.follow()
        for number in range(10_000):
            world.shared.rings[0].write(id=number)
        drain_of(world).turn("now")
        records, missed = await follower.take()
        return len(records), missed

    got, missed = asyncio.run(run())
    assert got == PER_TURN
    assert got + missed == 10_000


def test_a_full_follower_counts_and_holds_up_nobody(world: World) -> None:
    async def run() -> tuple[Any, Any]:
        slow, quick = world.stream.follow(), world.stream.follow()
        seen = 0
        for _ in range(FOLLOWER_QUEUE + 5):
            world.engine.announce("x")
            seen += len((await quick.take())[0])
        return await slow.take(), seen

    (records, missed), seen = asyncio.run(run())
    assert (len(records), missed, seen) == (FOLLOWER_QUEUE, 5, FOLLOWER_QUEUE + 5)


def test_lost_events_are_reported(world: World) -> None:
    drain = drain_of(world)
    world.shared.rings[1].lost = 12
    drain.turn("now")
    drain.turn("now")
    assert [record["message"] for record in world.log.records] == [
        "12 events of a worker were lost: its event ring (of seat 1) was full"
    ]


def test_no_limit_logs_everything(world: World) -> None:
    limit = RateLimit(0, 30.0)
    assert all(limit.allow(0.0) for _ in range(10_000))
    assert limit.left() is None
    assert limit.turn(100.0) == 0


def test_limit_window_begins_with_its_first_record() -> None:
    limit = RateLimit(2, 10.0)
    assert [limit.allow(100.0), limit.allow(105.0), limit.allow(109.0)] == [True, True, False]
    assert limit.turn(109.9) == 0
    assert limit.turn(110.0) == 1
    assert limit.turn(111.0) == 0
    assert limit.allow(111.0)
