"""The loop: epoll events, timers and cuts, turned into the phases of a connection.

Facts about epoll that shape this file
- Both sockets of a connection are registered once, edge-triggered, for everything; no
  epoll_ctl follows.  A registration dies with the last descriptor of its open file, and
  nobody else holds one until a connection is handed over: close is the only other place that ends it.
- epoll_event.data carries generation, slot and side.  A connection that ended earlier in
  the same batch has another generation by now, or phase FREE: its event is dropped.
- EPOLLERR and EPOLLHUP come unasked.  EPOLLRDHUP says that the peer's FIN is in the
  queue, behind bytes that may still be unread; after a reset it comes too, with EPOLLERR.
- Listeners, the inbox and the control descriptor are level-triggered.

The loop returns to Python for a signal (EINTR), a control message, a tick, and when it
has nothing left to do; Python is never called from inside it.
"""

from lbfast._worker cimport Worker

cdef enum LoopReturn:
    LOOP_SIGNAL_ = 1
    LOOP_CONTROL_ = 2
    LOOP_TICK_ = 3
    LOOP_DRAINED_ = 4
    LOOP_FATAL_ = 5

cdef int loop_run(Worker* w) noexcept nogil

cdef class Loop:
    cdef Worker worker
    cdef object keep          # the Python owners of the shared memory that `worker` points into
    cdef dict sticks
    cdef int fatal
