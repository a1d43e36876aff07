"""The connection slab of one worker, in shared memory."""

from collections.abc import Iterator
from typing import TypedDict

class ConnRecord(TypedDict):
    id: int  # unique: seat << 40, plus a number that counts on
    phase: int  # model.state.Phase
    service: int
    real: int  # -1 before pick
    reason: int
    client: str
    client_port: int
    port: int  # of the virtual service
    accepted_ms: int
    connected_ms: int  # 0 before
    client_active_ms: int  # last byte from or to that side
    server_active_ms: int
    bytes_in: int
    bytes_out: int
    attempts: int

class Slab:
    VERSION: int
    fd: int
    capacity: int
    @staticmethod
    def create(capacity: int, seat: int = 0, next_id: int = 0) -> Slab: ...
    @staticmethod
    def attach(fd: int) -> Slab: ...
    def connections(self, service: int | None = None, client: str | None = None) -> Iterator[ConnRecord]:
        """A snapshot of the live connections; safe beside the running worker."""
