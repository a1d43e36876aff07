"""Stick tables of two boxes: snapshots, ages, pins, holds, conflicts, removals, other sizes and numberings."""

from __future__ import annotations

import random

import pytest
from stick_doors import cshim, shared_refs

from lbfast._replica import Replica
from lbfast._stick import StickTable
from lbfast.model.state import Reason

TIMEOUT = 1000
RECORD = 44
SERVICE_THERE, SERVICE_HERE = 3, 9
REALS = {1: (501, 77), 2: (502, 88), 3: (503, 99)}  # the peer's slot -> our slot and tag


def bound(table: StickTable, client: str, real: int = 1, now: int = 0, refs: object = None, conn: int = 0) -> None:
    assert cshim.reserve(table, client, refs, conn, real, 7, cshim.BOUND, TIMEOUT, now) == "new"


def boxes(there: int = 100, here: int = 100) -> tuple[StickTable, Replica, StickTable, Replica]:
    source, target = StickTable.create(there), StickTable.create(here)
    receiver = Replica({SERVICE_HERE: target})
    receiver.set_peer({SERVICE_THERE: SERVICE_HERE}, REALS)
    return source, Replica({SERVICE_THERE: source}), target, receiver


def send(sender: Replica, receiver: Replica, now_there: int, now_here: int, limit: int = 50) -> int:
    """A whole resync; how many records."""
    at, count = 0, 0
    while at >= 0:
        records, at = sender.snapshot(SERVICE_THERE, at, limit, now_there)
        receiver.apply(bytes(records), 0, now_here)
        count += len(records) // RECORD
    return count


def test_entries_come_over_with_ages_under_our_own_numbers() -> None:
    source, sender, target, receiver = boxes()
    bound(source, "10.0.0.1", real=1, now=1000)
    cshim.bind(source, "10.0.0.1", 2, 7, cshim.BOUND, Reason.DOWN, 1400)
    assert send(sender, receiver, now_there=2000, now_here=1_000_000) == 1
    assert target.get("10.0.0.1") == {
        "client": "10.0.0.1", "real": 502, "tag": 88, "state": "bound", "pinned": False, "reason": Reason.PEER,
        "holds": 0, "created_ms": 999_000, "since_ms": 999_400, "closed_ms": 999_000, "previous": 501,
        "previous_reason": Reason.DOWN,
    }  # fmt: skip
    assert cshim.counters(target, 502) == (1, 1)
    cshim.audit(target)


def test_reservations_are_not_told() -> None:
    source, sender, target, receiver = boxes()
    refs = shared_refs(1)
    cshim.reserve(source, "10.0.0.1", refs, 0, 1, 7, cshim.PENDING, TIMEOUT, 0)
    assert send(sender, receiver, 0, 0) == 0
    assert len(target) == 0


def test_what_the_peer_holds_does_not_expire_here_until_we_take_over() -> None:
    source, sender, target, receiver = boxes()
    bound(source, "10.0.0.1", refs=shared_refs(1))
    send(sender, receiver, 0, 0)
    assert target.sweep(TIMEOUT, 100 * TIMEOUT, 1 << 20) == 0
    assert receiver.release_held(100 * TIMEOUT) == 1
    assert target.sweep(TIMEOUT, 101 * TIMEOUT, 1 << 20) == 0, "it ages from the takeover"
    assert target.sweep(TIMEOUT, 102 * TIMEOUT + 1, 1 << 20) == 1


def test_a_client_with_connections_here_is_ours() -> None:
    source, sender, target, receiver = boxes()
    bound(source, "10.0.0.1", real=1)
    refs = shared_refs(1)
    bound(target, "10.0.0.1", real=503, refs=refs)
    send(sender, receiver, 0, 0)
    entry = target.get("10.0.0.1")
    assert entry is not None
    assert (entry["real"], receiver.kept) == (503, 1)
    cshim.release(target, refs, 0, 5)
    send(sender, receiver, 0, 0)
    entry = target.get("10.0.0.1")
    assert entry is not None
    assert entry["real"] == 501


def test_pins_come_and_go() -> None:
    source, sender, target, receiver = boxes()
    source.pin("10.0.0.1", 1, 7, 0)
    send(sender, receiver, 0, 0)
    entry = target.get("10.0.0.1")
    assert entry is not None
    assert (entry["pinned"], entry["real"], entry["reason"]) == (True, 501, Reason.PINNED)
    source.pin("10.0.0.1", 2, 7, 0)
    send(sender, receiver, 0, 0)
    entry = target.get("10.0.0.1")
    assert entry is not None
    assert (entry["pinned"], entry["real"]) == (True, 502)
    cshim.audit(target)


def test_a_resync_removes_what_the_peer_does_not_have() -> None:
    source, sender, target, receiver = boxes()
    for number in range(20):
        bound(source, f"10.0.0.{number}")
    send(sender, receiver, 0, 0)
    source.clear("10.0.0.0/29")
    bound(target, "10.9.9.9", real=501)
    assert receiver.begin_resync() == 21
    send(sender, receiver, 0, 0)
    assert receiver.end_resync(0) == 9
    assert clients(target) == clients(source)
    assert receiver.begin_resync() == 12
    send(sender, receiver, 0, 0)
    assert receiver.end_resync(0) == 0
    cshim.audit(target)


def clients(table: StickTable) -> set[str]:
    return {entry["client"] for entry in table.entries()}


def test_unknown_servers_and_services_are_counted_and_left_out() -> None:
    source, sender, target, receiver = boxes()
    bound(source, "10.0.0.1", real=1)
    bound(source, "10.0.0.2", real=4)
    send(sender, receiver, 0, 0)
    assert (len(target), receiver.unknown, receiver.applied) == (1, 1, 1)
    receiver.set_peer({}, REALS)
    send(sender, receiver, 0, 0)
    assert receiver.unknown == 3


def test_half_a_record_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 44"):
        Replica({}).apply(b"x" * 43, 0, 0)


def test_garbage_of_the_right_size_harms_nothing() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    _, _, target, receiver = boxes()
    receiver.apply(random.Random(seed).randbytes(RECORD * 5000), 0, 0)
    cshim.audit(target)


def test_tables_of_other_sizes_end_equal() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    source, sender, target, receiver = boxes(there=20_000, here=60_000)
    for _ in range(20_000):
        client = f"10.{chance.randrange(4)}.{chance.randrange(256)}.{chance.randrange(256)}"
        cshim.reserve(source, client, None, 0, 1 + chance.randrange(3), 7, cshim.BOUND, TIMEOUT, 0)
    send(sender, receiver, 0, 0, limit=777)
    there = {entry["client"]: REALS[entry["real"]][0] for entry in source.entries()}
    assert {entry["client"]: entry["real"] for entry in target.entries()} == there
    cshim.audit(target)
