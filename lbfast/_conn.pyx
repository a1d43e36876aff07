"""The connection slab: get, put, and snapshots for readers."""

from libc.string cimport memcpy, memset

from lbfast._address cimport address_format
from lbfast._shm cimport Region, SHM_HEADER
from lbfast._sys cimport atomic_load32, atomic_store32, fence_acquire, fence_release

from lbfast._table import mapped


cdef Conn* conn_get(SlabMap* slab, uint32_t* slot) noexcept nogil:
    cdef uint32_t index = slab.head.free, generation
    cdef Conn* c
    if index != CONN_NONE:
        slab.head.free = slab.conns[index].next
    elif slab.head.top < slab.head.capacity:
        index = slab.head.top
        slab.head.top += 1
    else:
        return NULL
    c = &slab.conns[index]
    generation = c.generation + 1
    if generation == 0:
        generation = 1      # 0 marks what is no connection in epoll_event.data
    # Readers see a new generation before any new field.
    atomic_store32(&c.generation, generation)
    fence_release()
    memset(<char*>c + sizeof(uint32_t), 0, sizeof(Conn) - sizeof(uint32_t))
    c.client.fd = -1
    c.server.fd = -1
    c.real = -1
    c.previous = -1
    c.origin = -1
    c.inbound.pipe = -1
    c.inbound.block = -1
    c.outbound.pipe = -1
    c.outbound.block = -1
    c.id = slab.head.next_id
    slab.head.next_id += 1
    slab.head.live += 1
    slot[0] = index
    return c


cdef void conn_put(SlabMap* slab, uint32_t slot) noexcept nogil:
    cdef Conn* c = &slab.conns[slot]
    c.phase = PHASE_FREE
    c.next = slab.head.free
    slab.head.free = slot
    slab.head.live -= 1


cdef void slab_clear(SlabMap* slab) noexcept nogil:
    """All records free again; generations and ids go on counting."""
    cdef uint32_t slot
    for slot in range(slab_top(slab)):
        slab.conns[slot].phase = PHASE_FREE
    slab.head.top = 0
    slab.head.free = CONN_NONE
    slab.head.live = 0


cdef class Slab:
    """One worker's connections."""

    VERSION = SLAB_VERSION

    def __init__(self):
        raise TypeError("use Slab.create or Slab.attach")

    @staticmethod
    def create(uint32_t capacity, uint64_t seat=0, uint64_t next_id=0):
        cdef Slab slab = Slab.__new__(Slab)
        if capacity < 1:
            raise ValueError(f"slab capacity {capacity}: expected at least 1")
        slab.region = Region.create("slab", sizeof(SlabHead) + <size_t>capacity * sizeof(Conn), SLAB_VERSION)
        slab._point()
        slab.map.head.capacity = capacity
        slab.map.head.free = CONN_NONE
        slab.map.head.next_id = next_id if next_id else seat << ID_SHIFT
        return slab

    @staticmethod
    def attach(int fd):
        cdef Slab slab = Slab.__new__(Slab)
        slab.region = Region.attach(fd, "slab", SLAB_VERSION)
        slab._point()
        return slab

    cdef _point(self):
        self.map.head = <SlabHead*>(self.region.base + SHM_HEADER)
        self.map.conns = <Conn*>(self.region.base + SHM_HEADER + sizeof(SlabHead))
        self.map.room = <uint32_t>((self.region.size - SHM_HEADER - sizeof(SlabHead)) // sizeof(Conn))

    @property
    def fd(self):
        return self.region.fd

    @property
    def capacity(self):
        return self.map.head.capacity

    def __len__(self):
        return self.map.head.live

    def connections(self, service=None, client=None):
        """A snapshot of the live connections; safe beside the running worker."""
        cdef uint32_t slot
        cdef Conn copy
        cdef bytes wanted = None if client is None else mapped(client)
        for slot in range(slab_top(&self.map)):
            if not self._copy(slot, &copy):
                continue
            if service is not None and copy.service != service:
                continue
            if wanted is not None and copy.client_address[:16] != wanted:
                continue
            yield self._record(&copy)

    cdef bint _copy(self, uint32_t slot, Conn* copy):
        cdef Conn* c = &self.map.conns[slot]
        cdef uint32_t generation = atomic_load32(&c.generation)
        memcpy(copy, c, sizeof(Conn))
        fence_acquire()
        if copy.phase == PHASE_MOVED and (copy.offer == OFFER_TAKEN or copy.offer == OFFER_VOID):
            return False    # it is another worker's by now
        return copy.phase != PHASE_FREE and generation == atomic_load32(&c.generation)

    cdef dict _record(self, Conn* c):
        return {
            "id": c.id,
            "phase": c.phase,
            "service": c.service,
            "real": c.real,
            "reason": c.reason,
            "client": address_format(c.client_address),
            "client_port": c.client_port,
            "port": c.port,
            "accepted_ms": c.accepted_ms,
            "connected_ms": c.connected_ms if c.phase >= PHASE_RELAY else 0,
            "client_active_ms": c.client.active_ms,
            "server_active_ms": c.server.active_ms,
            "bytes_in": c.inbound.bytes,
            "bytes_out": c.outbound.bytes,
            "attempts": c.attempts,
        }
