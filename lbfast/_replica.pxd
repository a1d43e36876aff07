"""Stick-table entries as records for the peer: read from the tables here, put into the tables there.

Times travel as ages, real servers and services as the sender's slots, which the
receiver maps by id.  Used by the ha process alone; a bucket is locked for one entry
at a time.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from lbfast._stick cimport StickMap

cdef enum ReplicaFlag:
    REPLICA_HELD = 1          # the client has open connections there
    REPLICA_PINNED = 2
    REPLICA_REMOVED = 4       # there is no such entry any more

cdef enum ReplicaWalk:        # over all entries of a table
    WALK_DOUBT                # before a resync: every entry is in doubt
    WALK_REMOVE               # after it: what the peer does not have goes
    WALK_RELEASE              # at a takeover: what the peer's connections held, they hold no more

cdef struct ReplicaRecord:    # 44 bytes, little endian as every machine this runs on
    uint8_t key[16]
    uint32_t service          # slot of the sender
    uint32_t real             # slot of the sender
    uint32_t created_age_ms
    uint32_t since_age_ms
    uint32_t closed_age_ms
    uint32_t previous         # slot of the sender, or STICK_NO_REAL
    uint8_t flags
    uint8_t reason
    uint8_t previous_reason
    uint8_t reserved

cdef class Replica:
    cdef dict tables          # service slot -> StickTable
    cdef StickMap* maps[4096]  # COUNTERS_SERVICES
    cdef uint32_t* services   # the peer's service slot -> ours, NO_REAL without
    cdef uint32_t* reals      # the peer's real slot -> ours, NO_REAL without
    cdef uint32_t* tags       # by our real slot
    cdef readonly int64_t applied
    cdef readonly int64_t unknown    # records of services or real servers that are not here
    cdef readonly int64_t kept       # records for clients that have connections here: ours counts
    cdef readonly int64_t no_room
    cdef int64_t _walk(self, ReplicaWalk walk, int64_t now) noexcept
    cdef StickMap* _map_of(self, const ReplicaRecord* record) noexcept nogil
    cdef void _fetch(self, const ReplicaRecord* record, bint is_near) noexcept nogil
    cdef void _apply(self, const ReplicaRecord* record, int64_t now) noexcept nogil
