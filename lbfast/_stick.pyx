"""The stick table: bucket locks, crash-safe changes, expiry, recovery; a thin class for Python."""

from libc.errno cimport ENOSPC, ETIMEDOUT
from libc.stdint cimport INT64_MAX
from libc.string cimport memcmp, memcpy, memset

from lbfast._address cimport address_parse
from lbfast._shm cimport SHM_HEADER
from lbfast._siphash cimport siphash13
from lbfast._stick_count cimport count_entry, count_real, forget_all_holds, recount
from lbfast._stick_lock cimport bucket_undo, is_touched, lock_within, mark_of, note_take, own_pid, stride
from lbfast._stick_view cimport (
    PAGE, buckets_for, buckets_offset, format_entry, has_prefix, is_expired, is_held, is_vacant, parse_network,
    pid_page, pid_page_free, table_size,
)
from lbfast._sys cimport atomic_add64, atomic_load32, atomic_store32, atomic_swap32, fence_release

import os

cdef enum:
    REASON_PINNED = 5         # model.state.Reason
    COLD_WAIT_MS = 1000       # what the Python methods wait for one bucket
    SWEEP_WAIT_MS = 2
    MAX_CAPACITY = 1 << 26

# ---- places -------------------------------------------------------------------------------------------------

cdef uint64_t stick_hash(const StickMap* map, const uint8_t* key) noexcept nogil:
    """Keyed: clients cannot aim at one bucket without the key."""
    return siphash13(map.key0, map.key1, key)


cdef StickBucket* stick_lock(StickMap* map, uint64_t hash) noexcept nogil:
    return stick_lock_at(map, <uint32_t>(hash & map.mask))


cdef StickBucket* stick_lock_at(StickMap* map, uint32_t bucket) noexcept nogil:
    return lock_within(map, bucket, -1)


cdef void stick_unlock(StickBucket* bucket) noexcept nogil:
    atomic_store32(&bucket.lock, 0)

# ---- undo ------------------------------------------------------------------------------------------------------------

cdef StickEntry* stick_change(StickBucket* bucket, int way, uint32_t conn, const StickRef* ref) noexcept nogil:
    bucket.saved = bucket.entry[way]
    bucket.undo_way = <uint8_t>way
    bucket.undo_conn = conn
    bucket.undo_held = ref.held if ref != NULL else 0
    bucket.undo_pid = bucket.lock
    fence_release()
    (<volatile uint8_t*>&bucket.undo)[0] = 1
    fence_release()
    return &bucket.entry[way]


cdef void stick_done(StickBucket* bucket) noexcept nogil:
    fence_release()
    (<volatile uint8_t*>&bucket.undo)[0] = 0


# ---- verbs under the lock --------------------------------------------------------------------------------------------

cdef int stick_find(StickBucket* bucket, uint64_t hash, const uint8_t* key, int64_t timeout_ms,
                    int64_t now) noexcept nogil:
    cdef uint16_t mark = mark_of(hash)
    cdef int way
    for way in range(STICK_WAYS):
        if bucket.mark[way] == mark and memcmp(bucket.entry[way].key, key, 16) == 0:
            if not is_expired(&bucket.entry[way], timeout_ms, now):
                return way
    return -1


cdef int stick_room(StickMap* map, StickBucket* bucket, int64_t timeout_ms, int64_t now) noexcept nogil:
    cdef int64_t oldest = INT64_MAX
    cdef int victim = -1
    cdef int way
    cdef StickEntry* entry
    for way in range(STICK_WAYS):
        if bucket.mark[way] == 0:
            return way
    for way in range(STICK_WAYS):
        entry = &bucket.entry[way]
        if is_held(entry):
            continue
        if is_expired(entry, timeout_ms, now):
            victim = way
            break
        if entry.closed_ms < oldest:
            oldest = entry.closed_ms
            victim = way
    if victim >= 0:
        stick_remove(map, bucket, victim)
    return victim


