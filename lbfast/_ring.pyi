"""The event ring of one worker: one writer, one reader, overflow counted."""

from typing import TypedDict

class Event(TypedDict):
    at: float  # Unix time, seconds
    kind: int  # model.state.EventKind
    id: int  # connection id, unique per worker
    worker: int
    service: int
    real: int  # -1 = none
    previous: int  # real server of the entry before this choice, -1 = none
    reason: int
    client: str
    client_port: int
    port: int
    attempts: int
    connect_ms: int
    duration_ms: int
    bytes_in: int
    bytes_out: int
    ended: int  # model.state.Ended
    by: int  # model.state.EndedBy
    errno: int  # the error that decided, 0 = none

class Ring:
    VERSION: int
    fd: int
    @staticmethod
    def create(worker: int, capacity: int = 16384) -> Ring: ...
    @staticmethod
    def attach(fd: int) -> Ring: ...
    def read(self, limit: int) -> list[Event]:
        """The oldest unread events, at most ``limit``."""
    def rest(self, asleep: bool) -> None: ...
    def skip(self, keep: int) -> int:
        """Drop all but the newest ``keep`` unread events without decoding them; how many."""
    def __len__(self) -> int: ...
    lost: int  # events that found the ring full, ever
