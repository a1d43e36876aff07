"""A TCP connection as data: frozen here, recreated from its image elsewhere, in the middle of whatever it was doing.

Facts about the kernel (TCP_REPAIR) that shape this file
- A socket under repair sends nothing and is closed without FIN or RST.  It still takes in what arrives, so a filter
  that drops everything goes on first: it ends with the socket, whoever is killed when, and nothing is left behind.
- A repaired socket is bound and connected without a packet.  IP_TRANSPARENT lets it have an address that this
  machine does not hold yet, or any more.
- A timer sends from a socket under repair, too, unless its send queue is the one being repaired.
- Bytes written to the send queue under repair count as sent, and are sent again only when their timer says so.  What
  had not been sent is therefore written after the thaw.  An acknowledgement beyond what is known as sent would be
  refused for ever, so the two must not be mixed up.
- write_seq counts our FIN, rcv_nxt the other end's.  A FIN that was received, or sent and acknowledged, needs
  no state of its own in the copy: it is behind both sequence numbers, the relay knows of it by its own flags, and no
  further byte follows it.  A FIN that is not acknowledged is left out of the image and sent again by the thaw.
- The original's round trip times are not carried over: the first retransmission of the copy comes after a second.
- Nobody is served meanwhile, and a socket needs some forty system calls: so this is compiled.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport ENOENT, errno
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from lbfast._sys cimport (
    AF_INET, AF_INET6, FIONREAD, IPPROTO_IP, IPPROTO_TCP, MSG_PEEK, SHUT_WR, SIOCOUTQ, SO_KEEPALIVE, SO_LINGER,
    SO_OOBINLINE, SOL_SOCKET, TCP_CONGESTION, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_NODELAY, TCP_USER_TIMEOUT,
    c_bind, c_connect, c_getsockname, c_getsockopt, c_ioctl, c_setsockopt, c_shutdown, htons, linger_s, ntohs,
    sockaddr, sockaddr_in, sockaddr_in6, socklen_t, sys_close, sys_recv, sys_send, sys_socket,
)

import os
import socket as _socket

cdef extern from "<sys/socket.h>" nogil:
    int AF_UNSPEC, SO_DOMAIN, SO_SNDBUF, SO_RCVBUF, SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_REUSEADDR, SO_REUSEPORT
    int SO_ATTACH_FILTER, SO_DETACH_FILTER
    int c_getpeername "getpeername" (int fd, sockaddr* address, socklen_t* size)

cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_INFO, TCP_MAXSEG, TCP_TIMESTAMP
    int TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_REPAIR_OPTIONS, TCP_REPAIR_WINDOW

cdef enum:
    RECEIVE_QUEUE = 1
    SEND_QUEUE = 2
    OPTION_MSS = 2
    OPTION_WINDOW = 3
    OPTION_SACK = 4
    OPTION_TIMESTAMP = 8
    INFO_TIMESTAMPS = 1
    INFO_SACK = 2
    INFO_WSCALE = 4
    IPPROTO_IPV6 = 41
    IP_TRANSPARENT = 19
    IPV6_TRANSPARENT = 75
    SO_BUF_LOCK = 72
    SIOCOUTQNSD = 0x894B
    CHUNK = 16384
    MOST_MSS = 32767              # that TCP_MAXSEG takes
    MOST_QUEUE = 32 << 20         # bytes: as much as a kernel lets one grow to (tcp_rmem)
    KEPT = 7
    ESTABLISHED = 1               # states as the kernel numbers them
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    CLOSE_WAIT = 8
    END_SACK = 1                  # bits of End.has
    END_WSCALE = 2
    END_TIMESTAMP = 4
    END_IPV6 = 8

cdef struct Filter:               # sock_filter
    uint16_t code
    uint8_t jt
    uint8_t jf
    uint32_t k

cdef struct Program:              # sock_fprog
    uint16_t count
    Filter* code

cdef struct Option:               # tcp_repair_opt
    uint32_t code
    uint32_t value

# One end of a connection, as it travels; fields are only ever added, at its end.  Both boxes have one byte order:
# conn_image.py looks at that.
cdef struct End:
    uint16_t size
    uint8_t state
    uint8_t has
    uint8_t their_wscale
    uint8_t our_wscale
    uint16_t mss
    uint16_t local_port
    uint16_t remote_port
    uint8_t[16] local
    uint8_t[16] remote
    uint32_t receive_seq          # rcv_nxt, the other end's FIN included
    uint32_t send_seq             # write_seq, without a FIN that is not acknowledged
    uint32_t timestamp
    uint32_t[5] window            # snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup
    uint32_t send_buffer
    uint32_t receive_buffer
    int32_t[KEPT] options
    char[16] congestion
    uint32_t unread               # bytes that follow, in this order
    uint32_t sent                 # ... not acknowledged
    uint32_t unsent


class ImageError(Exception):
    """This connection cannot be moved; why, in words."""


cdef class TcpImage:
    """Everything of one end of a connection; sequence numbers as the kernel has them."""

    cdef End end
    cdef readonly bytes unread
    cdef readonly bytes sent
    cdef readonly bytes unsent

    @property
    def local(self):
        return place_of(&self.end, self.end.local, self.end.local_port)

    @property
    def remote(self):
        return place_of(&self.end, self.end.remote, self.end.remote_port)

    @property
    def has_end(self):
        """The other end has said all: nothing arrives any more."""
        return self.end.state == CLOSE_WAIT

    @property
    def has_own_fin(self):
        """Our FIN is under way and must be sent again."""
        return self.end.state == FIN_WAIT1

    @property
    def size(self):
        """Bytes of its queues."""
        return len(self.unread) + len(self.sent) + len(self.unsent)

    def numbers(self):
        """All but addresses and bytes, to be compared; the clock of its time stamps runs on and is left out."""
        cdef End end = self.end
        return {
            "state": end.state, "has": end.has, "wscale": (end.their_wscale, end.our_wscale),
            "receive_seq": end.receive_seq, "send_seq": end.send_seq, "window": list(end.window),
            "options": list(end.options), "congestion": (<char*>end.congestion)[:16],
        }

    @property
    def timestamp(self):
        return self.end.timestamp if self.end.has & END_TIMESTAMP else None

    def pack(self):
        """As it travels."""
        return (<char*>&self.end)[:sizeof(End)] + self.unread + self.sent + self.unsent

    @staticmethod
    def unpack(bytes data not None):
        """What ``pack`` has made; ImageError for anything else."""
        cdef TcpImage image = TcpImage.__new__(TcpImage)
        cdef End* end = &image.end
        cdef Py_ssize_t at, size = len(data)
        memset(end, 0, sizeof(End))
        if size >= 2:
            memcpy(end, <const char*>data, 2)
        if size < sizeof(End) or not sizeof(End) <= end.size <= size:
            raise ImageError(f"an end of {size} bytes, of which {end.size} are its head: expected {sizeof(End)}")
        at = end.size
        memcpy(end, <const char*>data, sizeof(End))
        end.size = sizeof(End)
        if size - at != <Py_ssize_t>end.unread + end.sent + end.unsent:
            raise ImageError(f"an end with {size - at} bytes, its head says {end.unread} + {end.sent} + {end.unsent}")
        if not is_alive(end.state):
            raise ImageError(f"an end in state {end.state}")
        if end.their_wscale > 14 or end.our_wscale > 14:
            raise ImageError(f"window scales {end.their_wscale} and {end.our_wscale}: expected 14 at most")
        image.unread = data[at:at + end.unread]
        image.sent = data[at + end.unread:at + end.unread + end.sent]
        image.unsent = data[at + end.unread + end.sent:]
        return image


cdef place_of(const End* end, const uint8_t* address, uint16_t port):
    family, size = (AF_INET6, 16) if end.has & END_IPV6 else (AF_INET, 4)
    return _socket.inet_ntop(family, (<const char*>address)[:size]), port


# ---- small calls -----------------------------------------------------------------------------------------------------

cdef int check(int rc) except -1:
    """OSError of the last call, if it failed."""
    if rc < 0:
        raise OSError(errno, os.strerror(errno))
    return rc


cdef bint is_alive(int state) noexcept:
    return state == ESTABLISHED or state == FIN_WAIT1 or state == FIN_WAIT2 or state == CLOSE_WAIT


cdef int put(int fd, int level, int name, int value) except -1:
    return check(c_setsockopt(fd, level, name, &value, sizeof(value)))


cdef int find(int fd, int level, int name) except? -1:
    cdef int value = 0
    cdef socklen_t size = sizeof(value)
    check(c_getsockopt(fd, level, name, &value, &size))
    return value


cdef int look_up(int fd, unsigned long request) except? -1:
    cdef int value = 0
    check(c_ioctl(fd, request, &value))
    return value


cdef int level_of(int option) noexcept:
    return SOL_SOCKET if option < 2 else IPPROTO_TCP


cdef int name_of(int option) noexcept:
    """Options that the workers set; carried over by their place in this list, which is only ever added to."""
    cdef int[KEPT] names
    names[:] = [SO_KEEPALIVE, SO_OOBINLINE, TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT]
    return names[option]


# ---- freezing --------------------------------------------------------------------------------------------------------

def shut(int fd):
    """From now on nothing that arrives is taken in, nor answered; until ``thaw`` or the socket's end."""
    cdef Filter code
    cdef Program program
    code.code, code.jt, code.jf, code.k = 0x06, 0, 0, 0  # return 0: no byte of it
    program.count = 1
    program.code = &code
    check(c_setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)))


