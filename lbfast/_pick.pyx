"""Pick: bodies."""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from lbfast._address cimport address_is_v4
from lbfast._conn cimport (
    CONN_COUNTED_REAL, CONN_PENDING, CONN_STORED, ENDED_CLIENT_LIMIT, ENDED_NO_SERVER, REASON_DOWN, REASON_DRAINED,
    REASON_FALLBACK, REASON_FULL, REASON_HALTED, REASON_NEW, REASON_NONE, REASON_PEER, REASON_PENDING, REASON_PINNED,
    REASON_REDISPATCH, REASON_TABLE, REASON_UNSTORED, Conn,
)
from lbfast._counters cimport live_add
from lbfast._journal cimport journal_is_on, journal_put
from lbfast._sched cimport real_is_full, sched_pick
from lbfast._stick cimport (
    STICK_BOUND, STICK_NO_REAL, STICK_PENDING, STICK_PINNED, StickBucket, StickEntry, StickMap, stick_bind, stick_find,
    stick_hash, stick_hold, stick_insert, stick_lock, stick_lock_at, stick_release, stick_room, stick_unlock,
)
from lbfast._sys cimport atomic_load32, atomic_load64, atomic_store32, atomic_add32, c_write
from lbfast._table cimport (
    ADMIN_DRAIN, ADMIN_HALT, DRAIN_NEW_CHOICE, DRAIN_WHILE_CONNECTED, HEALTH_UP, STAGGER_CUTS, Real, Service,
    drain_part,
    list_count, list_first,
)
from lbfast._worker cimport Worker, real_line, real_of, service_line, service_of

cdef enum:
    CHOICES = 8               # attempts to find one that is not just filling up or being halted
    WORTH_ASKING = 1          # health is woken at the first failed connect


cdef void mask_key(uint8_t* key, const Conn* c, const Service* service) noexcept nogil:
    """The client's address with the service's mask applied."""
    cdef int bits, i
    memcpy(key, c.client_address, 16)
    bits = 96 + service.mask_v4 if address_is_v4(key) else service.mask_v6
    for i in range(16):
        if bits < 8 * (i + 1):
            key[i] &= <uint8_t>(0xFF00 >> (bits - 8 * i)) if bits > 8 * i else 0


cdef int32_t position_of(Worker* w, const Service* service, int32_t real) noexcept nogil:
    """Where a real server stands in its service's list, or -1."""
    cdef uint64_t reals = <uint64_t>atomic_load64(<int64_t*>&service.reals)
    cdef uint32_t first = list_first(reals), i
    for i in range(list_count(reals)):
        if w.table.refs[first + i] == <uint32_t>real:
            return <int32_t>i
    return -1


cdef void mark_tried(Worker* w, Conn* c, int32_t real) noexcept nogil:
    cdef int32_t at = position_of(w, service_of(w, c), real)
    if 0 <= at < 64:
        c.tried |= <uint64_t>1 << at


cdef bint was_tried(Worker* w, const Conn* c, int32_t real) noexcept nogil:
    cdef int32_t at = position_of(w, service_of(w, c), real)
    return 0 <= at < 64 and c.tried >> at & 1


cdef int refusal(const Service* service, const Real* real, const StickEntry* entry) noexcept nogil:
    """Why a known client may not return to its real server (a Reason), or REASON_NONE when it may."""
    if not real.enabled or real.tag != entry.tag:
        return REASON_DOWN
    if real.admin == ADMIN_HALT:
        return REASON_HALTED
    if real.health != HEALTH_UP or (service.passive_fall and real.failures >= service.passive_fall):
        return REASON_DOWN
    if real.admin == ADMIN_DRAIN and not entry.flags & STICK_PINNED:
        if drain_part(entry.key) < atomic_load32(&real.drain_share) & ~<uint32_t>STAGGER_CUTS:
            return REASON_DRAINED
        if real.drain_expired or service.drain_policy == DRAIN_NEW_CHOICE:
            return REASON_DRAINED
        if service.drain_policy == DRAIN_WHILE_CONNECTED and entry.holds == 0:
            return REASON_DRAINED
    if real_is_full(real):
        return REASON_FULL
    return REASON_NONE


