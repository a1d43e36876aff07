"""Accept: new connections from listeners and from other workers' hands."""

from libc.stdint cimport uint32_t

from lbfast._conn cimport Conn
from lbfast._worker cimport Listener, Worker

cdef enum:
    UNEVEN_BY = 16            # connections more than the least loaded worker before one is handed over,
    UNEVEN_SHARE = 16         # plus a sixteenth of what that worker has
    FRESH_MS = 1000           # a worker whose loop has not turned for so long gets nothing

# epoll data of what is not a connection: generation 0, kind and index below.
cdef enum Special:
    SPECIAL_LISTENER = 0
    SPECIAL_INBOX = 1
    SPECIAL_CONTROL = 2

cdef void accept_batch(Worker* w, Listener* listener) noexcept nogil
cdef void inbox_read(Worker* w) noexcept nogil
cdef int listener_watch(Worker* w, Listener* listener, int index) noexcept nogil
# Put rested listeners back to work.
cdef void listeners_resume(Worker* w) noexcept nogil
# A trusted sender's connection: read its PROXY header.
cdef void proxy_read(Worker* w, uint32_t slot, Conn* c) noexcept nogil
