"""The connection slab: one record per relayed client, in shared memory.

Written by its worker alone; ``control`` reads it beside the running worker, the
supervisor after the worker's death.  A record is free when phase is PHASE_FREE; its
generation moves with every new tenant, so that a reader can tell that the record
changed hands under it and a stale epoll event can be dropped.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from lbfast._shm cimport Region
from lbfast._stick cimport StickRef

cdef enum:
    SLAB_VERSION = 2
    CONN_NONE = 0xFFFFFFFF
    ID_SHIFT = 40             # Conn.id: the seat where it began, above a number that counts on there

cdef enum Phase:
    PHASE_FREE = 0
    PHASE_PROXY = 1
    PHASE_CONNECT = 2
    PHASE_RELAY = 3
    PHASE_LINGER = 4
    PHASE_MOVED = 5           # offered to another worker: see _handover.pxd

cdef enum Offer:              # Conn.offer; any other value is an open offer's key
    OFFER_NONE = 0
    OFFER_TAKEN = 0x80000000
    OFFER_VOID = 0x80000001   # given back: its giver died, or its taker before it was claimed

cdef enum Reason:
    REASON_NONE = 0
    REASON_TABLE = 1
    REASON_NEW = 2
    REASON_PENDING = 3
    REASON_REDISPATCH = 4
    REASON_PINNED = 5
    REASON_DRAINED = 6
    REASON_DOWN = 7
    REASON_FULL = 8
    REASON_PEER = 9
    REASON_FALLBACK = 10
    REASON_UNSTORED = 11
    REASON_HALTED = 12

cdef enum Ended:
    ENDED_NONE = 0
    ENDED_CLOSE = 1
    ENDED_RESET = 2
    ENDED_CLIENT_IDLE = 3
    ENDED_SERVER_IDLE = 4
    ENDED_HALF_CLOSE = 5
    ENDED_HALT = 6
    ENDED_CONNECT = 7
    ENDED_NO_SERVER = 8
    ENDED_DENIED = 9
    ENDED_LIMIT = 10
    ENDED_CLIENT_LIMIT = 11
    ENDED_PROXY = 12
    ENDED_DEAD = 13
    ENDED_RESOURCE = 14
    ENDED_WORKER_DIED = 15
    ENDED_STOP = 16
    ENDED_CUT = 17
    ENDED_MOVED = 18
    ENDED_TAKEOVER = 19

cdef enum EndedBy:
    BY_NOBODY = 0
    BY_CLIENT = 1
    BY_SERVER = 2
    BY_LBFAST = 3

cdef enum SideFlags:
    SIDE_READABLE = 1         # an edge said so, and no EAGAIN since
    SIDE_WRITABLE = 2
    SIDE_HANGUP = 4           # EPOLLRDHUP seen: a short read is the last one
    SIDE_URGENT = 8           # urgent data or an error seen: a short read proves nothing
    SIDE_RESET = 16           # the peer sent RST, or is dead: keep the first error
    SIDE_NODELAY = 32         # TCP_NODELAY is set
    SIDE_KEEPALIVE = 64       # keepalive options are set
    SIDE_SENT = 128           # something was sent: from now on Nagle could delay

cdef enum FlowFlags:
    FLOW_EOF = 1              # its source has said all
    FLOW_DONE = 2             # and that was passed on (or nobody is left to tell)
    FLOW_SPLICE_OFF = 4       # splice said EINVAL here: copy for good
    FLOW_BULK = 8             # large reads were seen: its receiver is set up for them

cdef enum ConnFlags:
    CONN_COUNTED_SERVICE = 1  # in the live counts of its service and worker
    CONN_COUNTED_REAL = 2
    CONN_OPENED = 4           # an open record was written
    CONN_QUEUED = 8           # in the ready list
    CONN_STORED = 16          # the stick entry names this connection's real server
    CONN_BY_PROXY = 32        # client address taken from a PROXY header
    CONN_PENDING = 64         # its stick entry was pending: the first success binds it
    CONN_CLAIMING = 128       # sent by another worker, its offer may not be taken yet

cdef struct Side:             # 24 bytes
    int64_t active_ms         # last byte from or to it
    int32_t fd
    int32_t error             # errno of the first failure
    uint8_t flags

cdef struct Flow:             # 24 bytes: one direction
    uint64_t bytes            # passed on
    uint32_t held             # taken from the source, not yet passed on
    int32_t pipe              # in the pipe pool, or -1
    int32_t block             # in the block pool, or -1
    uint8_t large             # large reads in a row
    uint8_t flags

cdef struct Conn:             # 256 bytes, four cache lines
    uint32_t generation
    uint8_t phase
    uint8_t flags
    uint8_t reason
    uint8_t attempts
    Side client
    Side server
    # -- 56
    Flow inbound              # client to server
    Flow outbound             # server to client
    # -- 104 (8-aligned)
    int32_t service
    int32_t real              # -1 before pick
    uint32_t next             # in the free list or the ready list
    uint32_t cut_seq          # Real.cut_seq when this connection was assigned to it
    StickRef hold
    int32_t previous
    uint64_t id
    uint64_t tried            # bit per position in the service's list, first 64
    uint8_t client_address[16]
    uint8_t wire_address[16]  # the socket's peer; differs behind a PROXY header
    uint16_t client_port
    uint16_t port
    uint32_t connect_ms
    int64_t accepted_ms
    int64_t connected_ms      # or when the connect attempt began, in PHASE_CONNECT
    int64_t half_closed_ms    # first FIN, 0 before
    uint8_t linger_side       # whose last bytes are awaited in PHASE_LINGER
    uint8_t ended
    uint8_t by
    uint8_t reserved
    uint32_t offer            # in PHASE_MOVED; whoever swaps the key for another value has decided
    int32_t origin            # while CONN_CLAIMING: the giver's seat, slot, generation; in PHASE_MOVED: the taker's
    uint32_t origin_slot
    uint32_t origin_generation
    uint8_t padding[20]

cdef struct SlabHead:
    uint32_t capacity
    uint32_t top              # one past the highest slot ever used
    uint32_t free
    uint32_t live
    uint64_t next_id
    uint8_t padding[40]

cdef struct SlabMap:          # process-local
    SlabHead* head
    Conn* conns
    uint32_t room             # records that the memory holds, whatever its head says

cdef inline uint32_t slab_top(const SlabMap* slab) noexcept nogil:
    """For whoever reads another process's slab: head.top, as far as there is memory."""
    return min(slab.head.top, slab.room)

cdef inline uint32_t offer_key(uint32_t generation) noexcept nogil:
    """What an open offer of this generation says: never one of Offer."""
    return (generation & 0x3FFFFFFF) + 1

# A fresh record (phase not set), or NULL when the slab is full.
cdef Conn* conn_get(SlabMap* slab, uint32_t* slot) noexcept nogil
cdef void conn_put(SlabMap* slab, uint32_t slot) noexcept nogil
cdef void slab_clear(SlabMap* slab) noexcept nogil

cdef class Slab:
    cdef Region region
    cdef SlabMap map
    cdef _point(self)
    cdef bint _copy(self, uint32_t slot, Conn* copy)
    cdef dict _record(self, Conn* c)
