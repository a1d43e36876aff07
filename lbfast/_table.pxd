"""Virtual services, real servers and address lists: structs in shared memory.

Writers: ``control`` the settings, ``health`` the health line, workers the last line.
Settings are plain stores of aligned words: a worker reads old or new, never a mixture.
Lists (real servers, networks) are written to a fresh place and then published
with one 64-bit store of (first << 32 | count), so a reader never sees half of one.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from lbfast._shm cimport Region

cdef enum:
    TABLE_VERSION = 1
    TABLE_SERVICES = 4096
    TABLE_REALS = 32768
    TABLE_REFS = 131072
    TABLE_NETWORKS = 65536
    TABLE_SOURCES = 8
    REASON_SIZE = 96
    STAGGER_PARTS = 1024        # of a staggered drain
    STAGGER_CUTS = 0x40000000   # bit of Real.drain_share

cdef enum Scheduler:
    SCHED_WLC = 0
    SCHED_WRR = 1
    SCHED_HASH = 2

cdef enum DrainPolicy:
    DRAIN_UNTIL_EXPIRY = 0
    DRAIN_WHILE_CONNECTED = 1
    DRAIN_NEW_CHOICE = 2

cdef enum AtLimit:
    LIMIT_QUEUE = 0
    LIMIT_RESET = 1
    LIMIT_FALLBACK = 2

cdef enum Admin:
    ADMIN_ONLINE = 0
    ADMIN_DRAIN = 1
    ADMIN_HALT = 2

cdef enum Health:
    HEALTH_UNKNOWN = 0
    HEALTH_UP = 1
    HEALTH_DOWN = 2

cdef struct Network:
    uint8_t address[16]       # IPv4 mapped
    uint32_t bits             # 0-128 of the mapped form

cdef struct Service:
    uint8_t id[16]
    uint32_t enabled
    int32_t fallback          # real slot or -1
    uint8_t scheduler
    uint8_t persistence
    uint8_t mask_v4
    uint8_t mask_v6
    uint8_t drain_policy
    uint8_t at_limit
    uint8_t redispatch
    uint8_t retries
    uint8_t client_limit_report_only
    uint8_t keepalive
    uint8_t send_proxy
    uint8_t source_count
    uint32_t passive_fall
    uint32_t keepalive_idle_s
    uint32_t keepalive_interval_s
    uint32_t keepalive_count
    uint32_t user_timeout_ms
    int64_t proxy_timeout_ms
    int64_t connect_timeout_ms
    int64_t persistence_timeout_ms
    int64_t client_idle_ms
    int64_t server_idle_ms
    int64_t half_close_ms
    int64_t max_connections
    int64_t client_limit
    uint64_t reals            # list in refs
    uint64_t allow            # lists in networks
    uint64_t deny
    uint64_t trusted
    uint8_t sources[8][16]
    char congestion[16]       # TCP congestion control of the server side, empty = the system's
    uint8_t padding1[24]
    # workers, atomic; a line of its own
    int64_t connections
    int64_t cursor            # turns the starting point of ties and of source addresses
    int64_t virtual_time      # wrr: pass of the last choice
    uint8_t padding2[40]

cdef struct Real:
    # control
    uint8_t id[16]
    uint8_t address[16]       # IPv4 mapped
    uint32_t enabled
    uint32_t tag              # of the id, never 0
    uint32_t service
    uint32_t weight
    int64_t max_connections
    int64_t slow_start_ms
    # -- 64
    uint16_t port
    uint8_t is_ipv6
    uint8_t is_fallback
    uint8_t may_meet_itself   # on loopback, at a port that the kernel may give to a connecting socket
    uint8_t admin
    uint8_t drain_expired
    uint8_t reserved
    uint32_t cut_seq          # connections with an older number are cut
    uint32_t drain_share      # of 1024: clients below it are drained already; STAGGER_CUTS: and cut
    uint8_t padding1[48]
    # -- 128: health
    uint32_t health_seq       # odd while reason is being written
    uint32_t health
    int64_t health_since_ms
    int64_t up_since_ms       # slow start runs from here; by health (up again), control (online again); 0 = none
    char reason[REASON_SIZE]
    uint8_t padding2[8]
    # -- 256: workers, atomic
    int64_t connections
    int64_t turn              # wrr: virtual time of its next turn
    int64_t last_failure_ms
    uint32_t failures         # failed connects in a row
    int32_t last_failure_errno
    uint8_t padding3[32]

cdef struct TableHead:
    uint32_t cut_epoch        # moves with every cut: workers look at it once a turn
    uint32_t next_ref         # next-fit cursors, control only
    uint32_t next_network
    uint32_t services_top     # one past the highest slot ever used
    uint32_t reals_top
    uint8_t padding[44]

cdef struct TableMap:         # process-local view
    TableHead* head
    Service* services
    Real* reals
    uint32_t* refs
    Network* networks

cdef inline uint32_t list_first(uint64_t packed) noexcept nogil:
    return <uint32_t>(packed >> 32)

cdef inline uint32_t list_count(uint64_t packed) noexcept nogil:
    return <uint32_t>packed

cdef inline uint32_t drain_part(const uint8_t* key) noexcept nogil:
    """Which of the STAGGER_PARTS parts of a staggered drain a client belongs to, in every process the same."""
    cdef uint32_t h = 2166136261, first = 2246822507, second = 3266489909, i     # FNV-1a, then a finalizer's mixing
    for i in range(16):
        h = (h ^ key[i]) * 16777619
    h = (h ^ (h >> 16)) * first
    h = (h ^ (h >> 13)) * second
    return (h ^ (h >> 16)) % STAGGER_PARTS

# Is the (mapped) address inside one of the networks of the list?
cdef bint network_holds(const TableMap* table, uint64_t packed, const uint8_t* address) noexcept nogil

cdef class Table:
    cdef Region region
    cdef TableMap map
    cdef tuple given          # ports of connecting sockets, and when that was read
    cdef int64_t given_at_ms
    cdef tuple _given(self)
    cdef _point(self)
    cdef Service* _service(self, long slot) except NULL
    cdef Real* _real(self, long slot) except NULL
    cdef uint64_t _place_refs(self, object slots, uint64_t present) except? 0
    cdef uint64_t _place_networks(self, object cidrs, uint64_t present) except? 0
