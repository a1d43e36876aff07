"""Entries to records and back; see _replica.pxd."""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from lbfast._journal cimport Journal, JournalHead, JournalRecord
from lbfast._stick cimport (
    STICK_BOUND, STICK_NO_CONN, STICK_NO_REAL, STICK_PEER, STICK_PINNED, STICK_REALS, STICK_UNSEEN, STICK_WAYS,
    StickBucket, StickEntry, StickMap, StickTable, stick_bind, stick_change, stick_done, stick_find, stick_hash,
    stick_insert, stick_lock, stick_lock_at, stick_remove, stick_room, stick_unlock,
)
from lbfast._stick_lock cimport is_touched, stride
from lbfast._stick_view cimport is_vacant
from lbfast._sys cimport atomic_load64, atomic_store64

cdef extern from *:
    """
    #define prefetch_to_write(where) __builtin_prefetch((where), 1)
    """
    void prefetch_to_write(const void* where) noexcept nogil

cdef enum:
    SERVICES = 4096
    HEADERS_AHEAD = 16        # records: so early a bucket is fetched into the cache,
    ENTRIES_AHEAD = 8         # and so early the entry in it
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


cdef void fetch_ahead(StickMap* map, const uint8_t* key, bint is_near) noexcept nogil:
    """Records come in the order of the sender's table, which is none here: each would wait for memory twice."""
    cdef uint64_t hash = stick_hash(map, key)
    cdef StickBucket* bucket = &map.buckets[hash & map.mask]
    cdef uint16_t mark = <uint16_t>(hash >> 48)
    cdef int way
    if not is_touched(map, hash & map.mask):
        return
    if not is_near:
        prefetch_to_write(bucket)
        prefetch_to_write(&bucket.saved)
        return
    for way in range(STICK_WAYS):
        if bucket.mark[way] == mark or bucket.mark[way] == 0:  # a guess, without the lock: nothing depends on it
            prefetch_to_write(&bucket.entry[way])
            return


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


cdef bint change_entry(StickMap* map, StickBucket* bucket, int way, ReplicaWalk walk, int64_t now) noexcept nogil:
    """One step of a walk, under the lock; whether the entry was concerned."""
    cdef StickEntry* entry = &bucket.entry[way]
    if walk == WALK_DOUBT:
        if entry.holds == 0:
            entry.flags |= STICK_UNSEEN  # one byte: needs no undo
        return entry.holds == 0
    if walk == WALK_REMOVE:
        if not entry.flags & STICK_UNSEEN or entry.holds:
            return False
        stick_remove(map, bucket, way)
        return True
    if not entry.flags & (STICK_PEER | STICK_UNSEEN):
        return False
    entry = stick_change(bucket, way, STICK_NO_CONN, NULL)
    if entry.flags & STICK_PEER:
        entry.closed_ms = now
    entry.flags &= <uint8_t>~(STICK_PEER | STICK_UNSEEN)
    stick_done(bucket)
    return True


cdef int64_t walk_table(StickMap* map, ReplicaWalk walk, int64_t now) noexcept nogil:
    """Every entry; how many were concerned."""
    cdef StickBucket* bucket
    cdef uint64_t index = 0
    cdef int64_t changed = 0
    cdef int way
    while index <= map.mask:
        if is_touched(map, index) and not is_vacant(&map.buckets[index]):
            bucket = stick_lock_at(map, <uint32_t>index)
            for way in range(STICK_WAYS):
                if bucket.mark[way] != 0:
                    changed += change_entry(map, bucket, way, walk, now)
            stick_unlock(bucket)
        index += stride(map, index)
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
                index += stride(map, index)
        out = bytearray((<char*>records)[:count * sizeof(ReplicaRecord)])
        free(records)
        return out, (index if index <= map.mask else -1)

    def apply(self, bytes data not None, Py_ssize_t offset, int64_t now):
        """Put the peer's records into our tables; ValueError when they are not whole."""
        cdef const ReplicaRecord* record
        cdef Py_ssize_t size = len(data) - offset, i
        cdef Py_ssize_t count = size // <Py_ssize_t>sizeof(ReplicaRecord)
        cdef const char* start = <const char*>data + offset
        if offset < 0 or size < 0 or size % <Py_ssize_t>sizeof(ReplicaRecord):
            raise ValueError(f"{size} bytes of records, expected a multiple of {sizeof(ReplicaRecord)}")
        record = <const ReplicaRecord*>start
        with nogil:
            for i in range(count):
                if i + HEADERS_AHEAD < count:
                    self._fetch(&record[i + HEADERS_AHEAD], False)
                if i + ENTRIES_AHEAD < count:
                    self._fetch(&record[i + ENTRIES_AHEAD], True)
                self._apply(&record[i], now)

    cdef StickMap* _map_of(self, const ReplicaRecord* record) noexcept nogil:
        """The table here that a record belongs to, or NULL."""
        cdef uint32_t service = self.services[record.service] if record.service < SERVICES else STICK_NO_REAL
        return self.maps[service] if service < SERVICES else NULL

    cdef void _fetch(self, const ReplicaRecord* record, bint is_near) noexcept nogil:
        cdef StickMap* map = self._map_of(record)
        if map != NULL:
            fetch_ahead(map, record.key, is_near)

    cdef void _apply(self, const ReplicaRecord* record, int64_t now) noexcept nogil:
        cdef StickMap* map = self._map_of(record)
        cdef uint32_t real = self.reals[record.real] if record.real < STICK_REALS else STICK_NO_REAL
        cdef uint32_t previous = self.reals[record.previous] if record.previous < STICK_REALS else STICK_NO_REAL
        cdef int rc
        if map == NULL or (real == STICK_NO_REAL and not record.flags & REPLICA_REMOVED):
            self.unknown += 1
            return
        rc = apply_record(map, record, real, self.tags[real] if real < STICK_REALS else 0, previous, now)
        if rc > 0:
            self.applied += 1
        elif rc == 0:
            self.kept += 1
        else:
            self.no_room += 1

    def begin_resync(self):
        return self._walk(WALK_DOUBT, 0)

    def end_resync(self, int64_t now):
        return self._walk(WALK_REMOVE, now)

    def release_held(self, int64_t now):
        return self._walk(WALK_RELEASE, now)

    cdef int64_t _walk(self, ReplicaWalk walk, int64_t now) noexcept:
        cdef int slot
        cdef int64_t changed = 0
        with nogil:
            for slot in range(SERVICES):
                if self.maps[slot] != NULL:
                    changed += walk_table(self.maps[slot], walk, now)
        return changed
