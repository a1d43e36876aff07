"""Heartbeats as bytes: what comes through the guard, and what never does."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbfast.ha.election import Beat, Standing
from lbfast.ha.wire import Guard, Heard, Refusal, pack_beat

KEY = bytes(range(32))
OURS, THEIRS = 20, 10
BEAT = Beat(life=THEIRS, standing=Standing.ACTIVE, level=3, is_primary=True, hears=True)


def guard(**changes: int) -> Guard:
    return Guard(KEY, OURS, **changes)  # type: ignore[arg-type]


def packed(sequence: int, life: int = THEIRS, heard_life: int = OURS, key: bytes = KEY) -> bytes:
    beat = Beat(life=life, standing=Standing.ACTIVE, level=3, is_primary=True, hears=True)
    return pack_beat(beat, heard_life, sequence, 0, key)


@given(
    st.builds(
        Beat,
        life=st.integers(1, 2**64 - 1).filter(lambda life: life != OURS),
        standing=st.sampled_from(Standing),
        level=st.integers(0, 255),
        is_primary=st.booleans(),
        hears=st.booleans(),
        is_leaving=st.booleans(),
        is_ordered=st.booleans(),
        claim=st.integers(0, 2**64 - 1),
        granted=st.integers(0, 2**64 - 1),
    ),
    st.integers(0, 70_000),
)
def test_every_beat_comes_out_as_it_went_in(beat: Beat, late_ms: int) -> None:
    heard = guard().check(pack_beat(beat, OURS, 5, late_ms, KEY))
    assert heard == Heard(beat, 5, min(late_ms, 65535))


def test_a_million_forged_mutated_and_replayed_datagrams() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    door = guard()
    captured = [packed(number) for number in range(1, 201)]
    assert all(isinstance(door.check(one), Heard) for one in captured)
    other_key = bytes(32)
    foreign = [pack_beat(BEAT, OURS, 1000 + number, 0, other_key) for number in range(200)]
    accepted = 0
    for number in range(1_000_000):
        datagram = captured[number % 200] if number % 4 else foreign[number % 200]
        kind = number % 3
        if kind == 1:
            place = chance.randrange(len(datagram))
            datagram = datagram[:place] + bytes([datagram[place] ^ (1 << chance.randrange(8))]) + datagram[place + 1 :]
        elif kind == 2:
            datagram = datagram[: chance.randrange(len(datagram))]
        accepted += isinstance(door.check(datagram), Heard)
    assert accepted == 0
    assert door.counts["accepted"] == 200
    assert sum(door.counts.values()) == 1_000_200
    assert isinstance(door.check(packed(201)), Heard), "and the peer still gets through"


def test_second_path_reordering_and_replay_are_told_apart() -> None:
    door = guard()
    assert isinstance(door.check(packed(5)), Heard)
    assert door.check(packed(5)) is Refusal.DUPLICATE
    assert isinstance(door.check(packed(8)), Heard)
    assert door.check(packed(7)) is Refusal.REORDERED
    assert door.check(packed(7)) is Refusal.REPLAYED
    assert door.check(packed(5)) is Refusal.REPLAYED
    assert isinstance(door.check(packed(500)), Heard)
    assert door.check(packed(9)) is Refusal.REPLAYED, "too old to be remembered"


def test_an_earlier_run_of_the_peer_is_never_believed_again() -> None:
    door = guard(known_life=THEIRS)
    assert door.check(packed(1, life=THEIRS - 1)) is Refusal.REPLAYED
    assert isinstance(door.check(packed(1, life=THEIRS + 1)), Heard), "a restarted peer counts from 1 again"
    assert door.check(packed(900)) is Refusal.REPLAYED


def test_what_was_said_to_an_earlier_run_of_ours_is_not_for_us() -> None:
    door = guard()
    assert isinstance(door.check(packed(5, heard_life=OURS - 1)), Heard), "it does not know us yet"
    assert isinstance(door.check(packed(6)), Heard)
    assert door.check(packed(7, heard_life=OURS - 1)) is Refusal.REPLAYED


def test_our_own_datagrams_sent_back_are_not_the_peer() -> None:
    assert guard().check(packed(1, life=OURS)) is Refusal.FOREIGN


@pytest.mark.parametrize("extra", [b"", b"\0" * 40])
def test_a_later_release_may_say_more(extra: bytes) -> None:
    import hmac

    body = packed(1)[:-32] + extra
    assert isinstance(guard().check(body + hmac.digest(KEY, body, "sha256")), Heard)


def test_two_releases_apart_is_foreign() -> None:
    import hmac

    body = bytearray(packed(1)[:-32])
    body[4] += 2
    assert guard().check(bytes(body) + hmac.digest(KEY, body, "sha256")) is Refusal.FOREIGN
