"""Counters: sums for readers, and the settling of a dead worker's live counts."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from lbfast._shm cimport Region, SHM_HEADER
from lbfast._sys cimport atomic_add64, atomic_load32, atomic_load64, fence_acquire
from lbfast._table cimport Table

import time


cdef class Counters:
    """The pages of all workers."""

    def __init__(self):
        raise TypeError("use Counters.create or Counters.attach")

    @staticmethod
    def create(int workers):
        cdef Counters counters = Counters.__new__(Counters)
        if not 1 <= workers <= 1024:
            raise ValueError(f"{workers} workers: expected 1 to 1024")
        counters.region = Region.create("counters", workers * sizeof(WorkerPage), COUNTERS_VERSION)
        counters._point()
        return counters

    @staticmethod
    def attach(int fd):
        cdef Counters counters = Counters.__new__(Counters)
        counters.region = Region.attach(fd, "counters", COUNTERS_VERSION)
        counters._point()
        return counters

    cdef _point(self):
        self.pages = <WorkerPage*>(self.region.base + SHM_HEADER)
        self.workers = (self.region.size - SHM_HEADER) // sizeof(WorkerPage)

    @property
    def fd(self):
        return self.region.fd

    cdef WorkerPage* _page(self, int index) except NULL:
        if not 0 <= index < self.workers:
            raise IndexError(f"worker {index}: expected 0 to {self.workers - 1}")
        return &self.pages[index]

    def worker(self, int index):
        cdef WorkerLine* line = &self._page(index).worker
        return {
            "pid": line.pid,
            "progress_ms": line.progress_ms,
            "connections": line.connections,
            "accepted": line.accepted,
            "handed_over": line.handed_over,
            "taken_over": line.taken_over,
            "accept_errors": line.accept_errors,
            "no_descriptors": line.no_descriptors,
            "no_memory": line.no_memory,
            "no_ports": line.no_ports,
            "no_pipes": line.no_pipes,
            "stick_full": line.stick_full,
            "pipes": line.pipes,
            "blocks": line.blocks,
            "copied_bytes": line.copied_bytes,
            "spliced_bytes": line.spliced_bytes,
            "loops": line.loops,
            "stale_events": line.stale_events,
        }

    def service(self, unsigned int slot):
        cdef int i
        cdef ServiceLine* line
        cdef int64_t sums[6]
        if slot >= COUNTERS_SERVICES:
            raise IndexError(f"service slot {slot}: expected 0 to {COUNTERS_SERVICES - 1}")
        sums[:] = [0, 0, 0, 0, 0, 0]
        for i in range(self.workers):
            line = &self.pages[i].services[slot]
            sums[0] += line.connections
            sums[1] += line.accepted
            sums[2] += line.denied
            sums[3] += line.limited
            sums[4] += line.client_limited
            sums[5] += line.refused
        names = ("connections", "accepted", "denied", "limited", "client_limited", "refused")
        return {name: sums[i] for i, name in enumerate(names)}

    def real(self, unsigned int slot):
        cdef int i
        cdef RealLine* line
        cdef int64_t sums[5]
        if slot >= COUNTERS_REALS:
            raise IndexError(f"real server slot {slot}: expected 0 to {COUNTERS_REALS - 1}")
        sums[:] = [0, 0, 0, 0, 0]
        for i in range(self.workers):
            line = &self.pages[i].reals[slot]
            sums[0] += line.connections
            sums[1] += line.opened
            sums[2] += line.connect_failures
            sums[3] += line.bytes_in
            sums[4] += line.bytes_out
        names = ("connections", "opened", "connect_failures", "bytes_in", "bytes_out")
        return {name: sums[i] for i, name in enumerate(names)}

    def service_by_worker(self, unsigned int slot):
        if slot >= COUNTERS_SERVICES:
            raise IndexError(f"service slot {slot}: expected 0 to {COUNTERS_SERVICES - 1}")
        return [self.pages[i].services[slot].connections for i in range(self.workers)]

    def settle(self, int index, Table table not None):
        """Take what a dead worker still counted as open off the totals; to be called once it is dead.

        Its own page is emptied first; then each total is compared with the sum of the
        living workers' pages at a moment when none of them is between the two.
        """
        cdef WorkerPage* page = self._page(index)
        cdef uint32_t slot
        page.worker.ops = 0
        page.worker.connections = 0
        page.worker.pipes = 0
        page.worker.blocks = 0
        for slot in range(table.map.head.services_top):
            page.services[slot].connections = 0
            self._settle_one(&table.map.services[slot].connections, slot, True)
        for slot in range(table.map.head.reals_top):
            page.reals[slot].connections = 0
            self._settle_one(&table.map.reals[slot].connections, slot, False)

    cdef _settle_one(self, int64_t* total, uint32_t slot, bint of_service):
        cdef int64_t summed, skew
        cdef uint64_t before, after
        cdef int attempt, i
        for attempt in range(10000):
            before = self._ops()
            summed = 0
            for i in range(self.workers):
                if of_service:
                    summed += self.pages[i].services[slot].connections
                else:
                    summed += self.pages[i].reals[slot].connections
            skew = atomic_load64(total) - summed
            fence_acquire()
            after = self._ops()
            if before == after and before >> 63 == 0:
                if skew:
                    atomic_add64(total, -skew)
                return
            if attempt % 64 == 63:
                # A worker was preempted between the two: let it go on.
                time.sleep(0.0001)

    cdef uint64_t _ops(self):
        """Sum of all ops numbers; the top bit is set while any is odd."""
        cdef uint64_t total = 0, odd = 0
        cdef uint32_t ops
        cdef int i
        for i in range(self.workers):
            ops = atomic_load32(&self.pages[i].worker.ops)
            total += ops
            odd |= ops & 1
        return total | (odd << 63)