def unacknowledged(int fd):
    """Bytes, or a FIN, that the other end has not acknowledged."""
    return look_up(fd, SIOCOUTQ)


def end_by_reset(int fd, bint is_so=True):
    """Whether the socket's last close, also by the death of the process, is a RST: a cut must not look like an end."""
    cdef linger_s now
    now.l_onoff = is_so
    now.l_linger = 0
    check(c_setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)))


def freeze(int fd):
    """Stop a connection where it stands; ImageError, and it goes on, when there is no image of it."""
    shut(fd)
    try:
        put(fd, IPPROTO_TCP, TCP_REPAIR, 1)
        return look(fd)
    except (ImageError, OSError) as error:
        resume(fd)
        raise error if isinstance(error, ImageError) else ImageError(error.strerror or str(error)) from error


def resume(int fd):
    """Let a connection go on where it is, as if nothing had been; one that is not frozen, too."""
    cdef int nothing = 0
    end_by_reset(fd, False)
    if find(fd, IPPROTO_TCP, TCP_REPAIR):
        release(fd)
    if c_setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &nothing, sizeof(nothing)) < 0 and errno != ENOENT:
        check(-1)


def reset(int fd):
    """End a connection that is not frozen by RST, also when its address is on this machine no more."""
    cdef sockaddr nobody
    memset(&nobody, 0, sizeof(nobody))
    nobody.sa_family = AF_UNSPEC
    make_transparent(fd, 1)
    check(c_connect(fd, &nobody, sizeof(nobody)))


