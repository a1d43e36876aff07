"""The event ring: who sleeps is woken in time, and what does not fit is counted."""

from __future__ import annotations

import os
import select

from stick_doors import cshim

from lbfast._ring import Ring


def is_woken(wake: int) -> bool:
    return bool(select.select([wake], [], [], 0)[0])


def test_the_reader_is_woken_when_the_ring_is_half_full() -> None:
    ring, wake = Ring.create(0, 64), os.eventfd(0, os.EFD_NONBLOCK)
    try:
        cshim.ring_wake(ring, wake)
        assert cshim.ring_turns(ring, 31) == 31
        assert not is_woken(wake)
        cshim.ring_turns(ring, 1)
        assert is_woken(wake)
        os.eventfd_read(wake)
        assert cshim.ring_turns(ring, 40) == 32, "the rest found no room"
        assert not is_woken(wake), "once for each time it fills up"
        assert ring.lost == 8
        assert len(ring.read(64)) == 64
        cshim.ring_turns(ring, 32)
        assert is_woken(wake), "and again after it was emptied"
    finally:
        os.close(wake)


def test_without_a_reader_to_wake_nothing_is_written() -> None:
    ring = Ring.create(0, 64)
    assert cshim.ring_turns(ring, 64) == 64
