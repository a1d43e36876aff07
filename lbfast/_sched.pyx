"""The schedulers: weighted least connections, weighted round robin, weighted rendezvous hash."""

from libc.math cimport log
from libc.string cimport memcpy

from lbfast._sys cimport atomic_add64, atomic_load64, atomic_store64
from lbfast._table cimport ADMIN_ONLINE, HEALTH_UP, SCHED_HASH, SCHED_WRR, list_count, list_first

from lbfast._table import mapped

cdef enum:
    SCALE = 65536             # one unit of load, and of virtual time at weight 1
    BOUND_PERCENT = 125       # a hash choice may carry this share of its fair load


cdef bint real_is_full(const Real* real) noexcept nogil:
    return real.max_connections > 0 and atomic_load64(&real.connections) >= real.max_connections


cdef bint sched_open(const Service* service, const Real* real) noexcept nogil:
    if not real.enabled or real.admin != ADMIN_ONLINE or real.health != HEALTH_UP or real.weight == 0:
        return False
    if service.passive_fall and real.failures >= service.passive_fall:
        return False
    return not real_is_full(real)


cdef int64_t effective_weight(const Real* real, int64_t now_ms) noexcept nogil:
    """The weight in 256ths, growing linearly from a tenth during slow start."""
    # Never 0, even when the weight became 0 after sched_open looked: the callers divide by it.
    cdef int64_t full = max(<int64_t>1, <int64_t>real.weight * 256)
    cdef int64_t slow = atomic_load64(&real.slow_start_ms), up = atomic_load64(&real.up_since_ms)
    if slow <= 0 or up == 0 or now_ms - up >= slow:
        return full
    return max(full * (now_ms - up) // slow, full * 26 // 256, <int64_t>1)


cdef int64_t load_of(const Real* real, const int32_t* bound, uint32_t slot) noexcept nogil:
    """Open connections, or bound clients when there are more: a client without a connection will be back."""
    cdef int64_t connections = atomic_load64(&real.connections)
    if bound != NULL and bound[slot] > connections:
        return bound[slot]
    return connections


cdef int32_t pick_wlc(TableMap* table, Service* service, uint64_t reals, const int32_t* bound, uint64_t tried,
                      int64_t now_ms) noexcept nogil:
    cdef uint32_t first = list_first(reals), count = list_count(reals)
    cdef uint32_t i, at, slot, start
    cdef int64_t score, best = 0
    cdef int32_t chosen = -1
    cdef Real* real
    # Equal loads take turns: every choice starts one place further on.
    start = <uint32_t>(<uint64_t>atomic_add64(&service.cursor, 1) % count)
    for i in range(count):
        at = start + i
        if at >= count:
            at -= count
        if at < 64 and tried >> at & 1:
            continue
        slot = table.refs[first + at]
        real = &table.reals[slot]
        if not sched_open(service, real):
            continue
        score = (load_of(real, bound, slot) + 1) * SCALE * 256 // effective_weight(real, now_ms)
        if chosen < 0 or score < best:
            chosen = slot
            best = score
    return chosen


cdef int32_t pick_wrr(TableMap* table, Service* service, uint64_t reals, uint64_t tried, int64_t now_ms) noexcept nogil:
    """Stride scheduling (Waldspurger and Weihl, 1995): the smallest virtual time is next."""
    cdef uint32_t first = list_first(reals), count = list_count(reals)
    cdef uint32_t at
    cdef int64_t floor = atomic_load64(&service.virtual_time), turn, best = 0
    cdef int32_t chosen = -1
    cdef Real* real
    for at in range(count):
        if at < 64 and tried >> at & 1:
            continue
        real = &table.reals[table.refs[first + at]]
        if not sched_open(service, real):
            continue
        # One that was away does not catch up: its turn is now at the earliest.
        turn = max(atomic_load64(&real.turn), floor)
        if chosen < 0 or turn < best:
            chosen = table.refs[first + at]
            best = turn
    if chosen >= 0:
        real = &table.reals[chosen]
        atomic_store64(&service.virtual_time, best)
        atomic_store64(&real.turn, best + <int64_t>SCALE * 256 * 256 // effective_weight(real, now_ms))
    return chosen


cdef uint64_t mix(uint64_t h) noexcept nogil:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, 2014)."""
    h = (h ^ (h >> 30)) * <uint64_t>0xBF58476D1CE4E5B9ULL
    h = (h ^ (h >> 27)) * <uint64_t>0x94D049BB133111EBULL
    return h ^ (h >> 31)


cdef uint64_t fold(uint64_t h, const uint8_t* data) noexcept nogil:
    cdef uint64_t words[2]
    memcpy(words, data, 16)
    return mix(mix(h ^ words[0]) ^ words[1])


cdef double distance(const uint8_t* service_id, const uint8_t* key, const uint8_t* real_id,
                     double weight) noexcept nogil:
    """Weighted rendezvous (Schindelhauer and Schomaker, 2005): -ln(u) / weight, the smallest wins."""
    cdef uint64_t h = fold(fold(fold(<uint64_t>0x9E3779B97F4A7C15ULL, service_id), key), real_id)
    cdef double u = (<double>(h >> 11) + 1.0) / 9007199254740993.0
    return -log(u) / weight


cdef int32_t pick_hash(TableMap* table, Service* service, uint64_t reals, const int32_t* bound, const uint8_t* key,
                       uint64_t tried, int64_t now_ms) noexcept nogil:
    """The nearest real server whose load is within BOUND_PERCENT of its fair share; else the nearest."""
    cdef uint32_t first = list_first(reals), count = list_count(reals)
    cdef uint32_t at, slot
    cdef int64_t total = 1, weights = 0, weight, load, fair
    cdef int32_t nearest = -1, chosen = -1
    cdef double d, d_nearest = 0, d_chosen = 0
    cdef Real* real
    for at in range(count):
        slot = table.refs[first + at]
        real = &table.reals[slot]
        if sched_open(service, real):
            total += load_of(real, bound, slot)
            weights += effective_weight(real, now_ms)
    # Some may come up between the two walks.
    weights = max(<int64_t>1, weights)
    for at in range(count):
        if at < 64 and tried >> at & 1:
            continue
        slot = table.refs[first + at]
        real = &table.reals[slot]
        if not sched_open(service, real):
            continue
        weight = effective_weight(real, now_ms)
        d = distance(service.id, key, real.id, <double>weight)
        if nearest < 0 or d < d_nearest:
            nearest = slot
            d_nearest = d
        load = load_of(real, bound, slot)
        # A fair share below 4 would let two nodes disagree over nothing.
        fair = max(<int64_t>4, (total * weight * BOUND_PERCENT + weights * 100 - 1) // (weights * 100))
        if load < fair and (chosen < 0 or d < d_chosen):
            chosen = slot
            d_chosen = d
    return chosen if chosen >= 0 else nearest


cdef int32_t sched_pick(TableMap* table, Service* service, const int32_t* bound, const uint8_t* key, uint64_t tried,
                        int64_t now_ms) noexcept nogil:
    # Read once: the list may be replaced, or emptied, meanwhile.
    cdef uint64_t reals = <uint64_t>atomic_load64(<int64_t*>&service.reals)
    if list_count(reals) == 0:
        return -1
    if service.scheduler == SCHED_WRR:
        return pick_wrr(table, service, reals, tried, now_ms)
    if service.scheduler == SCHED_HASH:
        return pick_hash(table, service, reals, bound, key, tried, now_ms)
    return pick_wlc(table, service, reals, bound, tried, now_ms)


def rendezvous(bytes service_id not None, str client not None, list reals not None):
    """Index of the real server that ``hash`` would choose when loads do not matter.

    ``reals``: (16-byte id, weight) of those that may be chosen; -1 when there is none.
    """
    cdef bytes key = mapped(client), real_id
    cdef double d, best = 0
    cdef int i, chosen = -1
    for i, (real_id, weight) in enumerate(reals):
        if weight <= 0:
            continue
        d = distance(<const uint8_t*>service_id, <const uint8_t*>key, <const uint8_t*>real_id, weight * 256)
        if chosen < 0 or d < best:
            chosen = i
            best = d
    return chosen