cdef void stick_insert(StickMap* map, StickBucket* bucket, int way, uint64_t hash, const uint8_t* key, uint32_t real,
                       uint32_t tag, uint8_t state, uint8_t reason, int64_t now) noexcept nogil:
    cdef uint16_t mark = mark_of(hash)
    cdef StickEntry* entry
    cdef int other
    for other in range(STICK_WAYS):
        # An expired entry of this key must not come back to life when the timeout is made longer.
        if bucket.mark[other] == mark and memcmp(bucket.entry[other].key, key, 16) == 0:
            stick_remove(map, bucket, other)
    entry = stick_change(bucket, way, STICK_NO_CONN, NULL)
    bucket.next_serial += 1
    if bucket.next_serial == 0:
        bucket.next_serial = 1
    memset(entry, 0, sizeof(StickEntry))
    memcpy(entry.key, key, 16)
    entry.real = real
    entry.tag = tag
    entry.serial = bucket.next_serial
    entry.state = state
    entry.reason = reason
    entry.previous = STICK_NO_REAL
    entry.created_ms = now
    entry.since_ms = now
    entry.closed_ms = now
    bucket.mark[way] = mark
    atomic_add64(map.mutations, 1)
    count_entry(map, real, 1)
    stick_done(bucket)


cdef void stick_hold(StickMap* map, StickBucket* bucket, int way, uint32_t conn, StickRef* ref) noexcept nogil:
    cdef StickEntry* entry = stick_change(bucket, way, conn, ref)
    entry.holds += 1
    ref.bucket = <uint32_t>(bucket - map.buckets)
    ref.serial = entry.serial
    ref.way = <uint8_t>way
    fence_release()
    ref.held = 1
    stick_done(bucket)


cdef void stick_release(StickMap* map, uint32_t conn, StickRef* ref, int64_t now) noexcept nogil:
    cdef StickBucket* bucket
    cdef StickEntry* entry
    if not ref.held:
        return
    if ref.bucket > map.mask or ref.way >= STICK_WAYS:
        ref.held = 0    # no hold of ours: whoever took a worker over may have written anything
        return
    bucket = stick_lock_at(map, ref.bucket)
    entry = &bucket.entry[ref.way]
    if entry.state == STICK_EMPTY or entry.serial != ref.serial or entry.holds == 0:
        ref.held = 0
    else:
        stick_change(bucket, ref.way, conn, ref)
        entry.holds -= 1
        entry.closed_ms = now
        if entry.state == STICK_PENDING and not is_held(entry):
            entry_empty(map, bucket, ref.way)
        ref.held = 0
        stick_done(bucket)
    stick_unlock(bucket)


cdef void stick_bind(StickMap* map, StickBucket* bucket, int way, uint32_t real, uint32_t tag, uint8_t state,
                     uint8_t reason, int64_t now) noexcept nogil:
    cdef StickEntry* entry = stick_change(bucket, way, STICK_NO_CONN, NULL)
    if entry.flags & STICK_PINNED:
        entry.state = STICK_BOUND
    else:
        entry_bind(map, entry, real, tag, state, reason, now)
    stick_done(bucket)


cdef void entry_bind(StickMap* map, StickEntry* entry, uint32_t real, uint32_t tag, uint8_t state, uint8_t reason,
                     int64_t now) noexcept nogil:
    cdef uint32_t before = entry.real
    cdef bint moved = before != real or entry.tag != tag
    if moved:
        # The slot with another tag is another real server: its number would name the wrong one.
        entry.previous = before if before != real else STICK_NO_REAL
        entry.previous_reason = reason
    if moved or entry.state != state:
        entry.since_ms = now
    entry.real = real
    entry.tag = tag
    entry.state = state
    entry.reason = reason
    if before != real:
        atomic_add64(map.mutations, 1)
        count_real(map, before, -1)
        count_real(map, real, 1)


cdef void stick_remove(StickMap* map, StickBucket* bucket, int way) noexcept nogil:
    stick_change(bucket, way, STICK_NO_CONN, NULL)
    entry_empty(map, bucket, way)
    stick_done(bucket)


