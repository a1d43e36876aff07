"""Entries to records and back; see _replica.pxd."""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from lbfast._journal cimport Journal, JournalHead, JournalRecord
from lbfast._stick cimport (
    STICK_BOUND, STICK_NO_CONN, STICK_NO_REAL, STICK_PEER, STICK_PINNED, STICK_REALS, STICK_UNSEEN, STICK_WAYS,
    StickBucket, StickEntry, StickMap, StickTable, stick_bind, stick_change, stick_done, stick_find, stick_hash,
    stick_insert, stick_lock, stick_lock_at, stick_remove, stick_room, stick_unlock,
)
from lbfast._stick_lock cimport is_touched
from lbfast._stick_view cimport is_vacant
from lbfast._sys cimport atomic_load64, atomic_store64

cdef enum:
    SERVICES = 4096
    MOST_AGE = 0xFFFFFFFE     # milliseconds: 49 days, longer than any timeout
    REASON_PINNED = 5         # model.state.Reason
    REASON_PEER = 9


# ---- to records ------------------------------------------------------------------------------------------------------

cdef uint32_t age_of(int64_t at_ms, int64_t now) noexcept nogil:
    cdef int64_t age = now - at_ms
    if age < 0:
        return 0
    return <uint32_t>age if age < MOST_AGE else <uint32_t>MOST_AGE


cdef void record_entry(ReplicaRecord* record, const StickEntry* entry, uint32_t service, int64_t now) noexcept nogil:
    memcpy(record.key, entry.key, 16)
    record.service = service
    record.real = entry.real
    record.created_age_ms = age_of(entry.created_ms, now)
    record.since_age_ms = age_of(entry.since_ms, now)
    record.closed_age_ms = age_of(entry.closed_ms, now)
    record.previous = entry.previous
    record.flags = 0
    if entry.holds or entry.flags & STICK_PEER:
        record.flags |= REPLICA_HELD
    if entry.flags & STICK_PINNED:
        record.flags |= REPLICA_PINNED
    record.reason = entry.reason
    record.previous_reason = entry.previous_reason
    record.reserved = 0


cdef bint is_told(const StickEntry* entry) noexcept nogil:
    """A reservation is nobody's business before its first connect; an entry without a real server only counts."""
    return entry.state == STICK_BOUND and entry.real != STICK_NO_REAL


cdef void record_key(StickMap* map, ReplicaRecord* record, const JournalRecord* noted, int64_t now) noexcept nogil:
    """What has become of a key by now."""
    cdef uint64_t hash = stick_hash(map, noted.key)
    cdef StickBucket* bucket = stick_lock(map, hash)
    cdef int way = stick_find(bucket, hash, noted.key, INT64_MAX, now)
    memset(record, 0, sizeof(ReplicaRecord))
    if way >= 0 and is_told(&bucket.entry[way]):
        record_entry(record, &bucket.entry[way], noted.service, now)
    else:
        memcpy(record.key, noted.key, 16)
        record.service = noted.service
        # A pending entry is a move under way: its outcome will be noted.
        record.flags = REPLICA_REMOVED if way < 0 else 0
        record.real = STICK_NO_REAL
    stick_unlock(bucket)


# ---- from records ----------------------------------------------------------------------------------------------------

cdef int apply_record(StickMap* map, const ReplicaRecord* record, uint32_t real, uint32_t tag, uint32_t previous,
                      int64_t now) noexcept nogil:
    """1 = applied, 0 = the client has connections here, -1 = no room."""
    cdef uint64_t hash = stick_hash(map, record.key)
    cdef StickBucket* bucket = stick_lock(map, hash)
    cdef int way = stick_find(bucket, hash, record.key, INT64_MAX, 0)
    cdef int rc = 1
    if way >= 0 and bucket.entry[way].holds:
        rc = 0
    elif record.flags & REPLICA_REMOVED:
        if way >= 0:
            stick_remove(map, bucket, way)
    else:
        if way < 0:
            way = stick_room(map, bucket, INT64_MAX, now)
            if way >= 0:
                stick_insert(map, bucket, way, hash, record.key, real, tag, STICK_BOUND, REASON_PEER, now)
        elif bucket.entry[way].real != real or bucket.entry[way].tag != tag:
            unpin(bucket, way)
            stick_bind(map, bucket, way, real, tag, STICK_BOUND, REASON_PEER, now)
        if way >= 0:
            write_entry(stick_change(bucket, way, STICK_NO_CONN, NULL), record, previous, now)
            stick_done(bucket)
        else:
            rc = -1
    stick_unlock(bucket)
    return rc


