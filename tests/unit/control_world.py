"""A small lbfast for the tests of control: real tables in real shared memory, stand-ins for what only workers write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from lbfast._counters import Counters
from lbfast._stick import StickTable
from lbfast._table import Table
from lbfast.config.layout import Layout, plan_layout
from lbfast.config.publish import publish
from lbfast.control.admin import AdminBook
from lbfast.control.catalog import Catalog, catalog_of
from lbfast.control.engine import About, Caller, Clock, Engine
from lbfast.control.events import EventStream
from lbfast.control.rate_limit import RateLimit
from lbfast.control.statefile import NAME, MarksFile
from lbfast.control.verbs import VERBS, finish
from lbfast.health.results import ProbeResults
from lbfast.model.appliance import Config
from lbfast.model.state import EventKind, Health, Reason

ROOT = Caller(1, 0, "root")
START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


class FakeRing:
    """An event ring that a test fills."""

    def __init__(self, capacity: int = 16_384) -> None:
        self.events: list[Any] = []
        self.capacity = capacity
        self.lost = 0
        self.decoded = 0
        self.asleep = False

    def write(self, **changes: Any) -> None:
        if len(self.events) >= self.capacity:
            self.lost += 1
        else:
            self.events.append(ring_event(**changes))

    def read(self, limit: int) -> list[Any]:
        taken, self.events = self.events[:limit], self.events[limit:]
        self.decoded += len(taken)
        return taken

    def rest(self, asleep: bool) -> None:
        self.asleep = asleep

    def skip(self, keep: int) -> int:
        gone = max(0, len(self.events) - keep)
        self.events = self.events[gone:]
        return gone

    def __len__(self) -> int:
        return len(self.events)


class FakeSlab:
    """The live connections that a test says there are."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def connections(self, service: int | None = None, client: str | None = None) -> Iterator[Any]:
        for record in self.records:
            if service in (None, record["service"]) and client in (None, record["client"]):
                yield record


def ring_event(**changes: Any) -> dict[str, Any]:
    event: dict[str, Any] = {
        "at": START.timestamp(), "kind": EventKind.OPEN, "id": 1, "worker": 0, "service": 0, "real": 0,
        "previous": -1, "reason": Reason.NEW, "client": "10.1.2.3", "client_port": 40_000, "port": 443,
        "attempts": 1, "connect_ms": 2, "duration_ms": 0, "bytes_in": 0, "bytes_out": 0, "ended": 0, "by": 0,
        "errno": 0,
    }  # fmt: skip
    return event | changes


def slab_record(**changes: Any) -> dict[str, Any]:
    record = {
        "id": 1, "phase": 3, "service": 0, "real": 0, "reason": Reason.NEW, "client": "10.1.2.3",
        "client_port": 40_000, "port": 443, "accepted_ms": 1_000_000, "connected_ms": 1_000_002,
        "client_active_ms": 1_000_500, "server_active_ms": 1_000_400, "bytes_in": 10, "bytes_out": 20, "attempts": 1,
    }  # fmt: skip
    return record | changes


def stick_entry(**changes: Any) -> Any:
    entry = {
        "client": "10.1.2.3", "real": 0, "tag": 1, "state": "bound", "pinned": False, "reason": Reason.NEW,
        "holds": 0, "created_ms": 900_000, "since_ms": 900_000, "closed_ms": 950_000, "previous": -1,
        "previous_reason": 0,
    }  # fmt: skip
    return entry | changes


class FakeTime:
    """Two clocks that a test moves, and the timers that hang on them."""

    def __init__(self) -> None:
        self.ms = 1_000_000
        self.wall = START
        self.timers: list[tuple[int, Callable[[], None], list[bool]]] = []

    def clock(self) -> Clock:
        return Clock(lambda: self.ms, lambda: self.wall)

    def call_later(self, delay: float, callback: Callable[[], None], /) -> FakeTimer:
        alive = [True]
        self.timers.append((self.ms + round(delay * 1000), callback, alive))
        return FakeTimer(alive)

    def pass_seconds(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)
        self.wall += timedelta(seconds=seconds)
        due = [timer for timer in self.timers if timer[0] <= self.ms]
        self.timers = [timer for timer in self.timers if timer[0] > self.ms]
        for _, callback, alive in due:
            if alive[0]:
                callback()


