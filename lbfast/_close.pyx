"""The end of a connection: bodies."""

from libc.errno cimport ECONNRESET, ENOBUFS, ENOMEM, EPIPE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from lbfast._conn cimport (
    BY_CLIENT, BY_LBFAST, BY_SERVER, CONN_COUNTED_SERVICE, CONN_OPENED, ENDED_CLIENT_IDLE, ENDED_CLOSE, ENDED_DEAD,
    ENDED_HALF_CLOSE, ENDED_RESET, ENDED_RESOURCE, ENDED_SERVER_IDLE, FLOW_DONE, FLOW_EOF, PHASE_LINGER, SIDE_RESET,
    SIDE_URGENT, Conn, Side, conn_put,
)
from lbfast._counters cimport live_add
from lbfast._pick cimport pick_release
from lbfast._relay cimport TURN_MORE, TURN_WAIT, relay_drop, relay_last
from lbfast._ring cimport EVENT_CLOSE, EVENT_REFUSE
from lbfast._sys cimport (
    IPPROTO_TCP, SIOCOUTQ, TCP_NODELAY, atomic_add64, c_ioctl, sys_close, sys_reset, sys_set,
)
from lbfast._table cimport Service
from lbfast._timer cimport timer_set, timer_stop
from lbfast._worker cimport Worker, ready_push, ready_remove, record, service_line, service_of


cdef int count_service(Worker* w, Conn* c) noexcept nogil:
    """Count it; False when that is beyond max_connections (it is counted all the same)."""
    cdef Service* service = service_of(w, c)
    cdef int64_t total = live_add(w.page, &service_line(w, c).connections, &service.connections, 1)
    atomic_add64(&w.page.worker.connections, 1)
    c.flags |= CONN_COUNTED_SERVICE
    return service.max_connections <= 0 or total <= service.max_connections


cdef bint is_clean(const Conn* c, uint8_t ended) noexcept nogil:
    """May both sides see an orderly end?  Never when bytes would be missing before it."""
    if ended == ENDED_CLOSE:
        return True
    if ended == ENDED_CLIENT_IDLE or ended == ENDED_SERVER_IDLE or ended == ENDED_HALF_CLOSE:
        return c.inbound.held == 0 and c.outbound.held == 0
    return False


cdef bint is_gone(const Side* side) noexcept nogil:
    """Did its RST come, and an event say so?  Then close sends nothing any more."""
    return side.flags & SIDE_RESET and side.flags & SIDE_URGENT and (side.error == ECONNRESET or side.error == EPIPE)


cdef void side_close(Side* side, bint clean) noexcept nogil:
    if side.fd < 0:
        return
    # A side that failed otherwise is not gone for sure: a plain close could look like an orderly end.
    if clean or is_gone(side):
        sys_close(side.fd)
    else:
        sys_reset(side.fd)
    side.fd = -1


cdef void conn_end(Worker* w, uint32_t slot, Conn* c, uint8_t ended, uint8_t by) noexcept nogil:
    cdef bint clean = is_clean(c, ended)
    cdef int32_t error = c.client.error if by == BY_CLIENT else c.server.error
    side_close(&c.client, clean)
    side_close(&c.server, clean)
    relay_drop(w, c)
    timer_stop(&w.wheel, slot)
    ready_remove(w, slot)
    c.ended = ended
    c.by = by
    pick_release(w, slot, c)
    if c.flags & CONN_COUNTED_SERVICE:
        c.flags &= <uint8_t>~CONN_COUNTED_SERVICE
        live_add(w.page, &service_line(w, c).connections, &service_of(w, c).connections, -1)
        atomic_add64(&w.page.worker.connections, -1)
    if c.flags & CONN_OPENED:
        record(w, c, EVENT_CLOSE, error)
    else:
        service_line(w, c).refused += 1
        record(w, c, EVENT_REFUSE, error)
    conn_put(w.slab, slot)


cdef void conn_reset(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    cdef bint by_client = c.client.flags & SIDE_RESET != 0
    if by_client and c.server.flags & SIDE_RESET:
        finish(w, slot, c, True)
        return
    c.phase = PHASE_LINGER
    c.linger_side = BY_SERVER if by_client else BY_CLIENT
    c.half_closed_ms = w.now_ms
    conn_linger(w, slot, c)


cdef void finish(Worker* w, uint32_t slot, Conn* c, bint by_client) noexcept nogil:
    """Name the end by the side that was reset: RST, or given up by keepalive or TCP_USER_TIMEOUT."""
    cdef int32_t error = c.client.error if by_client else c.server.error
    cdef uint8_t ended = ENDED_RESET if error == ECONNRESET or error == EPIPE else ENDED_DEAD
    if error == ENOMEM or error == ENOBUFS:
        w.page.worker.no_memory += 1
        conn_end(w, slot, c, ENDED_RESOURCE, BY_LBFAST)
        return
    conn_end(w, slot, c, ended, BY_CLIENT if by_client else BY_SERVER)


cdef void conn_linger(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    cdef bint by_client = c.linger_side == BY_SERVER
    cdef Side* rest = &c.server if by_client else &c.client
    cdef int turn, queued = 0
    if w.now_ms - c.half_closed_ms >= LINGER_MS:
        finish(w, slot, c, by_client)
        return
    turn = relay_last(w, c, by_client)
    if turn == TURN_MORE:
        ready_push(w, slot)
        return
    if turn == TURN_WAIT:
        timer_set(&w.wheel, slot, c.half_closed_ms + LINGER_MS)
        return
    # A reset would throw away what the kernel has not sent yet, and there is no event for "all acknowledged".
    if not rest.flags & SIDE_RESET and c_ioctl(rest.fd, SIOCOUTQ, &queued) == 0 and queued > 0:
        if (c.inbound.flags if by_client else c.outbound.flags) & (FLOW_EOF | FLOW_DONE) == FLOW_EOF:
            # What was sent as the last waits for a FIN that will not come: setting TCP_NODELAY sends it.
            sys_set(rest.fd, IPPROTO_TCP, TCP_NODELAY, 1)
        timer_set(&w.wheel, slot, w.now_ms + LINGER_STEP_MS)
        return
    finish(w, slot, c, by_client)
