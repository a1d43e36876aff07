"""What the impact of a plan depends on, read from shared memory at this moment."""

from __future__ import annotations

from lbfast.config.commit import Plan
from lbfast.config.impact import Facts
from lbfast.config.publish import Placed
from lbfast.config.steps import ChangeService
from lbfast.control.catalog import Catalog
from lbfast.control.engine import SharedFace, persistence_table
from lbfast.model.state import Persistence


def facts_of(shared: SharedFace, catalog: Catalog, plan: Plan, running: Placed, candidate: Placed) -> Facts:
    """Connections and clients of everything that runs."""
    connections = {real.slot: shared.table.real(real.slot)["connections"] for _, real in catalog.pairs()}
    clients: dict[int, int] = {}
    entries: dict[int, int] = {}
    for service in catalog.services:
        stick = persistence_table(shared, service)
        if stick is not None:
            counts = stick.counts()
            clients |= counts
            entries[service.slot] = sum(counts.values())
    forgetful, resized = _persistence_changes(plan, running, candidate)
    return Facts(connections, clients, entries, forgetful, resized)


def _persistence_changes(plan: Plan, running: Placed, candidate: Placed) -> tuple[set[int], set[str]]:
    forgetful: set[int] = set()
    resized: set[str] = set()
    for step in plan.of(ChangeService):
        old, new = running.config.service(step.was), candidate.config.service(step.label)
        if old is None or new is None or old.persistence == new.persistence:
            continue
        was, now = old.persistence, new.persistence
        if (was.mask_v4, was.mask_v6) != (now.mask_v4, now.mask_v6) or now.mode is Persistence.NONE:
            forgetful.add(step.slot)
        if was.table_size != now.table_size and old.has_table and new.has_table:
            resized.add(step.label)
    return forgetful, resized


def busy_slots(shared: SharedFace, running: Placed) -> tuple[set[int], set[int]]:
    """Slots of services and real servers that were given up and still have connections."""
    services = set(running.layout.services.values())
    reals = set(running.layout.reals.values())
    busy_services: set[int] = set()
    busy_reals: set[int] = set()
    for slab in shared.slabs:
        for record in slab.connections():
            if record["service"] not in services:
                busy_services.add(record["service"])
            if record["real"] >= 0 and record["real"] not in reals:
                busy_reals.add(record["real"])
    return busy_services, busy_reals
