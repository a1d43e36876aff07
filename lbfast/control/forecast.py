"""When will a drained real server be empty?  Pure: what is there, what was asked for and the clock are arguments.

The estimate needs no model of the application.  In a steady stream of connections the age of
the open ones and the time that is left to them are spread alike, so the ages that are seen
are taken as the times to come: half of the connections are expected to be gone after the
median age, the last one after the greatest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Final

from lbfast.model.state import DrainPolicy

IDLE_MS: Final = 15 * 60_000


@dataclass(frozen=True)
class OpenConnection:
    """One connection of the real server; boot-time milliseconds."""

    accepted_ms: int
    active_ms: int


@dataclass(frozen=True)
class BoundClient:
    """One entry of the persistence table that names the real server."""

    connections: int
    pinned: bool
    idle_since_ms: int  # when its last connection closed; of no meaning while it has one


@dataclass(frozen=True)
class Terms:
    """What a drain does at its end: after ``length`` seconds, over ``stagger`` seconds."""

    length: float
    cut: bool = False
    stagger: float = 0.0


@dataclass(frozen=True)
class Forecast:
    """``*_in`` are seconds from now; None = not by itself."""

    clients: int  # bound to it
    clients_connected: int
    clients_pinned: int
    connections: int
    idle: int  # connections without a byte for longer than IDLE_MS
    connections_at_deadline: int | None  # expected to be left then
    half_in: float  # half of the connections expected to be gone
    connections_gone_in: float | None
    empty_in: float | None  # no connection, and no client that may return

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


def forecast(
    connections: Sequence[OpenConnection],
    clients: Sequence[BoundClient],
    now_ms: int,
    policy: DrainPolicy,
    timeout_ms: int,
    terms: Terms | None = None,
) -> Forecast:
    """The drain of a real server that begins, or goes on, now; ``terms.length`` is what is left of its deadline."""
    ages = sorted(max(0, now_ms - it.accepted_ms) / 1000 for it in connections)
    end = None if terms is None else terms.length + terms.stagger
    last = ages[-1] if ages else 0.0
    gone: float = last if terms is None or not terms.cut or end is None else min(last, end)
    returning = _until_nobody_returns(clients, now_ms, policy, timeout_ms, last)
    if end is not None and (returning is None or end < returning):
        returning = end if not _pinned(clients) else None
    return Forecast(
        clients=len(clients),
        clients_connected=sum(it.connections > 0 for it in clients),
        clients_pinned=_pinned(clients),
        connections=len(connections),
        idle=sum(now_ms - it.active_ms > IDLE_MS for it in connections),
        connections_at_deadline=None if terms is None else sum(age > terms.length for age in ages),
        half_in=ages[ceil(len(ages) / 2) - 1] if ages else 0.0,
        connections_gone_in=gone,
        empty_in=None if returning is None else max(gone, returning),
    )


def _pinned(clients: Sequence[BoundClient]) -> int:
    return sum(it.pinned for it in clients)


def _until_nobody_returns(
    clients: Sequence[BoundClient], now_ms: int, policy: DrainPolicy, timeout_ms: int, last: float
) -> float | None:
    """Seconds until no client is let back, deadline or not; None while a pin stands."""
    if _pinned(clients):
        return None
    if policy is DrainPolicy.NEW_CHOICE or not clients:
        return 0.0
    if policy is DrainPolicy.WHILE_CONNECTED:
        return last if any(it.connections for it in clients) else 0.0
    timeout = timeout_ms / 1000
    closed = [max(0.0, timeout - (now_ms - it.idle_since_ms) / 1000) for it in clients if not it.connections]
    held = [last + timeout] if any(it.connections for it in clients) else []
    return max([*closed, *held])