cdef int claim(Worker* w, Conn* c, int32_t real, int reason) noexcept nogil:
    """Count the connection at a real server; False when that just filled up or is being halted."""
    cdef Real* r = &w.table.reals[real]
    cdef int64_t total
    # Before the look at admin: a halt sets admin first and cuts second, so one of the two is seen.
    c.cut_seq = atomic_load32(&r.cut_seq)
    if r.admin == ADMIN_HALT:
        return False
    total = live_add(w.page, &real_line(w, real).connections, &r.connections, 1)
    if r.max_connections > 0 and total > r.max_connections:
        live_add(w.page, &real_line(w, real).connections, &r.connections, -1)
        return False
    c.flags |= CONN_COUNTED_REAL
    c.real = real
    c.reason = <uint8_t>reason
    return True


cdef int choose(Worker* w, Conn* c, StickMap* map, const uint8_t* key, int reason) noexcept nogil:
    """Let the scheduler choose and claim it; False when no real server can take the client."""
    cdef Service* service = service_of(w, c)
    cdef uint64_t skip = c.tried
    cdef int32_t real, at
    cdef int _i
    for _i in range(CHOICES):
        real = sched_pick(w.table, service, map.bound if map != NULL else NULL, key, skip, w.now_ms)
        if real < 0:
            return False
        if claim(w, c, real, reason):
            return True
        at = position_of(w, service, real)
        if not 0 <= at < 64:
            return False
        skip |= <uint64_t>1 << at
    return False


cdef int entry_reason(const StickEntry* entry) noexcept nogil:
    if entry.flags & STICK_PINNED:
        return REASON_PINNED
    if entry.state == STICK_PENDING:
        return REASON_PENDING
    return REASON_PEER if entry.reason == REASON_PEER else REASON_TABLE


cdef int pick_known(Worker* w, Conn* c, StickMap* map, StickBucket* bucket, int way,
                    const uint8_t* key) noexcept nogil:
    """The client has an entry.  Under the bucket's lock."""
    cdef Service* service = service_of(w, c)
    cdef StickEntry* entry = &bucket.entry[way]
    cdef int32_t real = <int32_t>entry.real
    cdef int why = refusal(service, &w.table.reals[real], entry) if real >= 0 else REASON_NEW
    cdef bint again = was_tried(w, c, real)
    if why == REASON_NONE and not again and claim(w, c, real, entry_reason(entry)):
        c.flags |= CONN_STORED
        if entry.state == STICK_PENDING:
            c.flags |= CONN_PENDING
        return 0
    c.previous = real
    if why == REASON_NONE:
        why = REASON_REDISPATCH if again else REASON_FULL
    if not choose(w, c, map, key, why):
        return -ENDED_NO_SERVER
    # A detour is not stored: the client's real server is only full, pinned, or failed this once.
    if entry.flags & STICK_PINNED or why == REASON_FULL:
        return 0
    if why == REASON_REDISPATCH and entry.state != STICK_PENDING:
        return 0
    # The new place is proven by its first connect; then the entry counts as bound again.
    stick_bind(map, bucket, way, <uint32_t>c.real, real_of(w, c).tag, STICK_PENDING, <uint8_t>why, w.now_ms)
    c.flags |= CONN_STORED | CONN_PENDING
    return 0


cdef int pick_new(Worker* w, Conn* c, StickMap* map, StickBucket* bucket, uint64_t hash,
                  const uint8_t* key, int64_t timeout, int* way) noexcept nogil:
    """First contact.  Under the bucket's lock; sets the way of the new entry, -1 when there is no room."""
    cdef int reason = REASON_NEW if c.attempts == 0 else REASON_REDISPATCH
    if not choose(w, c, map, key, reason):
        return -ENDED_NO_SERVER
    way[0] = stick_room(map, bucket, timeout, w.now_ms)
    if way[0] < 0:
        c.reason = REASON_UNSTORED
        w.page.worker.stick_full += 1
        return 0
    stick_insert(map, bucket, way[0], hash, key, <uint32_t>c.real, real_of(w, c).tag, STICK_PENDING, <uint8_t>reason,
                 w.now_ms)
    c.flags |= CONN_STORED | CONN_PENDING
    return 0


