"""The stick table of one virtual service, in shared memory."""

from collections.abc import Iterator
from typing import TypedDict

class Entry(TypedDict):
    client: str  # text of the (masked) address
    real: int  # slot in Table
    tag: int  # of the real's id, see StickTable.real_tag
    state: str  # "pending" or "bound"
    pinned: bool
    reason: int  # model.state.Reason of the last choice
    holds: int  # open connections that hold the entry
    created_ms: int
    since_ms: int  # when it was bound to this real server
    closed_ms: int  # last close; meaningful when holds == 0
    previous: int  # real server before this one, or -1
    previous_reason: int  # why it left that one

class StickTable:
    VERSION: int
    """Set-associative, 14 entries of 64 bytes a bucket, one lock a bucket.

    The lock names its owner's pid: the lock of a dead owner is broken by whoever
    meets it, and its half-made change undone from the bucket's undo line.
    """

    fd: int
    capacity: int
    @staticmethod
    def create(capacity: int) -> StickTable: ...
    @staticmethod
    def attach(fd: int) -> StickTable: ...
    @staticmethod
    def real_tag(id: bytes) -> int: ...
    def get(self, client: str) -> Entry | None: ...
    def pin(self, client: str, real: int, tag: int, now_ms: int) -> None:
        """Bind a client for good; OSError(ENOSPC) when its bucket is full of held entries."""
    def remove(self, client: str) -> bool: ...
    def clear(self, network: str | None = None, real: int | None = None) -> int:
        """Remove entries (pinned ones too) inside a CIDR and/or of a real server; how many."""
    def entries(self) -> Iterator[Entry]: ...
    def counts(self) -> dict[int, int]:
        """Entries per real slot, counted by walking the touched buckets."""
    def __len__(self) -> int:
        """Live entries, counted by walking the touched buckets."""
    def sweep(self, timeout_ms: int, now_ms: int, buckets: int) -> int:
        """Expire in the next ``buckets`` touched buckets; how many entries went."""
    def recover(self, pid: int) -> int:
        """Undo and unlock whatever a dead process left locked; how many buckets."""
    def forget_holds(self, now_ms: int) -> None:
        """Nobody holds anything any more: whoever takes a connection takes its hold anew.  Nobody may use it now."""
