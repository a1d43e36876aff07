"""Hand over: bodies."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from lbfast._close cimport conn_end, count_service
from lbfast._conn cimport (
    BY_LBFAST, CONN_CLAIMING, CONN_COUNTED_REAL, CONN_COUNTED_SERVICE, CONN_QUEUED, ENDED_CUT, ENDED_HALT,
    ENDED_MOVED, ENDED_RESOURCE, ENDED_WORKER_DIED, OFFER_NONE, OFFER_TAKEN, OFFER_VOID, PHASE_FREE, PHASE_LINGER,
    PHASE_MOVED, PHASE_PROXY, PHASE_RELAY, Conn, Flow, Side, conn_get, conn_put, offer_key,
)
from lbfast._counters cimport WorkerLine, WorkerPage, live_move
from lbfast._link cimport RETRY_MS, is_waiting, link_schedule
from lbfast._pick cimport pick_again
from lbfast._pipe cimport pipe_adopt, pipe_kill
from lbfast._sys cimport (
    CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_SPACE, EPOLL_CTL_DEL, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP,
    MSG_DONTWAIT, MSG_NOSIGNAL, SCM_RIGHTS, SIOCOUTQ, SOL_SOCKET, atomic_load32, atomic_load64, atomic_swap32,
    c_epoll_ctl, c_ioctl, c_sendmsg, cmsghdr, fence_release, iovec, msghdr, sys_close, sys_epoll_add, sys_reset,
)
from lbfast._table cimport ADMIN_HALT
from lbfast._timer cimport timer_set, timer_stop
from lbfast._worker cimport Block, Worker, block_drop, block_keep, ready_push, ready_remove, real_of, service_of

cdef enum:
    SPARE = 16                    # a taker keeps one record of so many for new clients
    LOST_MS = 2000                # a living taker claims at once what it has received

cdef union Control:
    cmsghdr head
    char space[128]


# ---- giving ----------------------------------------------------------------------------------------------------------

cdef int64_t load_of(Worker* w, int target) noexcept nogil:
    """Connections of a target, what is on its way to it included; -1 when it has no room."""
    cdef int seat = w.targets[target]
    cdef WorkerLine* line = &w.pages[seat].worker
    cdef int64_t load
    if w.outboxes[seat] < 0:
        return -1
    if w.is_apart:
        return w.sent[target]
    if w.slabs[seat] == NULL or not atomic_load32(&line.taken):
        return -1
    load = atomic_load64(&line.connections)
    load += max(<int64_t>0, w.sent[target] - atomic_load64(&line.moved_in))
    return load if load < w.slabs[seat].head.capacity - w.slabs[seat].head.capacity // SPARE else -1


cdef int target_of(Worker* w) noexcept nogil:
    """The least loaded of the seats that this worker leaves to, or -1 while all of them are full."""
    cdef int i, best = -1
    cdef int64_t load, least = 0
    for i in range(w.target_count):
        load = load_of(w, i)
        if load < 0:
            continue
        if best < 0 or load < least:
            best = i
            least = load
    return best


cdef void fill_side(MovedSide* out, const Side* side) noexcept nogil:
    out.active_ms = side.active_ms
    out.error = side.error
    out.flags = side.flags


cdef void fill_flow(MovedFlow* out, const Flow* flow) noexcept nogil:
    out.bytes = flow.bytes
    out.held = flow.held
    out.flags = flow.flags
    out.large = flow.large
    out.carrier = CARRIER_NONE
    if flow.held:
        out.carrier = CARRIER_BLOCK if flow.block >= 0 else CARRIER_PIPE


cdef void fill(Worker* w, Moved* m, uint32_t slot, const Conn* c) noexcept nogil:
    memset(m, 0, sizeof(Moved))
    m.letter = LETTER_MOVED
    m.size = sizeof(Moved)
    m.phase = c.phase
    m.flags = c.flags & <uint8_t>~CONN_QUEUED
    m.reason = c.reason
    m.attempts = c.attempts
    m.linger_side = c.linger_side
    m.by = c.by
    m.has_server = c.server.fd >= 0
    m.is_fresh = w.is_apart
    m.held = c.hold.held
    m.hold_way = c.hold.way
    m.hold_bucket = c.hold.bucket
    m.hold_serial = c.hold.serial
    fill_side(&m.client, &c.client)
    fill_side(&m.server, &c.server)
    fill_flow(&m.inbound, &c.inbound)
    fill_flow(&m.outbound, &c.outbound)
    m.service = c.service
    m.real = c.real
    m.cut_seq = c.cut_seq
    m.previous = c.previous
    m.origin = w.index
    m.origin_slot = slot
    m.origin_generation = c.generation
    m.connect_ms = c.connect_ms
    m.id = c.id
    m.tried = c.tried
    memcpy(m.client_address, c.client_address, 16)
    memcpy(m.wire_address, c.wire_address, 16)
    m.client_port = c.client_port
    m.port = c.port
    m.accepted_ms = c.accepted_ms
    m.connected_ms = c.connected_ms
    m.half_closed_ms = c.half_closed_ms


cdef int add_flow(Worker* w, const Flow* flow, const MovedFlow* m, iovec* parts, int* part, int* fds,
                  int count) noexcept nogil:
    """The bytes of a block, or the two ends of a pipe; the number of descriptors so far."""
    cdef Block* block
    if m.carrier == CARRIER_BLOCK:
        block = &w.blocks.blocks[flow.block]
        parts[part[0]].iov_base = block.data + block.offset
        parts[part[0]].iov_len = flow.held
        part[0] += 1
    elif m.carrier == CARRIER_PIPE:
        fds[count] = w.pipes.pipes[flow.pipe].source
        fds[count + 1] = w.pipes.pipes[flow.pipe].target
        return count + 2
    return count


cdef bint send(int outbox, iovec* parts, int part, const int* fds, int count) noexcept nogil:
    cdef msghdr message
    cdef Control control
    cdef cmsghdr* head
    memset(&message, 0, sizeof(message))
    memset(&control, 0, sizeof(control))
    message.msg_iov = parts
    message.msg_iovlen = part
    message.msg_control = &control
    message.msg_controllen = CMSG_SPACE(count * sizeof(int))
    head = CMSG_FIRSTHDR(&message)
    head.cmsg_level = SOL_SOCKET
    head.cmsg_type = SCM_RIGHTS
    head.cmsg_len = CMSG_LEN(count * sizeof(int))
    memcpy(CMSG_DATA(head), fds, count * sizeof(int))
    return c_sendmsg(outbox, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0


cdef void flow_forget(Worker* w, Flow* flow) noexcept nogil:
    """Close this worker's ends of what now is another's."""
    if flow.pipe >= 0:
        pipe_kill(&w.pipes, flow.pipe)
        flow.pipe = -1
        w.page.worker.pipes -= 1
    if flow.block >= 0:
        block_drop(&w.blocks, flow.block)
        flow.block = -1
        w.page.worker.blocks -= 1


cdef void side_forget(Worker* w, Side* side) noexcept nogil:
    if side.fd >= 0:
        c_epoll_ctl(w.epfd, EPOLL_CTL_DEL, side.fd, NULL)
        sys_close(side.fd)
        side.fd = -1


cdef bint post(Worker* w, const Conn* c, Moved* m, int outbox) noexcept nogil:
    """The message and whatever hangs on it; False when it could not be sent."""
    cdef iovec parts[3]
    cdef int fds[HANDS]
    cdef int part = 1, count = 1
    parts[0].iov_base = m
    parts[0].iov_len = sizeof(Moved)
    fds[0] = c.client.fd
    if m.has_server:
        fds[1] = c.server.fd
        count = 2
    count = add_flow(w, &c.inbound, &m.inbound, parts, &part, fds, count)
    count = add_flow(w, &c.outbound, &m.outbound, parts, &part, fds, count)
    return send(outbox, parts, part, fds, count)


cdef void forget(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    """What was sent is another's: this worker's ends of it go."""
    timer_stop(&w.wheel, slot)
    side_forget(w, &c.client)
    side_forget(w, &c.server)
    flow_forget(w, &c.inbound)
    flow_forget(w, &c.outbound)


cdef bint offer(Worker* w, uint32_t slot, Conn* c, int target) noexcept nogil:
    """Send a connection away; False when it could not be sent, and nothing has changed."""
    cdef Moved m
    cdef uint8_t phase = c.phase
    fill(w, &m, slot, c)
    ready_remove(w, slot)
    c.phase = PHASE_MOVED
    fence_release()
    c.offer = offer_key(c.generation)
    fence_release()
    if not post(w, c, &m, w.outboxes[w.targets[target]]):
        c.offer = OFFER_NONE
        fence_release()
        c.phase = phase
        if phase == PHASE_RELAY or phase == PHASE_LINGER:
            ready_push(w, slot)     # it may have been in the list: one look too many does no harm
        return False
    w.sent[target] += 1
    w.page.worker.moved_out += 1
    forget(w, slot, c)
    # Of what stays here nothing is read again but this.
    c.origin = w.targets[target]
    c.half_closed_ms = w.now_ms
    if w.is_apart:
        conn_put(w.slab, slot)
    return True


cdef bint handover_give(Worker* w, uint32_t slot, Conn* c, int outbox, uint8_t ended) noexcept nogil:
    cdef Moved m
    fill(w, &m, slot, c)
    m.is_fresh = FRESH_HERE
    if not post(w, c, &m, outbox):
        return False
    w.page.worker.moved_out += ended == ENDED_MOVED
    forget(w, slot, c)
    c.inbound.held = 0
    c.outbound.held = 0
    conn_end(w, slot, c, ended, BY_LBFAST)
    return True


cdef bint is_lost(Worker* w, Conn* c) noexcept nogil:
    """Received a while ago, and not claimed: a taker that was killed between the two took the connection along."""
    cdef int queued = 0
    if w.now_ms - c.half_closed_ms < LOST_MS:
        return False
    if c_ioctl(w.outboxes[c.origin], SIOCOUTQ, &queued) != 0 or queued != 0:
        c.half_closed_ms = w.now_ms     # so long from when something was last seen there
        return False
    return True


cdef void lose(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    """Its sockets are gone, its counts are still here.  A taker that only stood still finds the offer withdrawn."""
    if not atomic_swap32(&c.offer, offer_key(c.generation), OFFER_VOID):
        return
    c.origin = -1
    c.inbound.held = 0
    c.outbound.held = 0
    conn_end(w, slot, c, ENDED_WORKER_DIED, BY_LBFAST)


cdef void handover_turn(Worker* w) noexcept nogil:
    cdef uint32_t slot
    cdef Conn* c
    cdef int target, left = OFFERS_A_TURN
    cdef bint is_open = True
    for slot in range(w.slab.head.top):
        c = &w.slab.conns[slot]
        if c.phase == PHASE_MOVED:
            if atomic_load32(&c.offer) == OFFER_TAKEN:
                conn_put(w.slab, slot)
            elif is_lost(w, c):
                lose(w, slot, c)
        elif c.phase != PHASE_FREE and is_open:
            target = target_of(w)
            is_open = target >= 0 and left > 0 and offer(w, slot, c, target)
            left -= 1


# ---- taking ----------------------------------------------------------------------------------------------------------

cdef void drop_all(const int* fds, int count) noexcept nogil:
    """The connection is nobody's any more: RST for its sockets, pipes closed."""
    cdef int i
    for i in range(count):
        sys_reset(fds[i])