cdef void unpin(StickBucket* bucket, int way) noexcept nogil:
    """The peer has another pin, or none any more."""
    stick_change(bucket, way, STICK_NO_CONN, NULL).flags = 0
    stick_done(bucket)


cdef void write_entry(StickEntry* entry, const ReplicaRecord* record, uint32_t previous, int64_t now) noexcept nogil:
    """Inside a change: everything but key, real server and tag, which are there."""
    entry.flags = 0
    if record.flags & REPLICA_HELD:
        entry.flags |= STICK_PEER
    if record.flags & REPLICA_PINNED:
        entry.flags |= STICK_PINNED
    entry.state = STICK_BOUND
    entry.reason = REASON_PINNED if record.flags & REPLICA_PINNED else REASON_PEER
    entry.previous = previous
    entry.previous_reason = record.previous_reason
    entry.created_ms = now - record.created_age_ms
    entry.since_ms = now - record.since_age_ms
    entry.closed_ms = now - record.closed_age_ms


cdef int64_t mark_unseen(StickMap* map) noexcept nogil:
    """Before a resync: every entry is in doubt."""
    cdef StickBucket* bucket
    cdef uint64_t index
    cdef int64_t marked = 0
    cdef int way
    for index in range(map.mask + 1):
        if not is_touched(map, index) or is_vacant(&map.buckets[index]):
            continue
        bucket = stick_lock_at(map, <uint32_t>index)
        for way in range(STICK_WAYS):
            if bucket.mark[way] != 0 and bucket.entry[way].holds == 0:
                bucket.entry[way].flags |= STICK_UNSEEN  # one byte: needs no undo
                marked += 1
        stick_unlock(bucket)
    return marked


cdef int64_t settle(StickMap* map, int64_t now, bint removing) noexcept nogil:
    """After a resync: remove what the peer does not have.  At a takeover: what it held, it holds no more."""
    cdef StickBucket* bucket
    cdef StickEntry* entry
    cdef uint64_t index
    cdef int64_t changed = 0
    cdef int way
    for index in range(map.mask + 1):
        if not is_touched(map, index) or is_vacant(&map.buckets[index]):
            continue
        bucket = stick_lock_at(map, <uint32_t>index)
        for way in range(STICK_WAYS):
            entry = &bucket.entry[way]
            if bucket.mark[way] == 0:
                continue
            if removing and entry.flags & STICK_UNSEEN and entry.holds == 0:
                stick_remove(map, bucket, way)
                changed += 1
            elif not removing and entry.flags & (STICK_PEER | STICK_UNSEEN):
                entry = stick_change(bucket, way, STICK_NO_CONN, NULL)
                if entry.flags & STICK_PEER:
                    entry.closed_ms = now
                entry.flags &= <uint8_t>~(STICK_PEER | STICK_UNSEEN)
                stick_done(bucket)
                changed += 1
        stick_unlock(bucket)
    return changed


# ---- the Python face -------------------------------------------------------------------------------------------------

