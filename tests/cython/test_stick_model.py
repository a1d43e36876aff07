"""The stick table against a dict: thousands of seeded operations, tiny tables, colliding keys."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from stick_doors import cshim, shared_refs

from lbfast._stick import StickTable
from lbfast.model.state import Reason

TIMEOUT = 200
CONNS = 24


@dataclass
class Modelled:
    real: int
    tag: int
    state: int
    bucket: int
    created: int
    since: int
    closed: int
    reason: int = Reason.NEW
    pinned: bool = False
    previous: int = -1
    holders: set[int] = field(default_factory=set)

    @property
    def is_held(self) -> bool:
        return bool(self.holders) or self.pinned

    def is_expired(self, now: int) -> bool:
        return not self.is_held and (self.state == cshim.PENDING or now - self.closed > TIMEOUT)

    def bind(self, real: int, tag: int, state: int, reason: int, now: int) -> None:
        if (real, tag) != (self.real, self.tag):
            self.previous = self.real if real != self.real else -1
            self.since = now
        elif state != self.state:
            self.since = now
        self.real, self.tag, self.state, self.reason = real, tag, state, reason


class Model:
    """What the table must hold; told which entry was evicted, checks that it was a right choice."""

    def __init__(self, table: StickTable) -> None:
        self.table = table
        self.entries: dict[str, Modelled] = {}
        self.holding: dict[int, tuple[str, Modelled] | None] = {}

    def alive(self, client: str, now: int) -> Modelled | None:
        entry = self.entries.get(client)
        return None if entry is None or entry.is_expired(now) else entry

    def make_room(self, client: str, bucket: int, now: int) -> bool:
        """Drop what the table dropped from a full bucket: an expired entry, else the one closed longest ago."""
        inside = {each: entry for each, entry in self.entries.items() if entry.bucket == bucket}
        if len(inside) < cshim.WAYS:
            return True
        expired = [each for each, entry in inside.items() if entry.is_expired(now)]
        free = {each: entry.closed for each, entry in inside.items() if not entry.is_held}
        allowed = expired or [each for each, closed in free.items() if closed == min(free.values())]
        if not allowed:
            return False
        present = {entry["client"] for entry in self.table.entries()}
        gone = [each for each in allowed if each not in present]
        # The client's own expired entry may have been the one to make room for its new one.
        assert len(gone) == 1 or (not gone and client in expired), (allowed, gone)
        for each in gone:
            del self.entries[each]
        return True

    def insert(self, client: str, real: int, tag: int, state: int, now: int) -> Modelled | None:
        stale = self.entries.get(client)
        bucket = cshim.bucket_of(self.table, client)
        if not self.make_room(client, bucket, now):
            return None
        if stale is not None:
            self.entries.pop(client, None)
        entry = self.entries[client] = Modelled(real, tag, state, bucket, now, now, now)
        return entry


def compare(table: StickTable, model: Model) -> None:
    found = {entry["client"]: entry for entry in table.entries()}
    assert found.keys() == model.entries.keys()
    for client, want in model.entries.items():
        entry = found[client]
        assert (entry["real"], entry["tag"], entry["holds"], entry["pinned"]) == (
            want.real, want.tag, len(want.holders), want.pinned,
        )  # fmt: skip
        assert entry["state"] == ("bound" if want.state == cshim.BOUND else "pending")
        assert (entry["created_ms"], entry["since_ms"], entry["closed_ms"]) == (want.created, want.since, want.closed)
        assert (entry["previous"], entry["reason"]) == (want.previous, want.reason)
    wrong, holds = cshim.audit(table)
    assert wrong == []
    assert sum(holds.values()) == sum(len(entry.holders) for entry in model.entries.values())


class Driver:
    """Does one random operation to the table and to the model."""

    def __init__(self, capacity: int, clients: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.table = StickTable.create(capacity)
        self.model = Model(self.table)
        self.refs = shared_refs(CONNS)
        self.clients = [f"10.0.{i // 200}.{i % 200}" for i in range(clients)]
        self.now = 0

    def turn(self) -> None:
        self.now += self.random.choice((0, 0, 1, 3, 40))
        verbs = [self.connect, self.connect, self.close, self.close, self.close, self.reserve, self.bind, self.rare]
        self.random.choice(verbs)(self.random.choice(self.clients), self.random.randrange(CONNS))

    def target(self) -> tuple[int, int]:
        real = self.random.randrange(3)
        return real, self.random.choice((real + 10, real + 10, real + 20))

    def connect(self, client: str, conn: int) -> None:
        if conn in self.model.holding:
            return
        real, tag = self.target()
        state = self.random.choice((cshim.PENDING, cshim.BOUND))
        found = self.model.alive(client, self.now)
        outcome = cshim.reserve(self.table, client, self.refs, conn, real, tag, state, TIMEOUT, self.now)
        entry = found or self.model.insert(client, real, tag, state, self.now)
        assert outcome == ("found" if found else "new" if entry else "full")
        if entry:
            entry.holders.add(conn)
            self.model.holding[conn] = (client, entry)

    def close(self, _client: str, conn: int) -> None:
        cshim.release(self.table, self.refs, conn, self.now)
        held = self.model.holding.pop(conn, None)
        if held is None or self.model.entries.get(held[0]) is not held[1]:
            return  # nothing held, or the entry was cleared meanwhile
        client, entry = held
        entry.holders.discard(conn)
        entry.closed = self.now
        if entry.state == cshim.PENDING and not entry.is_held:
            del self.model.entries[client]

    def reserve(self, client: str, _conn: int) -> None:
        real, tag = self.target()
        found = self.model.alive(client, self.now)
        outcome = cshim.reserve(self.table, client, None, 0, real, tag, cshim.BOUND, TIMEOUT, self.now)
        entry = found or self.model.insert(client, real, tag, cshim.BOUND, self.now)
        assert outcome == ("found" if found else "new" if entry else "full")

    def bind(self, client: str, _conn: int) -> None:
        real, tag = self.target()
        entry = self.model.entries.get(client)
        if entry is not None and entry.state == cshim.PENDING and not entry.is_held:
            return
        assert cshim.bind(self.table, client, real, tag, cshim.BOUND, Reason.DOWN, self.now) == (entry is not None)
        if entry is not None and not entry.pinned:
            entry.bind(real, tag, cshim.BOUND, Reason.DOWN, self.now)

    def rare(self, client: str, _conn: int) -> None:
        kind = self.random.randrange(8)
        if kind == 0:
            assert self.table.remove(client) == (self.model.entries.pop(client, None) is not None)
        elif kind == 1:
            gone = self.table.sweep(TIMEOUT, self.now, 10**6)
            expired = [client for client, entry in self.model.entries.items() if entry.is_expired(self.now)]
            assert gone == len(expired)
            for each in expired:
                del self.model.entries[each]
        elif kind == 2 and self.random.random() < 0.3:
            real = self.random.randrange(3)
            chosen = [each for each, entry in self.model.entries.items() if entry.real == real]
            assert self.table.clear(real=real) == len(chosen)
            for each in chosen:
                del self.model.entries[each]
        elif kind == 3 and client in self.model.entries:
            entry = self.model.entries[client]
            self.table.pin(client, 2, 12, self.now)
            entry.bind(2, 12, cshim.BOUND, Reason.PINNED, self.now)
            entry.pinned = True


@pytest.mark.parametrize(("capacity", "clients"), [(1, 10), (1, 40), (20, 60), (1000, 300)])
@pytest.mark.parametrize("seed", range(5))
def test_against_a_dict(capacity: int, clients: int, seed: int) -> None:
    driver = Driver(capacity, clients, seed)
    turns = 2000
    for turn in range(turns):
        driver.turn()
        if turn % 25 == 0 or turn == turns - 1:
            compare(driver.table, driver.model)
    assert driver.table.counts() == {
        real: sum(entry.real == real for entry in driver.model.entries.values())
        for real in {entry.real for entry in driver.model.entries.values()}
    }
    for conn in range(CONNS):
        driver.close("", conn)
    compare(driver.table, driver.model)
