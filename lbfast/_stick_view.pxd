"""What the stick table looks like from outside: sizes, the pid's page, expiry, networks, entries as dicts.

Inlines for _stick.pyx alone.
"""

from libc.errno cimport errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from lbfast._address cimport address_format, address_parse
from lbfast._stick cimport (
    STICK_BOUND, STICK_NO_REAL, STICK_PEER, STICK_PENDING, STICK_PINNED, STICK_REALS, STICK_WAYS, StickBucket,
    StickEntry,
)
from lbfast._stick_lock cimport PAGE_BUCKETS

cdef extern from "<sys/mman.h>" nogil:
    int PROT_READ
    int PROT_WRITE
    int MAP_PRIVATE
    int MAP_ANONYMOUS
    int MADV_WIPEONFORK
    void* MAP_FAILED
    void* mmap(void* address, size_t size, int protection, int flags, int fd, long offset)
    int munmap(void* address, size_t size)
    int madvise(void* address, size_t size, int advice)

cdef enum:
    PAGE = 4096

cdef inline uint64_t buckets_for(size_t capacity):
    """A power of two that fills to at most three quarters when ``capacity`` entries are spread over it."""
    cdef uint64_t buckets = 1
    while buckets * STICK_WAYS * 3 < capacity * 4:
        buckets *= 2
    return buckets

cdef inline uint64_t touched_size(uint64_t buckets):
    return (buckets // PAGE_BUCKETS // 8 + PAGE) & ~<uint64_t>(PAGE - 1)

cdef inline uint64_t buckets_offset(uint64_t buckets):
    # Page 0: both headers; then bound, touched, buckets, each on its own pages.
    return PAGE + STICK_REALS * sizeof(int32_t) + touched_size(buckets)

cdef inline uint64_t table_size(uint64_t buckets):
    return buckets_offset(buckets) + buckets * sizeof(StickBucket)

cdef inline uint32_t* pid_page() except NULL:
    """The page of StickMap.pid: the kernel zeroes it in the child of a fork."""
    cdef void* page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if page == MAP_FAILED:
        raise OSError(errno, "stick table: no memory for the page of the pid")
    if madvise(page, PAGE, MADV_WIPEONFORK) != 0:
        raise OSError(errno, "stick table: MADV_WIPEONFORK refused; Linux 4.14 or later is needed")
    return <uint32_t*>page

cdef inline void pid_page_free(uint32_t* page) noexcept nogil:
    munmap(page, PAGE)

cdef inline bint is_vacant(const StickBucket* bucket) noexcept nogil:
    cdef int way
    for way in range(STICK_WAYS):
        if bucket.mark[way] != 0:
            return False
    return True

cdef inline bint is_held(const StickEntry* entry) noexcept nogil:
    return entry.holds != 0 or entry.flags & (STICK_PINNED | STICK_PEER) != 0

cdef inline bint is_expired(const StickEntry* entry, int64_t timeout_ms, int64_t now) noexcept nogil:
    if is_held(entry):
        return False
    # Nothing is known of a reservation that nobody holds: its connect failed or its worker died.
    return entry.state == STICK_PENDING or now - entry.closed_ms > timeout_ms

cdef inline bint has_prefix(const uint8_t* key, const uint8_t* wanted, int bits) noexcept nogil:
    cdef int whole = bits // 8
    cdef int rest = bits % 8
    if memcmp(key, wanted, whole) != 0:
        return False
    return rest == 0 or (key[whole] ^ wanted[whole]) >> (8 - rest) == 0

cdef inline int parse_network(str text, uint8_t* wanted) except -1:
    """Prefix length among 128 bits; the address goes to ``wanted``."""
    from ipaddress import ip_network
    network = ip_network(text, strict=False)
    address_parse(str(network.network_address), wanted)
    return network.prefixlen + (96 if network.version == 4 else 0)

cdef inline dict format_entry(const StickEntry* entry):
    return {
        "client": address_format(entry.key),
        "real": entry.real if entry.real != STICK_NO_REAL else -1,
        "tag": entry.tag,
        "state": "bound" if entry.state == STICK_BOUND else "pending",
        "pinned": entry.flags & STICK_PINNED != 0,
        "reason": entry.reason,
        "holds": entry.holds,
        "created_ms": entry.created_ms,
        "since_ms": entry.since_ms,
        "closed_ms": entry.closed_ms,
        "previous": entry.previous if entry.previous != STICK_NO_REAL else -1,
        "previous_reason": entry.previous_reason,
    }
