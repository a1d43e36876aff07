"""The wire form of a connection that changes boxes: both of its sockets, what the relay held, what it counted.

One image after the other in a stream of bytes: a head, then seven strings of bytes.  What a later release adds stands
at the end of a string and is passed over; an image of another version, or of a machine with another byte order, is
refused whole.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from lbfast._letters import read_ends
from lbfast._tcp_image import ImageError, TcpImage

VERSION = 2
MAGIC = b"LBCN"
MOST_BYTES = 160 << 20  # of one image: four full queues, and what the relay holds
_ORDER = 1 if sys.byteorder == "little" else 2
_HEAD = struct.Struct("!4sBB7I")


@dataclass(frozen=True)
class ConnImage:
    """``record``: as ``_letters`` has it, but without slots; ``service`` and ``real`` are ids of the configuration."""

    service: str
    real: str
    record: bytes
    client: TcpImage
    server: TcpImage
    inbound: bytes  # taken from the client, not yet passed on
    outbound: bytes


def pack(image: ConnImage) -> bytes:
    """Its wire form."""
    strings = (
        image.service.encode(),
        image.real.encode(),
        image.record,
        image.client.pack(),
        image.server.pack(),
        image.inbound,
        image.outbound,
    )
    return b"".join((_HEAD.pack(MAGIC, VERSION, _ORDER, *map(len, strings)), *strings))


def unpack(stream: bytearray) -> Iterator[ConnImage]:
    """Every whole image at the beginning of a stream, which is taken out of it; ImageError at what is none."""
    at = 0
    try:
        while len(stream) - at >= _HEAD.size:
            sizes = _read_head(stream, at)
            end = at + _HEAD.size + sum(sizes)
            if end > len(stream):
                return
            start, at = at + _HEAD.size, end
            yield _image(stream, start, sizes)
    finally:
        del stream[:at]


def _read_head(stream: bytearray, at: int) -> list[int]:
    magic, version, order, *sizes = _HEAD.unpack_from(stream, at)
    if magic != MAGIC:
        raise ImageError(f"an image begins with {bytes(magic)!r}, expected {MAGIC!r}")
    if version != VERSION:
        raise ImageError(f"an image of version {version}, this release has version {VERSION}")
    if order != _ORDER:
        raise ImageError("an image of a machine with another byte order")
    if sum(sizes) > MOST_BYTES:
        raise ImageError(f"an image of {sum(sizes)} bytes, expected {MOST_BYTES} at most")
    return sizes


def _image(stream: bytearray, at: int, sizes: list[int]) -> ConnImage:
    strings = []
    for size in sizes:
        strings.append(bytes(stream[at : at + size]))
        at += size
    service, real, record, client, server, inbound, outbound = strings
    try:
        read_ends(record)
        names = service.decode(), real.decode()
    except ValueError as error:
        raise ImageError(f"an image that cannot be read: {error}") from None
    return ConnImage(*names, record, TcpImage.unpack(client), TcpImage.unpack(server), inbound, outbound)
