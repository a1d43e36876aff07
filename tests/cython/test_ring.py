"""The event ring: order, room, places that are used again, and who sleeps is woken."""

from __future__ import annotations

import os
import random
import select

from stick_doors import cshim

from lbfast._ring import Ring

CAPACITY = 64


def is_woken(wake: int) -> bool:
    return bool(select.select([wake], [], [], 0)[0])


def test_the_first_event_wakes_a_reader_that_sleeps() -> None:
    ring, wake = Ring.create(0, CAPACITY), os.eventfd(0, os.EFD_NONBLOCK)
    try:
        cshim.ring_wake(ring, wake)
        cshim.ring_turns(ring, 5)
        assert not is_woken(wake), "nobody slept"
        ring.rest(True)
        cshim.ring_turns(ring, 5)
        assert os.eventfd_read(wake) == 1, "one call for all that comes until it sleeps again"
        ring.rest(True)
        ring.rest(False)
        cshim.ring_turns(ring, 1)
        assert not is_woken(wake)
    finally:
        os.close(wake)


def test_a_full_ring_counts_what_found_no_room() -> None:
    ring = Ring.create(0, CAPACITY)
    assert cshim.ring_turns(ring, CAPACITY + 8) == CAPACITY
    assert (ring.lost, len(ring)) == (8, CAPACITY)
    assert [event["id"] for event in ring.read(CAPACITY)] == list(range(CAPACITY))


def test_a_reader_that_keeps_up_costs_few_places() -> None:
    ring = Ring.create(0, CAPACITY)
    for _ in range(3 * CAPACITY):
        cshim.ring_turns(ring, 3)
        assert [event["id"] for event in ring.read(CAPACITY)] == [0, 1, 2]
    assert cshim.ring_used(ring) == 3, "places that were ever written"


def test_any_order_of_writes_reads_and_skips() -> None:
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    ring, unread = Ring.create(0, CAPACITY), list[int]()
    for turn in range(5000):
        match dice.randrange(3):
            case 0:
                wanted = dice.randrange(1, 40)
                written = cshim.ring_turns(ring, wanted)
                assert written == min(wanted, CAPACITY - len(unread)), f"seed {seed}, turn {turn}"
                unread += range(written)
            case 1:
                limit = dice.randrange(1, 80)
                read = [event["id"] for event in ring.read(limit)]
                assert read == unread[:limit], f"seed {seed}, turn {turn}"
                del unread[:limit]
            case 2 if dice.random() < 0.3:
                keep = dice.randrange(20)
                gone = max(0, len(unread) - keep)
                assert ring.skip(keep) == gone, f"seed {seed}, turn {turn}"
                del unread[:gone]
