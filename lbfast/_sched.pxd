"""Choose a real server for a new client: wlc, wrr, hash.

All three weigh by the effective weight (slow start included) and look only at real
servers that may take a new client now.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from lbfast._table cimport Real, Service, TableMap

# May this real server take a client that has no claim to it?  A full or suspect one may not.
cdef bint sched_open(const Service* service, const Real* real) noexcept nogil
cdef bint real_is_full(const Real* real) noexcept nogil
# Slot of the chosen real server, or -1.  ``tried``: bit per position in the service's list to leave out;
# ``bound``: clients per real slot in the stick table, or NULL; ``key``: 16 bytes of the client's address.
cdef int32_t sched_pick(TableMap* table, Service* service, const int32_t* bound, const uint8_t* key, uint64_t tried,
                        int64_t now_ms) noexcept nogil
