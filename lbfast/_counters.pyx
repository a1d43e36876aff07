"""Counters: sums for readers, and the settling of a dead worker's live counts."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from lbfast._shm cimport Region, SHM_HEADER
from lbfast._sys cimport atomic_add64, atomic_load32, atomic_load64, atomic_store32, fence_acquire
from lbfast._table cimport TABLE_REALS, TABLE_SERVICES, Table

import time


cdef class Counters:
    """The pages of all workers."""

    VERSION = COUNTERS_VERSION

    def __init__(self):
        raise TypeError("use Counters.create or Counters.attach")

    @staticmethod
    def create(int seats, int used=-1):
        """``used``: seats that have a worker from the start, each its own place; by default all."""
        cdef Counters counters = Counters.__new__(Counters)
        cdef int seat
        if not 1 <= seats <= COUNTERS_SEATS:
            raise ValueError(f"{seats} seats: expected 1 to {COUNTERS_SEATS}")
        counters.region = Region.create("counters", sizeof(CountersHead) + seats * sizeof(WorkerPage), COUNTERS_VERSION)
        counters._point()
        for seat in range(seats if used < 0 else used):
            counters.use(seat, seat)
        return counters

    @staticmethod
    def attach(int fd):
        cdef Counters counters = Counters.__new__(Counters)
        counters.region = Region.attach(fd, "counters", COUNTERS_VERSION)
        counters._point()
        return counters

    cdef _point(self):
        self.head = <CountersHead*>(self.region.base + SHM_HEADER)
        self.pages = <WorkerPage*>(self.region.base + SHM_HEADER + sizeof(CountersHead))
        self.seats = (self.region.size - SHM_HEADER - sizeof(CountersHead)) // sizeof(WorkerPage)

    @property
    def fd(self):
        return self.region.fd

    @property
    def workers(self):
        """Seats that have, or had, a worker: their pages are the ones to look at; never more than there are."""
        return min(atomic_load32(&self.head.top), <uint32_t>self.seats)

    def use(self, int seat, uint32_t place):
        """The supervisor gives a seat to the worker of a place."""
        self._page(seat).worker.place = place
        self.pages[seat].worker.taken = 1
        if self.head.top <= <uint32_t>seat:
            atomic_store32(&self.head.top, <uint32_t>seat + 1)

    def vacate(self, int seat):
        """Nobody has the seat any more; what was counted there goes on counting."""
        self._page(seat).worker.taken = 0

    cdef WorkerPage* _page(self, int index) except NULL:
        if not 0 <= index < self.seats:
            raise IndexError(f"seat {index}: expected 0 to {self.seats - 1}")
        return &self.pages[index]

    def forget_live(self):
        """No connection is open, no seat taken; what only grows stays."""
        cdef int i
        cdef uint32_t slot
        cdef WorkerPage* page
        for i in range(self.workers):
            page = &self.pages[i]
            page.worker.ops = page.worker.takes = page.worker.taken = 0
            page.worker.connections = page.worker.pipes = page.worker.blocks = 0
            for slot in range(COUNTERS_SERVICES):
                if page.services[slot].connections:
                    page.services[slot].connections = 0
            for slot in range(COUNTERS_REALS):
                if page.reals[slot].connections:
                    page.reals[slot].connections = 0

    def worker(self, int index):
        cdef WorkerLine* line = &self._page(index).worker
        return {
            "place": line.place,
            "taken": bool(line.taken),
            "pid": line.pid,
            "progress_ms": line.progress_ms,
            "connections": line.connections,
            "accepted": line.accepted,
            "handed_over": line.handed_over,
            "taken_over": line.taken_over,
            "moved_out": line.moved_out,
            "moved_in": line.moved_in,
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
        page.worker.takes = 0
        self._rest()    # whoever is taking a connection over from this page has done so
        page.worker.connections = 0
        page.worker.pipes = 0
        page.worker.blocks = 0
        for slot in range(min(table.map.head.services_top, TABLE_SERVICES)):
            page.services[slot].connections = 0
            self._settle_one(&table.map.services[slot].connections, slot, True)
        for slot in range(min(table.map.head.reals_top, TABLE_REALS)):
            page.reals[slot].connections = 0
            self._settle_one(&table.map.reals[slot].connections, slot, False)

    def reckon(self, int seat, int64_t drift):
        """So many more were given than taken although nothing is under way: a worker died before it had counted."""
        cdef WorkerPage* page = self._page(seat)
        if drift > 0:
            atomic_add64(&page.worker.taken_over, drift)
        else:
            atomic_add64(&page.worker.handed_over, -drift)

    cdef _rest(self):
        """Wait until each worker that is between two live counts has got on."""
        cdef int i, _turn
        cdef uint32_t ops
        for i in range(self.workers):
            ops = atomic_load32(&self.pages[i].worker.ops)
            for _turn in range(1000):
                if not ops & 1 or ops != atomic_load32(&self.pages[i].worker.ops):
                    break
                time.sleep(0.0001)

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
