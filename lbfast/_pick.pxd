"""Pick: which real server a connection goes to, and why.

The stick-table entry is written in state pending, under its bucket's lock, before the
connect.  A second connection of the same client, on any worker, finds it and follows.
If the connect fails, whoever comes first decides anew and moves the pending entry;
the others find it moved and follow again.  The first success binds it.
"""

from libc.stdint cimport int32_t, uint32_t

from lbfast._conn cimport Conn
from lbfast._worker cimport Worker

# Choose (or, after a failed connect, choose again): 0 and c.real, c.reason are set and counted;
# or -(an Ended value): ENDED_NO_SERVER, ENDED_CLIENT_LIMIT.
cdef int pick_real(Worker* w, uint32_t slot, Conn* c) noexcept nogil
# The fallback server, uncounted in the table and never stored: 0 or -ENDED_NO_SERVER.
cdef int pick_fallback(Worker* w, Conn* c) noexcept nogil
# The connect succeeded: the pending entry is bound.
cdef void pick_succeeded(Worker* w, Conn* c) noexcept nogil
# The connect failed with this errno: the failure is noted and c.real given back.
cdef void pick_failed(Worker* w, Conn* c, int32_t error) noexcept nogil
# This machine has no source port left towards c.real: try another one, nobody is to blame.
cdef void pick_leave(Worker* w, Conn* c) noexcept nogil
# A connection that came from a worker whose memory is not ours: count it at its real server, and hold the entry.
cdef void pick_again(Worker* w, uint32_t slot, Conn* c, bint is_counted, bint is_held) noexcept nogil
# Must a connection end because its real server was cut since it was assigned, or its turn in a staggered drain came?
cdef bint pick_was_cut(Worker* w, const Conn* c) noexcept nogil
# The connection ends: give back its hold, and its place at the real server.
cdef void pick_release(Worker* w, uint32_t slot, Conn* c) noexcept nogil
