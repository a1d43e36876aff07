"""The journal's reading side and its switch; see _journal.pxd."""

from libc.stdint cimport int64_t, uint32_t

from lbfast._shm cimport SHM_HEADER, Region
from lbfast._sys cimport atomic_load32, atomic_load64, atomic_store32, atomic_store64

import os


cdef class Journal:
    """A ring for each worker; see _journal.pyi."""

    def __init__(self):
        raise TypeError("use Journal.create")

    @staticmethod
    def create(uint32_t writers, uint32_t capacity=65536):
        cdef Journal journal = Journal.__new__(Journal)
        cdef size_t size
        if capacity == 0 or capacity & (capacity - 1) or writers == 0:
            raise ValueError(f"journal of {writers} rings of {capacity}: expected 1 or more, and a power of two")
        size = sizeof(JournalShared) + sizeof(JournalWake) + writers * sizeof(JournalHead)
        size += <size_t>writers * capacity * sizeof(JournalRecord)
        journal.region = Region.create("journal", size, JOURNAL_VERSION)
        journal.shared = <JournalShared*>(journal.region.base + SHM_HEADER)
        journal.wake = <JournalWake*>(journal.shared + 1)
        journal.heads = <JournalHead*>(journal.wake + 1)
        journal.records = <JournalRecord*>(journal.heads + writers)
        journal.shared.writers = writers
        journal.shared.capacity = capacity
        journal.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return journal

    cdef int view(self, JournalMap* map, uint32_t writer) except -1:
        """Fill one writer's map; the journal must outlive it."""
        if writer >= self.shared.writers:
            raise ValueError(f"journal writer {writer}: there are {self.shared.writers}")
        map.shared = self.shared
        map.wake = self.wake
        map.head = &self.heads[writer]
        map.records = self.records + <size_t>writer * self.shared.capacity
        map.wake_fd = self.wake_fd
        return 0

    def enable(self):
        """From now on changes are noted; what was noted before is forgotten."""
        cdef uint32_t writer
        for writer in range(self.shared.writers):
            atomic_store64(&self.heads[writer].tail, atomic_load64(&self.heads[writer].head))
        atomic_store32(&self.shared.desync, 0)
        atomic_store32(&self.shared.enabled, 1)

    def disable(self):
        atomic_store32(&self.shared.enabled, 0)

    @property
    def enabled(self):
        return atomic_load32(&self.shared.enabled) != 0

    @property
    def desync(self):
        """Whether something was not noted: only a resync makes the boxes equal again."""
        return atomic_load32(&self.shared.desync) != 0

    def mark_desync(self):
        """Whoever changes tables without noting each key says so; a dead worker may not have come to it."""
        atomic_store32(&self.shared.desync, 1)

    @property
    def lost(self):
        return sum(self.heads[writer].lost for writer in range(self.shared.writers))

    def __len__(self):
        """Keys noted and not read yet."""
        cdef uint32_t writer
        cdef int64_t unread = 0
        for writer in range(self.shared.writers):
            unread += atomic_load64(&self.heads[writer].head) - self.heads[writer].tail
        return unread

    def sleep(self):
        """The reader will wait for ``wake_fd``; False when there is something to read already."""
        atomic_store32(&self.wake.sleeping, 1)
        if len(self) or self.desync:
            atomic_store32(&self.wake.sleeping, 0)
            return False
        return True
