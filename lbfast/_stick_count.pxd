"""bound and used of a stick table: kept with each change, made right after a death inside one.

Inlines for _stick.pyx alone.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memset

from lbfast._stick cimport STICK_BOUND, STICK_REALS, STICK_WAYS, StickBucket, StickMap
from lbfast._stick_lock cimport is_touched, lock_within
from lbfast._sys cimport atomic_add64, atomic_load32, atomic_load64, atomic_store32

cdef extern from *:
    """
    static inline void atomic_add32_signed(int32_t *p, int32_t n) { __atomic_add_fetch(p, n, __ATOMIC_ACQ_REL); }
    static inline int32_t atomic_load32_signed(const int32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    """
    void atomic_add32_signed(int32_t* value, int32_t n) noexcept nogil
    int32_t atomic_load32_signed(const int32_t* value) noexcept nogil

cdef enum:
    RECOUNT_WAIT_MS = 20
    RECOUNT_TRIES = 8

cdef inline void count_real(StickMap* map, uint32_t real, int32_t n) noexcept nogil:
    if real < STICK_REALS:
        atomic_add32_signed(&map.bound[real], n)

cdef inline void count_entry(StickMap* map, uint32_t real, int32_t n) noexcept nogil:
    atomic_add64(map.used, n)
    count_real(map, real, n)

cdef inline int64_t count_walk(StickMap* map, int32_t* counted) noexcept nogil:
    cdef int64_t total = 0
    cdef StickBucket* bucket
    cdef uint64_t index
    cdef int way
    memset(counted, 0, STICK_REALS * sizeof(int32_t))
    for index in range(map.mask + 1):
        if not is_touched(map, index):
            continue
        bucket = lock_within(map, index, RECOUNT_WAIT_MS)
        if bucket == NULL:
            return -1
        for way in range(STICK_WAYS):
            if bucket.mark[way] != 0:
                total += 1
                if bucket.entry[way].real < STICK_REALS:
                    counted[bucket.entry[way].real] += 1
        atomic_store32(&bucket.lock, 0)
    return total

cdef inline bint count_settle(StickMap* map, int32_t* counted, int64_t total, int64_t before) noexcept nogil:
    """Add what is missing, unless anything changed since ``before``; ``counted`` becomes the difference."""
    cdef int64_t missing = total - atomic_load64(map.used)
    cdef int real
    for real in range(STICK_REALS):
        counted[real] -= atomic_load32_signed(&map.bound[real])
    if atomic_load64(map.mutations) != before:
        return False
    atomic_add64(map.used, missing)
    for real in range(STICK_REALS):
        if counted[real] != 0:
            atomic_add32_signed(&map.bound[real], counted[real])
    return True

cdef inline void recount(StickMap* map) noexcept nogil:
    """Set bound and used right after somebody died inside a change; stays due if the table is too busy."""
    cdef int32_t counted[STICK_REALS]
    cdef int64_t before
    cdef int64_t total
    cdef int _attempt
    if not atomic_load32(&map.header.stale):
        return
    for _attempt in range(RECOUNT_TRIES):
        atomic_store32(&map.header.stale, 0)
        # Every change counts itself in `mutations` first, under its bucket's lock, which the walk takes too: one
        # that began before this line has ended when its bucket is walked.
        before = atomic_load64(map.mutations)
        total = count_walk(map, counted)
        if total >= 0 and count_settle(map, counted, total, before):
            return
        atomic_store32(&map.header.stale, 1)
        if total < 0:
            return

cdef inline void forget_all_holds(StickMap* map, int64_t now) noexcept nogil:
    """For a table that nobody uses: its holders' memory was left behind."""
    cdef StickBucket* bucket
    cdef uint64_t index
    cdef int way
    for index in range(map.mask + 1):
        if not is_touched(map, index):
            continue
        bucket = &map.buckets[index]
        bucket.lock = 0
        for way in range(STICK_WAYS):
            if bucket.mark[way] == 0 or bucket.entry[way].holds == 0:
                continue
            bucket.entry[way].holds = 0
            bucket.entry[way].closed_ms = now
            bucket.entry[way].state = STICK_BOUND    # a reservation that nobody holds would be gone
