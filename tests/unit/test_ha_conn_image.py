"""The wire form of a connection that changes boxes: what goes in comes out; what is broken is refused whole."""

from __future__ import annotations

import json
import random
import struct
from dataclasses import replace

import pytest

from lbfast.ha.conn_image import MAGIC, VERSION, ConnImage, pack, unpack
from lbfast.ha.tcp_image import KEPT_COUNT, ImageError, TcpImage, TcpState

_HEAD = struct.Struct("!4sHI8I")


def some_end(chance: random.Random) -> TcpImage:
    def word() -> int:
        return chance.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, chance.getrandbits(32)])

    def data() -> bytes:
        return chance.randbytes(chance.choice([0, 0, 1, 100, 70_000]))

    def place() -> tuple[str, int]:
        return chance.choice(["192.0.2.1", "2001:db8::1"]), chance.randint(1, 0xFFFF)

    return TcpImage(
        local=place(),
        remote=place(),
        state=chance.choice(list(TcpState)),
        receive_seq=word(),
        send_seq=word(),
        unread=data(),
        sent=data(),
        unsent=data(),
        mss=chance.randint(1, 0xFFFF),
        wscale=chance.choice([None, (0, 14), (7, 10)]),
        has_sack=chance.random() < 0.5,
        timestamp=chance.choice([None, word()]),
        window=(word(), word(), word(), word(), word()),
        buffers=(chance.getrandbits(30), chance.getrandbits(30)),
        options=tuple(chance.getrandbits(20) for _ in range(KEPT_COUNT)),
        congestion=chance.choice(["cubic", "bbr", ""]),
    )


def some_image(chance: random.Random) -> ConnImage:
    facts = {"flags": chance.getrandbits(8), "client": {"age_ms": chance.getrandbits(40)}, "port": 443}
    ends = some_end(chance), some_end(chance)
    return ConnImage("service", "real", facts, *ends, chance.randbytes(chance.choice([0, 5])), b"out")


@pytest.mark.parametrize("seed", range(30))
def test_what_goes_in_comes_out(seed: int) -> None:
    chance = random.Random(seed)
    images = [some_image(chance) for _ in range(chance.randint(0, 4))]
    assert list(unpack(b"".join(map(pack, images)))) == images


@pytest.mark.parametrize("seed", range(20))
def test_a_piece_is_refused(seed: int) -> None:
    chance = random.Random(seed)
    stream = pack(some_image(chance))
    with pytest.raises(ImageError):
        list(unpack(stream[: chance.randrange(1, len(stream))]))


@pytest.mark.parametrize("seed", range(200))
def test_damage_is_refused_or_gives_an_image(seed: int) -> None:
    chance = random.Random(seed)
    stream = bytearray(pack(replace(some_image(chance), client=replace(some_end(chance), unread=b"", unsent=b""))))
    for _ in range(chance.randint(1, 5)):
        stream[chance.randrange(min(len(stream), 900))] = chance.getrandbits(8)
    try:
        assert all(isinstance(image, ConnImage) for image in unpack(stream))
    except ImageError:
        pass


def altered(**changes: object) -> bytes:
    """An image whose client end says something else."""
    packed = pack(some_image(random.Random(1)))
    magic, version, size, *sizes = _HEAD.unpack_from(packed)
    document = json.loads(packed[_HEAD.size : _HEAD.size + size])
    document["client"].update(changes)
    text = json.dumps(document).encode()
    return _HEAD.pack(magic, version, len(text), *sizes) + text + packed[_HEAD.size + size :]


def test_what_a_later_release_adds_is_passed_over() -> None:
    (image,) = unpack(altered(something_new=[1, 2], options=[0] * (KEPT_COUNT + 3)))
    assert image.client.options == (0,) * KEPT_COUNT


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"send_seq": 1 << 32}, "4294967296"),
        ({"receive_seq": -1}, "-1"),
        ({"receive_seq": "7"}, "'7'"),
        ({"state": 10}, "10"),
        ({"wscale": [15, 0]}, "15"),
        ({"window": [1, 2]}, "2 numbers, expected 5"),
        ({"local": ["192.0.2.1", 65536]}, "65536"),
        ({"options": []}, "0 numbers"),
    ],
)
def test_what_no_kernel_says_is_refused(changes: dict[str, object], found: str) -> None:
    with pytest.raises(ImageError, match=found):
        list(unpack(altered(**changes)))


def test_another_version_and_another_thing_are_named() -> None:
    packed = pack(some_image(random.Random(2)))
    with pytest.raises(ImageError, match=f"version {VERSION + 1}, this release has version {VERSION}"):
        list(unpack(MAGIC + struct.pack("!H", VERSION + 1) + packed[6:]))
    with pytest.raises(ImageError, match="begins with b'GET '"):
        list(unpack(b"GET " + packed[4:]))
