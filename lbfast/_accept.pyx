"""Accept: bodies.

Listeners are level-triggered: one that meets EMFILE, or a service at its limit, would
wake the loop for ever.  It rests for PAUSE_MS instead; the kernel keeps its queue.
"""

from libc.errno cimport EAGAIN, EBADF, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOTSOCK, EOPNOTSUPP, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from lbfast._close cimport conn_end, count_service
from lbfast._conn cimport (
    BY_CLIENT, BY_LBFAST, CONN_BY_PROXY, CONN_COUNTED_SERVICE, ENDED_CLOSE, ENDED_DENIED, ENDED_LIMIT, ENDED_PROXY,
    ENDED_RESOURCE, PHASE_CONNECT, PHASE_PROXY, SIDE_HANGUP, SIDE_NODELAY, SIDE_SENT, SIDE_WRITABLE, Conn, conn_get,
)
from lbfast._counters cimport WorkerLine, live_add
from lbfast._handover cimport HANDS, LETTER_ARRIVAL, LETTER_MAX, LETTER_MOVED, handover_take
from lbfast._link cimport link_fallback, link_start
from lbfast._proxy cimport PROXY_MAX, ProxyAddress, proxy_parse
from lbfast._sys cimport (
    AF_INET6, CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_SPACE, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP,
    MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, SCM_RIGHTS, SOL_SOCKET, atomic_add64, atomic_load32,
    atomic_load64, c_recvmsg, c_sendmsg, cmsghdr, iovec, msghdr, ntohs, sockaddr, sockaddr_in, sockaddr_in6,
    socklen_t, sys_accept, sys_close, sys_epoll_add, sys_epoll_mod, sys_recv, sys_reset,
)
from lbfast._table cimport LIMIT_FALLBACK, LIMIT_QUEUE, Service, list_count, network_holds
from lbfast._timer cimport timer_set
from lbfast._worker cimport ACCEPT_BATCH, PAUSE_MS, seats, service_line, service_of

cdef enum Seat:
    SEAT_FULL = 0
    SEAT_UNCOUNTED = 1        # the service does not make clients wait: counted when the connection begins
    SEAT_TAKEN = 2

# What goes with a socket that changes hands between workers.
cdef struct Arrival:
    uint32_t letter
    uint32_t service
    uint16_t port
    uint16_t client_port
    uint8_t address[16]

cdef union PeerAddress:
    sockaddr any
    sockaddr_in v4
    sockaddr_in6 v6

cdef union Control:
    cmsghdr head
    char space[128]


cdef int listener_watch(Worker* w, Listener* listener, int index) noexcept nogil:
    return sys_epoll_add(w.epfd, listener.fd, EPOLLIN, (<uint64_t>SPECIAL_LISTENER << 24) | <uint64_t>index)


cdef void pause(Worker* w, Listener* listener) noexcept nogil:
    cdef int index = <int>(listener - w.listeners)
    sys_epoll_mod(w.epfd, listener.fd, 0, (<uint64_t>SPECIAL_LISTENER << 24) | <uint64_t>index)
    listener.paused = 1
    listener.resume_at_ms = w.now_ms + PAUSE_MS
    w.any_paused = 1


cdef void listeners_resume(Worker* w) noexcept nogil:
    cdef int i
    cdef Listener* listener
    w.any_paused = 0
    for i in range(w.listener_count):
        listener = &w.listeners[i]
        if not listener.paused or listener.fd < 0:
            continue
        if w.now_ms >= listener.resume_at_ms:
            listener.paused = 0
            sys_epoll_mod(w.epfd, listener.fd, EPOLLIN, (<uint64_t>SPECIAL_LISTENER << 24) | <uint64_t>i)
        else:
            w.any_paused = 1


cdef int64_t handed_over(Worker* w) noexcept nogil:
    cdef int64_t total = 0
    cdef int i
    for i in range(seats(w)):
        total += atomic_load64(&w.pages[i].worker.handed_over)
    return total


cdef int64_t taken_over(Worker* w) noexcept nogil:
    cdef int64_t total = 0
    cdef int i
    for i in range(seats(w)):
        total += atomic_load64(&w.pages[i].worker.taken_over)
    return total


