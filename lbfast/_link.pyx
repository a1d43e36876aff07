"""Connect: bodies.

A pending connect is proven by EPOLLOUT without EPOLLERR or EPOLLHUP; SO_ERROR alone
proves nothing (it is 0 while the handshake is still on its way).
"""

from libc.errno cimport EADDRINUSE, EADDRNOTAVAIL, ECONNREFUSED, EINPROGRESS, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from lbfast._address cimport address_is_v4
from lbfast._close cimport conn_end, conn_reset
from lbfast._conn cimport (
    BY_LBFAST, CONN_OPENED, ENDED_CONNECT, ENDED_LIMIT, ENDED_NO_SERVER, ENDED_RESOURCE, ENDED_CLOSE, PHASE_CONNECT,
    PHASE_RELAY, REASON_FALLBACK, SIDE_SENT, SIDE_WRITABLE, Conn,
)
from lbfast._pick cimport pick_failed, pick_fallback, pick_leave, pick_real, pick_succeeded
from lbfast._proxy cimport PROXY_RENDER_MAX, proxy_render
from lbfast._relay cimport TURN_CLOSED, TURN_MORE, TURN_NO_MEMORY, TURN_RESET, relay_turn
from lbfast._ring cimport EVENT_CONNECT_FAIL, EVENT_OPEN
from lbfast._sys cimport (
    AF_INET, AF_INET6, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, FIONREAD, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT,
    IPPROTO_TCP, SOL_SOCKET, SO_ERROR, TCP_QUICKACK, atomic_add64, c_bind, c_getsockname, c_getsockopt, c_ioctl, htons,
    ntohs, sockaddr, sockaddr_in, sockaddr_in6, socklen_t, sys_close, sys_connect, sys_epoll_add, sys_send, sys_set,
    sys_socket,
)
from lbfast._table cimport Real, Service
from lbfast._timer cimport timer_set
from lbfast._worker cimport Worker, ready_push, real_of, record, service_of

cdef union Address:
    sockaddr any
    sockaddr_in v4
    sockaddr_in6 v6


cdef socklen_t fill(Address* out, const uint8_t* mapped, bint is_ipv6, uint16_t port) noexcept nogil:
    memset(out, 0, sizeof(Address))
    if is_ipv6:
        out.v6.sin6_family = AF_INET6
        out.v6.sin6_port = htons(port)
        memcpy(&out.v6.sin6_addr, mapped, 16)
        return sizeof(sockaddr_in6)
    out.v4.sin_family = AF_INET
    out.v4.sin_port = htons(port)
    memcpy(&out.v4.sin_addr, mapped + 12, 4)
    return sizeof(sockaddr_in)


