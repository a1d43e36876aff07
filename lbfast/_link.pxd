"""Connect: from a client's first sight to a relayed connection, retries and redispatch included."""

from libc.stdint cimport int32_t, uint32_t

from lbfast._conn cimport Conn
from lbfast._worker cimport Worker

cdef enum:
    RETRY_MS = 1000           # pause before the same real server is tried again

cdef inline bint is_waiting(const Conn* c) noexcept nogil:
    """Between two attempts: a real server is claimed, no socket is open."""
    return c.server.fd < 0

# Pick a real server and connect to it.
cdef void link_start(Worker* w, uint32_t slot, Conn* c) noexcept nogil
# Connect to the fallback server, or refuse (the service is at its limit).
cdef void link_fallback(Worker* w, uint32_t slot, Conn* c) noexcept nogil
# The pause before another attempt at the claimed real server is over.
cdef void link_retry(Worker* w, uint32_t slot, Conn* c) noexcept nogil
# The server socket had its first event: connected, or failed with ``error`` (0 = ask the socket).
cdef void link_ready(Worker* w, uint32_t slot, Conn* c, bint failed) noexcept nogil
cdef void link_failed(Worker* w, uint32_t slot, Conn* c, int32_t error) noexcept nogil
# Both sides stand: relay until they wait.
cdef void link_relay(Worker* w, uint32_t slot, Conn* c) noexcept nogil
# When must this connection be looked at again?
cdef void link_schedule(Worker* w, uint32_t slot, Conn* c) noexcept nogil