cdef int least_loaded(Worker* w) noexcept nogil:
    """Who should take the next connection: another worker's index, or -1 for this one.

    What is under way between workers counts as the other's already: it may be served next, but its loop has not
    turned since, and a whole batch would follow to it.
    """
    cdef int i, best = -1
    cdef int64_t load, under_way, least = 0, own = w.page.worker.connections
    if own < UNEVEN_BY:
        return -1
    # Taken over first: what arrives between the two reads counts twice rather than not at all.
    under_way = -taken_over(w)
    under_way += handed_over(w)
    for i in range(seats(w)):
        if i == w.index or w.outboxes[i] < 0 or not atomic_load32(&w.pages[i].worker.takes):
            continue
        if w.now_ms - atomic_load64(&w.pages[i].worker.progress_ms) > FRESH_MS:
            continue
        load = atomic_load64(&w.pages[i].worker.connections)
        if best < 0 or load < least:
            best = i
            least = load
    least += max(<int64_t>0, under_way)
    return best if best >= 0 and own >= least + UNEVEN_BY + least // UNEVEN_SHARE else -1


cdef bint hand_over(Worker* w, int to, int fd, Arrival* arrival) noexcept nogil:
    """Give an accepted socket to another worker; its inbox is the supervisor's, so nothing is lost if it dies."""
    cdef iovec part
    cdef msghdr message
    cdef Control control
    cdef cmsghdr* head
    memset(&message, 0, sizeof(message))
    memset(&control, 0, sizeof(control))
    part.iov_base = arrival
    part.iov_len = sizeof(Arrival)
    message.msg_iov = &part
    message.msg_iovlen = 1
    message.msg_control = &control
    message.msg_controllen = CMSG_SPACE(sizeof(int))
    head = CMSG_FIRSTHDR(&message)
    head.cmsg_level = SOL_SOCKET
    head.cmsg_type = SCM_RIGHTS
    head.cmsg_len = CMSG_LEN(sizeof(int))
    memcpy(CMSG_DATA(head), &fd, sizeof(int))
    if c_sendmsg(w.outboxes[to], &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0:
        return False
    sys_close(fd)
    atomic_add64(&w.page.worker.handed_over, 1)      # the supervisor makes it good after a death
    return True


cdef int hands_of(msghdr* message, int* fds) noexcept nogil:
    """The descriptors of a message that was received."""
    cdef cmsghdr* head = CMSG_FIRSTHDR(message)
    cdef int count
    if head == NULL or head.cmsg_level != SOL_SOCKET or head.cmsg_type != SCM_RIGHTS:
        return 0
    count = min(<int>((head.cmsg_len - CMSG_LEN(0)) // sizeof(int)), <int>HANDS)
    memcpy(fds, CMSG_DATA(head), count * sizeof(int))
    return count


cdef void letter_take(Worker* w, size_t size, int* fds, int count) noexcept nogil:
    """What came in: an accepted socket, or a connection."""
    cdef Arrival arrival
    cdef uint32_t letter = 0
    memcpy(&letter, w.letter, min(size, sizeof(uint32_t)))
    if letter == LETTER_MOVED:
        handover_take(w, w.letter, size, fds, count)
        return
    if letter == LETTER_ARRIVAL and size == sizeof(Arrival) and count == 1:
        memcpy(&arrival, w.letter, sizeof(Arrival))
        begin(w, fds[0], &arrival, False)
    else:
        # Out of descriptors while receiving: the kernel has dropped the socket.
        w.page.worker.no_descriptors += 1
    atomic_add64(&w.page.worker.taken_over, 1)


cdef void inbox_read(Worker* w) noexcept nogil:
    cdef iovec part
    cdef msghdr message
    cdef Control control
    cdef int fds[HANDS]
    cdef int _i
    cdef ssize_t size
    for _i in range(ACCEPT_BATCH):
        memset(&message, 0, sizeof(message))
        part.iov_base = w.letter
        part.iov_len = LETTER_MAX
        message.msg_iov = &part
        message.msg_iovlen = 1
        message.msg_control = &control
        message.msg_controllen = sizeof(control)
        size = c_recvmsg(w.inbox, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
        if size <= 0:
            if size < 0 and (errno == EMFILE or errno == ENFILE):
                w.page.worker.no_descriptors += 1
            return
        letter_take(w, <size_t>size, fds, hands_of(&message, fds))


cdef void address_of(const PeerAddress* peer, Arrival* out) noexcept nogil:
    memset(out.address, 0, 16)
    if peer.any.sa_family == AF_INET6:
        memcpy(out.address, &peer.v6.sin6_addr, 16)
        out.client_port = ntohs(peer.v6.sin6_port)
        return
    out.address[10] = 0xFF
    out.address[11] = 0xFF
    memcpy(out.address + 12, &peer.v4.sin_addr, 4)
    out.client_port = ntohs(peer.v4.sin_port)


cdef bint accept_failed(Worker* w, Listener* listener, int rc) noexcept nogil:
    """Is the batch over?  What only concerns the one connection (ECONNABORTED, EPROTO, network errors) is not."""
    cdef WorkerLine* line = &w.page.worker
    if rc == -EAGAIN:
        return True
    line.accept_errors += 1
    if rc == -EMFILE or rc == -ENFILE:
        line.no_descriptors += 1
    elif rc == -ENOBUFS or rc == -ENOMEM:
        line.no_memory += 1
    elif rc != -EINVAL and rc != -EBADF and rc != -ENOTSOCK and rc != -EOPNOTSUPP:
        return False
    # What is no listening socket (any more) is readable for ever.
    pause(w, listener)
    return True


cdef int64_t seat_count(Worker* w, uint32_t service, int64_t n) noexcept nogil:
    """Count a connection of a service that does not exist yet, or not after all; the new total."""
    atomic_add64(&w.page.worker.connections, n)
    return live_add(w.page, &w.page.services[service].connections, &w.table.services[service].connections, n)


cdef int seat_take(Worker* w, uint32_t at) noexcept nogil:
    """Room for one more before it is accepted, where others wait in the queue: a Seat.

    Never one too many, whatever the workers do meanwhile.  A connection is counted before it is accepted, and
    one that changes hands stays counted by its giver until it counts as handed over: so at each moment it is
    in the service's total, or under way.  Taken over is read before the own addition and handed over after it:
    what moves between the reads counts twice, and at worst a free place is found at the next rest.
    """
    cdef Service* service = &w.table.services[at]
    cdef int64_t limit = service.max_connections, taken
    if service.at_limit != LIMIT_QUEUE or limit <= 0:
        return SEAT_UNCOUNTED
    taken = taken_over(w)
    if atomic_load64(&service.connections) + handed_over(w) - taken >= limit:
        return SEAT_FULL    # without counting: the total stays readable while the service is full
    if seat_count(w, at, 1) + handed_over(w) - taken <= limit:
        return SEAT_TAKEN
    seat_count(w, at, -1)
    return SEAT_FULL


cdef void accept_batch(Worker* w, Listener* listener) noexcept nogil:
    cdef int seat
    cdef PeerAddress peer
    cdef Arrival arrival
    cdef socklen_t size
    cdef int fd, _i, to
    for _i in range(ACCEPT_BATCH):
        seat = seat_take(w, listener.service)
        if seat == SEAT_FULL:
            w.page.services[listener.service].limited += 1
            pause(w, listener)
            return
        size = sizeof(PeerAddress)
        fd = sys_accept(listener.fd, &peer.any, &size)
        if fd < 0:
            if seat == SEAT_TAKEN:
                seat_count(w, listener.service, -1)
            if accept_failed(w, listener, fd):
                return
            continue
        w.page.worker.accepted += 1
        arrival.letter = LETTER_ARRIVAL
        arrival.service = listener.service
        arrival.port = listener.port
        address_of(&peer, &arrival)
        to = least_loaded(w)
        if to < 0 or not hand_over(w, to, fd, &arrival):
            begin(w, fd, &arrival, seat == SEAT_TAKEN)
        elif seat == SEAT_TAKEN:
            seat_count(w, listener.service, -1)


cdef bint is_denied(Worker* w, const Service* service, const uint8_t* address) noexcept nogil:
    # Each list is read once: it may be replaced, or emptied, meanwhile.
    cdef uint64_t allow = <uint64_t>atomic_load64(<int64_t*>&service.allow)
    if network_holds(w.table, <uint64_t>atomic_load64(<int64_t*>&service.deny), address):
        return True
    return list_count(allow) and not network_holds(w.table, allow, address)


cdef void begin(Worker* w, int fd, const Arrival* arrival, bint counted) noexcept nogil:
    """A client's socket is ours: record it, watch it, go on to its header or its real server."""
    cdef uint32_t slot = 0
    cdef Conn* c = conn_get(w.slab, &slot)
    cdef Service* service = &w.table.services[arrival.service]
    cdef int rc
    if c == NULL:
        w.page.worker.no_descriptors += 1
        if counted:
            seat_count(w, arrival.service, -1)
        sys_reset(fd)
        return
    if counted:
        c.flags |= CONN_COUNTED_SERVICE
    c.client.fd = fd
    # A listener's TCP_NODELAY is inherited by what it accepts.
    c.client.flags = SIDE_WRITABLE | SIDE_NODELAY | <uint8_t>SIDE_SENT
    c.service = <int32_t>arrival.service
    c.port = arrival.port
    c.client_port = arrival.client_port
    memcpy(c.client_address, arrival.address, 16)
    memcpy(c.wire_address, arrival.address, 16)
    c.accepted_ms = w.now_ms
    c.client.active_ms = w.now_ms
    c.phase = PHASE_CONNECT
    w.page.services[c.service].accepted += 1
    rc = sys_epoll_add(w.epfd, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET,
                       (<uint64_t>c.generation << 32) | (<uint64_t>slot << 1))
    if rc < 0:
        w.page.worker.no_memory += 1        # or fs.epoll.max_user_watches is used up
        conn_end(w, slot, c, ENDED_RESOURCE, BY_LBFAST)
    elif network_holds(w.table, <uint64_t>atomic_load64(<int64_t*>&service.trusted), c.client_address):
        c.phase = PHASE_PROXY
        if not counted:
            count_service(w, c)
        timer_set(&w.wheel, slot, w.now_ms + service.proxy_timeout_ms)
    else:
        admit(w, slot, c, True if counted else count_service(w, c))


cdef void admit(Worker* w, uint32_t slot, Conn* c, bint within) noexcept nogil:
    """The client's address is known: lists and limits, then its real server."""
    cdef Service* service = service_of(w, c)
    if is_denied(w, service, c.client_address):
        service_line(w, c).denied += 1
        conn_end(w, slot, c, ENDED_DENIED, BY_LBFAST)
    elif not within and service.at_limit != LIMIT_QUEUE:
        service_line(w, c).limited += 1
        if service.at_limit == LIMIT_FALLBACK:
            link_fallback(w, slot, c)
        else:
            conn_end(w, slot, c, ENDED_LIMIT, BY_LBFAST)
    else:
        link_start(w, slot, c)


cdef void take_header(Conn* c, const ProxyAddress* found) noexcept nogil:
    if found.family == 0:
        return
    memcpy(c.client_address, found.src, 16)
    c.client_port = found.src_port
    c.flags |= CONN_BY_PROXY


cdef void proxy_read(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    """Peek until the header is whole, then take exactly it out of the socket."""
    cdef ProxyAddress found
    cdef int64_t n = sys_recv(c.client.fd, w.buffer, PROXY_MAX, MSG_PEEK)
    cdef int length
    if n == -EAGAIN:
        return
    if n <= 0:
        conn_end(w, slot, c, ENDED_CLOSE if n == 0 else ENDED_PROXY, BY_CLIENT)
        return
    length = proxy_parse(<const uint8_t*>w.buffer, <size_t>n, &found)
    if length < 0 or (length == 0 and (c.client.flags & SIDE_HANGUP or n >= PROXY_MAX)):
        conn_end(w, slot, c, ENDED_PROXY, BY_CLIENT)
        return
    if length == 0:
        return
    sys_recv(c.client.fd, w.buffer, length, 0)
    take_header(c, &found)
    c.phase = PHASE_CONNECT
    admit(w, slot, c, service_of(w, c).max_connections <= 0 or
          atomic_load64(&service_of(w, c).connections) <= service_of(w, c).max_connections)