cdef int over_limit(Worker* w, Conn* c, const Service* service, const StickEntry* entry) noexcept nogil:
    if service.client_limit <= 0 or c.hold.held or entry.holds < service.client_limit:
        return False
    service_line(w, c).client_limited += 1
    return not service.client_limit_report_only


cdef int pick_counted(Worker* w, uint32_t slot, Conn* c, StickMap* map, StickBucket* bucket, int way, uint64_t hash,
                      const uint8_t* key, int64_t timeout) noexcept nogil:
    """A service without persistence but with a limit per client: the entry only counts."""
    if way < 0:
        way = stick_room(map, bucket, timeout, w.now_ms)
        if way >= 0:
            stick_insert(map, bucket, way, hash, key, STICK_NO_REAL, 0, STICK_BOUND, REASON_NONE, w.now_ms)
    if way >= 0 and not c.hold.held:
        stick_hold(map, bucket, way, slot, &c.hold)
    return 0 if choose(w, c, NULL, key, REASON_NEW if c.attempts == 0 else REASON_REDISPATCH) else -ENDED_NO_SERVER


cdef int pick_stored(Worker* w, uint32_t slot, Conn* c, StickMap* map, const uint8_t* key) noexcept nogil:
    cdef Service* service = service_of(w, c)
    cdef int64_t timeout = service.persistence_timeout_ms
    cdef uint64_t hash = stick_hash(map, key)
    cdef StickBucket* bucket = stick_lock(map, hash)
    cdef int way = stick_find(bucket, hash, key, timeout, w.now_ms), rc
    if c.hold.held and bucket == &map.buckets[c.hold.bucket] and bucket.entry[c.hold.way].serial != c.hold.serial:
        # Its entry was cleared meanwhile: the hold is void, and without one a new pending entry would expire at once.
        c.hold.held = 0
    if way >= 0 and over_limit(w, c, service, &bucket.entry[way]):
        stick_unlock(bucket)
        return -ENDED_CLIENT_LIMIT
    if not service.persistence:
        rc = pick_counted(w, slot, c, map, bucket, way, hash, key, timeout)
        stick_unlock(bucket)
        return rc
    if way >= 0:
        rc = pick_known(w, c, map, bucket, way, key)
    else:
        rc = pick_new(w, c, map, bucket, hash, key, timeout, &way)
    # The hold counts the client's connections, wherever this one went.
    if rc == 0 and way >= 0 and not c.hold.held:
        stick_hold(map, bucket, way, slot, &c.hold)
        if journal_is_on(&w.journal) and bucket.entry[way].holds == 1 and bucket.entry[way].state == STICK_BOUND:
            journal_put(&w.journal, c.service, key, w.now_ms)
    stick_unlock(bucket)
    return rc


