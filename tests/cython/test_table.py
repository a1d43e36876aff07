"""The table of services and real servers: what is written is read, slots keep their meaning, lists have room."""

from __future__ import annotations

import random

import pytest
from data_plane import SERVICE

from lbfast._table import Table
from lbfast.model.state import Admin, Health

REAL = {
    "id": b"one" * 5 + b"!",
    "service": 0,
    "address": "192.0.2.1",
    "port": 80,
    "weight": 100,
    "max_connections": 7,
    "slow_start_ms": 0,
    "is_fallback": False,
}


def write(table: Table, slot: int, **settings: object) -> None:
    table.write_real(slot, REAL | settings)  # type: ignore[arg-type]


def test_what_is_written_is_read_in_every_process() -> None:
    table = Table.create()
    write(table, 3, address="2001:db8::1")
    table.set_health(3, Health.UP, "200 in 3 ms")
    other = Table.attach(table.fd)
    found = other.real(3)
    assert (found["address"], found["port"], found["weight"], found["max_connections"]) == ("2001:db8::1", 80, 100, 7)
    assert (found["health"], found["reason"]) == (Health.UP, "200 in 3 ms")


def test_the_same_server_keeps_admin_and_health_another_does_not() -> None:
    table = Table.create()
    write(table, 0)
    table.set_health(0, Health.UP, "ok")
    table.set_admin(0, Admin.DRAIN)
    write(table, 0, weight=5, address="192.0.2.2")
    assert (table.real(0)["admin"], table.real(0)["health"], table.real(0)["weight"]) == (Admin.DRAIN, Health.UP, 5)
    write(table, 0, id=b"two" * 5 + b"!")
    assert (table.real(0)["admin"], table.real(0)["health"]) == (Admin.ONLINE, Health.UNKNOWN)


def test_a_long_reason_is_cut_between_characters() -> None:
    table = Table.create()
    write(table, 0)
    table.set_health(0, Health.DOWN, "ü" * 80)
    assert table.real(0)["reason"] == "ü" * 47


@pytest.mark.parametrize(
    ("change", "error"),
    [({"id": b"short"}, ValueError), ({"sources": ["10.0.0.1"] * 9}, ValueError), ({"reals": [40_000]}, IndexError)],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        Table.create().write_service(0, SERVICE | change)  # type: ignore[arg-type,operator]


def test_a_slot_belongs_to_its_service_until_it_is_cleared() -> None:
    table = Table.create()
    table.write_service(0, SERVICE)
    with pytest.raises(ValueError):
        table.write_service(0, SERVICE | {"id": b"another service!"})  # type: ignore[arg-type,operator]
    table.clear_service(0)
    table.write_service(0, SERVICE | {"id": b"another service!"})  # type: ignore[arg-type,operator]


def test_lists_change_again_and_again() -> None:
    """Places given up are used again; what others hold is never touched."""
    table, rng, wanted = Table.create(), random.Random(5), {}
    for turn in range(2_000):
        slot = rng.randrange(40)
        wanted[slot] = [rng.randrange(30_000) for _ in range(rng.randrange(400))]
        table.write_service(slot, SERVICE | {"id": slot.to_bytes(16, "little"), "reals": wanted[slot]})  # type: ignore[arg-type,operator]
        if turn % 100 == 0:
            assert all(table.service(s)["reals"] == reals for s, reals in wanted.items())
    assert all(table.service(s)["reals"] == reals for s, reals in wanted.items())
