"""The event ring's reading side."""

from lbfast._address cimport address_format
from lbfast._shm cimport Region, SHM_HEADER
from lbfast._sys cimport atomic_load64, atomic_store32, atomic_store64


cdef class Ring:
    """One worker's events, oldest first."""

    VERSION = RING_VERSION

    def __init__(self):
        raise TypeError("use Ring.create or Ring.attach")

    @staticmethod
    def create(int worker, uint32_t capacity=16384):
        cdef Ring ring = Ring.__new__(Ring)
        if capacity == 0 or capacity & (capacity - 1):
            raise ValueError(f"ring capacity {capacity}: expected a power of two")
        ring.region = Region.create("ring", sizeof(RingHead) + <size_t>capacity * sizeof(Event), RING_VERSION)
        ring._point()
        ring.map.head.worker = worker
        ring.map.head.capacity = capacity
        ring.map.mask = capacity - 1
        return ring

    @staticmethod
    def attach(int fd):
        cdef Ring ring = Ring.__new__(Ring)
        ring.region = Region.attach(fd, "ring", RING_VERSION)
        ring._point()
        cdef size_t capacity = ring.map.head.capacity
        cdef size_t needed = SHM_HEADER + sizeof(RingHead) + capacity * sizeof(Event)
        if capacity == 0 or capacity & (capacity - 1) or needed > ring.region.size:
            raise ValueError(f"ring: {ring.region.size} bytes do not hold the {capacity} events of its head")
        ring.map.mask = capacity - 1
        return ring

    cdef _point(self):
        self.map.wake = -1
        self.map.head = <RingHead*>(self.region.base + SHM_HEADER)
        self.map.events = <Event*>(self.region.base + SHM_HEADER + sizeof(RingHead))

    @property
    def fd(self):
        return self.region.fd

    @property
    def lost(self):
        return self.map.head.lost

    def __len__(self):
        return max(0, atomic_load64(&self.map.head.head) - self.map.head.tail)

    def rest(self, bint asleep):
        """Whether the next event is to wake the reader.  One written at this very moment may not."""
        atomic_store32(&self.map.head.asleep, asleep)

    def skip(self, int64_t keep):
        """Drop all but the newest ``keep`` unread events; how many went."""
        cdef int64_t head = atomic_load64(&self.map.head.head)
        cdef int64_t dropped = max(0, head - self.map.head.tail - keep)
        atomic_store64(&self.map.head.tail, self.map.head.tail + dropped)
        return dropped

    def read(self, int64_t limit):
        """The oldest unread events, at most ``limit``."""
        cdef int64_t head = atomic_load64(&self.map.head.head)
        cdef int64_t at = self.map.head.tail
        # What is unread was written behind this base: it only moves when nothing is.
        cdef int64_t base = self.map.head.base
        events = []
        while at < head and len(events) < limit:
            events.append(self._decode(&self.map.events[(at - base) & self.map.mask]))
            at += 1
        atomic_store64(&self.map.head.tail, at)
        return events

    cdef dict _decode(self, Event* event):
        return {
            "at": event.at_ms / 1000.0,
            "kind": event.kind,
            "id": event.conn,
            "worker": self.map.head.worker,
            "service": event.service,
            "real": event.real,
            "previous": event.previous,
            "reason": event.reason,
            "client": address_format(event.client),
            "client_port": event.client_port,
            "port": event.port,
            "attempts": event.attempts,
            "connect_ms": event.connect_ms,
            "duration_ms": event.duration_ms,
            "bytes_in": event.bytes_in,
            "bytes_out": event.bytes_out,
            "ended": event.ended,
            "by": event.by,
            "errno": event.error,
        }
