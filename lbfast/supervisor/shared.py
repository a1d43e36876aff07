"""The bundle of shared memory that every child inherits."""

from __future__ import annotations

import os
from collections.abc import Container
from dataclasses import dataclass

from lbfast._conn import Slab
from lbfast._counters import Counters
from lbfast._journal import Journal
from lbfast._ring import Ring
from lbfast._stick import StickTable
from lbfast._table import Table
from lbfast.config.layout import Layout
from lbfast.health.results import ProbeResults
from lbfast.model.appliance import Config

MOST_WRITERS = 512  # seats of workers
JOURNAL_ROOM = 16_384  # keys of each; memory is taken when it is first written
WAKES = ("health_wake", "ring_wake")
"""Eventfds; a program that inherits makes those that the one before it did not have."""


@dataclass
class Shared:
    """Every structure in shared memory, made once by the supervisor."""

    table: Table
    counters: Counters
    sticks: dict[int, StickTable]  # service slot -> table
    slabs: list[Slab]  # by seat
    rings: list[Ring]  # by seat
    results: ProbeResults
    health_wake: int  # eventfd: a connect to a real server failed
    journal: Journal  # stick-table changes for the peer
    ring_wake: int  # eventfd: an event came while control slept

    def forget(self) -> None:
        """In a child that has no business with any of it: unmapped, as soon as nobody holds a part."""
        self.sticks.clear()
        self.slabs.clear()
        self.rings.clear()
        for name in WAKES:
            os.close(getattr(self, name))
        del self.table, self.counters, self.results, self.journal


def create_shared(config: Config, layout: Layout, counters: Counters) -> Shared:
    """Make all of it but the seats.  Pages cost nothing until touched."""
    return Shared(
        table=Table.create(),
        counters=counters,
        sticks=make_sticks(config, layout),
        slabs=[],
        rings=[],
        results=ProbeResults.create(),
        health_wake=os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC),
        journal=Journal.create(MOST_WRITERS, JOURNAL_ROOM),
        ring_wake=os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC),
    )


def make_sticks(config: Config, layout: Layout, without: Container[int] = ()) -> dict[int, StickTable]:
    """A stick table for each service that needs one, by slot, except for the slots ``without``."""
    return {
        slot: StickTable.create(service.persistence.table_size)
        for service in config.virtual_services
        if service.has_table and (slot := layout.services[service.label]) not in without
    }


def memory_of(shared: Shared) -> dict[str, int]:
    """The descriptors of all shared memory, by name."""
    return {
        "table": shared.table.fd,
        "counters": shared.counters.fd,
        "results": shared.results.fd,
        **{name: getattr(shared, name) for name in WAKES},
        **{f"stick.{slot}": stick.fd for slot, stick in shared.sticks.items()},
        **{f"slab.{seat}": slab.fd for seat, slab in enumerate(shared.slabs)},
        **{f"ring.{seat}": ring.fd for seat, ring in enumerate(shared.rings)},
    }