cdef void entry_empty(StickMap* map, StickBucket* bucket, int way) noexcept nogil:
    """Inside a change: make the place free."""
    cdef uint32_t real = bucket.entry[way].real
    bucket.mark[way] = 0
    memset(&bucket.entry[way], 0, sizeof(StickEntry))
    atomic_add64(map.mutations, 1)
    count_entry(map, real, -1)


cdef void entry_pin(StickMap* map, StickBucket* bucket, int way, uint32_t real, uint32_t tag,
                    int64_t now) noexcept nogil:
    cdef StickEntry* entry = stick_change(bucket, way, STICK_NO_CONN, NULL)
    entry_bind(map, entry, real, tag, STICK_BOUND, REASON_PINNED, now)
    entry.flags |= STICK_PINNED
    stick_done(bucket)


cdef int sweep_bucket(StickMap* map, uint64_t index, int64_t timeout_ms, int64_t now) noexcept nogil:
    cdef StickBucket* bucket
    cdef int way
    cdef int removed = 0
    if is_vacant(&map.buckets[index]):
        return 0
    bucket = lock_within(map, index, SWEEP_WAIT_MS)
    if bucket == NULL:
        return 0
    for way in range(STICK_WAYS):
        if bucket.mark[way] != 0 and is_expired(&bucket.entry[way], timeout_ms, now):
            stick_remove(map, bucket, way)
            removed += 1
    stick_unlock(bucket)
    return removed


# ---- recovery --------------------------------------------------------------------------------------------------------

cdef int stick_recover(StickMap* map, uint32_t pid, uint32_t* conn, uint8_t* held) noexcept nogil:
    cdef uint32_t me = own_pid(map)
    cdef StickBucket* bucket
    cdef uint64_t index
    cdef int unlocked = 0
    conn[0] = STICK_NO_CONN
    held[0] = 0
    for index in range(map.mask + 1):
        if not is_touched(map, index):
            continue
        bucket = &map.buckets[index]
        if atomic_load32(&bucket.lock) == pid and atomic_swap32(&bucket.lock, pid, me):
            atomic_store32(&map.header.stale, 1)
            bucket_undo(map, bucket, pid, conn, held)
            stick_unlock(bucket)
            unlocked += 1
        elif bucket.undo and bucket.undo_pid == pid:
            # Another process is recovering this bucket: its note must be there before notes are read.
            bucket = lock_within(map, index, 2 * RECOVER_AFTER_MS)
            if bucket != NULL:
                stick_unlock(bucket)
    note_take(map.header, pid, conn, held)
    recount(map)
    return unlocked


# ---- the Python face -------------------------------------------------------------------------------------------------

