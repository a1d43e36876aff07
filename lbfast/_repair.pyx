"""Repair: give back what a dead worker held, each thing once, whatever instruction it died at.

It runs in the supervisor, which has more rights than a worker: nothing that a worker wrote is used as an index
before it was looked at.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from lbfast._conn cimport (
    BY_LBFAST, CONN_CLAIMING, CONN_OPENED, ENDED_WORKER_DIED, OFFER_NONE, OFFER_TAKEN, OFFER_VOID, PHASE_FREE,
    PHASE_MOVED, Conn, Slab, offer_key, slab_clear, slab_top,
)
from lbfast._counters cimport Counters
from lbfast._ring cimport EVENT_CLOSE, EVENT_REFUSE, Ring
from lbfast._stick cimport STICK_NO_CONN, StickTable, stick_recover, stick_release
from lbfast._sys cimport atomic_load32, atomic_swap32, boot_ms
from lbfast._table cimport Table
from lbfast._worker cimport Worker, record

import time

cdef enum:
    CLAIM_WAIT_MS = 50        # for living workers to take what lies in their inboxes


cdef bint is_offered(const Conn* c) noexcept nogil:
    return c.phase == PHASE_MOVED and atomic_load32(&c.offer) == offer_key(c.generation)


cdef int offered(Slab slab):
    cdef uint32_t slot
    cdef int count = 0
    for slot in range(slab_top(&slab.map)):
        count += is_offered(&slab.map.conns[slot])
    return count


cdef bint was_given(Conn* c) noexcept nogil:
    """Is it another worker's?  An offer that is still open is withdrawn here, for good; its giver may just have."""
    cdef uint32_t key = offer_key(c.generation)
    if c.phase != PHASE_MOVED or atomic_load32(&c.offer) == OFFER_NONE:
        return False
    return not atomic_swap32(&c.offer, key, OFFER_VOID) and atomic_load32(&c.offer) != OFFER_VOID


cdef bint was_not_ours(Conn* c, list slabs):
    """A claim that the dead worker may not have made: it is made here.  True when the giver was given back before."""
    cdef Slab giver
    cdef Conn* there
    if not c.flags & CONN_CLAIMING or not 0 <= c.origin < len(slabs):
        return False
    giver = slabs[c.origin]
    if c.origin_slot >= giver.map.room:
        return False
    there = &giver.map.conns[c.origin_slot]
    if there.generation != c.origin_generation:
        return True
    atomic_swap32(&there.offer, offer_key(c.origin_generation), OFFER_TAKEN)
    return atomic_load32(&there.offer) != OFFER_TAKEN


def repair(int index, uint32_t pid, Table table not None, Counters counters not None, list slabs not None,
           Ring ring not None, dict sticks not None):
    """Give back what a dead worker held; the number of connections it had.  ``slabs``: by seat."""
    cdef Worker w
    cdef StickTable stick
    cdef Slab slab
    cdef Conn* c
    cdef uint32_t slot, undone = 0
    cdef uint8_t held = 0
    cdef int count = 0
    if not 0 <= index < min(counters.workers, <int>len(slabs)):
        raise IndexError(f"seat {index}: expected 0 to {min(counters.workers, len(slabs)) - 1}")
    slab = slabs[index]
    memset(&w, 0, sizeof(Worker))
    w.index = index
    w.table = &table.map
    w.page = &counters.pages[index]
    w.slab = &slab.map
    w.ring = &ring.map
    w.now_ms = boot_ms()
    for stick in sticks.values():
        stick_recover(&stick.map, pid, &undone, &held)
        if undone != STICK_NO_CONN and undone < slab_top(w.slab):
            w.slab.conns[undone].hold.held = held
    while offered(slab) and boot_ms() - w.now_ms < CLAIM_WAIT_MS:
        time.sleep(0.001)
    for slot in range(slab_top(w.slab)):
        c = &w.slab.conns[slot]
        if c.phase == PHASE_FREE or was_given(c) or was_not_ours(c, slabs):
            c.phase = PHASE_FREE
            continue
        count += 1
        stick = sticks.get(c.service)
        if stick is not None and c.hold.held:
            stick_release(&stick.map, slot, &c.hold, w.now_ms)
        c.ended = ENDED_WORKER_DIED
        c.by = BY_LBFAST
        record(&w, c, EVENT_CLOSE if c.flags & CONN_OPENED else EVENT_REFUSE, 0)
        c.phase = PHASE_FREE
    slab_clear(&slab.map)
    counters.settle(index, table)
    return count
