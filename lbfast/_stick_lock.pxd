"""The lock of a stick-table bucket: wait, and take it over from a dead owner with its change undone.

Inlines for _stick.pyx alone.  What a take-over undid of a connection is left as a
note, because only the supervisor knows whose slab that connection is in.
"""

from libc.errno cimport ESRCH, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from lbfast._siphash cimport siphash13
from lbfast._stick cimport (
    RECOVER_AFTER_MS, STICK_EMPTY, STICK_NO_CONN, STICK_NOTES, STICK_WAYS, StickBucket, StickHeader, StickMap,
)
from lbfast._sys cimport (
    atomic_load32, atomic_load64, atomic_or8, atomic_store32, atomic_swap32, boot_ms, cpu_pause, fence_release, getpid,
    kill, sched_yield, timespec,
)

cdef extern from *:
    """
    static inline int stick_swap64(int64_t *p, int64_t expected, int64_t n) {
        return __atomic_compare_exchange_n(p, &expected, n, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    """
    bint stick_swap64(int64_t* value, int64_t expected, int64_t n) noexcept nogil

cdef extern from "<time.h>" nogil:
    int nanosleep(const timespec* wanted, timespec* left)

cdef enum:
    PAGE_BUCKETS = 4          # buckets that share a page, and a bit of `touched`
    SPINS = 64
    YIELD_MS = 2              # afterwards the waiter sleeps

cdef inline uint16_t mark_of(uint64_t hash) noexcept nogil:
    cdef uint16_t mark = <uint16_t>(hash >> 48)
    return mark if mark != 0 else 1

cdef inline bint is_touched(const StickMap* map, uint64_t bucket) noexcept nogil:
    cdef uint64_t page = bucket // PAGE_BUCKETS
    return (map.touched[page >> 3] >> (page & 7)) & 1

cdef inline uint64_t stride(const StickMap* map, uint64_t bucket) noexcept nogil:
    """How far a walk may go on from here: over a whole byte of the bitmap (32 buckets) when nothing in it was used."""
    return 1 if bucket & 31 or map.touched[bucket >> 5] else 32

cdef inline uint32_t own_pid(StickMap* map) noexcept nogil:
    # The kernel zeroes this page in the child of a fork.
    if map.pid[0] == 0:
        map.pid[0] = <uint32_t>getpid()
    return map.pid[0]

cdef inline void note_put(StickHeader* header, uint32_t pid, uint32_t conn, uint8_t held) noexcept nogil:
    # One word, so that it is there or not there: 30 bits of pid (the kernel's limit is 2^22), 1 of held, 32 of conn.
    cdef int64_t note = <int64_t>((<uint64_t>pid << 33) | (<uint64_t>(held & 1) << 32) | conn)
    cdef int i
    for i in range(STICK_NOTES):
        if atomic_load64(&header.note[i]) == note:
            return
    for i in range(STICK_NOTES):
        if stick_swap64(&header.note[i], 0, note):
            return
    # All taken: a note is read at the recovery of its process; the first is the oldest that nobody asked for.
    stick_swap64(&header.note[0], atomic_load64(&header.note[0]), note)

cdef inline void note_take(StickHeader* header, uint32_t pid, uint32_t* conn, uint8_t* held) noexcept nogil:
    cdef int64_t note
    cdef int i
    for i in range(STICK_NOTES):
        note = atomic_load64(&header.note[i])
        if note != 0 and (<uint64_t>note >> 33) == pid and stick_swap64(&header.note[i], note, 0):
            conn[0] = <uint32_t>note
            held[0] = <uint8_t>(<uint64_t>note >> 32) & 1

cdef inline void bucket_undo(StickMap* map, StickBucket* bucket, uint32_t pid, uint32_t* conn,
                             uint8_t* held) noexcept nogil:
    """Undo a dead owner's change; the caller has the lock.  Doing it twice does no harm.

    What was undone of a connection of ``pid`` goes to *conn, of any other process into a note.
    """
    cdef int way = bucket.undo_way
    if not bucket.undo:
        return
    if way >= STICK_WAYS:
        bucket.undo = 0    # never written by a change of ours
        return
    bucket.entry[way] = bucket.saved
    bucket.mark[way] = 0
    if bucket.saved.state != STICK_EMPTY:
        bucket.mark[way] = mark_of(siphash13(map.key0, map.key1, bucket.saved.key))
    if bucket.undo_conn != STICK_NO_CONN:
        if pid != 0 and bucket.undo_pid == pid:
            conn[0] = bucket.undo_conn
            held[0] = bucket.undo_held
        else:
            note_put(map.header, bucket.undo_pid, bucket.undo_conn, bucket.undo_held)
    fence_release()
    (<volatile uint8_t*>&bucket.undo)[0] = 0

cdef inline bint is_gone(uint32_t owner, uint32_t me) noexcept nogil:
    # A lock that bears the waiter's own pid is from a former life of that number: locks do not nest.
    return owner == me or (kill(<int>owner, 0) != 0 and errno == ESRCH)

cdef inline void lock_rest(int64_t waited_ms) noexcept nogil:
    """Let the owner run; sleep when it seems to be stopped."""
    cdef timespec pause
    if waited_ms < YIELD_MS:
        sched_yield()
        return
    pause.tv_sec = 0
    pause.tv_nsec = 100000 if waited_ms < 20 else 1000000
    nanosleep(&pause, NULL)

cdef inline bint lock_wait(StickMap* map, StickBucket* bucket, uint32_t me, int64_t limit_ms) noexcept nogil:
    cdef int64_t start, now, since = 0
    cdef uint32_t owner = 0
    cdef uint32_t seen
    cdef int _turn
    for _turn in range(SPINS):
        cpu_pause()
        if atomic_load32(&bucket.lock) == 0 and atomic_swap32(&bucket.lock, 0, me):
            return True
    start = boot_ms()
    while True:
        seen = atomic_load32(&bucket.lock)
        if seen == 0:
            if atomic_swap32(&bucket.lock, 0, me):
                return True
            continue
        now = boot_ms()
        if seen != owner:
            owner = seen
            since = now
        if now - since >= RECOVER_AFTER_MS and is_gone(owner, me) and atomic_swap32(&bucket.lock, owner, me):
            atomic_store32(&map.header.stale, 1)
            bucket_undo(map, bucket, 0, NULL, NULL)
            return True
        if 0 <= limit_ms <= now - start:
            return False
        lock_rest(now - since)

cdef inline StickBucket* lock_within(StickMap* map, uint64_t index, int64_t limit_ms) noexcept nogil:
    """The locked bucket, or NULL when ``limit_ms`` (-1 = none) passed in waiting for its owner."""
    cdef StickBucket* bucket = &map.buckets[index]
    cdef uint64_t page = index // PAGE_BUCKETS
    cdef uint32_t me = own_pid(map)
    if not is_touched(map, index):
        # Before the first write: a walk that skips the page must not miss a lock.
        atomic_or8(&map.touched[page >> 3], <uint8_t>(1 << (page & 7)))
    if atomic_swap32(&bucket.lock, 0, me) or lock_wait(map, bucket, me, limit_ms):
        return bucket
    return NULL
