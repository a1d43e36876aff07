"""What lbfast knows of its clients: entries of the persistence table, live connections.

Whole tables are read in steps: a report that may be long is a generator that yields
now and then and returns its result, so that control does other things in between.
(Not in a thread: the locks of a stick table know processes, not threads.)
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lbfast.control.addresses import covering, is_inside, key_of, mask_of, parse_network
from lbfast.control.catalog import ServiceInfo
from lbfast.control.engine import Engine, StickFace, persistence_table
from lbfast.control.protocol import ControlError
from lbfast.control.records import connection_id, word
from lbfast.model.state import Phase, Reason

if TYPE_CHECKING:
    from lbfast._conn import ConnRecord
    from lbfast._stick import Entry

Report = dict[str, Any]
Steps = Generator[None, None, Report]
T = TypeVar("T")

STEP: Final = 500  # items handled between two yields


def stick_of(engine: Engine, service: ServiceInfo) -> StickFace:
    """The stick table of a service, or the error that it has none."""
    stick = persistence_table(engine.shared, service)
    if stick is None:
        raise ControlError("no_persistence", f"{service.label!r} keeps no persistence table (persistence mode none)")
    return stick


def expires_in(entry: Entry, timeout_ms: int, now_ms: int) -> float | None:
    """Seconds until an entry expires; None while it is held, pinned or still connecting."""
    if entry["holds"] or entry["pinned"] or entry["state"] != "bound":
        return None
    idle_since = entry["closed_ms"] or entry["since_ms"]
    return round(max(0, idle_since + timeout_ms - now_ms) / 1000, 3)


def is_expired(entry: Entry, timeout_ms: int, now_ms: int) -> bool:
    """Whether workers take no notice of the entry any more: it stays in the table until a sweep comes by."""
    free = not entry["holds"] and not entry["pinned"] and entry["state"] == "bound"
    return free and now_ms - (entry["closed_ms"] or entry["since_ms"]) > timeout_ms


def entry_report(engine: Engine, service: ServiceInfo, entry: Entry) -> Report:
    clock, catalog = engine.clock, engine.catalog
    moved = entry["previous"] >= 0
    return {
        "client": _shown(service, entry["client"]),
        "real": catalog.real_label(entry["real"]),
        "state": entry["state"],
        "pinned": entry["pinned"],
        "reason": word(Reason, entry["reason"]),
        "connections": entry["holds"],
        "created": clock.iso(entry["created_ms"]),
        "since": clock.iso(entry["since_ms"]) if entry["since_ms"] else None,
        "closed": clock.iso(entry["closed_ms"]) if entry["closed_ms"] and not entry["holds"] else None,
        "expires_in": expires_in(entry, service.timeout_ms, clock.now_ms()),
        "previous": catalog.real_label(entry["previous"]),
        "previous_reason": word(Reason, entry["previous_reason"]) if moved else None,
    }


def _shown(service: ServiceInfo, client: str) -> str:
    """An address; with a mask, the network that counts as one client."""
    version = 6 if ":" in client else 4
    mask = mask_of(service, version)
    return client if mask == (32 if version == 4 else 128) else f"{client}/{mask}"


def persistence_show(engine: Engine, service: ServiceInfo, client: str | None, limit: int) -> Steps:
    """Entries of one client, of a network or of all; ``count`` is how many there are, shown or not."""
    stick = stick_of(engine, service)
    entries = stick.entries() if client is None else _entries_in(stick, service, client)
    shown: list[Report] = []
    count = 0
    now_ms = engine.clock.now_ms()
    for entry in in_steps(entries):
        if entry is None:
            yield
            continue
        if is_expired(entry, service.timeout_ms, now_ms):
            continue
        count += 1
        if len(shown) < limit:
            shown.append(entry_report(engine, service, entry))
        elif client is None:
            count = len(stick)
            break
    return {"entries": shown, "count": count, "capacity": stick.capacity}


def in_steps(items: Iterable[T | None]) -> Iterator[T | None]:
    """The items, with a None after every STEP looked at; None among the items counts as looked at and is dropped."""
    for number, item in enumerate(items, 1):
        if item is not None:
            yield item
        if number % STEP == 0:
            yield None


def _entries_in(stick: StickFace, service: ServiceInfo, client: str) -> Iterator[Entry | None]:
    """Entries in a network, None for each one that was looked at in vain."""
    network = covering(service, parse_network(client))
    if network.prefixlen == mask_of(service, network.version):
        yield stick.get(key_of(service, network.network_address))
        return
    for entry in stick.entries():
        yield entry if is_inside(entry["client"], network) else None


def connections(engine: Engine, service: ServiceInfo, client: str | None) -> Steps:
    """The live connections of a service, of one client or of a network."""
    found: list[Report] = []
    for item in in_steps(live_connections(engine, service, client)):
        if item is None:
            yield
        else:
            found.append(_connection(engine, *item))
    return {"connections": found}


def live_connections(engine: Engine, service: ServiceInfo, client: str | None) -> Iterator[tuple[int, ConnRecord]]:
    """(seat, connection) of every live connection that matches."""
    network = None if client is None else parse_network(client)
    exact = str(network.network_address) if network and network.prefixlen == network.max_prefixlen else None
    for seat, slab in enumerate(list(engine.shared.slabs)):
        for record in slab.connections(service.slot, exact):
            if network is None or exact is not None or is_inside(record["client"], network):
                yield seat, record


def _connection(engine: Engine, seat: int, record: ConnRecord) -> Report:
    clock = engine.clock
    active_ms = max(record["client_active_ms"], record["server_active_ms"], record["accepted_ms"])
    return {
        "id": connection_id(record["id"]),
        "worker": engine.shared.counters.worker(seat)["place"],
        "client": record["client"],
        "client_port": record["client_port"],
        "port": record["port"],
        "real": engine.catalog.real_label(record["real"]),
        "phase": str(Phase(record["phase"])),
        "reason": word(Reason, record["reason"]),
        "opened": clock.iso(record["accepted_ms"]),
        "idle": round(max(0, clock.now_ms() - active_ms) / 1000, 3),
        "bytes_in": record["bytes_in"],
        "bytes_out": record["bytes_out"],
    }
