"""The mass-failure guard: when all servers fail at the same moment, suspect the probe before the servers.

Facts it decides on, per real server of one service (the fallback server is not counted):

* whether its verdict is up, and since when its running streak of failures lasts;
* whether a client's connect failed in that streak too (*confirmed*).

The guard is engaged at the moment a server falls, if, among the servers that are
up or that fell within the window before, there are at least two, all are failing,
and their streaks began within one window (interval + timeout) of each other.
Servers whose failure clients confirmed get no grace.  A guarded server is shown
as up until it passes a probe (then it is simply up), until a client's connect to
it fails (then it is down), or until the grace ends (then it is down).  Once one
guarded server passes, the common cause is gone: the others get one window more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Standing:
    is_up: bool
    failing_since_ms: int | None
    confirmed: bool
    fell: bool  # its running streak of failures took it down


@dataclass(frozen=True, slots=True)
class Guard:
    reals: frozenset[int]
    until_ms: int


def engage(standings: Mapping[int, Standing], fell: int, now_ms: int, window_ms: int, grace_ms: int) -> Guard | None:
    """A guard, if the fall of ``fell`` (already counted as not up) is part of a mass failure."""
    began = standings[fell].failing_since_ms
    if began is None or grace_ms <= 0:
        return None
    together: dict[int, int] = {}
    for real, standing in standings.items():
        if standing.failing_since_ms is None:
            if standing.is_up:
                return None  # one server still passes: the probe is not to blame
            continue
        if standing.is_up or (standing.fell and abs(began - standing.failing_since_ms) <= window_ms):
            together[real] = standing.failing_since_ms
    if len(together) < 2 or max(together.values()) - min(together.values()) > window_ms:
        return None
    reals = frozenset(real for real in together if not standings[real].confirmed)
    return Guard(reals, now_ms + grace_ms) if reals else None


def release(guard: Guard, real: int) -> Guard | None:
    """A client's connect failed: that server loses its grace."""
    return _without(guard, real)


def passed(guard: Guard, real: int, now_ms: int, window_ms: int) -> Guard | None:
    """A guarded server passed a probe: it needs no guard, and the others do not for long."""
    left = _without(guard, real)
    return replace(left, until_ms=min(left.until_ms, now_ms + window_ms)) if left else None


def has_expired(guard: Guard, now_ms: int) -> bool:
    return now_ms >= guard.until_ms


def _without(guard: Guard, real: int) -> Guard | None:
    reals = guard.reals - {real}
    return replace(guard, reals=reals) if reals else None
