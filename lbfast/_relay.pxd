"""Relay: move bytes both ways between the two sides of one connection, until both block.

Facts about the kernel that shape this file
- Both sockets are registered edge-triggered for everything, once.  An edge sets
  SIDE_READABLE or SIDE_WRITABLE; only EAGAIN or a short read clears it.
- recv shorter than asked has emptied the socket.  When the FIN was known to be in the
  queue before that recv (SIDE_HANGUP), the short read was also the last: no second call
  is needed to see the end.  Urgent data makes recv stop early, so SIDE_URGENT
  switches this off.
- splice from a socket says EAGAIN both when the socket is empty and when the pipe has no
  place left, and a pipe runs out of places long before bytes when segments are small.  So a
  pipe is always emptied before it is filled again: then EAGAIN can only mean an empty socket.
- splice with length 0 returns 0, the same as end of stream: it is never called so.
- splice stops before urgent data, whatever SO_OOBINLINE says, with EAGAIN, or with 0 when a
  FIN is behind it.  So a side with urgent data is copied, and a 0 from splice is only
  believed when recv says it too.
- After FIN and RST, recv says 0 for ever: SO_ERROR alone tells of the RST.
- After data and RST, recv gives the data, then ECONNRESET once, then 0, which looks like a
  clean end.  send consumes the same error.  SIDE_RESET keeps the first one.
- splice into a reset socket raises SIGPIPE (there is no MSG_NOSIGNAL): it is ignored.

Direction by direction the relay starts with recv and send through the worker's one
buffer.  After LARGE_READS full buffers it splices through a pipe, which it owns only
while bytes are in it.  Short splices, several more than long ones, send it back to copying.
"""

from libc.stdint cimport uint32_t

from lbfast._conn cimport Conn
from lbfast._worker cimport Worker

cdef enum:
    LARGE_READS = 1           # the first full buffer is enough: splice from then on
    LARGE_MOST = 4            # what went well so often survives some small pieces at the end of an answer
    SMALL_SPLICE = 8192       # less than this in one go: copying is cheaper
    LASTING = 4096            # a client that has sent this much goes on: worth one call to set its server side up
    BUDGET = 1048576          # bytes a direction and a turn: nobody starves

cdef enum Turn:
    TURN_WAIT = 0             # both directions wait for an edge
    TURN_MORE = 1             # the budget is used up: go on next turn
    TURN_CLOSED = 2           # both sides said all, all was passed on
    TURN_RESET = 3            # a side was reset; what it said before has been taken from it
    TURN_NO_MEMORY = 4

# Pump both directions and forward ends of stream.
cdef int relay_turn(Worker* w, Conn* c) noexcept nogil
# Pump only what the reset side had said; TURN_CLOSED when all of it was handed to the other socket.
cdef int relay_last(Worker* w, Conn* c, bint from_client) noexcept nogil
# Give back whatever both directions hold.
cdef void relay_drop(Worker* w, Conn* c) noexcept nogil
