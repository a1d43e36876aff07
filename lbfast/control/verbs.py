"""The verbs: one function each, arguments in, plain data out.  One table names them and their arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from lbfast._table import part_of
from lbfast.control import (
    clients,
    commit_verbs,
    draft_verbs,
    drain_verbs,
    face_verbs,
    pair_verbs,
    probe_now,
    process_verbs,
    replica_verbs,
    reports,
)
from lbfast.control.access import Right
from lbfast.control.addresses import Network, covering, is_inside, key_of, mask_of, parse_address, parse_network
from lbfast.control.admin import admin_note
from lbfast.control.arguments import Arg, check_args
from lbfast.control.catalog import RealInfo, ServiceInfo
from lbfast.control.clients import Steps, entry_report, stick_of
from lbfast.control.engine import Caller, Engine, persistence_table
from lbfast.control.explain import Situation, explain
from lbfast.control.marks import LONGEST_DEADLINE, PinMark
from lbfast.control.protocol import ControlError
from lbfast.control.refusal import refusal
from lbfast.control.times import moment
from lbfast.control.where_to import Candidate
from lbfast.model.state import Admin

Result = dict[str, Any]
Later = Coroutine[Any, Any, Result]

SHOW_LIMIT: Final = 1_000
MOST_ENTRIES: Final = 100_000
EVENTS_LIMIT: Final = 100
LONGEST_STAGGER: Final = 86_400


def overview(engine: Engine) -> Result:
    return reports.overview(engine)


def statistics(engine: Engine) -> Result:
    return reports.statistics(engine)


def certificates(engine: Engine) -> Result:
    return reports.certificates(engine)


def version(engine: Engine) -> Result:
    return reports.version(engine)


def health(engine: Engine, service: str, real: str) -> Result:
    vs = engine.catalog.service(service)
    return reports.health(engine, vs, vs.real(real))


def halt(engine: Engine, caller: Caller, service: str, real: str, reason: str = "") -> Result:
    return _set_admin(engine, caller, service, real, Admin.HALT, reason)


def online(engine: Engine, caller: Caller, service: str, real: str, reason: str = "") -> Result:
    return _set_admin(engine, caller, service, real, Admin.ONLINE, reason)


def _set_admin(engine: Engine, caller: Caller, service: str, real: str, admin: Admin, reason: str) -> Result:
    vs = engine.catalog.service(service)
    rs = vs.real(real)
    engine.book.set_admin(vs, rs, admin, caller.user, reason)
    note = admin_note(engine.book.marks.admin.get(rs.key)) or f"online by {caller.user}" + (reason and f": {reason}")
    engine.announce(note, service=vs.label, real=rs.label)
    return reports.real_report(engine, vs, rs)


def weight(engine: Engine, caller: Caller, service: str, real: str, weight: int) -> Result:
    vs = engine.catalog.service(service)
    rs = vs.real(real)
    if vs.fallback is rs:
        raise ControlError("bad_argument", f"the fallback server of {vs.label!r} has no weight: it is never compared")
    engine.book.set_weight(rs, weight, caller.user)
    configured = " (as configured)" if weight == rs.weight else f" (configured: {rs.weight})"
    engine.announce(f"weight {weight}{configured} set by {caller.user}", service=vs.label, real=rs.label)
    return reports.real_report(engine, vs, rs)


def persistence_show(engine: Engine, service: str, client: str | None = None, limit: int = SHOW_LIMIT) -> Steps:
    return clients.persistence_show(engine, engine.catalog.service(service), client, limit)


def persistence_clear(
    engine: Engine, caller: Caller, service: str, client: str | None = None, real: str | None = None
) -> Result:
    """Remove entries, pins too, of a network and/or of a real server; without both, all of the service."""
    vs = engine.catalog.service(service)
    stick = stick_of(engine, vs)
    rs = None if real is None else vs.real(real)
    network = None if client is None else covering(vs, parse_network(client))
    engine.book.forget_pins(vs, lambda pinned, mark: _is_cleared(pinned, mark, network, rs))
    removed = stick.clear(None if network is None else str(network), None if rs is None else rs.slot)
    what = f"{removed} persistence entries" + (f" of {network}" if network else "")
    what += f" on {rs.label}" if rs else ""
    engine.announce(f"{what} cleared by {caller.user}", service=vs.label)
    return {"removed": removed}


def _is_cleared(client: str, mark: PinMark, network: Network | None, real: RealInfo | None) -> bool:
    return (network is None or is_inside(client, network)) and (real is None or mark.real == real.key)


def persistence_pin(engine: Engine, caller: Caller, service: str, client: str, real: str) -> Result:
    vs = engine.catalog.service(service)
    rs = vs.real(real)
    if vs.fallback is rs:
        raise ControlError("bad_argument", f"the fallback server of {vs.label!r} is never stored, pin to a real server")
    stick = stick_of(engine, vs)
    key = key_of(vs, parse_address(client))
    engine.book.pin(vs, stick, key, rs, caller.user)
    engine.announce(f"{key} pinned by {caller.user}", service=vs.label, real=rs.label)
    entry = stick.get(key)
    if entry is None:
        raise ControlError("busy", f"{key} was pinned and cleared again at the same moment by someone else")
    return entry_report(engine, vs, entry)


def connections(engine: Engine, service: str, client: str | None = None) -> Steps:
    return clients.connections(engine, engine.catalog.service(service), client)


def events(engine: Engine, follow: bool = False, limit: int | None = None, connections: bool = True) -> Result:
    """The newest kept events, oldest first.  With ``follow`` the server goes on from there.

    ``connections``: whether those of connections are wanted, too; who leaves them out costs nothing per connection.
    """
    default = 0 if follow else EVENTS_LIMIT
    return {"events": engine.events.newest(default if limit is None else limit, connections=connections)}


def explain_client(engine: Engine, service: str, client: str) -> Result:
    vs = engine.catalog.service(service)
    address = parse_address(client)
    key = key_of(vs, address)
    stick = persistence_table(engine.shared, vs)
    entry = None if stick is None else stick.get(key)
    if entry is not None and clients.is_expired(entry, vs.timeout_ms, engine.clock.now_ms()):
        entry = None
    counts = {} if stick is None else stick.counts()
    spread: Counter[str] = Counter()
    if entry is None:
        for _, record in clients.live_connections(engine, vs, str(address)):
            spread[engine.catalog.real_label(record["real"]) or "no server yet"] += 1
    held = spread.total() if entry is None else entry["holds"]
    mask = mask_of(vs, address.version)
    situation = Situation(
        service=vs.label,
        service_id=vs.id,
        client=str(address),
        key=key,
        group=None if mask == address.max_prefixlen else f"{key}/{mask}",
        scheduler=vs.scheduler,
        persistent=stick is not None,
        drain_policy=vs.drain_policy,
        reals=tuple(_candidate(engine, real, counts) for real in vs.reals),
        fallback=None if vs.fallback is None else _candidate(engine, vs.fallback, {}),
        connections=spread.total(),
        spread=tuple(spread.most_common()),
        refusal=refusal(vs, str(address), engine.shared.table.service(vs.slot)["connections"], held),
    )
    return explain(situation if entry is None else _with_entry(engine, vs, situation, entry))


def _candidate(engine: Engine, real: RealInfo, counts: Mapping[int, int]) -> Candidate:
    state = engine.shared.table.real(real.slot)
    note = admin_note(engine.book.marks.admin.get(real.key))
    return Candidate(
        label=real.label,
        id=real.id,
        state=reports.state_of(state),
        weight=state["weight"],
        connections=state["connections"],
        clients=counts.get(real.slot, 0),
        max_connections=state["max_connections"],
        note=state["reason"] if note is None else note,
    )


def _with_entry(engine: Engine, vs: ServiceInfo, situation: Situation, entry: Any) -> Situation:
    clock = engine.clock
    pin = engine.book.marks.pins.get(vs.key, {}).get(situation.key)
    since = entry["since_ms"] or entry["created_ms"]
    label = engine.catalog.real_label(entry["real"])
    slots = {real.slot for real in vs.all_reals()}
    changes = {
        "entry": entry,
        "real": label,
        "previous": engine.catalog.real_label(entry["previous"]),
        "since": clock.iso(since),
        "since_s": max(0, clock.now_ms() - since) / 1000,
        "expires_in": clients.expires_in(entry, vs.timeout_ms, clock.now_ms()),
        "connections": entry["holds"],
        "pinned_by": None if pin is None else f"{pin.by} at {moment(pin.at)}",
        "drain_expired": entry["real"] in slots and _is_over(engine, entry),
    }
    return Situation(**{**situation.__dict__, **changes})


CONFIGURATION: Final = "configuration"
ENTRIES: Final = "entries"


def _is_over(engine: Engine, entry: Any) -> bool:
    """Whether the drain deadline of a client's server has passed, for this client."""
    state = engine.shared.table.real(entry["real"])
    return state["drain_expired"] or part_of(entry["client"]) < state["drain_share"]


