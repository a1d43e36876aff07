"""What `lbfast ha status` says: role, state, readiness and why not, the peer, the replication.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from lbfast.ha.fitness import WELL

LAG_MS = 1000  # more than that is no readiness


@dataclass(frozen=True)
class BoxFacts:
    """What one box says of itself to the other, over the replication link."""

    name: str = ""
    version: str = ""
    config_version: int = 0
    digest: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)  # local ones, for comparison
    servers: Sequence[Mapping[str, Any]] = ()
    problems: Sequence[str] = ()
    conflicts: Sequence[str] = ()  # other machines that have an address which this box holds

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> BoxFacts | None:
        """From the document of the link; None when there is none yet.  A later release may say more."""
        known = {each.name for each in fields(cls)}
        return cls(**{key: value for key, value in facts.items() if key in known}) if facts else None


@dataclass(frozen=True)
class Readiness:
    """One verdict, and what stands against it."""

    reasons: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def is_ready(self) -> bool:
        return not self.reasons


def judge_readiness(
    *,
    passive: BoxFacts | None,
    active: BoxFacts | None,
    peer_heard: bool,
    passive_level: int,
    passive_reasons: Sequence[str],
    is_linked: bool,
    is_synced: bool,
    lag_ms: int,
    link_trouble: str = "",
    unread: str = "",
) -> Readiness:
    """Whether the passive box could take over now.  Facts that are not known are reasons.

    ``unread``: why heartbeats that do come from the peer are not read.
    """
    reasons: list[str] = []
    if not peer_heard:
        reasons.append("the peer is not heard" + (f": {unread}" if unread else ""))
    if peer_heard and passive_level < WELL:
        reasons += list(passive_reasons) or [f"the passive box is at level {passive_level} of {WELL}"]
    if not is_linked:
        reasons.append("there is no replication link" + (f": {link_trouble}" if link_trouble else ""))
    elif not is_synced:
        reasons.append("the resync of the persistence tables has not ended")
    elif lag_ms > LAG_MS:
        reasons.append(f"the replication lags by {lag_ms} ms")
    if passive is not None and active is not None:
        reasons += _mismatches(passive, active)
        return Readiness(tuple(reasons), tuple(_differences(passive, active)))
    if is_linked:
        reasons.append("the peer has not described itself yet")
    return Readiness(tuple(reasons), ())


def _mismatches(passive: BoxFacts, active: BoxFacts) -> list[str]:
    found = [*passive.problems, *active.conflicts]
    if passive.digest != active.digest:
        found.append(
            f"the configurations differ: the passive box runs version {passive.config_version}, "
            f"the active one version {active.config_version}"
        )
    if passive.version != active.version:
        found.append(f"the passive box has lbfast {passive.version}, the active one {active.version}")
    up = {server["id"] for server in active.servers if server["health"] == "up"}
    missed = [server for server in passive.servers if server["health"] == "down" and server["id"] in up]
    found += [f"{it['real']} of {it['service']} is reached by the active box only" for it in missed]
    return found


def _differences(passive: BoxFacts, active: BoxFacts) -> list[str]:
    """Local settings that are not replicated and are not the same."""
    keys = sorted(set(passive.settings) | set(active.settings))
    return [
        f"{key}: {active.settings.get(key, 'nothing')} on the active box, "
        f"{passive.settings.get(key, 'nothing')} on the passive one"
        for key in keys
        if passive.settings.get(key) != active.settings.get(key)
    ]


def compare_reach(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Each real server as both boxes see it; ``unknown`` where the peer has not said."""
    seen = {str(server.get("id")): str(server.get("health")) for server in theirs}
    return [
        {
            "service": str(server["service"]),
            "real": str(server["real"]),
            "here": str(server["health"]),
            "there": seen.get(str(server["id"]), "unknown"),
        }
        for server in ours
    ]