@dataclass
class FakeTimer:
    alive: list[bool]

    def cancel(self) -> None:
        self.alive[0] = False


@dataclass
class ListLog:
    records: list[dict[str, Any]] = field(default_factory=list)

    def submit(self, record: dict[str, Any]) -> None:
        self.records.append(record)


class CutTable:
    """A real table that also remembers which real servers were cut."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.cuts: list[int] = []

    def cut(self, real: int) -> None:
        self.cuts.append(real)
        self.table.cut(real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.table, name)


@dataclass
class FakeShared:
    table: Any
    counters: Counters
    sticks: dict[int, Any]
    slabs: list[FakeSlab]
    rings: list[FakeRing]
    results: ProbeResults
    ring_wake: int = -1


def service(label: str, number: int, reals: int = 3, **settings: Any) -> dict[str, Any]:
    return {
        "label": label,
        "id": str(UUID(int=number * 1000)),
        "address": "127.0.0.1",
        "ports": "443",
        "real_server": [
            {
                "label": f"{label} Server {index}",
                "id": str(UUID(int=number * 1000 + index)),
                "address": f"127.0.1.{index}",
            }
            for index in range(1, reals + 1)
        ],
    } | settings


SERVICES = [
    service("Symphony", 1, drain_deadline="10m", drain_cut=True),
    service("Röntgen ☢", 2, 2, ports="8000-8010", persistence={"timeout": "10m", "mask_v4": 24}),
    service("Plain", 3, 1, ports="80", persistence={"mode": "none"},
            fallback_server={"address": "127.0.1.99", "id": str(UUID(int=99))}),
]  # fmt: skip


class World:
    """Engine, memory and clocks; ``again()`` is a restart of control with the same memory."""

    def __init__(self, state_dir: Path, services: list[dict[str, Any]] | None = None, up: bool = True) -> None:
        self.state_dir = state_dir
        self.config = Config.model_validate({"virtual_service": SERVICES if services is None else services})
        self.layout: Layout = plan_layout(self.config)
        self.time = FakeTime()
        self.new_memory()
        self.again()
        if up:
            self.all_up()

    def new_memory(self) -> None:
        """What a restart of the supervisor does."""
        table = Table.create()
        publish(table, self.config, self.layout)
        sticks = {
            self.layout.services[vs.label]: StickTable.create(500)
            for vs in self.config.virtual_services
            if vs.persistence.mode
        }
        self.table = CutTable(table)
        self.shared = FakeShared(
            self.table, Counters.create(2), sticks, [FakeSlab(), FakeSlab()], [FakeRing(), FakeRing()],
            ProbeResults.create(max(1, len(self.layout.reals))),
        )  # fmt: skip

    def again(self) -> None:
        self.time.timers.clear()
        self.log = ListLog()
        clock = self.time.clock()
        self.limit = RateLimit(1000, 30.0)
        self.stream = EventStream(self.log, self.limit, lambda: self.time.ms / 1000, clock.now_iso)
        self.catalog: Catalog = catalog_of(self.config, self.layout)
        book = AdminBook(MarksFile(self.state_dir / NAME, clock.wall), self.shared, clock, self.time)
        about = About("0.1.0", 4711, "2026-03-01T08:00:00+00:00", "/etc/lbfast/lbfast.toml")
        self.engine = Engine(self.catalog, self.shared, book, self.stream, clock, about)
        book.announce = lambda service, real, message: self.engine.announce(message, service=service, real=real)
        book.restore(self.catalog)

    def all_up(self) -> None:
        for slot in self.layout.reals.values():
            self.table.set_health(slot, Health.UP, "connected in 1 ms")

    def call(self, verb: str, **args: Any) -> dict[str, Any]:
        return finish(VERBS[verb](self.engine, ROOT, args))

    def slot(self, service: str, real: str) -> int:
        return self.layout.reals[service, real]