@dataclass(frozen=True)
class Verb:
    """A verb and what it takes.  ``is_act``: it changes something, so it wants to know who asks."""

    run: Callable[..., Result | Steps | Later]
    args: tuple[Arg, ...] = ()
    is_act: bool = False
    edits: str = ""  # in a pair, only one box may: CONFIGURATION the primary, ENTRIES the active one

    @property
    def needed(self) -> Right:
        """What a caller must be allowed to do."""
        return Right.CHANGE if self.is_act else Right.LOOK

    def __call__(self, engine: Engine, caller: Caller, args: dict[str, Any]) -> Result | Steps | Later:
        checked = check_args(self.args, args)
        if self.edits and engine.pair is not None:
            engine.pair.check_edit(on_active=self.edits == ENTRIES)
        result = self.run(engine, caller, **checked) if self.is_act else self.run(engine, **checked)
        if self.edits == ENTRIES:
            engine.entries_changed()
        return result


_SERVICE = Arg("service", str)
_REAL = Arg("real", str)
_CLIENT = Arg("client", str, most=64)
_REASON = Arg("reason", str, required=False, least=0, most=500)
_TEXT = Arg("text", str, least=0, most=commit_verbs.MOST_TEXT)
_FILE = Arg("file", str)
_REMOVED = Arg("removed", str, required=False)
_FORCE = Arg("force", bool, required=False)
_AGAINST = Arg("against", int, required=False)
_CONFIRM = Arg("confirm", int, False, 1, commit_verbs.LONGEST_CONFIRM)  # seconds
_CUT_AFTER = Arg("cut_after", int, False, 0, LONGEST_DEADLINE)  # seconds
_DRAIN_END = (
    Arg("deadline", int, False, 0, LONGEST_DEADLINE),  # seconds
    Arg("cut", bool, False),
    Arg("stagger", int, False, 0, LONGEST_STAGGER),
)

