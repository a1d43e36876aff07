"""The messages of the hand-over, and what of them travels."""

MOST_BYTES: int
BLOCK_MOST: int

def read_letter(data: bytes, count: int) -> tuple[int, int, bytes, tuple[bytes, int], tuple[bytes, int]]:
    """Slots of service and real server, a record, and for each direction (bytes of a block, size of what its pipe
    holds); ValueError for anything else than a whole message.  ``count``: descriptors that came along."""

def read_ends(record: bytes) -> tuple[bool, bool]:
    """For each direction of a record: does the relay know of its end?"""

def write_letter(record: bytes, service: int, real: int, inbound: bytes, outbound: bytes) -> bytes:
    """The message of a connection whose directions hold these bytes, for a worker of this machine.  Two sockets go
    with it, and for a direction that holds more than BLOCK_MOST both ends of a pipe with its bytes."""
