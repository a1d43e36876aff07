"""The messages of the hand-over, as plain values."""

from collections.abc import Mapping
from typing import Any

MOST_BYTES: int
BLOCK_MOST: int

def read_letter(data: bytes, count: int) -> tuple[dict[str, Any], tuple[bytes, int], tuple[bytes, int]]:
    """What a connection's message says, and for each direction (bytes of a block, size of what its pipe holds);
    ValueError for anything else than a whole message.  ``count``: descriptors that came along."""

def write_letter(facts: Mapping[str, Any], inbound: bytes, outbound: bytes) -> bytes:
    """The message of a connection whose directions hold these bytes, for a worker of this machine.  Two sockets go
    with it, and for a direction that holds more than BLOCK_MOST both ends of a pipe with its bytes."""