cdef int connect_from(Service* service, const Real* real, const Address* to, socklen_t size, int fd,
                      uint32_t turn) noexcept nogil:
    """Bind to one of the service's source addresses of the real server's family, then connect."""
    cdef Address source
    cdef socklen_t length
    # Read once: the settings may change meanwhile.
    cdef uint32_t count = service.source_count, i, at
    for i in range(count):
        at = (turn + i) % count
        if address_is_v4(service.sources[at]) == (real.is_ipv6 != 0):
            continue
        length = fill(&source, service.sources[at], real.is_ipv6, 0)
        # The port is chosen at connect, when the kernel can share it between destinations.
        sys_set(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        if c_bind(fd, &source.any, length) != 0:
            continue
        return sys_connect(fd, &to.any, size)
    if count:
        return -EADDRNOTAVAIL
    return sys_connect(fd, &to.any, size)


cdef bint has_words_for_server(const Conn* c, const Service* service) noexcept nogil:
    """Will something be sent as soon as the connect has succeeded?

    Then the last acknowledgement of the handshake can travel with it: one segment less for each
    connection (a tenth of its CPU time).  Where the server speaks first it must not wait.
    """
    cdef int unread = 0
    return service.send_proxy or (c_ioctl(c.client.fd, FIONREAD, &unread) == 0 and unread > 0)


cdef int open_socket(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    """Open and connect the server side: 0, -EINPROGRESS, or -errno (nothing is left open then)."""
    cdef Service* service = service_of(w, c)
    cdef Real* real = real_of(w, c)
    cdef Address to
    cdef socklen_t size = fill(&to, real.address, real.is_ipv6, real.port if real.port else c.port)
    cdef uint32_t turn = <uint32_t>atomic_add64(&service.cursor, 1) if service.source_count else 0
    cdef uint32_t tries = max(<uint32_t>1, <uint32_t>service.source_count), i
    cdef int fd = -1, rc = -EADDRNOTAVAIL, added
    cdef bint has_words = has_words_for_server(c, service)
    for i in range(tries):
        fd = sys_socket(AF_INET6 if real.is_ipv6 else AF_INET)
        if fd < 0:
            return fd
        if has_words:
            sys_set(fd, IPPROTO_TCP, TCP_QUICKACK, 0)
        rc = connect_from(service, real, &to, size, fd, turn + i)
        if rc == 0 or rc == -EINPROGRESS:
            break
        sys_close(fd)
        # Out of ports from this source: the next one has its own.
        if rc != -EADDRNOTAVAIL and rc != -EADDRINUSE:
            return rc
    if rc != 0 and rc != -EINPROGRESS:
        return rc
    added = sys_epoll_add(w.epfd, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET,
                          (<uint64_t>c.generation << 32) | (<uint64_t>slot << 1) | 1)
    if added < 0:
        sys_close(fd)
        return added
    c.server.fd = fd
    c.server.flags = 0
    return rc


cdef bint is_ours(int error) noexcept nogil:
    """Did this machine lack something?  Then the real server is not to blame."""
    return error == EMFILE or error == ENFILE or error == ENOBUFS or error == ENOMEM or \
        error == EADDRNOTAVAIL or error == EADDRINUSE or error == ENOSPC    # ENOSPC: fs.epoll.max_user_watches


cdef void count_lack(Worker* w, int error) noexcept nogil:
    if error == EMFILE or error == ENFILE:
        w.page.worker.no_descriptors += 1
    elif error == EADDRNOTAVAIL or error == EADDRINUSE:
        w.page.worker.no_ports += 1
    else:
        w.page.worker.no_memory += 1


cdef bint elsewhere(Worker* w, uint32_t slot, Conn* c, int error) noexcept nogil:
    """Out of source ports towards one real server, which says nothing of the others: go on at another."""
    if error != EADDRNOTAVAIL and error != EADDRINUSE or c.reason == REASON_FALLBACK:
        return False
    pick_leave(w, c)
    if c.attempts > service_of(w, c).retries or not service_of(w, c).redispatch or pick_real(w, slot, c) != 0:
        return False
    attempt(w, slot, c)
    return True


cdef void attempt(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    """Connect to the claimed real server."""
    cdef int rc
    c.phase = PHASE_CONNECT
    c.attempts += 1
    c.connected_ms = w.now_ms
    rc = open_socket(w, slot, c)
    if rc == 0 or rc == -EINPROGRESS:
        timer_set(&w.wheel, slot, w.now_ms + service_of(w, c).connect_timeout_ms)
        return
    if is_ours(-rc):
        count_lack(w, -rc)
        c.server.error = -rc
        if not elsewhere(w, slot, c, -rc):
            conn_end(w, slot, c, ENDED_RESOURCE, BY_LBFAST)
        return
    link_failed(w, slot, c, -rc)


cdef void give_up(Worker* w, uint32_t slot, Conn* c, uint8_t ended) noexcept nogil:
    """No real server: the fallback server, or a fast refusal."""
    if pick_fallback(w, c) == 0:
        attempt(w, slot, c)
    else:
        conn_end(w, slot, c, ended, BY_LBFAST)


cdef void link_fallback(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    give_up(w, slot, c, ENDED_LIMIT)


cdef void link_start(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    cdef int rc = pick_real(w, slot, c)
    if rc == 0:
        attempt(w, slot, c)
    elif rc == -ENDED_NO_SERVER:
        give_up(w, slot, c, ENDED_NO_SERVER)
    else:
        conn_end(w, slot, c, <uint8_t>(-rc), BY_LBFAST)


cdef void link_retry(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    attempt(w, slot, c)


cdef void link_failed(Worker* w, uint32_t slot, Conn* c, int32_t error) noexcept nogil:
    if c.server.fd >= 0:
        sys_close(c.server.fd)
        c.server.fd = -1
    c.server.error = error
    record(w, c, EVENT_CONNECT_FAIL, error)
    pick_failed(w, c, error)
    # Whoever was sent to the fallback server, be it because of a limit, has no claim to another one.
    if c.reason == REASON_FALLBACK or c.attempts > service_of(w, c).retries:
        give_up(w, slot, c, ENDED_CONNECT)
        return
    if pick_real(w, slot, c) == 0:
        if service_of(w, c).redispatch:
            attempt(w, slot, c)
            return
    elif c.tried:
        # Everybody failed once: begin again, after a pause.
        c.tried = 0
        if pick_real(w, slot, c) != 0:
            give_up(w, slot, c, ENDED_CONNECT)
            return
    else:
        give_up(w, slot, c, ENDED_CONNECT)
        return
    c.phase = PHASE_CONNECT
    timer_set(&w.wheel, slot, w.now_ms + RETRY_MS)


cdef bint met_itself(const Conn* c, const Real* real) noexcept nogil:
    """A connect on loopback can meet its own socket when the kernel gives it the very port it asks for."""
    cdef Address own
    cdef socklen_t size = sizeof(Address)
    cdef uint16_t port = real.port if real.port else c.port
    if not real.may_meet_itself or c_getsockname(c.server.fd, &own.any, &size) != 0:
        return False
    if real.is_ipv6:
        return ntohs(own.v6.sin6_port) == port and memcmp(&own.v6.sin6_addr, real.address, 16) == 0
    return ntohs(own.v4.sin_port) == port and memcmp(&own.v4.sin_addr, real.address + 12, 4) == 0


cdef int say_proxy(Worker* w, Conn* c) noexcept nogil:
    """The PROXY header goes first; a fresh socket takes it whole."""
    cdef uint8_t header[PROXY_RENDER_MAX]
    cdef uint8_t local[16]
    cdef Address own
    cdef socklen_t size = sizeof(Address)
    cdef int length
    memset(local, 0, 16)
    if c_getsockname(c.client.fd, &own.any, &size) == 0:
        if own.any.sa_family == AF_INET6:
            memcpy(local, &own.v6.sin6_addr, 16)
        else:
            local[10] = 0xFF
            local[11] = 0xFF
            memcpy(local + 12, &own.v4.sin_addr, 4)
    c.server.flags |= <uint8_t>SIDE_SENT    # what follows the header must not wait for its acknowledgement
    length = proxy_render(header, service_of(w, c).send_proxy, c.client_address, c.client_port, local, c.port)
    if length < 0:
        return length
    return 0 if sys_send(c.server.fd, header, length, 0) == length else -ECONNREFUSED


cdef void link_ready(Worker* w, uint32_t slot, Conn* c, bint failed) noexcept nogil:
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    if failed:
        c_getsockopt(c.server.fd, SOL_SOCKET, SO_ERROR, &error, &size)
        link_failed(w, slot, c, error if error else ECONNREFUSED)
        return
    if met_itself(c, real_of(w, c)):
        link_failed(w, slot, c, ECONNREFUSED)
        return
    if service_of(w, c).send_proxy and say_proxy(w, c) < 0:
        link_failed(w, slot, c, ECONNREFUSED)
        return
    c.phase = PHASE_RELAY
    c.connect_ms = <uint32_t>(w.now_ms - c.connected_ms)
    c.connected_ms = w.now_ms
    c.client.active_ms = w.now_ms
    c.server.active_ms = w.now_ms
    c.server.flags |= SIDE_WRITABLE
    c.server.error = 0                      # of an earlier attempt
    c.flags |= CONN_OPENED
    pick_succeeded(w, c)
    record(w, c, EVENT_OPEN, 0)
    link_schedule(w, slot, c)
    link_relay(w, slot, c)


cdef void link_schedule(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    cdef Service* service = service_of(w, c)
    cdef int64_t at = c.client.active_ms + service.client_idle_ms
    at = min(at, c.server.active_ms + service.server_idle_ms)
    if c.half_closed_ms:
        at = min(at, max(c.half_closed_ms, max(c.client.active_ms, c.server.active_ms)) + service.half_close_ms)
    timer_set(&w.wheel, slot, at)


cdef void link_relay(Worker* w, uint32_t slot, Conn* c) noexcept nogil:
    cdef bint was_half = c.half_closed_ms != 0
    cdef int turn = relay_turn(w, c)
    if turn == TURN_CLOSED:
        conn_end(w, slot, c, ENDED_CLOSE, c.by)
    elif turn == TURN_RESET:
        conn_reset(w, slot, c)
    elif turn == TURN_NO_MEMORY:
        w.page.worker.no_memory += 1
        conn_end(w, slot, c, ENDED_RESOURCE, BY_LBFAST)
    else:
        if turn == TURN_MORE:
            ready_push(w, slot)
        if was_half != (c.half_closed_ms != 0):
            link_schedule(w, slot, c)
