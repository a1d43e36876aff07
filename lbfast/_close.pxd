"""The end of a connection: reset forwarded behind the last bytes, everything given back, one record."""

from libc.stdint cimport int32_t, uint8_t, uint32_t

from lbfast._conn cimport Conn
from lbfast._worker cimport Worker

cdef enum:
    LINGER_MS = 30000         # longest wait for the last bytes before a reset
    LINGER_STEP_MS = 16

# End it now.  The record and all that the connection held are gone after this.
cdef void conn_end(Worker* w, uint32_t slot, Conn* c, uint8_t ended, uint8_t by) noexcept nogil
# A side was reset: pass on what it had said, wait until the other side's kernel has sent it, then reset that side.
cdef void conn_reset(Worker* w, uint32_t slot, Conn* c) noexcept nogil
# Go on with that (an edge, or the timer).
cdef void conn_linger(Worker* w, uint32_t slot, Conn* c) noexcept nogil
# The live count of a service that the connection holds from accept to end.
cdef int count_service(Worker* w, Conn* c) noexcept nogil
