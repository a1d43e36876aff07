"""The wire form of a connection that changes boxes: what goes in comes out; what is broken is refused whole."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from functools import cache

import pytest

from lbfast._letters import write_letter
from lbfast._tcp_image import ImageError, TcpImage
from lbfast.ha.conn_image import MAGIC, MOST_BYTES, VERSION, ConnImage, pack, unpack

_HEAD = struct.Struct("!4sBB7I")
_END = struct.Struct("=HBBBBHHH16s16sIII5III7i16sIII")
"""As ``_tcp_image.End`` is laid out on every machine that lbfast runs on."""
ESTABLISHED, CLOSE_WAIT = 1, 8
LETTER, SIZE = 0x4C464D01, 256


def some_end(chance: random.Random, **changes: int) -> bytes:
    strings = [chance.randbytes(chance.choice([0, 0, 1, 100, 70_000])) for _ in range(3)]
    facts = {"state": chance.choice([ESTABLISHED, 4, 5, CLOSE_WAIT]), "wscale": chance.randint(0, 14), "more": 0}
    facts |= changes
    head = _END.pack(
        _END.size,
        facts["state"],
        chance.choice([0, 7, 15]),
        facts["wscale"],
        facts["wscale"],
        *(chance.getrandbits(16) for _ in range(3)),
        chance.randbytes(16),
        chance.randbytes(16),
        *(chance.getrandbits(32) for _ in range(10)),
        *(chance.getrandbits(20) for _ in range(7)),
        b"cubic",
        len(strings[0]) + facts["more"],
        len(strings[1]),
        len(strings[2]),
    )
    return head + b"".join(strings)


def some_record(chance: random.Random) -> bytes:
    return struct.pack("=IH", LETTER, SIZE) + chance.randbytes(SIZE - 6)


def some_image(chance: random.Random) -> ConnImage:
    ends = TcpImage.unpack(some_end(chance)), TcpImage.unpack(some_end(chance))
    return ConnImage("service", "real", some_record(chance), *ends, chance.randbytes(chance.choice([0, 5])), b"out")


def flat(image: ConnImage) -> tuple[object, ...]:
    """To be compared."""
    ends = (image.client.pack(), image.server.pack())
    return image.service, image.real, image.record, *ends, image.inbound, image.outbound


@cache
def streams() -> tuple[bytes, ...]:
    """Some that are sound; made once, because the large ones take their time."""
    return tuple(pack(some_image(random.Random(seed))) for seed in range(20))


@pytest.mark.parametrize("seed", range(30))
def test_what_goes_in_comes_out(seed: int) -> None:
    chance = random.Random(seed)
    images = [some_image(chance) for _ in range(chance.randint(0, 4))]
    found = list(unpack(bytearray(b"".join(map(pack, images)))))
    assert list(map(flat, found)) == list(map(flat, images))


@pytest.mark.parametrize("seed", range(20))
def test_pieces_come_together(seed: int) -> None:
    chance = random.Random(seed)
    images = [some_image(chance) for _ in range(3)]
    whole, stream, found = b"".join(map(pack, images)), bytearray(), list[ConnImage]()
    for piece in cut(whole, chance):
        stream += piece
        found += unpack(stream)
    assert list(map(flat, found)) == list(map(flat, images))
    assert stream == b""


def cut(data: bytes, chance: random.Random) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = chance.randint(1, 50_000)
        yield data[at : at + size]
        at += size


@pytest.mark.parametrize("seed", range(20))
def test_a_piece_is_no_image(seed: int) -> None:
    whole = streams()[seed]
    stream = bytearray(whole[: random.Random(seed).randrange(1, len(whole))])
    kept = bytes(stream)
    assert list(unpack(stream)) == []
    assert stream == kept, "the rest may still come"


@pytest.mark.parametrize("seed", range(200))
def test_damage_is_refused_or_gives_an_image(seed: int) -> None:
    chance = random.Random(seed)
    stream = bytearray(chance.choice(streams()))
    for _ in range(chance.randint(1, 5)):
        stream[chance.randrange(min(len(stream), 900))] = chance.getrandbits(8)
    try:
        assert all(isinstance(image, ConnImage) for image in unpack(stream))
    except ImageError:
        pass


def with_client(end: bytes) -> bytearray:
    """An image with this client end."""
    image = some_image(random.Random(1))
    strings = (b"service", b"real", image.record, end, image.server.pack(), b"", b"")
    return bytearray(_HEAD.pack(MAGIC, VERSION, streams()[0][5], *map(len, strings)) + b"".join(strings))


def test_what_a_later_release_adds_is_passed_over() -> None:
    plain = some_end(random.Random(2))
    longer = struct.pack("=H", _END.size + 8) + plain[2 : _END.size] + b"newfield" + plain[_END.size :]
    (image,) = unpack(with_client(longer))
    assert image.client.pack() == plain


@pytest.mark.parametrize(
    ("end", "found"),
    [
        (some_end(random.Random(3), state=10), "state 10"),
        (some_end(random.Random(3), wscale=15), "window scales 15"),
        (some_end(random.Random(3), more=1), "its head says"),
        (struct.pack("=H", 20) + bytes(300), "of which 20 are its head"),
        (b"", "an end of 0 bytes"),
    ],
)
def test_what_no_kernel_says_is_refused(end: bytes, found: str) -> None:
    with pytest.raises(ImageError, match=found):
        list(unpack(with_client(end)))


def test_a_record_that_is_none_is_refused() -> None:
    for record in (b"", bytes(SIZE), some_record(random.Random(4))[:-1]):
        with pytest.raises(ValueError, match="no record"):
            write_letter(record, 0, 0, b"", b"")


def test_another_version_another_machine_and_another_thing_are_named() -> None:
    packed = streams()[0]
    with pytest.raises(ImageError, match=f"version {VERSION + 1}, this release has version {VERSION}"):
        list(unpack(bytearray(MAGIC + bytes([VERSION + 1]) + packed[5:])))
    with pytest.raises(ImageError, match="another byte order"):
        list(unpack(bytearray(packed[:5] + bytes([packed[5] ^ 3]) + packed[6:])))
    with pytest.raises(ImageError, match="begins with b'GET '"):
        list(unpack(bytearray(b"GET " + packed[4:])))
    with pytest.raises(ImageError, match=f"expected {MOST_BYTES} at most"):
        list(unpack(bytearray(packed[:6] + b"\xff" * 28 + packed[34:])))
