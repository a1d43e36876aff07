"""A hashed timing wheel over connection slots: bodies."""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

cdef extern from *:
    int first_bit "__builtin_ctzll" (unsigned long long word) nogil


cdef int wheel_open(Wheel* wheel, uint32_t capacity, int64_t now_ms) noexcept nogil:
    wheel.links = <TimerLink*>malloc(capacity * sizeof(TimerLink))
    wheel.first = <uint32_t*>malloc(TIMER_PLACES * sizeof(uint32_t))
    wheel.occupied = <uint64_t*>calloc(TIMER_PLACES // 64, sizeof(uint64_t))
    if wheel.links == NULL or wheel.first == NULL or wheel.occupied == NULL:
        wheel_close(wheel)
        return -12  # ENOMEM
    memset(wheel.links, 0xFF, capacity * sizeof(TimerLink))
    memset(wheel.first, 0xFF, TIMER_PLACES * sizeof(uint32_t))
    wheel.tick = now_ms // TIMER_TICK_MS
    return 0


cdef void wheel_close(Wheel* wheel) noexcept nogil:
    free(wheel.links)
    free(wheel.first)
    free(wheel.occupied)
    wheel.links = NULL
    wheel.first = NULL
    wheel.occupied = NULL


cdef void timer_set(Wheel* wheel, uint32_t slot, int64_t at_ms) noexcept nogil:
    cdef int64_t tick = (at_ms + TIMER_TICK_MS - 1) // TIMER_TICK_MS
    cdef uint32_t place, head
    cdef TimerLink* link = &wheel.links[slot]
    if link.place != TIMER_NONE:
        timer_stop(wheel, slot)
    if tick <= wheel.tick:
        tick = wheel.tick + 1
    elif tick >= wheel.tick + TIMER_PLACES:
        tick = wheel.tick + TIMER_PLACES - 1
    place = <uint32_t>(tick % TIMER_PLACES)
    head = wheel.first[place]
    link.next = head
    link.previous = TIMER_NONE
    link.place = place
    if head != TIMER_NONE:
        wheel.links[head].previous = slot
    wheel.first[place] = slot
    wheel.occupied[place >> 6] |= <uint64_t>1 << (place & 63)


cdef void timer_stop(Wheel* wheel, uint32_t slot) noexcept nogil:
    cdef TimerLink* link = &wheel.links[slot]
    if link.place == TIMER_NONE:
        return
    if link.previous != TIMER_NONE:
        wheel.links[link.previous].next = link.next
    else:
        wheel.first[link.place] = link.next
        if link.next == TIMER_NONE:
            wheel.occupied[link.place >> 6] &= ~(<uint64_t>1 << (link.place & 63))
    if link.next != TIMER_NONE:
        wheel.links[link.next].previous = link.previous
    link.place = TIMER_NONE


cdef int64_t next_tick(Wheel* wheel, int64_t limit) noexcept nogil:
    """The first tick after wheel.tick, up to ``limit``, whose place is occupied; else ``limit + 1``."""
    cdef int64_t tick = wheel.tick + 1
    cdef uint32_t place
    cdef uint64_t word
    if limit > wheel.tick + TIMER_PLACES - 1:
        limit = wheel.tick + TIMER_PLACES - 1
    while tick <= limit:
        place = <uint32_t>(tick % TIMER_PLACES)
        word = wheel.occupied[place >> 6] >> (place & 63)
        if word:
            tick += first_bit(word)
            return tick if tick <= limit else limit + 1
        tick += 64 - (place & 63)
    return limit + 1


cdef uint32_t timer_due(Wheel* wheel, int64_t now_ms) noexcept nogil:
    cdef int64_t today = now_ms // TIMER_TICK_MS, tick
    cdef uint32_t slot
    if today <= wheel.tick:
        return TIMER_NONE
    tick = next_tick(wheel, today)
    if tick > today or tick > wheel.tick + TIMER_PLACES - 1:
        wheel.tick = today
        return TIMER_NONE
    # Stay one tick before it: the place may hold more, and what is set meanwhile must not be overtaken.
    wheel.tick = tick - 1
    slot = wheel.first[tick % TIMER_PLACES]
    timer_stop(wheel, slot)
    return slot


cdef int64_t timer_wait(Wheel* wheel, int64_t now_ms, int64_t limit) noexcept nogil:
    cdef int64_t last = (now_ms + limit) // TIMER_TICK_MS
    cdef int64_t tick = next_tick(wheel, last)
    cdef int64_t wait
    if tick > last:
        return limit
    wait = tick * TIMER_TICK_MS - now_ms
    return wait if wait > 0 else 0