cdef int make_transparent(int fd, int value) except -1:
    if find(fd, SOL_SOCKET, SO_DOMAIN) == AF_INET6:
        return put(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, value)
    return put(fd, IPPROTO_IP, IP_TRANSPARENT, value)


cdef int release(int fd) except -1:
    """End the repair; a window probe is sent, and what the other end has to say comes at once."""
    put(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, 0)
    put(fd, IPPROTO_TCP, TCP_REPAIR, 0)
    # As the listener's other connections have it; the repair has taken it away, and listeners could not be added.
    put(fd, SOL_SOCKET, SO_REUSEADDR, 1)
    put(fd, SOL_SOCKET, SO_REUSEPORT, 1)
    return 0


cdef TcpImage look(int fd):
    cdef TcpImage image = TcpImage.__new__(TcpImage)
    cdef End* end = &image.end
    cdef uint8_t[8] info
    cdef socklen_t size = sizeof(info)
    cdef int fin, i
    cdef bytes pending
    memset(end, 0, sizeof(End))
    end.size = sizeof(End)
    check(c_getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &size))
    if not is_alive(info[0]):
        raise ImageError("it is about to end")
    fin = info[0] == FIN_WAIT1
    end.state = info[0] if fin or info[0] == CLOSE_WAIT else ESTABLISHED
    image.unread = copy(fd, RECEIVE_QUEUE, look_up(fd, FIONREAD), &end.receive_seq)
    # From here on nothing is sent, by no timer either: only now can be told what has been.
    put(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, SEND_QUEUE)
    end.unsent = max(0, look_up(fd, SIOCOUTQNSD) - fin)
    pending = copy(fd, SEND_QUEUE, max(0, look_up(fd, SIOCOUTQ) - fin), &end.send_seq)
    end.send_seq -= fin
    end.unread = len(image.unread)
    end.sent = len(pending) - end.unsent
    image.sent, image.unsent = pending[:end.sent], pending[end.sent:]
    name_ends(fd, end)
    end.mss = find(fd, IPPROTO_TCP, TCP_MAXSEG)
    if info[5] & INFO_WSCALE:
        end.has |= END_WSCALE
        end.their_wscale, end.our_wscale = info[6] & 15, info[6] >> 4
    if info[5] & INFO_SACK:
        end.has |= END_SACK
    if info[5] & INFO_TIMESTAMPS:
        end.has |= END_TIMESTAMP
        end.timestamp = <uint32_t>find(fd, IPPROTO_TCP, TCP_TIMESTAMP)
    size = sizeof(end.window)
    check(c_getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, end.window, &size))
    end.send_buffer = find(fd, SOL_SOCKET, SO_SNDBUF)
    end.receive_buffer = find(fd, SOL_SOCKET, SO_RCVBUF)
    for i in range(KEPT):
        end.options[i] = find(fd, level_of(i), name_of(i))
    size = sizeof(end.congestion)
    check(c_getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, end.congestion, &size))
    return image


