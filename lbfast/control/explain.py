"""Why a client is where it is, in sentences for people; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lbfast.control.times import moment, span
from lbfast.control.where_to import Candidate, Forecast, choose_next
from lbfast.model.state import DrainPolicy, Effective, Reason, Scheduler

if TYPE_CHECKING:
    from lbfast._stick import Entry

# What decided, with {real} = where it went, {previous} = where it was before ("its real server" if unknown).
WHY: dict[Reason, str] = {
    Reason.NONE: "No choice has been made for it yet.",
    Reason.TABLE: "Its entry in the persistence table named {real}, so it returned there.",
    Reason.NEW: "It was new: the scheduler {scheduler} chose {real}.",
    Reason.PENDING: "Another connection of the same client was just being connected to {real}; it followed that one.",
    Reason.REDISPATCH: "The connect to {previous} failed, so it was sent to {real}.",
    Reason.PINNED: "An operator pinned it to {real}.",
    Reason.DRAINED: "{Previous} was being drained and takes it no more, so it was moved to {real}.",
    Reason.DOWN: "{Previous} was down, so it was moved to {real}.",
    Reason.FULL: "{Previous} had reached its max_connections, so it was sent to {real}.",
    Reason.PEER: "The peer told us: the other box of the pair had sent it to {real}.",
    Reason.FALLBACK: "No real server could take it, so it was sent to the fallback server.",
    Reason.UNSTORED: "It was new and the persistence table had no room for an entry: it was sent to {real} for that "
    "connection only.",
    Reason.HALTED: "{Previous} was halted, so it was moved to {real}.",
}

# Why it left the server before: continues "Before, it was on X; it left that one because ...".
LEFT: dict[Reason, str] = {
    Reason.REDISPATCH: "a connect there failed",
    Reason.PINNED: "an operator pinned it elsewhere",
    Reason.DRAINED: "that one was being drained",
    Reason.DOWN: "that one was down",
    Reason.FULL: "that one had reached its max_connections",
    Reason.PEER: "the peer reported another choice",
    Reason.HALTED: "that one was halted",
}

_DRAIN: dict[DrainPolicy, str] = {
    DrainPolicy.UNTIL_EXPIRY: "it may return there until its entry expires",
    DrainPolicy.WHILE_CONNECTED: "it may return there only while it has an open connection",
    DrainPolicy.NEW_CHOICE: "its next connection goes elsewhere",
}


@dataclass(frozen=True)
class Situation:
    """Everything an explanation is made of."""

    service: str
    service_id: bytes
    client: str  # as asked
    key: str  # the address under which the table knows it
    group: str | None  # the network that counts as one client, None without a mask
    scheduler: Scheduler
    persistent: bool
    drain_policy: DrainPolicy
    reals: tuple[Candidate, ...]
    fallback: Candidate | None = None
    entry: Entry | None = None
    real: str | None = None  # labels and times of the entry
    previous: str | None = None
    since: str | None = None
    since_s: float = 0.0
    expires_in: float | None = None
    connections: int = 0
    spread: tuple[tuple[str, int], ...] = ()  # open connections by real server
    pinned_by: str | None = None
    drain_expired: bool = False
    refusal: str | None = None  # what stands against its next connection, as a sentence

    @property
    def reason(self) -> Reason:
        if self.entry is None:
            return Reason.NONE
        return Reason.PINNED if self.entry["pinned"] else Reason(self.entry["reason"])


def explain(found: Situation) -> dict[str, Any]:
    """The answer of the verb ``explain``."""
    if found.entry is None:
        return _explain_absent(found)
    entry = found.entry
    forecast = if_down(found)
    why = why_sentence(found)
    left = Reason(entry["previous_reason"]) if found.previous else None
    lines = [_where(found), why, *_pin(found), _held(found), *_before(found, left), *_server(found)]
    lines.append(found.refusal or f"{_if(found)} {_would(entry['pinned'])} {forecast.words}.")
    return {
        "client": found.client,
        "service": found.service,
        "real": found.real,
        "since": found.since,
        "reason": str(found.reason),
        "why": why,
        "connections": entry["holds"],
        "expires_in": found.expires_in,
        "pinned": entry["pinned"],
        "previous": found.previous,
        "previous_reason": None if left is None else str(left),
        "if_down": forecast.label,
        "refusal": found.refusal,
        "lines": lines,
    }


def why_sentence(found: Situation) -> str:
    """The decision as one sentence."""
    previous = found.previous or "its real server"
    return WHY[found.reason].format(
        real=found.real,
        previous=previous,
        Previous=previous if found.previous else "Its real server",
        scheduler=str(found.scheduler),
    )


def if_down(found: Situation) -> Forecast:
    """Where the client would go if its real server went down this moment."""
    others = [real for real in found.reals if real.label != found.real]
    return choose_next(found.scheduler, found.service_id, found.key, others, found.fallback)


def _explain_absent(found: Situation) -> dict[str, Any]:
    next_ = choose_next(found.scheduler, found.service_id, found.key, found.reals, found.fallback)
    if found.persistent:
        why = f"{found.client} has no entry in the persistence table of {found.service}: it counts as a new client."
    else:
        why = f"{found.service} keeps no persistence table: each connection of {found.client} is chosen anew."
    lines = [why]
    if found.spread:
        held = ", ".join(f"{count} to {label}" for label, count in found.spread)
        lines.append(f"It has {_count(found.connections, 'open connection')}: {held}.")
    lines.append(found.refusal or f"Its next connection would go {next_.words}.")
    return {
        "client": found.client,
        "service": found.service,
        "real": None,
        "since": None,
        "reason": str(Reason.NONE),
        "why": why,
        "connections": found.connections,
        "expires_in": None,
        "pinned": False,
        "previous": None,
        "previous_reason": None,
        "if_down": None,
        "refusal": found.refusal,
        "lines": lines,
    }


def _where(found: Situation) -> str:
    pending = found.entry is not None and found.entry["state"] == "pending"
    if pending:
        return f"{found.client} is just being connected to {found.real} of {found.service}."
    group = f" (all of {found.group} count as one client)" if found.group else ""
    since = f" since {moment(found.since)} ({span(found.since_s)})" if found.since else ""
    return f"{found.client}{group} is on {found.real} of {found.service}{since}."


def _pin(found: Situation) -> list[str]:
    pinned = found.entry is not None and found.entry["pinned"]
    return [f"The pin was set by {found.pinned_by}."] if pinned and found.pinned_by else []


def _held(found: Situation) -> str:
    assert found.entry is not None
    holds = found.entry["holds"]
    if found.entry["pinned"]:
        return f"It has {_count(holds, 'open connection')}; a pinned entry does not expire."
    if holds:
        verb = "holds" if holds == 1 else "hold"
        open_ones = _count(holds, "open connection")
        return f"{open_ones} {verb} the entry: it does not expire before the last one has closed."
    if found.expires_in is None:
        return "The entry is a reservation until the connect has succeeded."
    return f"No connection is open; the entry expires in {span(found.expires_in)} unless the client comes back."


def _before(found: Situation, left: Reason | None) -> list[str]:
    if found.previous is None or left is None:
        return []
    because = f"; it left that one because {LEFT[left]}" if left in LEFT else ""
    return [f"Before, it was on {found.previous}{because}."]


def _server(found: Situation) -> list[str]:
    """What there is to know of the client's server when it is not simply up."""
    real = _own(found)
    if real is None:
        return []
    if real.state is Effective.UP:
        full = f"{real.label} is at its max_connections ({real.max_connections})"
        return [f"{full}: the client's next connection goes elsewhere."] if real.is_full else []
    note = f" ({real.note})" if real.note else ""
    if real.state is Effective.DRAIN:
        return [f"{real.label} drains{note}: {_drain_words(found)}."]
    if real.state is Effective.HALT:
        return [f"{real.label} is halted{note}: the client's next connection goes elsewhere."]
    word = "has no health verdict yet" if real.state is Effective.CHECKING else "is down"
    return [f"{real.label} {word}{note}: the client's next connection goes elsewhere."]


def _drain_words(found: Situation) -> str:
    if found.entry is not None and found.entry["pinned"]:
        return "it is pinned, so it may return there"
    if found.drain_expired:
        return "the drain deadline has passed, its next connection goes elsewhere"
    return _DRAIN[found.drain_policy]


def _if(found: Situation) -> str:
    """The condition of the forecast: none is left where the client cannot stay anyway."""
    return f"If {found.real} went down now," if _may_return(found) else "With its next connection"


def _may_return(found: Situation) -> bool:
    """Whether its own server would take the client's next connection (the workers ask the same in ``_pick.pyx``)."""
    real = _own(found)
    if real is None or real.is_full:
        return False
    if real.state is not Effective.DRAIN:
        return real.state is Effective.UP
    if found.entry is not None and found.entry["pinned"]:
        return True
    if found.drain_expired or found.drain_policy is DrainPolicy.NEW_CHOICE:
        return False
    return found.drain_policy is DrainPolicy.UNTIL_EXPIRY or found.connections > 0


def _own(found: Situation) -> Candidate | None:
    return next((real for real in found.reals if real.label == found.real), None)


def _would(pinned: bool) -> str:
    return "it would, although pinned, go" if pinned else "it would go"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
