"""The loop: bodies, and its Python face."""

from libc.errno cimport EINTR, ETIMEDOUT, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

from lbfast._accept cimport (
    SPECIAL_CONTROL, SPECIAL_INBOX, SPECIAL_LISTENER, accept_batch, inbox_read, listener_watch, listeners_resume,
    proxy_read,
)
from lbfast._close cimport conn_end, conn_linger
from lbfast._conn cimport (
    BY_CLIENT, BY_LBFAST, CONN_NONE, ENDED_CLIENT_IDLE, ENDED_CLOSE, ENDED_CUT, ENDED_HALF_CLOSE,
    ENDED_HALT, ENDED_PROXY, ENDED_RESET, ENDED_SERVER_IDLE, ENDED_STOP, FLOW_EOF, PHASE_CONNECT,
    PHASE_FREE, PHASE_LINGER, PHASE_MOVED, PHASE_PROXY, PHASE_RELAY, SIDE_HANGUP, SIDE_KEEPALIVE, SIDE_READABLE,
    SIDE_RESET, SIDE_URGENT, SIDE_WRITABLE, Conn, Side, Slab,
)
from lbfast._counters cimport Counters
from lbfast._handover cimport LETTER_MAX, handover_give, handover_turn
from lbfast._link cimport is_waiting, link_failed, link_ready, link_relay, link_retry, link_schedule
from lbfast._pick cimport pick_was_cut
from lbfast._pipe cimport pool_close, pool_open
from lbfast._journal cimport Journal
from lbfast._ring cimport Ring
from lbfast._stick cimport StickMap, StickTable, stick_release
from lbfast._sys cimport (
    EPOLL_CLOEXEC, EPOLL_CTL_DEL, EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, FIONREAD, IPPROTO_TCP,
    SO_ERROR, SO_KEEPALIVE, SO_OOBINLINE, SOL_SOCKET, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_USER_TIMEOUT,
    atomic_load32, atomic_store32, atomic_store64, boot_ms, c_epoll_create1, c_epoll_ctl, c_epoll_wait, c_getsockopt,
    c_ioctl, c_close,
    epoll_event, getpid, socklen_t, sys_epoll_add, sys_set,
)
from lbfast._table cimport ADMIN_HALT, Service, Table, TABLE_SERVICES
from lbfast._timer cimport TIMER_NONE, timer_due, timer_set, timer_wait, wheel_close, wheel_open
from lbfast._worker cimport (
    BATCH, BUFFER_SIZE, IDLE_MS, MAX_SEATS, TICK_MS, TURN_MS, Listener, Worker, blocks_close, ready_pop, real_of,
    service_of,
)

import os

LOOP_SIGNAL = LOOP_SIGNAL_
LOOP_CONTROL = LOOP_CONTROL_
LOOP_TICK = LOOP_TICK_
LOOP_DRAINED = LOOP_DRAINED_


cdef void note_events(Conn* c, Side* side, uint32_t events) noexcept nogil:
    """Turn an event into flags of the side."""
    if events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
        side.flags |= SIDE_READABLE
    if events & (EPOLLOUT | EPOLLHUP | EPOLLERR):
        side.flags |= SIDE_WRITABLE
    if events & EPOLLRDHUP:
        side.flags |= SIDE_HANGUP
    if events & EPOLLERR:
        # A reset is no end of stream: let recv say which it is.  EPOLLHUP alone is two ends of stream: every reset
        # leaves an error on the socket until somebody has taken it, and who takes it keeps it.
        side.flags |= SIDE_URGENT
    if events & EPOLLPRI and not side.flags & SIDE_URGENT:
        # Urgent data is relayed in its place in the stream.
        side.flags |= SIDE_URGENT
        sys_set(side.fd, SOL_SOCKET, SO_OOBINLINE, 1)