cdef int name_ends(int fd, End* end) except -1:
    cdef sockaddr_in6 address
    cdef socklen_t size = sizeof(address)
    check(c_getsockname(fd, <sockaddr*>&address, &size))
    if address.sin6_family == AF_INET6:
        end.has |= END_IPV6
    end.local_port = read_place(&address, end.local)
    size = sizeof(address)
    check(c_getpeername(fd, <sockaddr*>&address, &size))
    end.remote_port = read_place(&address, end.remote)
    return 0


cdef uint16_t read_place(const sockaddr_in6* address, uint8_t* out) noexcept:
    if address.sin6_family == AF_INET6:
        memcpy(out, &address.sin6_addr, 16)
    else:
        memcpy(out, &(<const sockaddr_in*>address).sin_addr, 4)
    return ntohs(address.sin6_port)


cdef bytes copy(int fd, int queue, int size, uint32_t* sequence):
    """What a queue holds, and the sequence number behind its last byte."""
    cdef bytes data = b""
    if size > MOST_QUEUE:
        raise ImageError(f"its queues hold more than {MOST_QUEUE >> 20} MB")
    put(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
    if size:
        data = PyBytes_FromStringAndSize(NULL, size)
        if sys_recv(fd, PyBytes_AS_STRING(data), size, MSG_PEEK) != size:
            raise ImageError("it holds urgent data")
    sequence[0] = <uint32_t>find(fd, IPPROTO_TCP, TCP_QUEUE_SEQ)
    return data


# ---- recreating ------------------------------------------------------------------------------------------------------

def recreate(TcpImage image not None):
    """The same connection, frozen: a descriptor; OSError when this machine cannot have it.  ``thaw`` sets it going."""
    cdef End* end = &image.end
    cdef int fd = sys_socket(AF_INET6 if end.has & END_IPV6 else AF_INET)
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd))
    try:
        shut(fd)
        make_transparent(fd, 1)
        put(fd, IPPROTO_TCP, TCP_REPAIR, 1)
        write_numbers(fd, image)
        # Or the copy would send in segments of 524 bytes for ever.
        put(fd, IPPROTO_TCP, TCP_MAXSEG, min(<int>end.mss, <int>MOST_MSS))
        tie(fd, end)
        make_transparent(fd, 0)
        write_options(fd, end)
        fill(fd, RECEIVE_QUEUE, image.unread)
        fill(fd, SEND_QUEUE, image.sent)
        check(c_setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, end.window, sizeof(end.window)))
    except BaseException:
        sys_close(fd)  # under repair: silent
        raise
    return fd


