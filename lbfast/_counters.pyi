"""Counters: each worker writes its own page, readers sum."""

from typing import TypedDict

from lbfast._table import Table

class WorkerCounters(TypedDict):
    place: int  # worker number
    taken: bool  # somebody has the seat
    pid: int
    progress_ms: int  # last turn of the loop
    connections: int  # open now
    accepted: int
    handed_over: int  # accepted sockets given to a less loaded worker
    taken_over: int
    moved_out: int  # connections given to another worker
    moved_in: int
    accept_errors: int
    no_descriptors: int  # EMFILE and ENFILE met
    no_memory: int
    no_ports: int  # EADDRNOTAVAIL met
    no_pipes: int  # relayed by copying for want of a pipe
    stick_full: int  # served without an entry
    pipes: int  # in use now
    blocks: int  # heap blocks that hold bytes the receiver could not take yet
    copied_bytes: int
    spliced_bytes: int
    loops: int
    stale_events: int  # events for a connection that ended earlier in the same batch

class ServiceCounters(TypedDict):
    accepted: int
    denied: int
    limited: int
    client_limited: int  # also counted, not refused, with client_limit_report_only
    refused: int  # ended before a real server was reached, for any other reason

class RealCounters(TypedDict):
    connections: int  # open now
    opened: int
    connect_failures: int
    bytes_in: int  # client to server, of ended and of open connections up to the last tick
    bytes_out: int

class Counters:
    VERSION: int
    fd: int
    seats: int  # there is room for
    workers: int  # seats that have, or had, a worker
    @staticmethod
    def create(seats: int, used: int = -1) -> Counters:
        """``used``: seats in use from the start; by default all."""
    @staticmethod
    def attach(fd: int) -> Counters: ...
    def use(self, seat: int, place: int) -> None: ...
    def vacate(self, seat: int) -> None: ...
    def forget_live(self) -> None: ...
    def worker(self, index: int) -> WorkerCounters: ...
    def service(self, slot: int) -> ServiceCounters: ...
    def real(self, slot: int) -> RealCounters: ...
    def service_by_worker(self, slot: int) -> list[int]:
        """Open connections of a service, worker by worker."""
    def settle(self, index: int, table: Table) -> None:
        """Take what a dead worker still counted as open off the totals in ``table``."""
    def reckon(self, seat: int, drift: int) -> None:
        """So many more sockets were given than taken although none is under way: made equal, on a seat's page."""
