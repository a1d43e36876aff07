"""The wire form of a connection that changes boxes: both of its sockets, what the relay held, what it counted.

One image after the other in a stream of bytes: a head, a JSON object, eight strings of bytes.  Unknown keys of a later
release are passed over; an image of another version is refused whole.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lbfast.ha.tcp_image import KEPT_COUNT, ImageError, TcpImage, TcpState

VERSION = 1
MAGIC = b"LBCN"
_HEAD = struct.Struct("!4sHI8I")
_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class ConnImage:
    """``facts``: as ``_letters`` has them, but without slots; ``service`` and ``real`` are ids of the configuration."""

    service: str
    real: str
    facts: dict[str, Any]
    client: TcpImage
    server: TcpImage
    inbound: bytes  # taken from the client, not yet passed on
    outbound: bytes

    @property
    def size(self) -> int:
        return sum(map(len, _strings(self)))


def pack(image: ConnImage) -> bytes:
    """Its wire form."""
    document = {
        "service": image.service,
        "real": image.real,
        "facts": image.facts,
        "client": _describe(image.client),
        "server": _describe(image.server),
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    strings = _strings(image)
    return b"".join((_HEAD.pack(MAGIC, VERSION, len(text), *map(len, strings)), text, *strings))


def unpack(data: bytes | bytearray) -> Iterator[ConnImage]:
    """Every image of a stream; ImageError at the first thing that is none, and nothing of the rest is used."""
    at = 0
    while at < len(data):
        if len(data) - at < _HEAD.size:
            raise ImageError(f"{len(data) - at} bytes are left over, an image has at least {_HEAD.size}")
        magic, version, text_size, *sizes = _HEAD.unpack_from(data, at)
        if magic != MAGIC:
            raise ImageError(f"an image begins with {bytes(magic)!r}, expected {MAGIC!r}")
        if version != VERSION:
            raise ImageError(f"an image of version {version}, this release has version {VERSION}")
        at += _HEAD.size
        end = at + text_size + sum(sizes)
        if end > len(data):
            raise ImageError(f"an image of {end - at} bytes, {len(data) - at} have come")
        text = bytes(data[at : at + text_size])
        at += text_size
        strings = []
        for size in sizes:
            strings.append(bytes(data[at : at + size]))
            at += size
        yield _image(text, strings)


def _strings(image: ConnImage) -> tuple[bytes, ...]:
    ends = (image.client, image.server)
    return (*(part for end in ends for part in (end.unread, end.sent, end.unsent)), image.inbound, image.outbound)


def _describe(end: TcpImage) -> dict[str, Any]:
    return {
        "local": end.local,
        "remote": end.remote,
        "state": int(end.state),
        "receive_seq": end.receive_seq,
        "send_seq": end.send_seq,
        "mss": end.mss,
        "wscale": end.wscale,
        "has_sack": end.has_sack,
        "timestamp": end.timestamp,
        "window": end.window,
        "buffers": end.buffers,
        "options": end.options,
        "congestion": end.congestion,
    }


def _image(text: bytes, strings: list[bytes]) -> ConnImage:
    try:
        document = json.loads(text)
        return ConnImage(
            service=str(document["service"]),
            real=str(document["real"]),
            facts=dict(document["facts"]),
            client=_end(document["client"], strings[0:3]),
            server=_end(document["server"], strings[3:6]),
            inbound=strings[6],
            outbound=strings[7],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"an image that cannot be read: {type(error).__name__}: {error}") from None


def _end(found: dict[str, Any], strings: list[bytes]) -> TcpImage:
    wscale, timestamp = found["wscale"], found["timestamp"]
    return TcpImage(
        local=_place(found["local"]),
        remote=_place(found["remote"]),
        state=TcpState(found["state"]),
        receive_seq=_number(found["receive_seq"]),
        send_seq=_number(found["send_seq"]),
        unread=strings[0],
        sent=strings[1],
        unsent=strings[2],
        mss=_number(found["mss"], 0xFFFF),
        wscale=None if wscale is None else (_number(wscale[0], 14), _number(wscale[1], 14)),
        has_sack=bool(found["has_sack"]),
        timestamp=None if timestamp is None else _number(timestamp),
        window=_numbers(found["window"], 5),
        buffers=_numbers(found["buffers"], 2),
        options=_numbers(found["options"], KEPT_COUNT),
        congestion=str(found["congestion"])[:15],
    )


def _place(found: list[Any]) -> tuple[str, int]:
    address, port = found
    return str(address), _number(port, 0xFFFF)


def _numbers(found: list[Any], count: int) -> Any:
    if len(found) < count:
        raise ValueError(f"{len(found)} numbers, expected {count}")
    return tuple(map(_number, found[:count]))


def _number(found: Any, most: int = _WORD) -> int:
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= most:
        raise ValueError(f"{found!r}, expected a number from 0 to {most}")
    return found
