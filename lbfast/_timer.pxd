"""A hashed timing wheel over connection slots (Varghese and Lauck, 1987, scheme 6).

One timer per connection, linked by slot number through a plain array beside the
slab.  Setting, moving and stopping are O(1) and make no system call.  Activity does
not touch the wheel: a connection whose timer fires looks at its own clock and, when
it has been active meanwhile, sets the timer again.  A deadline beyond the horizon
fires at the horizon and is set again, too.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    TIMER_TICK_MS = 16
    TIMER_PLACES = 4096       # horizon 65 s
    TIMER_NONE = 0xFFFFFFFF

cdef struct TimerLink:
    uint32_t next
    uint32_t previous
    uint32_t place            # TIMER_NONE = not set

cdef struct Wheel:
    TimerLink* links          # by connection slot
    uint32_t* first           # by place
    uint64_t* occupied        # bitmap over places
    int64_t tick              # the last one that was run

cdef int wheel_open(Wheel* wheel, uint32_t capacity, int64_t now_ms) noexcept nogil
cdef void wheel_close(Wheel* wheel) noexcept nogil
# Fire not before at_ms (within one tick after it).
cdef void timer_set(Wheel* wheel, uint32_t slot, int64_t at_ms) noexcept nogil
cdef void timer_stop(Wheel* wheel, uint32_t slot) noexcept nogil
# The next slot whose timer is due (and is now stopped), or TIMER_NONE.
cdef uint32_t timer_due(Wheel* wheel, int64_t now_ms) noexcept nogil
# Milliseconds until a timer may be due, at most `limit`.
cdef int64_t timer_wait(Wheel* wheel, int64_t now_ms, int64_t limit) noexcept nogil