cdef void read_side(Side* side, const MovedSide* m, int fd) noexcept nogil:
    side.active_ms = m.active_ms
    side.error = m.error
    side.flags = m.flags
    side.fd = fd


cdef void read_flow(Flow* flow, const MovedFlow* m) noexcept nogil:
    flow.bytes = m.bytes
    flow.flags = m.flags
    flow.large = m.large


cdef void read_conn(Conn* c, const Moved* m, const int* fds) noexcept nogil:
    c.reason = m.reason
    c.attempts = m.attempts
    c.linger_side = m.linger_side
    c.by = m.by
    read_side(&c.client, &m.client, fds[0])
    read_side(&c.server, &m.server, fds[1] if m.has_server else -1)
    read_flow(&c.inbound, &m.inbound)
    read_flow(&c.outbound, &m.outbound)
    c.service = m.service
    c.real = m.real
    c.cut_seq = m.cut_seq
    c.previous = m.previous
    c.hold.held = m.held
    c.hold.way = m.hold_way
    c.hold.bucket = m.hold_bucket
    c.hold.serial = m.hold_serial
    c.origin = m.origin
    c.origin_slot = m.origin_slot
    c.origin_generation = m.origin_generation
    c.connect_ms = m.connect_ms
    c.id = m.id
    c.tried = m.tried
    memcpy(c.client_address, m.client_address, 16)
    memcpy(c.wire_address, m.wire_address, 16)
    c.client_port = m.client_port
    c.port = m.port
    c.accepted_ms = m.accepted_ms
    c.connected_ms = m.connected_ms
    c.half_closed_ms = m.half_closed_ms
    # Last of all: from here on it is seen, and given back if this worker dies.
    c.flags = m.flags | <uint8_t>CONN_CLAIMING
    fence_release()
    c.phase = m.phase