cdef void note_late_error(Conn* c, Side* side, uint8_t flow_flags) noexcept nogil:
    """A reset after the side's end of stream: no read will meet it any more."""
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    if not flow_flags & FLOW_EOF or side.flags & SIDE_RESET:
        return
    if c_getsockopt(side.fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 and error:
        side.flags |= SIDE_RESET
        side.error = error


cdef void client_early(Worker* w, uint32_t slot, Conn* c, uint32_t events) noexcept nogil:
    """The client moves before its server side stands: has it gone?"""
    cdef int unread = 0
    if events & (EPOLLERR | EPOLLHUP):
        conn_end(w, slot, c, ENDED_RESET, BY_CLIENT)
    elif c.phase == PHASE_PROXY:
        proxy_read(w, slot, c)
    elif events & EPOLLRDHUP and (c_ioctl(c.client.fd, FIONREAD, &unread) != 0 or unread == 0):
        # It said nothing and will say nothing.  With bytes waiting a FIN is only a half-close.
        conn_end(w, slot, c, ENDED_CLOSE, BY_CLIENT)


cdef void on_event(Worker* w, uint64_t data, uint32_t events) noexcept nogil:
    cdef uint32_t slot = (<uint32_t>data) >> 1
    cdef Conn* c = &w.slab.conns[slot]
    cdef bint of_server = data & 1
    cdef Side* side = &c.server if of_server else &c.client
    if c.generation != <uint32_t>(data >> 32) or c.phase == PHASE_FREE or side.fd < 0:
        w.page.worker.stale_events += 1
        return
    note_events(c, side, events)
    if c.phase == PHASE_RELAY:
        if events & EPOLLERR:
            note_late_error(c, side, c.outbound.flags if of_server else c.inbound.flags)
        link_relay(w, slot, c)
    elif c.phase == PHASE_LINGER:
        if events & EPOLLERR:
            # Nothing will be acknowledged any more: no need to wait for it.
            note_late_error(c, side, FLOW_EOF)
        conn_linger(w, slot, c)
    elif not of_server:
        client_early(w, slot, c, events)
    elif events & (EPOLLERR | EPOLLHUP):
        link_ready(w, slot, c, True)
    elif events & EPOLLOUT:
        link_ready(w, slot, c, False)


cdef int on_special(Worker* w, uint32_t data) noexcept nogil:
    cdef uint32_t kind = data >> 24, index = data & 0xFFFFFF
    if kind == SPECIAL_LISTENER:
        if w.listeners[index].fd >= 0 and not w.listeners[index].paused:
            accept_batch(w, &w.listeners[index])
    elif kind == SPECIAL_INBOX:
        inbox_read(w)
    else:
        return LOOP_CONTROL_
    return 0


cdef void set_keepalive(Worker* w, Conn* c) noexcept nogil:
    """Set on the server side only once a connection has lived for a while: short ones are spared five calls."""
    cdef Service* service = service_of(w, c)
    cdef int fd = c.server.fd
    c.server.flags |= SIDE_KEEPALIVE
    if service.user_timeout_ms:
        sys_set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, <int>service.user_timeout_ms)
    if service.keepalive:
        sys_set(fd, IPPROTO_TCP, TCP_KEEPIDLE, <int>service.keepalive_idle_s)
        sys_set(fd, IPPROTO_TCP, TCP_KEEPINTVL, <int>service.keepalive_interval_s)
        sys_set(fd, IPPROTO_TCP, TCP_KEEPCNT, <int>service.keepalive_count)
        sys_set(fd, SOL_SOCKET, SO_KEEPALIVE, 1)