cdef class Replica:
    """The ha process's hand on all stick tables; see _replica.pyi."""

    def __cinit__(self):
        cdef int i
        self.services = <uint32_t*>malloc(SERVICES * sizeof(uint32_t))
        self.reals = <uint32_t*>malloc(STICK_REALS * sizeof(uint32_t))
        self.tags = <uint32_t*>malloc(STICK_REALS * sizeof(uint32_t))
        if self.services == NULL or self.reals == NULL or self.tags == NULL:
            raise MemoryError("no memory for the maps of the replication")
        memset(self.maps, 0, sizeof(self.maps))
        for i in range(SERVICES):
            self.services[i] = STICK_NO_REAL
        for i in range(STICK_REALS):
            self.reals[i] = STICK_NO_REAL

    def __dealloc__(self):
        free(self.services)
        free(self.reals)
        free(self.tags)

    def __init__(self, dict tables):
        cdef StickTable table
        for slot, table in tables.items():
            if not 0 <= slot < SERVICES:
                raise ValueError(f"service slot {slot}: expected 0 to {SERVICES - 1}")
            self.maps[slot] = &table.map
        self.tables = dict(tables)

    def set_peer(self, dict services, dict reals):
        cdef int i
        for i in range(SERVICES):
            self.services[i] = STICK_NO_REAL
        for i in range(STICK_REALS):
            self.reals[i] = STICK_NO_REAL
        for theirs, ours in services.items():
            if 0 <= theirs < SERVICES:
                self.services[theirs] = ours
        for theirs, (ours, tag) in reals.items():
            if 0 <= theirs < STICK_REALS and 0 <= ours < STICK_REALS:
                self.reals[theirs] = ours
                self.tags[ours] = tag

    def collect(self, Journal journal not None, int limit, int64_t now):
        """Records of the keys that were noted, and when the oldest was; at most ``limit`` of each writer."""
        cdef bytearray out = bytearray()
        cdef JournalHead* head
        cdef JournalRecord* noted
        cdef ReplicaRecord record
        cdef JournalRecord copy
        cdef int64_t at, end, oldest = now
        cdef uint32_t writer, capacity = journal.shared.capacity
        for writer in range(journal.shared.writers):
            head = &journal.heads[writer]
            at = head.tail
            end = min(atomic_load64(&head.head), at + limit)
            while at < end:
                noted = &journal.records[<size_t>writer * capacity + (at & (capacity - 1))]
                copy = noted[0]
                at += 1
                # Before the look-up: a writer that finds this record unread may rely on a look-up to come.
                atomic_store64(&head.tail, at)
                oldest = min(oldest, copy.at_ms)
                if copy.service >= SERVICES or self.maps[copy.service] == NULL:
                    continue
                record_key(self.maps[copy.service], &record, &copy, now)
                if record.real != STICK_NO_REAL or record.flags & REPLICA_REMOVED:
                    out += (<char*>&record)[:sizeof(ReplicaRecord)]
        return out, oldest

    def snapshot(self, uint32_t service, uint64_t bucket, int limit, int64_t now):
        """About ``limit`` entries of a table from a bucket on: the records, and the next bucket or -1."""
        cdef StickMap* map = self.maps[service] if service < SERVICES else NULL
        cdef bytearray out
        cdef ReplicaRecord* records
        cdef StickBucket* locked
        cdef uint64_t index = bucket
        cdef int count = 0
        cdef int way
        if map == NULL:
            return bytearray(), -1
        records = <ReplicaRecord*>malloc((limit + STICK_WAYS) * sizeof(ReplicaRecord))
        if records == NULL:
            raise MemoryError("no memory for a part of the resync")
        with nogil:
            while index <= map.mask and count < limit:
                if is_touched(map, index) and not is_vacant(&map.buckets[index]):
                    locked = stick_lock_at(map, <uint32_t>index)
                    for way in range(STICK_WAYS):
                        if locked.mark[way] != 0 and is_told(&locked.entry[way]):
                            record_entry(&records[count], &locked.entry[way], service, now)
                            count += 1
                    stick_unlock(locked)
                index += 1
        out = bytearray((<char*>records)[:count * sizeof(ReplicaRecord)])
        free(records)
        return out, (index if index <= map.mask else -1)

    def apply(self, bytes data not None, Py_ssize_t offset, int64_t now):
        """Put the peer's records into our tables; ValueError when they are not whole."""
        cdef const ReplicaRecord* record
        cdef Py_ssize_t size = len(data) - offset, i
        cdef Py_ssize_t count = size // <Py_ssize_t>sizeof(ReplicaRecord)
        cdef const char* start = <const char*>data + offset
        cdef uint32_t service, real, previous
        cdef int rc
        if offset < 0 or size < 0 or size % <Py_ssize_t>sizeof(ReplicaRecord):
            raise ValueError(f"{size} bytes of records, expected a multiple of {sizeof(ReplicaRecord)}")
        with nogil:
            for i in range(count):
                record = <const ReplicaRecord*>(start + i * <Py_ssize_t>sizeof(ReplicaRecord))
                service = self.services[record.service] if record.service < SERVICES else STICK_NO_REAL
                real = self.reals[record.real] if record.real < STICK_REALS else STICK_NO_REAL
                if service == STICK_NO_REAL or service >= SERVICES or self.maps[service] == NULL or \
                        (real == STICK_NO_REAL and not record.flags & REPLICA_REMOVED):
                    self.unknown += 1
                    continue
                previous = self.reals[record.previous] if record.previous < STICK_REALS else STICK_NO_REAL
                rc = apply_record(self.maps[service], record, real, self.tags[real] if real < STICK_REALS else 0,
                                  previous, now)
                if rc > 0:
                    self.applied += 1
                elif rc == 0:
                    self.kept += 1
                else:
                    self.no_room += 1

    def begin_resync(self):
        cdef int slot
        cdef int64_t marked = 0
        with nogil:
            for slot in range(SERVICES):
                if self.maps[slot] != NULL:
                    marked += mark_unseen(self.maps[slot])
        return marked

    def end_resync(self, int64_t now):
        return self._settle(now, True)

    def release_held(self, int64_t now):
        return self._settle(now, False)

    def _settle(self, int64_t now, bint removing):
        cdef int slot
        cdef int64_t changed = 0
        with nogil:
            for slot in range(SERVICES):
                if self.maps[slot] != NULL:
                    changed += settle(self.maps[slot], now, removing)
        return changed
