"""Entries of the stick tables as records for the peer, and the peer's records as entries."""

from lbfast._journal import Journal
from lbfast._stick import StickTable

class Replica:
    applied: int
    unknown: int  # records of services or real servers that are not here
    kept: int  # records for clients that have connections here
    no_room: int
    def __init__(self, tables: dict[int, StickTable]) -> None: ...
    def set_peer(self, services: dict[int, int], reals: dict[int, tuple[int, int]]) -> None:
        """The peer's slots to ours: services; real servers with our tag."""
    def collect(self, journal: Journal, limit: int, now: int) -> tuple[bytearray, int]: ...
    def snapshot(self, service: int, bucket: int, limit: int, now: int) -> tuple[bytearray, int]: ...
    def apply(self, data: bytes, offset: int, now: int) -> None: ...
    def begin_resync(self) -> int:
        """Every entry is in doubt; how many there are."""
    def end_resync(self, now: int) -> int:
        """Entries that the peer does not have go; how many."""
    def release_held(self, now: int) -> int:
        """This box has taken over: what the peer's connections held begins to age now."""
