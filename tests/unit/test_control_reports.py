"""What the reading verbs answer, from real shared memory."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
from control_world import World, service, slab_record, stick_entry
from waiting import TIMEOUT_SCALE

from lbfast.control.clients import expires_in
from lbfast.control.protocol import ControlError
from lbfast.control.reports import service_state
from lbfast.control.sweep import buckets_per_second, sweep_once
from lbfast.health.certificates import Certificate
from lbfast.health.results import CertificateNote
from lbfast.model.state import Admin, Health, Phase, Reason

VS, R1, R2 = "Symphony", "Symphony Server 1", "Symphony Server 2"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_overview_has_the_shape_of_the_contract(world: World) -> None:
    world.call("persistence_pin", service=VS, client="10.0.0.1", real=R1)
    first, second, third = world.call("overview")["virtual_services"]
    assert {key: first[key] for key in first if key != "real_servers"} == {
        "label": VS, "address": "127.0.0.1", "ports": "443", "mode": "tcp", "connections": 0, "state": "up",
        "persistence_entries": 1,
    }  # fmt: skip
    assert first["real_servers"][0] == {
        "label": R1, "address": "127.0.1.1", "port": 0, "weight": 100, "connections": 0, "clients": 1,
        "admin": "online", "health": "up", "state": "up", "reason": "connected in 1 ms",
    }  # fmt: skip
    assert (second["ports"], second["persistence_entries"]) == ("8000-8010", 0)
    assert (third["persistence_entries"], third["real_servers"][0]["clients"]) == (None, None)
    assert [real["label"] for real in third["real_servers"]] == ["Plain Server 1"]
    assert third["fallback_server"]["address"] == "127.0.1.99"


def real(admin: Admin = Admin.ONLINE, health: Health = Health.UP, weight: int = 100) -> Any:
    return {"admin": admin, "health": health, "weight": weight}


UP, DOWN, WAIT = real(), real(health=Health.DOWN), real(health=Health.UNKNOWN)
DRAINED, HALTED, ZERO = real(Admin.DRAIN), real(Admin.HALT), real(weight=0)
STATES = [
    ([UP, UP], "up"), ([UP, ZERO], "up"), ([UP, DOWN], "degraded"), ([UP, DRAINED], "degraded"),
    ([UP, WAIT], "degraded"), ([DOWN, DOWN], "down"), ([DOWN, DRAINED], "down"), ([WAIT, WAIT], "checking"),
    ([WAIT, DOWN], "checking"), ([DRAINED, HALTED], "drained"), ([ZERO, DRAINED], "drained"), ([], "down"),
    ([real(Admin.DRAIN, Health.DOWN)], "drained"), ([real(Admin.HALT, Health.UNKNOWN)], "drained"),
]  # fmt: skip


@pytest.mark.parametrize(("reals", "expected"), STATES)
def test_state_of_a_service(reals: list[Any], expected: str) -> None:
    assert service_state(reals) == expected


def test_every_combination_has_a_state() -> None:
    kinds = [real(a, h, w) for a in Admin for h in Health for w in (0, 100)]
    for pair in itertools.product(kinds, repeat=2):
        assert service_state(pair) in {"up", "degraded", "down", "checking", "drained"}


def test_down_shows_the_probe_and_drain_shows_the_operator(world: World) -> None:
    world.table.set_health(world.slot(VS, R1), Health.DOWN, "connect: Connection refused")
    world.call("drain", service=VS, real=R2, reason="new disk")
    one, two, _ = world.call("overview")["virtual_services"][0]["real_servers"]
    assert (one["state"], one["reason"]) == ("down", "connect: Connection refused")
    assert (two["state"], "new disk" in two["reason"]) == ("drain", True)
    world.table.set_health(world.slot(VS, R2), Health.DOWN, "HTTP 503")
    two = world.call("overview")["virtual_services"][0]["real_servers"][1]
    assert two["reason"].startswith("HTTP 503; drained by ")


def test_overview_of_500_services_is_quick(tmp_path: Path) -> None:
    services = [service(f"VS {number} <b>\"'؜", number, 4, ports=str(1000 + number)) for number in range(1, 501)]
    world = World(tmp_path, services)
    world.call("overview")
    best = min(_timed(world) for _ in range(5))
    assert len(world.call("overview")["virtual_services"]) == 500
    assert best < 0.050 * TIMEOUT_SCALE, f"{best * 1000:.1f} ms"


def _timed(world: World) -> float:
    start = time.process_time()
    world.call("overview")
    return time.process_time() - start


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 1750.0),  # closed 50 s ago, 30 minutes
        ({"holds": 2}, None),
        ({"pinned": True}, None),
        ({"state": "pending", "closed_ms": 0}, None),
        ({"closed_ms": 0, "since_ms": 990_000}, 1790.0),
        ({"closed_ms": 1}, 800.001),
        ({"closed_ms": -5_000_000}, 0.0),
    ],
)
def test_expires_in(changes: dict[str, Any], expected: float | None) -> None:
    assert expires_in(stick_entry(**changes), 1_800_000, 1_000_000) == expected


class EntryTable:
    """A stick table of given entries, for what only workers can put into a real one."""

    def __init__(self, entries: list[Any]) -> None:
        self.held = {entry["client"]: entry for entry in entries}
        self.capacity = 1000

    def get(self, client: str) -> Any:
        return self.held.get(client)

    def entries(self) -> Any:
        return iter(self.held.values())

    def counts(self) -> dict[int, int]:
        return {}

    def __len__(self) -> int:
        return len(self.held)


def test_persistence_show_filters_and_counts(world: World) -> None:
    clients = [f"10.0.{a}.{b}" for a in range(20) for b in range(100)] + ["2001:db8::1"]
    world.shared.sticks[0] = EntryTable([stick_entry(client=client) for client in clients])
    shown = world.call("persistence_show", service=VS, limit=3)
    assert (len(shown["entries"]), shown["count"], shown["capacity"]) == (3, 2001, 1000)
    assert world.call("persistence_show", service=VS, client="10.0.7.0/24", limit=10)["count"] == 100
    assert [e["client"] for e in world.call("persistence_show", service=VS, client="10.0.7.7")["entries"]] == [
        "10.0.7.7"
    ]
    assert world.call("persistence_show", service=VS, client="2001:db8::/32")["count"] == 1
    assert world.call("persistence_show", service=VS, client="::ffff:10.0.7.7")["count"] == 1
    assert world.call("persistence_show", service=VS, client="10.9.9.9") == {
        "entries": [],
        "count": 0,
        "capacity": 1000,
    }
    assert world.call("persistence_show", service=VS)["count"] == 2001


def test_entry_report(world: World) -> None:
    entry = stick_entry(real=1, previous=0, previous_reason=Reason.DOWN, reason=Reason.TABLE)
    world.shared.sticks[0] = EntryTable([entry])
    (shown,) = world.call("persistence_show", service=VS)["entries"]
    assert shown == {
        "client": "10.1.2.3", "real": R2, "state": "bound", "pinned": False, "reason": "table", "connections": 0,
        "created": "2026-03-01T07:58:20.000+00:00", "since": "2026-03-01T07:58:20.000+00:00",
        "closed": "2026-03-01T07:59:10.000+00:00", "expires_in": 1750.0, "previous": R1, "previous_reason": "down",
    }  # fmt: skip


def test_connections(world: World) -> None:
    world.shared.slabs[0].records = [slab_record(), slab_record(id=2, client="10.1.9.9", real=-1, phase=Phase.CONNECT)]
    world.shared.slabs[1].records = [slab_record(id=1 << 40 | 1, client="10.1.2.3"), slab_record(service=1)]
    everything = world.call("connections", service=VS)["connections"]
    assert [item["id"] for item in everything] == ["0-1", "0-2", "1-1"]
    assert everything[1]["real"] is None
    assert everything[0] == {
        "id": "0-1", "worker": 0, "client": "10.1.2.3", "client_port": 40_000, "port": 443, "real": R1,
        "phase": "relay", "reason": "new", "opened": "2026-03-01T08:00:00.000+00:00", "idle": 0,
        "bytes_in": 10, "bytes_out": 20,
    } | {"idle": everything[0]["idle"]}  # fmt: skip
    assert len(world.call("connections", service=VS, client="10.1.2.3")["connections"]) == 2
    assert len(world.call("connections", service=VS, client="10.1.8.0/21")["connections"]) == 1


def test_many_connections_come_in_steps(world: World) -> None:
    from lbfast.control.verbs import VERBS

    world.shared.slabs[0].records = [slab_record(id=number) for number in range(1700)]
    steps = VERBS["connections"](world.engine, None, {"service": VS})  # type: ignore[arg-type]
    assert not isinstance(steps, dict)
    assert sum(1 for _ in steps) == 3


def test_health_report(world: World) -> None:
    slot = world.slot(VS, R1)
    world.shared.results.claim(slot, world.catalog.service(VS).real(R1).id)
    for number in range(3):
        world.shared.results.add(slot, 1_772_352_000 + number, number != 1, number, f"probe {number}")
    certificate = Certificate("ab" * 32, "CN=x", not_before=1, not_after=99_999_999_999_999)
    world.shared.results.set_note(slot, CertificateNote(certificate, ("expires soon",)))
    shown = world.call("health", service=VS, real=R1)
    assert [result["reason"] for result in shown["results"]] == ["probe 2", "probe 1", "probe 0"]
    assert (shown["health"], shown["state"], shown["warnings"]) == ("up", "up", ["expires soon"])
    assert (shown["certificate"]["subject"], shown["certificate"]["not_after"]) == ("CN=x", None)
    assert world.call("health", service="Plain", real="Plain Server 1")["certificate"] is None
    listed = world.call("certificates")["real_servers"]
    assert [(it["service"], it["real"], it["warnings"]) for it in listed] == [(VS, R1, ["expires soon"])]
    assert listed[0]["certificate"]["subject"] == "CN=x"


def test_statistics_and_version_are_plain_json(world: World) -> None:
    shown = json.loads(json.dumps(world.call("statistics")))
    assert [worker["index"] for worker in shown["workers"]] == [0, 1]
    assert [real["label"] for real in shown["virtual_services"][2]["real_servers"]] == ["Plain Server 1", "fallback"]
    assert shown["virtual_services"][0]["real_servers"][0]["opened"] == 0
    assert world.call("version")["workers"] == 2


@pytest.mark.parametrize(
    ("verb", "args", "code", "message"),
    [
        ("drain", {"service": "Symfony", "real": R1}, "no_such_service", "did you mean 'Symphony'"),
        ("drain", {"service": VS, "real": "Symphony Server 9"}, "no_such_real", "did you mean 'Symphony Server"),
        ("persistence_show", {"service": "Plain"}, "no_persistence", "keeps no persistence table"),
        ("persistence_show", {"service": VS, "client": "10.1.2"}, "bad_argument", "'10.1.2' is not an address"),
        ("persistence_clear", {"service": VS, "client": "10.0.0.0/40"}, "bad_argument", "nor a CIDR"),
        ("explain", {"service": VS, "client": "fe80::1%eth0"}, "bad_argument", "names a zone"),
        ("persistence_pin", {"service": "Plain", "client": "::1", "real": "fallback"}, "bad_argument", "never stored"),
        ("weight", {"service": "Plain", "real": "fallback", "weight": 1}, "bad_argument", "has no weight"),
        ("weight", {"service": VS, "real": R1, "weight": 257}, "bad_argument", "expected 0 to 256, found 257"),
        ("weight", {"service": VS, "real": R1, "weight": True}, "bad_argument", "found true or false"),
        ("weight", {"service": VS, "real": R1, "weight": 1.5}, "bad_argument", "a whole number, found a number (1.5)"),
        ("weight", {"service": VS, "real": R1}, "bad_argument", "weight is missing"),
        ("drain", {"service": VS, "real": R1, "reason": "x" * 501}, "bad_argument", "found 501"),
        ("drain", {"service": VS, "real": R1, "reason": "\ud800"}, "bad_argument", "surrogate"),
        ("drain", {"service": VS, "real": R1, "why": "x"}, "bad_argument", "unknown argument 'why'"),
        ("overview", {"x": 1}, "bad_argument", "it takes none"),
    ],
)  # fmt: skip
def test_refusals_say_what_would_be_right(
    world: World, verb: str, args: dict[str, Any], code: str, message: str
) -> None:
    with pytest.raises(ControlError) as caught:
        world.call(verb, **args)
    assert caught.value.code == code
    assert message in caught.value.message


class SweptTable(EntryTable):
    """Buckets visited in turn, each with one entry that is due."""

    def __init__(self, buckets: int) -> None:
        super().__init__([])
        self.capacity = buckets * 14
        self.due = buckets
        self.timeouts: set[int] = set()

    def sweep(self, timeout_ms: int, now_ms: int, buckets: int) -> int:
        self.timeouts.add(timeout_ms)
        gone = min(buckets, self.due)
        self.due -= gone
        return gone


@pytest.mark.parametrize("buckets", [1, 7, 1000, 100_001])
def test_a_pass_of_the_sweep_takes_at_most_30_turns(world: World, buckets: int) -> None:
    first, second = SweptTable(buckets), SweptTable(3)
    world.shared.sticks = {0: first, 1: second}
    turns = 0
    while first.due:
        sweep_once(world.engine)
        turns += 1
    assert turns <= 30
    assert buckets_per_second(first.capacity) <= buckets // 30 + 1
    assert (first.timeouts, second.timeouts) == ({1_800_000}, {600_000})
