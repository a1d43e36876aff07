"""Repair after a dead worker."""

from lbfast._conn import Slab
from lbfast._counters import Counters
from lbfast._ring import Ring
from lbfast._stick import StickTable
from lbfast._table import Table

def repair(
    index: int,
    pid: int,
    table: Table,
    counters: Counters,
    slabs: list[Slab],
    ring: Ring,
    sticks: dict[int, StickTable],
) -> int:
    """Give back what a dead worker held: table locks, holds, limits, live counts; write a close
    record (Ended.WORKER_DIED) for each of its connections; empty its slab.  What it had offered to others and
    what they took stays theirs.  To be called before the seat is used again.  Returns the number of connections."""
