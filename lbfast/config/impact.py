"""What a commit does to clients and connections, in numbers and in sentences.  Pure: the facts are arguments."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lbfast.config.commit import Plan
from lbfast.config.steps import (
    LIVE_KEYS,
    ChangeService,
    ChangeWorkers,
    CloseListener,
    OpenListener,
    RemoveReal,
    RemoveService,
)

CUT, DRAIN = "cut", "drain"


@dataclass(frozen=True)
class Facts:
    """What is true at this moment, by slot."""

    connections: Mapping[int, int] = field(default_factory=dict)  # of real servers
    clients: Mapping[int, int] = field(default_factory=dict)  # entries of the stick table, of real servers
    entries: Mapping[int, int] = field(default_factory=dict)  # of virtual services
    forgetful: Collection[int] = ()  # services whose entries no longer fit: other mask, no persistence any more
    resized: Collection[str] = ()  # services whose table_size changes


@dataclass(frozen=True)
class Impact:
    """``lines`` says the numbers in words, and what else should be known before."""

    clients_moved: int
    connections_cut: int
    connections_left: int  # of removed real servers, that may end by themselves
    listeners_opened: int
    listeners_closed: int
    lines: tuple[str, ...]

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


def impact(plan: Plan, facts: Facts, removed: str = CUT) -> Impact:
    """``removed``: what happens to the connections of removed real servers, ``cut`` or ``drain``."""
    gone = plan.of(RemoveReal)
    moved = sum(facts.clients.get(step.slot, 0) for step in gone)
    gone_services = {step.slot for step in plan.of(RemoveService)}
    moved += sum(
        facts.entries.get(slot, 0) - sum(facts.clients.get(it.slot, 0) for it in gone if it.service_slot == slot)
        for slot in facts.forgetful
        if slot not in gone_services
    )
    open_now = sum(facts.connections.get(step.slot, 0) for step in gone)
    opened, closed = len(plan.of(OpenListener)), len(plan.of(CloseListener))
    cut, left = (open_now, 0) if removed == CUT else (0, open_now)
    lines = [f"{_plural(moved, 'client')} moved to another server, {_plural(cut, 'connection')} cut"]
    if left:
        lines.append(f"{_plural(left, 'connection')} of removed servers may end by themselves")
    if opened or closed:
        lines.append(f"{_plural(opened, 'listener')} opened, {_plural(closed, 'listener')} closed")
    for step in gone:
        clients, connections = facts.clients.get(step.slot, 0), facts.connections.get(step.slot, 0)
        if clients or connections:
            has = f"{_plural(clients, 'client')} and {_plural(connections, 'open connection')}"
            lines.append(f"{step.label!r} / {step.real!r} has {has}")
    lines += _remarks(plan, facts)
    return Impact(moved, cut, left, opened, closed, tuple(lines))


def _remarks(plan: Plan, facts: Facts) -> list[str]:
    lines = [
        f"{step.label!r}: known clients are placed anew, because persistence changes"
        for step in plan.of(ChangeService)
        if step.slot in facts.forgetful and facts.entries.get(step.slot)
    ]
    lines += [f"{label!r}: the new table_size counts from the next start" for label in sorted(facts.resized)]
    keys = [key for step in plan.of(ChangeWorkers) for key in step.keys]
    lines += [f"{key}: cannot be changed while running" for key in keys if key not in LIVE_KEYS]
    if "workers" in keys:
        lines.append("workers: connections of a worker that goes pass to the others")
    return lines


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
