"""The verbs of taking a real server out: drain with its end, the forecast, and whether anybody is still on it."""

from __future__ import annotations

from typing import Any

from lbfast.control import reports
from lbfast.control.admin import admin_note
from lbfast.control.catalog import RealInfo, ServiceInfo
from lbfast.control.clients import Steps, in_steps, live_connections
from lbfast.control.drains import Asked, remaining, terms_of, with_deadline
from lbfast.control.engine import Caller, Engine, persistence_table
from lbfast.control.forecast import IDLE_MS, BoundClient, Forecast, OpenConnection, Terms, forecast
from lbfast.control.marks import AdminMark
from lbfast.control.protocol import ControlError
from lbfast.control.times import span
from lbfast.model.state import Admin, DrainPolicy

Result = dict[str, Any]


def drain(
    engine: Engine,
    caller: Caller,
    service: str,
    real: str,
    reason: str = "",
    deadline: int | None = None,
    cut: bool = False,
    stagger: int = 0,
) -> Result:
    """No new clients; at the deadline, over ``stagger`` seconds, the known ones go, too."""
    vs = engine.catalog.service(service)
    rs = vs.real(real)
    asked = Asked(None if deadline is None else float(deadline), cut, float(stagger))
    engine.book.set_admin(vs, rs, Admin.DRAIN, caller.user, reason, asked)
    engine.announce(admin_note(engine.book.marks.admin.get(rs.key)) or "", service=vs.label, real=rs.label)
    return reports.real_report(engine, vs, rs)


def drain_plan(
    engine: Engine, service: str, real: str, deadline: int | None = None, cut: bool = False, stagger: int = 0
) -> Steps:
    """What ``drain`` with these words would meet; for a server that drains already, without words, how it goes on."""
    vs = engine.catalog.service(service)
    rs = vs.real(real)
    asked = Asked(None if deadline is None else float(deadline), cut, float(stagger))
    terms = _terms(engine, vs, rs, asked)
    open_ones = yield from _connections(engine, vs, rs)
    bound = yield from _clients(engine, vs, rs)
    found = forecast(open_ones, bound, engine.clock.now_ms(), vs.drain_policy, vs.timeout_ms, terms)
    return {
        "service": vs.label,
        "real": rs.label,
        "state": str(reports.state_of(engine.shared.table.real(rs.slot))),
        "drain_policy": str(vs.drain_policy),
        "deadline_in": None if terms is None else terms.length,
        "cut": terms is not None and terms.cut,
        "stagger": 0.0 if terms is None else terms.stagger,
        **found.as_data(),
        "lines": _sentences(found, vs, terms),
    }


def occupancy(engine: Engine, service: str, real: str) -> Result:
    """Is anybody on a real server that was taken out?  Cheap: to be asked again and again."""
    vs = engine.catalog.service(service)
    rs = vs.real(real)
    state = engine.shared.table.real(rs.slot)
    if state["admin"] == Admin.ONLINE:
        raise ControlError(
            "refused", f"{rs.label!r} is online: new clients may come at any moment; `drain` or `halt` it first"
        )
    returning = 0 if state["admin"] == Admin.HALT else _returning(engine, vs, rs, bool(state["drain_expired"]))
    return {
        "safe": state["connections"] == 0 and returning == 0,
        "connections": state["connections"],
        "returning": returning,
        "state": str(reports.state_of(state)),
        "reason": admin_note(engine.book.marks.admin.get(rs.key)) or "",
    }


def _returning(engine: Engine, vs: ServiceInfo, rs: RealInfo, expired: bool) -> int:
    """Clients without a connection here that would be let back all the same."""
    stick = persistence_table(engine.shared, vs)
    if stick is None:
        return 0
    if expired or vs.drain_policy is not DrainPolicy.UNTIL_EXPIRY:
        return sum(mark.real == rs.key for mark in engine.book.marks.pins.get(vs.key, {}).values())
    return stick.counts().get(rs.slot, 0)


def _terms(engine: Engine, vs: ServiceInfo, rs: RealInfo, asked: Asked) -> Terms | None:
    now = engine.clock.wall()
    mark = engine.book.marks.admin.get(rs.key)
    if mark is None or mark.admin is not Admin.DRAIN or asked != Asked():
        mark = with_deadline(AdminMark("drain", "", ""), vs, asked, now)
    terms = terms_of(vs, mark)
    return None if terms is None else Terms(remaining(mark, now, terms.length), terms.cut, terms.stagger)


def _connections(engine: Engine, vs: ServiceInfo, rs: RealInfo) -> Any:
    found = []
    for item in in_steps(live_connections(engine, vs, None)):
        if item is None:
            yield
        elif item[1]["real"] == rs.slot:
            record = item[1]
            active_ms = max(record["client_active_ms"], record["server_active_ms"], record["accepted_ms"])
            found.append(OpenConnection(record["accepted_ms"], active_ms))
    return found


def _clients(engine: Engine, vs: ServiceInfo, rs: RealInfo) -> Any:
    stick = persistence_table(engine.shared, vs)
    found = []
    for entry in in_steps(stick.entries()) if stick is not None else ():
        if entry is None:
            yield
        elif entry["real"] == rs.slot:
            found.append(BoundClient(entry["holds"], entry["pinned"], entry["closed_ms"] or entry["since_ms"]))
    return found


def _sentences(found: Forecast, vs: ServiceInfo, terms: Terms | None) -> list[str]:
    """The forecast in words."""
    idle = f", {found.idle} of them idle for longer than {span(IDLE_MS / 1000)}" if found.idle else ""
    lines = [
        f"{_count(found.clients, 'client')} bound to it, {found.clients_connected} of them connected; "
        f"{_count(found.connections, 'open connection')}{idle}."
    ]
    if found.connections and found.connections_gone_in is not None:
        lines.append(
            f"As long as connections last here, half of them are gone in {span(found.half_in)}, "
            f"all in {span(found.connections_gone_in)}."
        )
    if terms is not None:
        left = _count(found.connections_at_deadline or 0, "connection")
        end = f"At the deadline, in {span(terms.length)}, about {left}"
        over = f" over {span(terms.stagger)}" if terms.stagger else ""
        lines.append(f"{end} will be left; {'they are cut' if terms.cut else 'clients are moved, they may end'}{over}.")
    if found.clients_pinned:
        lines.append(f"{_count(found.clients_pinned, 'client')} pinned to it: drain does not move them, halt does.")
    if found.empty_in is None:
        lines.append("It does not become empty by itself.")
    elif found.empty_in == 0:
        lines.append("Nobody is on it.")
    else:
        lines.append(f"Expected to be empty in {span(found.empty_in)} ({_policy(vs)}).")
    return lines


def _policy(vs: ServiceInfo) -> str:
    return {
        DrainPolicy.UNTIL_EXPIRY: f"clients may return until {span(vs.timeout_ms / 1000)} after their last connection",
        DrainPolicy.WHILE_CONNECTED: "clients may return while they have a connection",
        DrainPolicy.NEW_CHOICE: "each client's next connection goes elsewhere",
    }[vs.drain_policy]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