def thaw(int fd, TcpImage image not None):
    """Set a recreated connection going; its address is on this machine by now."""
    put(fd, SOL_SOCKET, SO_DETACH_FILTER, 0)
    release(fd)
    cdef Py_ssize_t size = len(image.unsent)
    if size and sys_send(fd, PyBytes_AS_STRING(image.unsent), size, 0) != size:
        raise OSError("the send buffer does not take what it held elsewhere")
    if image.end.state == FIN_WAIT1:
        check(c_shutdown(fd, SHUT_WR))
    put(fd, SOL_SOCKET, SO_BUF_LOCK, 0)  # the kernel may fit the buffers again


cdef int tie(int fd, const End* end) except -1:
    cdef sockaddr_in6 ours, theirs
    cdef socklen_t size
    size = write_place(&ours, end, end.local, end.local_port)
    check(c_bind(fd, <sockaddr*>&ours, size))
    size = write_place(&theirs, end, end.remote, end.remote_port)
    return check(c_connect(fd, <sockaddr*>&theirs, size))


cdef socklen_t write_place(sockaddr_in6* out, const End* end, const uint8_t* address, uint16_t port) noexcept:
    memset(out, 0, sizeof(sockaddr_in6))
    out.sin6_port = htons(port)
    if end.has & END_IPV6:
        out.sin6_family = AF_INET6
        memcpy(&out.sin6_addr, address, 16)
        return sizeof(sockaddr_in6)
    out.sin6_family = AF_INET
    memcpy(&(<sockaddr_in*>out).sin_addr, address, 4)
    return sizeof(sockaddr_in)


cdef int write_numbers(int fd, TcpImage image) except -1:
    cdef End* end = &image.end
    cdef uint32_t behind_fin = 1 if end.state == CLOSE_WAIT and end.unread else 0
    cdef uint32_t number
    put(fd, SOL_SOCKET, SO_SNDBUFFORCE, half(end.send_buffer, 4 * (end.sent + end.unsent)))
    put(fd, SOL_SOCKET, SO_RCVBUFFORCE, half(end.receive_buffer, 4 * end.unread))
    put(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, RECEIVE_QUEUE)
    number = end.receive_seq - end.unread - behind_fin
    put(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, <int>number)
    put(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, SEND_QUEUE)
    number = end.send_seq - end.sent - end.unsent
    return put(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, <int>number)


cdef int half(uint32_t had, uint32_t needed) noexcept:
    """The kernel doubles it."""
    return <int>(min(max(had, needed), <uint32_t>(1 << 30)) // 2 + 1)


cdef int write_options(int fd, const End* end) except -1:
    cdef Option[4] options
    cdef int count = 1, i
    options[0].code, options[0].value = OPTION_MSS, end.mss
    if end.has & END_WSCALE:
        options[count].code, options[count].value = OPTION_WINDOW, end.their_wscale | <uint32_t>end.our_wscale << 16
        count += 1
    if end.has & END_SACK:
        options[count].code, options[count].value = OPTION_SACK, 0
        count += 1
    if end.has & END_TIMESTAMP:
        options[count].code, options[count].value = OPTION_TIMESTAMP, 0
        count += 1
    check(c_setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, options, count * sizeof(Option)))
    if end.has & END_TIMESTAMP:
        put(fd, IPPROTO_TCP, TCP_TIMESTAMP, <int>end.timestamp)
    for i in range(KEPT):
        put(fd, level_of(i), name_of(i), end.options[i])
    # A machine whose kernel does not have it keeps its own choice.
    if c_setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, end.congestion, sizeof(end.congestion)) < 0 and errno != ENOENT:
        check(-1)
    return 0


cdef int fill(int fd, int queue, bytes data) except -1:
    cdef const char* at = PyBytes_AS_STRING(data)
    cdef Py_ssize_t left = len(data), rc
    if not left:
        return 0
    put(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
    while left:
        rc = sys_send(fd, at, min(left, <Py_ssize_t>CHUNK), 0)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc))
        at += rc
        left -= rc
    return 0
