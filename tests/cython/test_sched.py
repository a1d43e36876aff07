"""The schedulers: proportions by weight, turns, slow start, the hash and its bound; who is left out."""

from __future__ import annotations

from collections import Counter

import pytest
from data_plane import SERVICE
from stick_doors import cshim

from lbfast._sched import rendezvous
from lbfast._shm import now_ms
from lbfast._table import Table
from lbfast.model.state import Admin, Health, Scheduler

IDS = [bytes([n + 1]) * 16 for n in range(8)]


def table_of(scheduler: Scheduler, weights: list[int], **real: int) -> Table:
    table = Table.create()
    for slot, weight in enumerate(weights):
        settings = {"id": IDS[slot], "service": 0, "address": f"192.0.2.{slot + 1}", "port": 80, "weight": weight}
        rest = {"max_connections": 0, "slow_start_ms": 0, "is_fallback": False}
        table.write_real(slot, settings | rest | real)  # type: ignore[arg-type]
        table.set_health(slot, Health.UP, "")
    table.write_service(0, SERVICE | {"scheduler": scheduler, "reals": list(range(len(weights)))})  # type: ignore[arg-type,operator]
    return table


def choose(table: Table, count: int, *, loaded: bool = False, now: int = 1_000) -> Counter[int]:
    found: Counter[int] = Counter()
    for number in range(count):
        real = cshim.schedule(table, 0, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0, now)
        found[real] += 1
        if loaded:
            cshim.load(table, real, 1)
    return found


def test_round_robin_by_weight_is_exact() -> None:
    assert choose(table_of(Scheduler.WRR, [100, 200, 50]), 70) == {0: 20, 1: 40, 2: 10}
    assert choose(table_of(Scheduler.WRR, [1, 1, 1]), 9) == {0: 3, 1: 3, 2: 3}


def test_round_robin_spreads_a_heavy_servers_turns() -> None:
    table = table_of(Scheduler.WRR, [3, 1])
    turns = [cshim.schedule(table, 0, "10.0.0.1", 0, 1_000) for _ in range(40)]
    assert all(1 in turns[at : at + 5] for at in range(36))


def test_round_robin_does_not_catch_up() -> None:
    table = table_of(Scheduler.WRR, [100, 100])
    table.set_health(1, Health.DOWN, "")
    choose(table, 50)
    table.set_health(1, Health.UP, "")
    assert choose(table, 20)[1] <= 11


def test_least_connections_by_weight() -> None:
    found = choose(table_of(Scheduler.WLC, [100, 200, 100]), 400, loaded=True)
    assert (found[0], found[1], found[2]) == (100, 200, 100)


def test_least_connections_takes_turns_when_equal() -> None:
    found = choose(table_of(Scheduler.WLC, [100, 100, 100]), 300)
    assert max(found.values()) - min(found.values()) <= 1


def test_hash_agrees_with_the_pure_function() -> None:
    table = table_of(Scheduler.HASH, [100, 200, 50])
    reals = list(zip(IDS, [100, 200, 50], strict=False))
    for number in range(500):
        client = f"10.1.{number >> 8}.{number & 255}"
        assert cshim.schedule(table, 0, client, 0, 1_000) == rendezvous(SERVICE["id"], client, reals)


def test_hash_spreads_by_weight_and_moves_only_who_must() -> None:
    table = table_of(Scheduler.HASH, [100, 100, 200])
    clients = [f"10.2.{n >> 8}.{n & 255}" for n in range(4_000)]
    before = {client: cshim.schedule(table, 0, client, 0, 1_000) for client in clients}
    counts = Counter(before.values())
    assert 0.45 < counts[2] / 4_000 < 0.55
    assert 0.21 < counts[0] / 4_000 < 0.29
    table.set_health(0, Health.DOWN, "")
    after = {client: cshim.schedule(table, 0, client, 0, 1_000) for client in clients}
    assert all(after[c] == before[c] for c in clients if before[c] != 0)
    assert 0 not in after.values()


def test_hash_is_bounded_by_load() -> None:
    table = table_of(Scheduler.HASH, [100, 100, 100, 100])
    counts = [0] * 4
    for _ in range(400):  # one client's connections: all would go to one server
        real = cshim.schedule(table, 0, "10.0.0.1", 0, 1_000)
        cshim.load(table, real, 1)
        counts[real] += 1
    assert max(counts) <= 400 / 4 * 1.25 + 1


@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_who_is_left_out(scheduler: Scheduler) -> None:
    table = table_of(scheduler, [100] * 6)
    table.set_health(0, Health.DOWN, "")
    table.set_health(1, Health.UNKNOWN, "")
    table.set_admin(2, Admin.DRAIN)
    table.set_admin(3, Admin.HALT)
    table.set_weight(4, 0)
    assert choose(table, 20) == {5: 20}
    assert cshim.schedule(table, 0, "10.0.0.1", 1 << 5, 1_000) == -1  # tried
    table.clear_real(5)
    assert cshim.schedule(table, 0, "10.0.0.1", 0, 1_000) == -1


@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_a_full_server_is_left_out(scheduler: Scheduler) -> None:
    table = table_of(scheduler, [100, 100], max_connections=5)
    cshim.load(table, 0, 5)
    assert choose(table, 10) == {1: 10}
    cshim.load(table, 0, -1)
    cshim.load(table, 1, 4)
    assert 0 in choose(table, 40)


def test_slow_start_grows_from_a_tenth() -> None:
    table = table_of(Scheduler.WRR, [100, 100], slow_start_ms=100_000)
    assert choose(table, 20) == {0: 10, 1: 10}  # first sight is no slow start
    table.set_health(1, Health.DOWN, "")
    table.set_health(1, Health.UP, "")
    up = now_ms()
    for passed, share in ((0, 0.1), (50_000, 0.5), (100_000, 1.0)):
        found = choose(table, 220, now=up + passed)
        assert abs(found[1] / found[0] - share) < 0.05, (passed, found)


@pytest.mark.parametrize("admin", [Admin.DRAIN, Admin.HALT])
def test_slow_start_runs_from_online_too(admin: Admin) -> None:
    table = table_of(Scheduler.WRR, [100, 100], slow_start_ms=100_000)
    table.set_admin(1, Admin.ONLINE)
    assert choose(table, 20) == {0: 10, 1: 10}  # it was online: nothing comes back
    table.set_admin(1, admin)
    table.set_admin(1, Admin.ONLINE)
    found = choose(table, 220, now=now_ms())
    assert abs(found[1] / found[0] - 0.1) < 0.05, found