_EDITS = ("candidate_edit", "candidate_commit", "candidate_discard", "restore")

VERBS: Final[Mapping[str, Verb]] = MappingProxyType(
    {
        "overview": Verb(overview),
        "drain": Verb(drain_verbs.drain, (_SERVICE, _REAL, _REASON, *_DRAIN_END), is_act=True, edits=CONFIGURATION),
        "drain_plan": Verb(drain_verbs.drain_plan, (_SERVICE, _REAL, *_DRAIN_END)),
        "occupancy": Verb(drain_verbs.occupancy, (_SERVICE, _REAL)),
        "halt": Verb(halt, (_SERVICE, _REAL, _REASON), is_act=True, edits=CONFIGURATION),
        "online": Verb(online, (_SERVICE, _REAL, _REASON), is_act=True, edits=CONFIGURATION),
        "weight": Verb(weight, (_SERVICE, _REAL, Arg("weight", int, most=256)), is_act=True, edits=CONFIGURATION),
        "persistence_show": Verb(
            persistence_show,
            (_SERVICE, _CLIENT.optional(), Arg("limit", int, required=False, least=1, most=MOST_ENTRIES)),
        ),
        "persistence_clear": Verb(
            persistence_clear, (_SERVICE, _CLIENT.optional(), _REAL.optional()), is_act=True, edits=ENTRIES
        ),
        "persistence_pin": Verb(persistence_pin, (_SERVICE, _CLIENT, _REAL), is_act=True, edits=ENTRIES),
        "connections": Verb(connections, (_SERVICE, _CLIENT.optional())),
        "explain": Verb(explain_client, (_SERVICE, _CLIENT)),
        "events": Verb(
            events,
            (
                Arg("follow", bool, required=False),
                Arg("limit", int, required=False, most=1_000),
                Arg("connections", bool, required=False),
            ),
        ),
        "health": Verb(health, (_SERVICE, _REAL)),
        "certificates": Verb(certificates),
        "statistics": Verb(statistics),
        "version": Verb(version),
        "plan": Verb(commit_verbs.plan, (_TEXT, _FILE, _REMOVED, _AGAINST, _CUT_AFTER), is_act=True),
        "commit": Verb(
            commit_verbs.commit,
            (_TEXT, _FILE, _REASON, _REMOVED, _AGAINST, _CONFIRM, _CUT_AFTER),
            is_act=True,
            edits=CONFIGURATION,
        ),
        "confirm": Verb(commit_verbs.confirm, is_act=True, edits=CONFIGURATION),
        "revert": Verb(commit_verbs.revert, (Arg("version", int, False, 1), _REASON), is_act=True, edits=CONFIGURATION),
        "ha_status": Verb(pair_verbs.status),
        "ha_pair": Verb(
            pair_verbs.pair,
            (Arg("local", str), Arg("peer", str), Arg("password", str), Arg("overwrite", bool, required=False)),
            is_act=True,
        ),
        "ha_unpair": Verb(pair_verbs.unpair, (_FORCE,), is_act=True),
        "ha_takeover": Verb(pair_verbs.takeover, (_REASON, _FORCE), is_act=True),
        "ha_maintenance": Verb(pair_verbs.maintenance, (Arg("on", bool), _REASON), is_act=True),
        "ha_path": Verb(pair_verbs.path, (Arg("what", str), Arg("local", str), Arg("peer", str)), is_act=True),
        "ha_password": Verb(pair_verbs.password, (Arg("password", str),), is_act=True),
        "restart": Verb(process_verbs.restart, (Arg("process", str, most=32),), is_act=True),
        "upgrade": Verb(process_verbs.upgrade, (Arg("within", int, False, 1, 600),), is_act=True),
        "history": Verb(commit_verbs.history),
        "diff": Verb(commit_verbs.diff, (Arg("before", int, False, 1), Arg("after", int, False, 1))),
        **{
            it[0]: Verb(it[1], it[2], it[3], CONFIGURATION if it[0] in _EDITS else "")
            for it in (*draft_verbs.ENTRIES, *face_verbs.ENTRIES, *probe_now.ENTRIES, *replica_verbs.ENTRIES)
        },
    }
)


def finish(outcome: Result | Steps | Later) -> Result:
    """The result of a verb, its steps taken at once."""
    assert not isinstance(outcome, Coroutine), "a verb that waits needs the event loop"
    if isinstance(outcome, dict):
        return outcome
    while True:
        try:
            next(outcome)
        except StopIteration as end:
            result: Result = end.value
            return result


def find_verb(name: str) -> Verb:
    verb = VERBS.get(name)
    if verb is None:
        raise ControlError("unknown_verb", f"there is no verb {name[:80]!r}; there are {', '.join(VERBS)}")
    return verb
