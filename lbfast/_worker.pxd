"""What one worker's data plane knows: its maps of shared memory, descriptors, pools and lists.

Process-local; lives inside Loop.  The modules above (_relay, _pick, _link, _splice)
are functions over it.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from lbfast._conn cimport Conn, SlabMap
from lbfast._journal cimport JournalMap
from lbfast._counters cimport CountersHead, RealLine, ServiceLine, WorkerPage
from lbfast._pipe cimport PipePool
from lbfast._ring cimport RingMap
from lbfast._stick cimport StickMap
from lbfast._sys cimport atomic_load32
from lbfast._table cimport Real, Service, TableMap
from lbfast._timer cimport Wheel

cdef enum:
    BUFFER_SIZE = 32768       # one per worker: what copying moves at a time
    BATCH = 256               # events a turn
    ACCEPT_BATCH = 64         # connections a listener and a turn
    TICK_MS = 1000            # Python gets its turn
    TURN_MS = 100             # longest sleep with connections: cuts are looked at
    IDLE_MS = 500             # and without; less than FRESH_MS, or others would hand nothing over
    PAUSE_MS = 20             # a listener that met a limit or EMFILE rests so long
    MAX_SEATS = 512           # two for each of 256 workers: one of them while its successor comes

cdef struct Block:            # bytes that a copying direction could not pass on
    char* data
    uint32_t size
    uint32_t offset
    int32_t next              # in the free list

cdef struct BlockPool:
    Block* blocks
    int32_t capacity
    int32_t free

cdef struct Listener:
    int32_t fd                # -1: place is free
    uint32_t service
    uint16_t port
    uint8_t paused
    int64_t resume_at_ms

cdef struct Worker:
    int32_t index             # its seat
    int32_t epfd
    int32_t inbox
    int32_t control
    int32_t health_wake
    int32_t outboxes[512]     # by seat, -1 = none
    int64_t now_ms
    int64_t tick_at_ms
    uint32_t cut_epoch
    uint32_t ready_first      # connections with more to do at once
    uint32_t ready_last
    uint32_t ready_count
    uint8_t is_stopping
    uint8_t any_paused
    uint8_t is_leaving        # gives its connections to the targets
    uint8_t is_apart          # ... which do not share its memory
    int32_t target_count
    int32_t targets[512]      # seats
    int64_t sent[512]         # connections to each target, beside what it had taken before
    TableMap* table
    StickMap** sticks         # by service slot, NULL without
    CountersHead* heads
    WorkerPage* pages         # by seat
    WorkerPage* page          # its own
    SlabMap* slab
    SlabMap* slabs[512]       # by seat, NULL = not known
    RingMap* ring
    JournalMap journal        # of stick-table changes, for the peer
    PipePool pipes
    BlockPool blocks
    Wheel wheel
    char* buffer
    char* letter              # what comes through the inbox
    Listener* listeners
    int32_t listener_count

cdef inline int seats(Worker* w) noexcept nogil:
    """Seats that have, or had, a worker."""
    return <int>atomic_load32(&w.heads.top)

cdef inline Service* service_of(Worker* w, const Conn* c) noexcept nogil:
    return &w.table.services[c.service]

cdef inline Real* real_of(Worker* w, const Conn* c) noexcept nogil:
    return &w.table.reals[c.real]

cdef inline ServiceLine* service_line(Worker* w, const Conn* c) noexcept nogil:
    return &w.page.services[c.service]

cdef inline RealLine* real_line(Worker* w, int32_t real) noexcept nogil:
    return &w.page.reals[real]

# A heap block with a copy of the bytes: index, or -ENOMEM.
cdef int32_t block_keep(BlockPool* pool, const char* data, uint32_t size) noexcept nogil
cdef void block_drop(BlockPool* pool, int32_t index) noexcept nogil
cdef void blocks_close(BlockPool* pool) noexcept nogil

# Put a connection on the ready list (once).
cdef void ready_push(Worker* w, uint32_t slot) noexcept nogil
cdef uint32_t ready_pop(Worker* w) noexcept nogil
cdef void ready_remove(Worker* w, uint32_t slot) noexcept nogil

# Records for the event ring.
cdef void record(Worker* w, const Conn* c, uint8_t kind, int32_t error) noexcept nogil
