"""Bytes for a fuzz target: its corpus, changed a little, and pure noise.  Seeded, so that a run can be repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

NOISE_EVERY = 16
MOST_BYTES = 1 << 16


def mutations(seeds: Sequence[bytes], words: Sequence[bytes], dice: random.Random) -> Iterator[bytes]:
    """Without end."""
    while True:
        if not seeds or dice.randrange(NOISE_EVERY) == 0:
            yield dice.randbytes(dice.randrange(200))
            continue
        data = bytearray(dice.choice(seeds))
        for _ in range(1 + dice.randrange(6)):
            _change(data, seeds, words, dice)
        yield bytes(data[:MOST_BYTES])


def _change(data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes], dice: random.Random) -> None:
    place = dice.randrange(len(data) + 1)
    end = min(len(data), place + 1 + dice.randrange(8))
    match dice.randrange(7):
        case 0:
            data[place : place + 1] = bytes([dice.randrange(256)])
        case 1:
            del data[place:end]
        case 2:
            data[place:place] = dice.randbytes(1 + dice.randrange(4))
        case 3 if words:
            data[place : end if dice.randrange(2) else place] = dice.choice(words)
        case 4:
            data[place:place] = data[place:end] * (1 + dice.randrange(40))
        case 5:
            other = dice.choice(seeds)
            start = dice.randrange(len(other) + 1)
            data[place:] = other[start:]
        case _ if place < len(data):
            data[place] ^= 1 << dice.randrange(8)
