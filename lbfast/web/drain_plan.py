"""What draining or halting a real server would mean: who is on it, how long it may take, whether it is safe.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

QUIET_S: Final = 15 * 60.0

Report = Mapping[str, Any]


@dataclass(frozen=True)
class DrainPlan:
    """``verdict``: one word, ``lines`` say the rest."""

    state: str
    connections: int
    quiet: int  # of them silent for a quarter of an hour
    clients: int
    pinned: int
    connected: int  # clients that have a connection open
    expire_within: float | None  # seconds until the last idle client is forgotten; None: nobody is idle
    takers: tuple[str, ...]  # others that take new clients
    verdict: str  # safe, wait, alone
    reason: str

    @property
    def is_safe(self) -> bool:
        """Nobody would notice if it were switched off now."""
        return self.verdict == "safe"


def plan_drain(
    server: Report, others: Sequence[Report], entries: Sequence[Report], connections: Sequence[Report]
) -> DrainPlan:
    """``entries`` and ``connections`` are those of this server."""
    quiet = sum(it["idle"] > QUIET_S for it in connections)
    waits = [it["expires_in"] for it in entries if it["expires_in"] is not None]
    connected = sum(it["connections"] > 0 for it in entries)
    takers = tuple(it["label"] for it in others if it["state"] == "up" and it["weight"] > 0)
    open_now = len(connections)
    if open_now == 0 and (not entries or server["admin"] == "halt" or server["state"] == "down"):
        verdict = "safe"
    elif not takers and server["state"] in ("up", "drain"):
        verdict = "alone"
    else:
        verdict = "wait"
    return DrainPlan(
        server["state"],
        open_now,
        quiet,
        len(entries),
        sum(it["pinned"] for it in entries),
        connected,
        max(waits) if waits else None,
        takers,
        verdict,
        server["reason"],
    )