cdef int pick_real(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    cdef StickMap* map = w.sticks[c.service]
    cdef uint8_t key[16]
    c.flags &= <uint8_t>~(CONN_STORED | CONN_PENDING)
    mask_key(key, c, service_of(w, c))
    if map != NULL:
        return pick_stored(w, slot, c, map, key)
    return 0 if choose(w, c, NULL, key, REASON_NEW if c.attempts == 0 else REASON_REDISPATCH) else -ENDED_NO_SERVER


cdef int pick_fallback(Worker* w, Conn* c) noexcept nogil:
    cdef int32_t real = service_of(w, c).fallback
    if real < 0 or c.reason == REASON_FALLBACK:
        return -ENDED_NO_SERVER
    if not w.table.reals[real].enabled or not claim(w, c, real, REASON_FALLBACK):
        return -ENDED_NO_SERVER
    return 0


cdef void pick_succeeded(Worker* w, Conn* c) noexcept nogil:
    cdef StickMap* map = w.sticks[c.service]
    cdef StickBucket* bucket
    cdef StickEntry* entry
    cdef Real* real = real_of(w, c)
    real_line(w, c.real).opened += 1
    if real.failures:
        atomic_store32(&real.failures, 0)
    if not c.flags & CONN_PENDING or map == NULL or not c.hold.held:
        return
    c.flags &= <uint8_t>~CONN_PENDING
    bucket = stick_lock_at(map, c.hold.bucket)
    entry = &bucket.entry[c.hold.way]
    if entry.serial == c.hold.serial and entry.state == STICK_PENDING and entry.real == <uint32_t>c.real:
        stick_bind(map, bucket, c.hold.way, entry.real, entry.tag, STICK_BOUND, entry.reason, w.now_ms)
        if journal_is_on(&w.journal):
            journal_put(&w.journal, c.service, entry.key, w.now_ms)
    stick_unlock(bucket)


cdef void unclaim(Worker* w, Conn* c) noexcept nogil:
    if c.flags & CONN_COUNTED_REAL:
        c.flags &= <uint8_t>~CONN_COUNTED_REAL
        live_add(w.page, &real_line(w, c.real).connections, &real_of(w, c).connections, -1)


cdef void pick_failed(Worker* w, Conn* c, int32_t error) noexcept nogil:
    cdef Real* real = real_of(w, c)
    cdef uint64_t one = 1
    real_line(w, c.real).connect_failures += 1
    real.last_failure_ms = w.now_ms
    real.last_failure_errno = error
    if atomic_add32(&real.failures, 1) >= WORTH_ASKING and w.health_wake >= 0:
        c_write(w.health_wake, &one, sizeof(one))
    if service_of(w, c).redispatch:
        mark_tried(w, c, c.real)
    unclaim(w, c)


cdef bint pick_was_cut(Worker* w, const Conn* c) noexcept nogil:
    cdef Real* real = real_of(w, c)
    cdef uint32_t share = atomic_load32(&real.drain_share)
    cdef uint8_t key[16]
    if c.cut_seq != atomic_load32(&real.cut_seq):
        return True
    # A pinned client would come back at once, and be cut again and again: it is cut once, at the end.
    if not share & STAGGER_CUTS or real.admin != ADMIN_DRAIN or c.reason == REASON_PINNED:
        return False
    mask_key(key, c, service_of(w, c))
    return drain_part(key) < share & ~<uint32_t>STAGGER_CUTS


cdef void pick_leave(Worker* w, Conn* c) noexcept nogil:
    mark_tried(w, c, c.real)
    unclaim(w, c)


cdef void release_hold(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    cdef StickMap* map = w.sticks[c.service]
    cdef uint8_t key[16]
    # While it is held the entry stays where it is; if an operator cleared it, the key is a stranger's and harmless.
    memcpy(key, map.buckets[c.hold.bucket].entry[c.hold.way].key, 16)
    stick_release(map, slot, &c.hold, w.now_ms)
    if journal_is_on(&w.journal):
        journal_put(&w.journal, c.service, key, w.now_ms)


cdef void pick_release(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    if c.real >= 0:
        unclaim(w, c)
    if c.hold.held and w.sticks[c.service] != NULL:
        release_hold(w, slot, c)


cdef void pick_again(Worker* w, uint32_t slot, Conn* c, bint is_counted, bint is_held) noexcept nogil:
    cdef StickMap* map = w.sticks[c.service]
    cdef StickBucket* bucket
    cdef uint8_t key[16]
    cdef uint64_t hash
    cdef int way
    c.hold.held = 0
    if is_counted:
        live_add(w.page, &real_line(w, c.real).connections, &real_of(w, c).connections, 1)
        c.flags |= CONN_COUNTED_REAL
    if not is_held or map == NULL:
        return
    mask_key(key, c, service_of(w, c))
    hash = stick_hash(map, key)
    bucket = stick_lock(map, hash)
    way = stick_find(bucket, hash, key, INT64_MAX, w.now_ms)
    if way >= 0:
        stick_hold(map, bucket, way, slot, &c.hold)
    stick_unlock(bucket)