cdef void relay_timer(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    cdef Service* service = service_of(w, c)
    cdef int64_t now = w.now_ms, last = max(c.client.active_ms, c.server.active_ms)
    if not c.server.flags & SIDE_KEEPALIVE:
        set_keepalive(w, c)
    if c.half_closed_ms and now >= max(c.half_closed_ms, last) + service.half_close_ms:
        conn_end(w, slot, c, ENDED_HALF_CLOSE, BY_LBFAST)
    elif now >= c.client.active_ms + service.client_idle_ms:
        conn_end(w, slot, c, ENDED_CLIENT_IDLE, BY_LBFAST)
    elif now >= c.server.active_ms + service.server_idle_ms:
        conn_end(w, slot, c, ENDED_SERVER_IDLE, BY_LBFAST)
    else:
        link_schedule(w, slot, c)


cdef void connect_timer(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    cdef int64_t at = c.connected_ms + service_of(w, c).connect_timeout_ms
    if is_waiting(c):
        link_retry(w, slot, c)
    elif w.now_ms < at:
        timer_set(&w.wheel, slot, at)       # the wheel's horizon came first
    else:
        link_failed(w, slot, c, ETIMEDOUT)


cdef void on_timer(Worker* w, uint32_t slot) noexcept nogil:
    cdef Conn* c = &w.slab.conns[slot]
    if c.phase == PHASE_RELAY:
        relay_timer(w, slot, c)
    elif c.phase == PHASE_CONNECT:
        connect_timer(w, slot, c)
    elif c.phase == PHASE_LINGER:
        conn_linger(w, slot, c)
    elif c.phase == PHASE_PROXY:
        if w.now_ms < c.accepted_ms + service_of(w, c).proxy_timeout_ms:
            timer_set(&w.wheel, slot, c.accepted_ms + service_of(w, c).proxy_timeout_ms)    # beyond the horizon
        else:
            conn_end(w, slot, c, ENDED_PROXY, BY_CLIENT)


cdef void run_ready(Worker* w) noexcept nogil:
    """Another turn for each connection that used up its budget; those that do so again wait for the next."""
    cdef uint32_t turns = w.ready_count, slot
    cdef Conn* c
    while turns and w.ready_first != CONN_NONE:
        turns -= 1
        slot = ready_pop(w)
        c = &w.slab.conns[slot]
        if c.phase == PHASE_RELAY:
            link_relay(w, slot, c)
        elif c.phase == PHASE_LINGER:
            conn_linger(w, slot, c)


cdef bint is_elsewhere(const Conn* c) noexcept nogil:
    """No connection, or one that was offered to another worker."""
    return c.phase == PHASE_FREE or c.phase == PHASE_MOVED


cdef void run_cuts(Worker* w) noexcept nogil:
    """End the connections of real servers that were cut since they were assigned."""
    cdef uint32_t slot
    cdef Conn* c
    w.cut_epoch = atomic_load32(&w.table.head.cut_epoch)
    for slot in range(w.slab.head.top):
        c = &w.slab.conns[slot]
        if is_elsewhere(c) or c.real < 0 or not pick_was_cut(w, c):
            continue
        conn_end(w, slot, c, ENDED_HALT if real_of(w, c).admin == ADMIN_HALT else ENDED_CUT, BY_LBFAST)


cdef int sleep_for(Worker* w) noexcept nogil:
    cdef int64_t limit = TURN_MS if w.slab.head.live else IDLE_MS
    if w.ready_first != CONN_NONE:
        return 0
    if w.any_paused:
        limit = 10
    if w.is_leaving:
        limit = 1       # offers that were taken, places that have become free: nobody wakes us for those
    return <int>timer_wait(&w.wheel, w.now_ms, limit)


cdef int loop_turn(Worker* w, epoll_event* events) noexcept nogil:
    """One batch of events and what is due beside it; 0, or why Python is wanted."""
    cdef int n, i, rc, wanted = 0
    cdef uint32_t slot
    n = c_epoll_wait(w.epfd, events, BATCH, sleep_for(w))
    w.now_ms = boot_ms()
    atomic_store64(&w.page.worker.progress_ms, w.now_ms)
    w.page.worker.loops += 1
    if n < 0:
        return LOOP_SIGNAL_ if errno == EINTR else LOOP_FATAL_
    for i in range(n):
        if events[i].data.u64 >> 32:
            on_event(w, events[i].data.u64, events[i].events)
        else:
            rc = on_special(w, <uint32_t>events[i].data.u64)
            if rc:
                wanted = rc
    run_ready(w)
    slot = timer_due(&w.wheel, w.now_ms)
    while slot != TIMER_NONE:
        on_timer(w, slot)
        slot = timer_due(&w.wheel, w.now_ms)
    if atomic_load32(&w.table.head.cut_epoch) != w.cut_epoch:
        run_cuts(w)
    if w.any_paused:
        listeners_resume(w)
    if w.is_leaving:
        handover_turn(w)
    return wanted


cdef int loop_run(Worker* w) noexcept nogil:
    cdef epoll_event events[256]
    cdef int wanted
    while True:
        wanted = loop_turn(w, events)
        if wanted:
            return wanted
        if w.is_stopping and w.slab.head.live == 0:
            return LOOP_DRAINED_
        if w.now_ms >= w.tick_at_ms:
            w.tick_at_ms = w.now_ms + TICK_MS
            return LOOP_TICK_


cdef class Loop:
    """One worker's event loop."""

    def __cinit__(self):
        memset(&self.worker, 0, sizeof(Worker))
        self.worker.epfd = -1

    def __init__(self, int index, Table table not None, Counters counters not None, Slab slab not None,
                 Ring ring not None, *, int inbox, outboxes, int control, int health_wake,
                 int ring_wake=-1, int pipe_size=262144, int max_pipes=256):
        cdef Worker* w = &self.worker
        cdef int i
        if not 0 <= index < min(counters.workers, MAX_SEATS):
            raise ValueError(f"seat {index}: {counters.workers} are in use, at most {MAX_SEATS}")
        self.keep = [table, counters, slab, ring]
        self.sticks = {}
        w.index = index
        w.table = &table.map
        w.heads = counters.head
        w.pages = counters.pages
        w.page = &counters.pages[index]
        w.slab = &slab.map
        w.ring = &ring.map
        w.health_wake = health_wake
        ring.map.wake = ring_wake
        for i in range(MAX_SEATS):
            w.outboxes[i] = outboxes.get(i, -1) if i != index else -1
        w.now_ms = boot_ms()
        w.tick_at_ms = w.now_ms + TICK_MS
        w.cut_epoch = atomic_load32(&table.map.head.cut_epoch)
        w.ready_first = CONN_NONE
        w.ready_last = CONN_NONE
        self._allocate(max_pipes, pipe_size)
        w.page.worker.pid = getpid()
        w.page.worker.progress_ms = w.now_ms
        atomic_store32(&w.page.worker.takes, 1)
        w.inbox = inbox
        w.control = control
        self._watch(inbox, SPECIAL_INBOX)
        self._watch(control, SPECIAL_CONTROL)

    def _allocate(self, int max_pipes, int pipe_size):
        cdef Worker* w = &self.worker
        w.sticks = <StickMap**>calloc(TABLE_SERVICES, sizeof(void*))
        w.buffer = <char*>malloc(BUFFER_SIZE)
        w.letter = <char*>malloc(LETTER_MAX)
        if w.sticks == NULL or w.buffer == NULL or w.letter == NULL or \
                pool_open(&w.pipes, max_pipes, pipe_size) < 0 or \
                wheel_open(&w.wheel, w.slab.head.capacity, w.now_ms) < 0:
            raise MemoryError("no memory for a worker's loop")
        w.epfd = c_epoll_create1(EPOLL_CLOEXEC)
        if w.epfd < 0:
            raise OSError(errno, f"epoll_create1: {os.strerror(errno)}")

    def _watch(self, int fd, uint64_t kind):
        cdef int rc
        if fd >= 0:
            rc = sys_epoll_add(self.worker.epfd, fd, EPOLLIN, kind << 24)
            if rc < 0:
                raise OSError(-rc, f"epoll_ctl {fd}: {os.strerror(-rc)}")

    def __dealloc__(self):
        cdef Worker* w = &self.worker
        if w.epfd >= 0:
            c_close(w.epfd)
        pool_close(&w.pipes)
        blocks_close(&w.blocks)
        wheel_close(&w.wheel)
        free(w.sticks)
        free(w.buffer)
        free(w.letter)
        free(w.listeners)

    def set_journal(self, Journal journal not None):
        """Note stick-table changes there, for the peer."""
        self.keep += (journal,)
        journal.view(&self.worker.journal, <unsigned int>self.worker.index)

    def set_stick(self, unsigned int service, StickTable table):
        """The stick table of a service; None when it has none any more."""
        cdef Worker* w = &self.worker
        cdef StickTable before
        cdef uint32_t slot
        if service >= TABLE_SERVICES:
            raise IndexError(f"service slot {service}: expected 0 to {TABLE_SERVICES - 1}")
        before = self.sticks.get(service)
        if before is not None and before is not table:
            # A hold names a place of the table it was taken in: give it back there.
            for slot in range(w.slab.head.top):
                if not is_elsewhere(&w.slab.conns[slot]) and w.slab.conns[slot].service == <int32_t>service:
                    stick_release(&before.map, slot, &w.slab.conns[slot].hold, w.now_ms)
        w.sticks[service] = NULL if table is None else &table.map
        self.sticks[service] = table

    def add_listener(self, int fd, uint32_t service, int port):
        """Accept on a listening, non-blocking socket that the supervisor owns."""
        cdef Worker* w = &self.worker
        cdef int index, rc
        cdef Listener* grown
        if service >= TABLE_SERVICES:
            raise IndexError(f"service slot {service}: expected 0 to {TABLE_SERVICES - 1}")
        for index in range(w.listener_count):
            if w.listeners[index].fd < 0:
                break
        else:
            index = w.listener_count
            grown = <Listener*>realloc(w.listeners, (index + 1) * sizeof(Listener))
            if grown == NULL:
                raise MemoryError("no memory for a listener")
            w.listeners = grown
            w.listener_count += 1
        w.listeners[index].fd = fd
        w.listeners[index].service = service
        w.listeners[index].port = port
        w.listeners[index].paused = 0
        rc = listener_watch(w, &w.listeners[index], index)
        if rc < 0:
            w.listeners[index].fd = -1
            raise OSError(-rc, f"epoll_ctl listener {fd}: {os.strerror(-rc)}")

    def remove_listener(self, int fd):
        """Accept there no more; the socket stays open, it is the supervisor's."""
        cdef Worker* w = &self.worker
        cdef int index
        for index in range(w.listener_count):
            if w.listeners[index].fd == fd:
                c_epoll_ctl(w.epfd, EPOLL_CTL_DEL, fd, NULL)
                w.listeners[index].fd = -1
                return
        raise KeyError(f"no listener on descriptor {fd}")

    def watch_control(self, int fd):
        """Another descriptor that makes ``run`` return LOOP_CONTROL; the one before is closed, or not wanted."""
        self.worker.control = fd
        self._watch(fd, SPECIAL_CONTROL)

    def forget_control(self, int fd):
        c_epoll_ctl(self.worker.epfd, EPOLL_CTL_DEL, fd, NULL)

    def tables(self):
        """The stick tables, by service slot."""
        return {slot: table for slot, table in self.sticks.items() if table is not None}

    def run(self):
        """Serve until Python is wanted; why (LOOP_SIGNAL, LOOP_CONTROL, LOOP_TICK, LOOP_DRAINED)."""
        cdef int wanted
        with nogil:
            wanted = loop_run(&self.worker)
        if wanted == LOOP_FATAL_:
            raise OSError(errno, f"epoll_wait: {os.strerror(errno)}")
        return wanted

    def stop_accepting(self):
        cdef Worker* w = &self.worker
        cdef int index
        for index in range(w.listener_count):
            if w.listeners[index].fd >= 0:
                c_epoll_ctl(w.epfd, EPOLL_CTL_DEL, w.listeners[index].fd, NULL)
                w.listeners[index].fd = -1
        w.is_stopping = 1

    def meet(self, int seat, Slab slab not None, int outbox=-1):
        """Another worker's connections, and its inbox (the descriptor must stay open)."""
        cdef Worker* w = &self.worker
        if not 0 <= seat < MAX_SEATS:
            raise IndexError(f"seat {seat}: expected 0 to {MAX_SEATS - 1}")
        self.keep.append(slab)
        w.slabs[seat] = &slab.map
        if seat != w.index and outbox >= 0:
            w.outboxes[seat] = outbox

    def leave(self, targets, bint apart=False):
        """Accept no more, and give every connection to workers on these seats; ``run`` ends with LOOP_DRAINED.

        ``apart``: their shared memory is another one, of another layout.  ``targets``: seat -> its inbox then.
        """
        cdef Worker* w = &self.worker
        cdef int i, seat
        if not 0 < len(targets) < MAX_SEATS:
            raise ValueError(f"{len(targets)} seats to leave to: expected 1 to {MAX_SEATS - 1}")
        atomic_store32(&w.page.worker.takes, 0)
        self.stop_accepting()
        w.is_apart = apart
        for i, seat in enumerate(targets):
            if not 0 <= seat < MAX_SEATS or (seat == w.index and not apart):
                raise IndexError(f"seat {seat}: expected another one, 0 to {MAX_SEATS - 1}")
            if apart:
                w.outboxes[seat] = targets[seat]
            w.targets[i] = seat
            w.sent[i] = 0 if apart else w.pages[seat].worker.moved_in
        w.target_count = len(targets)
        w.is_leaving = 1

    def give_away(self, services, int outbox, uint8_t ended):
        """Send connections of these service slots to another process and forget them; their records say ``ended``.

        How many cannot go (they are not established, or about to end); -1 when ``outbox`` is full: again, later.
        """
        cdef Worker* w = &self.worker
        cdef Conn* c
        cdef uint32_t slot
        cdef int stay = 0
        for slot in range(w.slab.head.top):
            c = &w.slab.conns[slot]
            if is_elsewhere(c) or c.service not in services:
                continue
            if c.phase != PHASE_RELAY or c.client.flags & SIDE_RESET or c.server.flags & SIDE_RESET:
                stay += 1
            elif not handover_give(w, slot, c, outbox, ended):
                return -1
        return stay

    def close_all(self, uint8_t ended):
        """End every connection; how many."""
        cdef Worker* w = &self.worker
        cdef uint32_t slot
        cdef int count = 0
        for slot in range(w.slab.head.top):
            if not is_elsewhere(&w.slab.conns[slot]):
                conn_end(w, slot, &w.slab.conns[slot], ended, BY_LBFAST)
                count += 1
        return count

    def close(self):
        """End what still runs, then close the epoll descriptor and the pipes."""
        if self.worker.pipes.pipes != NULL:
            self.close_all(ENDED_STOP)
        if self.worker.epfd >= 0:
            c_close(self.worker.epfd)
            self.worker.epfd = -1
        pool_close(&self.worker.pipes)