cdef bint claim_offer(Worker* w, Conn* c) noexcept nogil:
    """Make it ours: False when it was given back meanwhile, because its giver died."""
    cdef Conn* offered
    cdef WorkerPage* giver = &w.pages[c.origin]
    if w.slabs[c.origin] == NULL or c.origin_slot >= w.slabs[c.origin].head.capacity:
        return False
    offered = &w.slabs[c.origin].conns[c.origin_slot]
    if not atomic_swap32(&offered.offer, offer_key(c.origin_generation), OFFER_TAKEN):
        return False
    if c.flags & CONN_COUNTED_SERVICE:
        live_move(w.page, &giver.worker.connections, &w.page.worker.connections, 1)
        live_move(w.page, &giver.services[c.service].connections, &w.page.services[c.service].connections, 1)
    if c.flags & CONN_COUNTED_REAL:
        live_move(w.page, &giver.reals[c.real].connections, &w.page.reals[c.real].connections, 1)
    return True


cdef void count_anew(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    """The giver's memory is of an older layout, and its counts were not brought over: take them here."""
    cdef uint8_t flags = c.flags
    c.flags = flags & <uint8_t>~(CONN_COUNTED_SERVICE | CONN_COUNTED_REAL)
    if flags & CONN_COUNTED_SERVICE:
        count_service(w, c)
    pick_again(w, slot, c, flags & CONN_COUNTED_REAL != 0, c.hold.held)


cdef bint take_flow(Worker* w, Flow* flow, const MovedFlow* m, const char** data, const char* end, const int** fds) \
        noexcept nogil:
    cdef int32_t pipe
    if m.carrier == CARRIER_BLOCK:
        if data[0] + m.held > end:
            return False
        flow.block = block_keep(&w.blocks, data[0], m.held)
        if flow.block < 0:
            flow.block = -1
            return False
        data[0] += m.held
        w.page.worker.blocks += 1
    elif m.carrier == CARRIER_PIPE:
        pipe = pipe_adopt(&w.pipes, fds[0][0], fds[0][1])
        fds[0] += 2
        if pipe < 0:
            return False
        flow.pipe = pipe
        w.page.worker.pipes += 1
    flow.held = m.held
    return True


cdef void watch_timer(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    if c.phase == PHASE_RELAY:
        link_schedule(w, slot, c)
    elif c.phase == PHASE_LINGER:
        timer_set(&w.wheel, slot, w.now_ms)
    elif c.phase == PHASE_PROXY:
        timer_set(&w.wheel, slot, c.accepted_ms + service_of(w, c).proxy_timeout_ms)
    elif is_waiting(c):
        timer_set(&w.wheel, slot, w.now_ms + RETRY_MS)
    else:
        timer_set(&w.wheel, slot, c.connected_ms + service_of(w, c).connect_timeout_ms)


cdef int watch_side(Worker* w, uint32_t slot, const Conn* c, int fd, int of_server) noexcept nogil:
    if fd < 0:
        return 0
    return sys_epoll_add(w.epfd, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET,
                         (<uint64_t>c.generation << 32) | (<uint64_t>slot << 1) | <uint64_t>of_server)


cdef bint was_cut(Worker* w, const Conn* c) noexcept nogil:
    """The giver may not have seen a cut any more, and this worker had before the connection came."""
    return c.real >= 0 and c.cut_seq != atomic_load32(&real_of(w, c).cut_seq)


cdef void resume(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    if was_cut(w, c):
        conn_end(w, slot, c, ENDED_HALT if real_of(w, c).admin == ADMIN_HALT else ENDED_CUT, BY_LBFAST)
        return
    if watch_side(w, slot, c, c.client.fd, 0) < 0 or watch_side(w, slot, c, c.server.fd, 1) < 0:
        w.page.worker.no_memory += 1
        conn_end(w, slot, c, ENDED_RESOURCE, BY_LBFAST)
        return
    watch_timer(w, slot, c)
    if c.phase == PHASE_RELAY or c.phase == PHASE_LINGER:
        ready_push(w, slot)


cdef bint is_whole(const Moved* m, size_t size, int count) noexcept nogil:
    """Has everything come that the message speaks of?"""
    cdef int wanted = 2 if m.has_server else 1
    wanted += 2 if m.inbound.carrier == CARRIER_PIPE else 0
    wanted += 2 if m.outbound.carrier == CARRIER_PIPE else 0
    return count == wanted and m.size <= size


cdef void settle_in(Worker* w, Conn* c, uint64_t own_id) noexcept nogil:
    """It comes from the peer, whose numbers mean nothing here."""
    c.id = own_id
    if c.real >= 0:
        c.cut_seq = atomic_load32(&real_of(w, c).cut_seq)


cdef void handover_take(Worker* w, const char* data, size_t size, int* fds, int count) noexcept nogil:
    cdef Moved m
    cdef uint32_t slot = 0
    cdef Conn* c
    cdef const char* rest
    cdef const int* hands = fds
    cdef bint is_kept
    cdef uint64_t own_id
    memset(&m, 0, sizeof(Moved))
    memcpy(&m, data, min(size, sizeof(Moved)))
    w.page.worker.moved_in += 1
    if not is_whole(&m, size, count):
        # Out of descriptors while receiving, or a message of another program.
        w.page.worker.no_descriptors += 1
        drop_all(fds, count)
        return
    c = conn_get(w.slab, &slot)
    if c == NULL:
        w.page.worker.no_descriptors += 1
        drop_all(fds, count)
        return
    own_id = c.id
    read_conn(c, &m, fds)
    if m.is_fresh == FRESH_PEER:
        settle_in(w, c, own_id)
    if not m.is_fresh and not claim_offer(w, c):
        c.client.fd = -1
        c.server.fd = -1
        conn_put(w.slab, slot)
        drop_all(fds, count)
        return
    c.flags &= <uint8_t>~CONN_CLAIMING
    c.origin = -1
    if m.is_fresh:
        count_anew(w, slot, c)
    rest = data + m.size
    hands = fds + (2 if m.has_server else 1)
    is_kept = take_flow(w, &c.inbound, &m.inbound, &rest, data + size, &hands)
    is_kept = take_flow(w, &c.outbound, &m.outbound, &rest, data + size, &hands) and is_kept
    if not is_kept:
        w.page.worker.no_memory += 1
        conn_end(w, slot, c, ENDED_RESOURCE, BY_LBFAST)
        return
    resume(w, slot, c)
