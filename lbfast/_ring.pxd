"""The event ring: one writer (a worker), one reader (control), overflow counted, nobody waits."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from lbfast._shm cimport Region
from lbfast._sys cimport atomic_load32, atomic_load64, atomic_store32, atomic_store64, c_write

cdef enum:
    RING_VERSION = 2

cdef enum EventKind:
    EVENT_OPEN = 1
    EVENT_CLOSE = 2
    EVENT_REFUSE = 3
    EVENT_CONNECT_FAIL = 4

cdef struct Event:            # 128 bytes
    int64_t at_ms             # CLOCK_REALTIME: events are for people
    uint64_t conn
    uint8_t client[16]
    uint32_t service
    int32_t real
    int32_t previous
    uint16_t client_port
    uint16_t port
    uint8_t kind
    uint8_t reason
    uint8_t ended
    uint8_t by
    uint8_t attempts
    uint8_t reserved[3]
    int32_t error
    uint32_t connect_ms
    int64_t duration_ms
    uint64_t bytes_in
    uint64_t bytes_out
    uint8_t padding[32]

cdef struct RingHead:         # 192 bytes: a line each for the fixed part, the writer and the reader
    uint32_t worker
    uint32_t capacity         # power of two
    uint8_t padding0[56]
    int64_t head              # next to write
    int64_t lost
    int64_t base              # the event that lies at the first place
    uint8_t padding1[40]
    int64_t tail              # next to read
    uint32_t asleep           # the reader wants to be woken by the next event
    uint8_t padding2[52]

cdef struct RingMap:          # process-local view
    RingHead* head
    Event* events
    int64_t mask              # capacity - 1, whatever the head says
    int32_t wake              # eventfd of the reader, -1: it looks by itself

cdef inline Event* ring_next(RingMap* ring) noexcept nogil:
    """The place for one more event, or NULL (counted) when the reader is too far behind.

    Whenever the reader has read all, writing begins again at the first place: a reader that keeps up costs few pages.
    """
    cdef int64_t head = ring.head.head
    cdef int64_t tail = atomic_load64(&ring.head.tail)
    if head - tail > ring.mask:
        ring.head.lost += 1
        return NULL
    if head == tail:
        ring.head.base = head
    return &ring.events[(head - ring.head.base) & ring.mask]

cdef inline void ring_publish(RingMap* ring) noexcept nogil:
    """The event is written; a reader that sleeps is woken."""
    cdef uint64_t one = 1
    atomic_store64(&ring.head.head, ring.head.head + 1)
    if atomic_load32(&ring.head.asleep) and ring.wake >= 0:
        atomic_store32(&ring.head.asleep, 0)
        c_write(ring.wake, &one, sizeof(one))

cdef class Ring:
    cdef Region region
    cdef RingMap map
    cdef _point(self)
    cdef dict _decode(self, Event* event)
