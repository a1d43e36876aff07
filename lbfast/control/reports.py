"""What the reading verbs answer: overview, health, statistics, version, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from lbfast.control.admin import admin_note
from lbfast.control.backlog import Queue, read_overflows, read_queues
from lbfast.control.catalog import RealInfo, ServiceInfo
from lbfast.control.engine import Engine, persistence_table
from lbfast.model.ranges import parse_ranges
from lbfast.model.state import Admin, Effective, Health, effective_state

if TYPE_CHECKING:
    from lbfast._table import RealState

Report = dict[str, Any]
Queues = Mapping[str, Mapping[int, Queue]]  # by address, by port


def state_of(real: RealState) -> Effective:
    return effective_state(Admin(real["admin"]), Health(real["health"]))


def service_state(reals: Iterable[RealState]) -> str:
    """One word for a virtual service: up, degraded, checking, drained or down.

    A server of weight 0 takes no new client by the operator's wish, like a drained one.
    """
    seen = [(state_of(real), real) for real in reals]
    takes_new = [real for state, real in seen if state is Effective.UP and real["weight"] > 0]
    if takes_new:
        return "up" if all(state is Effective.UP for state, _ in seen) else "degraded"
    if not seen:
        return "down"
    if any(state is Effective.CHECKING and real["admin"] == Admin.ONLINE for state, real in seen):
        return "checking"
    if all(real["admin"] != Admin.ONLINE or (real["weight"] == 0 and state is Effective.UP) for state, real in seen):
        return "drained"
    return "down"


def overview(engine: Engine) -> Report:
    report: Report = {"virtual_services": [_service(engine, service) for service in engine.catalog.services]}
    if engine.pair is not None and (former := engine.pair.former) is not None:
        report["former"] = former.report
    return report


def _service(engine: Engine, service: ServiceInfo) -> Report:
    stick = persistence_table(engine.shared, service)
    clients = None if stick is None else stick.counts()
    states = {real.slot: engine.shared.table.real(real.slot) for real in service.all_reals()}
    report = {
        "label": service.label,
        "address": service.address,
        "ports": service.ports,
        "mode": service.mode,
        "connections": engine.shared.table.service(service.slot)["connections"],
        "state": service_state(states[real.slot] for real in service.reals),
        "persistence_entries": None if clients is None else sum(clients.values()),
        "real_servers": [_real(engine, real, states[real.slot], clients) for real in service.reals],
    }
    if service.fallback is not None:
        report["fallback_server"] = _real(engine, service.fallback, states[service.fallback.slot], None)
    return report


def real_report(engine: Engine, service: ServiceInfo, real: RealInfo) -> Report:
    """One real server as the overview shows it."""
    stick = persistence_table(engine.shared, service)
    return _real(engine, real, engine.shared.table.real(real.slot), None if stick is None else stick.counts())


def _real(engine: Engine, real: RealInfo, state: RealState, clients: dict[int, int] | None) -> Report:
    return {
        "label": real.label,
        "address": real.address,
        "port": real.port,
        "weight": state["weight"],
        "connections": state["connections"],
        "clients": None if clients is None else clients.get(real.slot, 0),
        "admin": str(Admin(state["admin"])),
        "health": str(Health(state["health"])),
        "state": str(state_of(state)),
        "reason": _why(admin_note(engine.book.marks.admin.get(real.key)), state),
    }


def _why(note: str | None, state: RealState) -> str:
    """Who took it out; and what is wrong with it, which a drained server that is down must not hide."""
    if note is None:
        return str(state["reason"])
    return f"{state['reason']}; {note}" if state["health"] == Health.DOWN else note


def health(engine: Engine, service: ServiceInfo, real: RealInfo) -> Report:
    """The verdict on a real server and the probe results behind it, newest first."""
    state = engine.shared.table.real(real.slot)
    note = engine.shared.results.note(real.slot)
    return {
        "service": service.label,
        "real": real.label,
        "health": str(Health(state["health"])),
        "state": str(state_of(state)),
        "since": engine.clock.iso(state["health_since_ms"]) if state["health_since_ms"] else None,
        "reason": state["reason"],
        "failures": state["failures"],
        "certificate": certificate_report(note.certificate),
        "warnings": list(note.warnings),
        "results": [
            {
                "at": _iso_of_unix(result.at, "milliseconds"),
                "ok": result.ok,
                "duration_ms": result.duration_ms,
                "reason": result.reason,
            }
            for result in engine.shared.results.last(real.slot)
        ],
    }


def certificates(engine: Engine) -> Report:
    """The certificates of real servers that something is to be said about, as their last TLS probes saw them."""
    found = []
    for service in engine.catalog.services:
        for real in service.all_reals():
            note = engine.shared.results.note(real.slot)
            if note.warnings:
                found.append(
                    {
                        "service": service.label,
                        "real": real.label,
                        "certificate": certificate_report(note.certificate),
                        "warnings": list(note.warnings),
                    }
                )
    return {"real_servers": found}


def certificate_report(found: Any) -> Report | None:
    if found is None:
        return None
    report = asdict(found)
    for key in ("not_before", "not_after"):
        report[key] = _iso_of_unix(report[key], "seconds") if report[key] else None
    return report


def _iso_of_unix(seconds: float, precision: str) -> str | None:
    try:
        return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec=precision)
    except (ValueError, OverflowError, OSError):
        return None  # a foreign certificate may name any year


def statistics(engine: Engine) -> Report:
    """The counters of workers, services and real servers; all of them only grow unless they count what is open."""
    queues, overflows = _queues()
    return {
        "at": engine.clock.now_iso(),
        "workers": _workers(engine),
        "virtual_services": [_service_counters(engine, service, queues) for service in engine.catalog.services],
        "system": overflows,
        "events": {
            "lost": sum(ring.lost for ring in engine.shared.rings),
            "skipped": engine.events.skipped,
            "not_logged": engine.events.suppressed,
        },
    }


def _workers(engine: Engine) -> list[Report]:
    """One for each worker that runs: its seats, and those it or its predecessors had, added up."""
    seats = engine.shared.counters
    pages = [dict(seats.worker(seat)) for seat in range(seats.workers)]
    living = sorted({int(str(page["place"])) for page in pages if page["taken"]})
    return [_worker(engine, place, [page for page in pages if page["place"] == place]) for place in living]


def _worker(engine: Engine, place: int, pages: list[dict[str, Any]]) -> Report:
    newest = max(pages, key=lambda page: (page["taken"], int(page["progress_ms"])))
    counters = {
        name: sum(page[name] for page in pages)
        for name in newest
        if name not in ("place", "taken", "pid", "progress_ms")
    }
    progress_ms = int(newest["progress_ms"])
    silent_ms = max(0, engine.clock.now_ms() - progress_ms) if progress_ms else None
    return {"index": place, "pid": newest["pid"], **counters, "silent_ms": silent_ms}


def _by_worker(engine: Engine, slot: int) -> list[int]:
    seats = engine.shared.counters
    counts: dict[int, int] = {}
    for seat, count in enumerate(seats.service_by_worker(slot)):
        page = seats.worker(seat)
        if page["taken"]:
            counts[page["place"]] = counts.get(page["place"], 0) + count
    return [counts[place] for place in sorted(counts)]


def _queues() -> tuple[Queues | None, Report | None]:
    """What waits to be accepted on this machine; None where the kernel does not tell."""
    try:
        return read_queues(), dict(read_overflows())
    except OSError:
        return None, None


def _backlog(service: ServiceInfo, queues: Queues | None) -> Report | None:
    """The queues of all ports of a service."""
    if queues is None:
        return None
    here = queues.get(str(ip_address(service.address)), {})
    found = []
    for part in parse_ranges(service.ports, 1, 65_535):
        ports = range(part.first, part.last + 1)
        # Hundreds of services on one address, or a service on all ports: whichever is less is walked.
        found += [here[port] for port in (ports if len(ports) < len(here) else here) if port in here and port in ports]
    return {
        "queued": sum(queue.queued for queue in found),
        "fullest": max((queue.fullest for queue in found), default=0),
        "limit": min((queue.limit for queue in found), default=0),
    }


def _service_counters(engine: Engine, service: ServiceInfo, queues: Queues | None) -> Report:
    shared = engine.shared
    return {
        "label": service.label,
        "connections": shared.table.service(service.slot)["connections"],
        **shared.counters.service(service.slot),
        "connections_by_worker": _by_worker(engine, service.slot),
        "backlog": _backlog(service, queues),
        "real_servers": [{"label": real.label, **shared.counters.real(real.slot)} for real in service.all_reals()],
    }


def version(engine: Engine) -> Report:
    about = engine.about
    return {
        "version": about.version,
        "pid": about.pid,
        "started": about.started,
        "config": about.config,
        "workers": len(_workers(engine)),
    }
