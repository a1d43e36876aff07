"""The journal: which keys of which stick table have changed, for the peer; one ring per writer, one reader (ha).

A record names a key, not its value: the reader looks the entry up when it sends it,
under the bucket's lock, so the order of records of different workers does not
matter, and a record written before the change it tells of is as good as one after.

Off (no peer, or not active), it costs a worker one read of a line that nobody
writes.  A full ring sets ``desync``: the reader starts a resync, nobody waits.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from lbfast._shm cimport Region
from lbfast._sys cimport atomic_load32, atomic_load64, atomic_store32, atomic_store64, atomic_swap32, c_write

cdef enum:
    JOURNAL_VERSION = 1

cdef struct JournalRecord:    # 32 bytes
    uint8_t key[16]
    int64_t at_ms
    uint32_t service          # slot
    uint32_t reserved

cdef struct JournalShared:    # 64 bytes; changes seldom
    uint32_t enabled
    uint32_t writers
    uint32_t capacity         # of each ring, a power of two
    uint32_t desync
    uint8_t padding[48]

cdef struct JournalWake:      # 64 bytes
    uint32_t sleeping         # the reader waits for the eventfd
    uint8_t padding[60]

cdef struct JournalHead:      # 128 bytes: a line for the writer, one for the reader
    int64_t head              # next to write
    int64_t lost
    uint8_t padding0[48]
    int64_t tail              # next to read
    uint8_t padding1[56]

cdef struct JournalMap:       # process-local: one writer's view; shared == NULL without a journal
    JournalShared* shared
    JournalWake* wake
    JournalHead* head
    JournalRecord* records
    int wake_fd

cdef inline bint journal_is_on(const JournalMap* map) noexcept nogil:
    return map.shared != NULL and atomic_load32(&map.shared.enabled) != 0

cdef inline void journal_put(JournalMap* map, uint32_t service, const uint8_t* key, int64_t now) noexcept nogil:
    """Note a changed key; only when journal_is_on."""
    cdef int64_t head = map.head.head
    cdef uint64_t one = 1
    cdef JournalRecord* record
    if head - atomic_load64(&map.head.tail) >= map.shared.capacity:
        map.head.lost += 1
        atomic_store32(&map.shared.desync, 1)
        return
    record = &map.records[head & (map.shared.capacity - 1)]
    memcpy(record.key, key, 16)
    record.at_ms = now
    record.service = service
    atomic_store64(&map.head.head, head + 1)
    if atomic_load32(&map.wake.sleeping) and atomic_swap32(&map.wake.sleeping, 1, 0):
        c_write(map.wake_fd, &one, sizeof(one))

cdef class Journal:
    cdef Region region
    cdef readonly int wake_fd
    cdef JournalShared* shared
    cdef JournalWake* wake
    cdef JournalHead* heads
    cdef JournalRecord* records
    cdef uint32_t turn        # the writer that is read next, process-local
    cdef int view(self, JournalMap* map, uint32_t writer) except -1