cdef class StickTable:
    """One virtual service's stick table; see _stick.pyi.

    Python holds a bucket for microseconds and waits for one at most COLD_WAIT_MS (TimeoutError: its owner is
    stopped, say by a debugger).
    """

    VERSION = STICK_VERSION

    def __init__(self):
        raise TypeError("use StickTable.create or StickTable.attach")

    def __dealloc__(self):
        if self.map.pid != NULL:
            pid_page_free(self.map.pid)

    @staticmethod
    def create(size_t capacity):
        """A new table with room for about ``capacity`` entries at three quarters full."""
        cdef uint64_t buckets
        cdef StickHeader* header
        cdef Region region
        cdef bytes secret = os.urandom(16)
        if not 1 <= capacity <= MAX_CAPACITY:
            raise ValueError(f"capacity {capacity}: expected 1 to {MAX_CAPACITY}")
        buckets = buckets_for(capacity)
        region = Region.create("stick", table_size(buckets) - SHM_HEADER, STICK_VERSION)
        header = <StickHeader*>(region.base + SHM_HEADER)
        header.buckets = buckets
        memcpy(&header.key0, <const char*>secret, 8)
        memcpy(&header.key1, <const char*>secret + 8, 8)
        return open_table(region)

    @staticmethod
    def attach(int fd):
        """The table that another process made; ValueError when the descriptor is of anything else."""
        return open_table(Region.attach(fd, "stick", STICK_VERSION))

    @staticmethod
    def real_tag(bytes id):
        """First four bytes of a real server's id, never 0."""
        if len(id) < 4:
            raise ValueError(f"id of {len(id)} bytes, expected 16")
        return stick_tag(<const uint8_t*><const char*>id)

    @property
    def fd(self):
        return self.region.fd

    cdef StickBucket* _lock(self, uint64_t bucket) except NULL:
        cdef StickBucket* locked
        with nogil:
            locked = lock_within(&self.map, bucket, COLD_WAIT_MS)
        if locked == NULL:
            owner = atomic_load32(&self.map.buckets[bucket].lock)
            raise TimeoutError(ETIMEDOUT, f"bucket {bucket} has been locked for {COLD_WAIT_MS} ms by process {owner}")
        return locked

    def get(self, str client):
        cdef uint8_t key[16]
        cdef uint64_t hash
        cdef StickBucket* bucket
        cdef StickEntry entry
        cdef int way
        address_parse(client, key)
        hash = stick_hash(&self.map, key)
        if not is_touched(&self.map, hash & self.map.mask):
            return None
        bucket = self._lock(hash & self.map.mask)
        way = stick_find(bucket, hash, key, INT64_MAX, 0)
        if way >= 0:
            entry = bucket.entry[way]
        stick_unlock(bucket)
        return format_entry(&entry) if way >= 0 else None

    def pin(self, str client, uint32_t real, uint32_t tag, int64_t now_ms):
        cdef uint8_t key[16]
        cdef uint64_t hash
        cdef StickBucket* bucket
        cdef int way
        if real >= STICK_REALS:
            raise ValueError(f"real server slot {real}: expected 0 to {STICK_REALS - 1}")
        address_parse(client, key)
        hash = stick_hash(&self.map, key)
        bucket = self._lock(hash & self.map.mask)
        way = stick_find(bucket, hash, key, INT64_MAX, 0)
        if way < 0:
            way = stick_room(&self.map, bucket, INT64_MAX, now_ms)
            if way >= 0:
                stick_insert(&self.map, bucket, way, hash, key, real, tag, STICK_BOUND, REASON_PINNED, now_ms)
        if way >= 0:
            entry_pin(&self.map, bucket, way, real, tag, now_ms)
        stick_unlock(bucket)
        if way < 0:
            raise OSError(ENOSPC, f"no room to pin {client}: all {STICK_WAYS} entries of its bucket are held or pinned")

    def remove(self, str client):
        cdef uint8_t key[16]
        cdef uint64_t hash
        cdef StickBucket* bucket
        cdef int way
        address_parse(client, key)
        hash = stick_hash(&self.map, key)
        if not is_touched(&self.map, hash & self.map.mask):
            return False
        bucket = self._lock(hash & self.map.mask)
        way = stick_find(bucket, hash, key, INT64_MAX, 0)
        if way >= 0:
            stick_remove(&self.map, bucket, way)
        stick_unlock(bucket)
        return way >= 0

    def clear(self, network=None, real=None):
        cdef uint8_t wanted[16]
        cdef int bits = 0
        cdef int64_t slot = -1 if real is None else <int64_t>real
        cdef uint64_t index
        cdef StickBucket* bucket
        cdef StickEntry* entry
        cdef int way
        cdef int removed = 0
        memset(wanted, 0, 16)
        if network is not None:
            bits = parse_network(network, wanted)
        for index in range(self.map.mask + 1):
            if not is_touched(&self.map, index) or is_vacant(&self.map.buckets[index]):
                continue
            bucket = self._lock(index)
            for way in range(STICK_WAYS):
                entry = &bucket.entry[way]
                if bucket.mark[way] == 0 or not has_prefix(entry.key, wanted, bits):
                    continue
                if slot < 0 or entry.real == slot:
                    stick_remove(&self.map, bucket, way)
                    removed += 1
            stick_unlock(bucket)
        return removed

    def entries(self):
        """Bucket by bucket: each bucket is read at one moment, the whole table is not."""
        cdef uint64_t index
        for index in range(self.map.mask + 1):
            if is_touched(&self.map, index) and not is_vacant(&self.map.buckets[index]):
                yield from self._read(index)

    cdef list _read(self, uint64_t index):
        cdef StickEntry copy[STICK_WAYS]
        cdef uint16_t mark[STICK_WAYS]
        cdef StickBucket* bucket = self._lock(index)
        memcpy(copy, bucket.entry, sizeof(copy))
        memcpy(mark, bucket.mark, sizeof(mark))
        stick_unlock(bucket)
        return [format_entry(&copy[way]) for way in range(STICK_WAYS) if mark[way] != 0]

    def counts(self):
        # Without locks, as __len__: a figure for people must not wait for a stopped process.
        cdef dict found = {}
        cdef uint64_t index
        cdef int way
        for index in range(self.map.mask + 1):
            if not is_touched(&self.map, index):
                continue
            for way in range(STICK_WAYS):
                if self.map.buckets[index].mark[way] != 0:
                    real = self.map.buckets[index].entry[way].real
                    found[real] = found.get(real, 0) + 1
        return found

    def __len__(self):
        cdef Py_ssize_t found = 0
        cdef uint64_t index
        cdef int way
        for index in range(self.map.mask + 1):
            if is_touched(&self.map, index):
                for way in range(STICK_WAYS):
                    found += self.map.buckets[index].mark[way] != 0
        return found

    def sweep(self, int64_t timeout_ms, int64_t now_ms, uint64_t buckets):
        """Also settles bound and used when a process died inside a change."""
        cdef int removed = 0
        cdef uint64_t visited = 0
        cdef uint64_t seen = 0, step
        with nogil:
            while visited < buckets and seen <= self.map.mask:
                if is_touched(&self.map, self.cursor):
                    visited += 1
                    removed += sweep_bucket(&self.map, self.cursor, timeout_ms, now_ms)
                step = stride(&self.map, self.cursor)
                self.cursor = (self.cursor + step) & self.map.mask
                seen += step
            recount(&self.map)
        return removed

    def forget_holds(self, int64_t now_ms):
        forget_all_holds(&self.map, now_ms)

    def recover(self, uint32_t pid):
        cdef uint32_t conn
        cdef uint8_t held
        cdef int unlocked
        if pid == 0:
            raise ValueError("pid 0: expected the number of a dead process")
        with nogil:
            unlocked = stick_recover(&self.map, pid, &conn, &held)
        return unlocked


cdef StickTable open_table(Region region):
    cdef StickTable table = StickTable.__new__(StickTable)
    cdef StickHeader* header = <StickHeader*>(region.base + SHM_HEADER)
    cdef uint64_t buckets = header.buckets
    if sizeof(StickBucket) != 1024 or sizeof(StickEntry) != 64:
        raise AssertionError("stick table: the compiler laid the structs out otherwise than _stick.pxd says")
    if buckets == 0 or buckets & (buckets - 1) != 0 or buckets > MAX_CAPACITY \
            or not 0 <= <int64_t>(region.size - table_size(buckets)) < PAGE:
        raise ValueError(f"stick table: {region.size} bytes do not hold the {buckets} buckets of its header")
    table.map.pid = pid_page()
    table.region = region
    table.capacity = buckets * STICK_WAYS
    table.map.header = header
    table.map.mask = buckets - 1
    table.map.key0 = header.key0
    table.map.key1 = header.key1
    table.map.used = &header.used
    table.map.mutations = &header.mutations
    table.map.bound = <int32_t*>(region.base + PAGE)
    table.map.touched = region.base + PAGE + STICK_REALS * sizeof(int32_t)
    table.map.buckets = <StickBucket*>(region.base + buckets_offset(buckets))
    return table
