"""Counters: one page per worker, written by that worker alone, summed by readers.

Live counts exist twice: in the worker's own page and, atomically, as the total in
Table that limits are checked against.  Both change inside an odd `ops` number, so
that after a crash the supervisor can see what the dead worker's page still holds
and take exactly that off the totals (counters_settle).  A connection that passes from
one worker to another moves from page to page, and the totals stay: the live counts of a
page are the one thing that another worker may change, so all their changes are atomic.

A page belongs to a seat.  A worker has one for its life; its successor, when both live
for a while, has another.  `place` is the worker's number, which the successor keeps.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from lbfast._shm cimport Region
from lbfast._sys cimport atomic_add64, fence_release

cdef enum:
    COUNTERS_VERSION = 2
    COUNTERS_SEATS = 512
    COUNTERS_SERVICES = 4096
    COUNTERS_REALS = 32768

cdef struct WorkerLine:
    uint32_t pid
    uint32_t ops              # odd while a live count and its total differ
    int64_t progress_ms
    int64_t connections
    int64_t accepted
    int64_t handed_over
    int64_t taken_over
    int64_t accept_errors
    int64_t no_descriptors
    int64_t no_memory
    int64_t no_ports
    int64_t no_pipes
    int64_t stick_full
    int64_t pipes
    int64_t blocks
    int64_t copied_bytes
    int64_t spliced_bytes
    int64_t loops
    int64_t stale_events
    int64_t moved_out         # connections given to another worker
    int64_t moved_in
    uint32_t takes            # 1: accepted sockets may be handed over to it
    uint32_t place            # worker number
    uint32_t taken            # 1: somebody has, or will have, this seat
    uint8_t padding[84]       # 256

cdef struct ServiceLine:      # 64
    int64_t connections       # open now
    int64_t accepted
    int64_t denied
    int64_t limited
    int64_t client_limited
    int64_t refused
    uint8_t padding[16]

cdef struct RealLine:         # 64
    int64_t connections       # open now
    int64_t opened
    int64_t connect_failures
    int64_t bytes_in
    int64_t bytes_out
    uint8_t padding[24]

cdef struct WorkerPage:
    WorkerLine worker
    ServiceLine services[4096]
    RealLine reals[32768]

cdef inline int64_t live_add(WorkerPage* page, int64_t* own, int64_t* total, int64_t n) noexcept nogil:
    """Change a live count here and in the total, as one step for whoever settles a crash; the new total."""
    cdef int64_t sum
    page.worker.ops += 1
    fence_release()
    atomic_add64(own, n)
    sum = atomic_add64(total, n)
    fence_release()
    page.worker.ops += 1
    return sum

cdef inline void live_move(WorkerPage* page, int64_t* giver, int64_t* own, int64_t n) noexcept nogil:
    """Take a live count over from another page; the total stays.  In this order a death in between shows in the sum."""
    page.worker.ops += 1
    fence_release()
    atomic_add64(giver, -n)
    atomic_add64(own, n)
    fence_release()
    page.worker.ops += 1

cdef struct CountersHead:
    uint32_t top              # one past the highest seat ever used
    uint8_t padding[60]

cdef class Counters:
    cdef Region region
    cdef readonly int seats     # there is room for
    cdef CountersHead* head
    cdef WorkerPage* pages
    cdef WorkerPage* _page(self, int index) except NULL
    cdef _point(self)
    cdef _rest(self)
    cdef _settle_one(self, int64_t* total, uint32_t slot, bint of_service)
    cdef uint64_t _ops(self)
