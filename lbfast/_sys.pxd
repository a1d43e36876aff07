"""Linux as the data plane sees it: calls that return >= 0 or -errno, atomics, the clock.

This file has no .pyx: everything is an extern declaration or an inline.
"""

from libc.errno cimport errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "_debug.h" nogil:
    const int LBFAST_DEBUG

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_BOOTTIME
    int CLOCK_REALTIME
    int clock_gettime(int clock, timespec* at)

cdef extern from "<sys/types.h>" nogil:
    ctypedef int pid_t
    ctypedef long off_t

cdef extern from "<unistd.h>" nogil:
    pid_t getpid()
    int c_close "close" (int fd)
    int c_pipe2 "pipe2" (int* fds, int flags)
    ssize_t c_read "read" (int fd, void* buffer, size_t size)
    ssize_t c_write "write" (int fd, const void* buffer, size_t size)

cdef extern from "<signal.h>" nogil:
    int kill(pid_t pid, int sig)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "<fcntl.h>" nogil:
    int O_NONBLOCK
    int O_CLOEXEC
    int F_SETPIPE_SZ
    int F_GETPIPE_SZ
    int c_fcntl "fcntl" (int fd, int command, ...)
    unsigned int SPLICE_F_NONBLOCK
    unsigned int SPLICE_F_MOVE
    unsigned int SPLICE_F_MORE
    ssize_t c_splice "splice" (int source, void* o1, int target, void* o2, size_t size, unsigned int flags)

cdef extern from "<netinet/in.h>" nogil:
    int IPPROTO_TCP
    int IPPROTO_IP
    int IP_BIND_ADDRESS_NO_PORT
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr:
        uint16_t sa_family
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    uint16_t htons(uint16_t value)
    uint16_t ntohs(uint16_t value)

cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_CONGESTION
    int TCP_NODELAY
    int TCP_QUICKACK
    int TCP_KEEPIDLE
    int TCP_KEEPINTVL
    int TCP_KEEPCNT
    int TCP_USER_TIMEOUT

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    int AF_INET
    int AF_INET6
    int SOCK_STREAM
    int SOCK_NONBLOCK
    int SOCK_CLOEXEC
    int SOL_SOCKET
    int SO_LINGER
    int SO_ERROR
    int SO_KEEPALIVE
    int SO_OOBINLINE
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    int MSG_PEEK
    int MSG_MORE
    int MSG_CMSG_CLOEXEC
    int SHUT_WR
    int SCM_RIGHTS
    struct linger_s "linger":
        int l_onoff
        int l_linger
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        void* msg_name
        socklen_t msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
        int msg_flags
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    cmsghdr* CMSG_FIRSTHDR(msghdr* message)
    unsigned char* CMSG_DATA(cmsghdr* part)
    size_t CMSG_LEN(size_t size)
    size_t CMSG_SPACE(size_t size)
    int c_accept4 "accept4" (int fd, sockaddr* address, socklen_t* size, int flags)
    int c_socket "socket" (int family, int kind, int protocol)
    int c_connect "connect" (int fd, const sockaddr* address, socklen_t size)
    int c_bind "bind" (int fd, const sockaddr* address, socklen_t size)
    int c_shutdown "shutdown" (int fd, int how)
    int c_setsockopt "setsockopt" (int fd, int level, int name, const void* value, socklen_t size)
    int c_getsockopt "getsockopt" (int fd, int level, int name, void* value, socklen_t* size)
    int c_getsockname "getsockname" (int fd, sockaddr* address, socklen_t* size)
    ssize_t c_recv "recv" (int fd, void* buffer, size_t size, int flags)
    ssize_t c_send "send" (int fd, const void* buffer, size_t size, int flags)
    ssize_t c_sendmsg "sendmsg" (int fd, const msghdr* message, int flags)
    ssize_t c_recvmsg "recvmsg" (int fd, msghdr* message, int flags)

cdef extern from "<sys/ioctl.h>" nogil:
    int c_ioctl "ioctl" (int fd, unsigned long request, ...)
    unsigned long FIONREAD

cdef extern from "<linux/sockios.h>" nogil:
    unsigned long SIOCOUTQ

cdef extern from "<sys/epoll.h>" nogil:
    unsigned int EPOLLIN
    unsigned int EPOLLOUT
    unsigned int EPOLLPRI
    unsigned int EPOLLERR
    unsigned int EPOLLHUP
    unsigned int EPOLLRDHUP
    unsigned int EPOLLET
    int EPOLL_CLOEXEC
    int EPOLL_CTL_ADD
    int EPOLL_CTL_DEL
    int EPOLL_CTL_MOD
    union epoll_data:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data data
    int c_epoll_create1 "epoll_create1" (int flags)
    int c_epoll_ctl "epoll_ctl" (int epfd, int operation, int fd, epoll_event* event)
    int c_epoll_wait "epoll_wait" (int epfd, epoll_event* events, int size, int timeout)

cdef extern from "_atomic.h" nogil:
    int64_t atomic_add64(int64_t* value, int64_t n)
    int64_t atomic_load64(const int64_t* value)
    void atomic_store64(int64_t* value, int64_t n)
    uint32_t atomic_add32(uint32_t* value, uint32_t n)
    uint32_t atomic_load32(const uint32_t* value)
    void atomic_store32(uint32_t* value, uint32_t n)
    bint atomic_swap32(uint32_t* value, uint32_t expected, uint32_t n)
    void atomic_or8(uint8_t* value, uint8_t bits)
    void fence_release()
    void fence_acquire()
    void cpu_pause()

cdef extern from "_fault.h" nogil:
    # 0, or the -errno that a test armed for this call (always 0 in a release build).
    int fault(int door)
    void fault_arm(int door, int after, int times, int error)

cdef enum Door:
    DOOR_ACCEPT
    DOOR_SOCKET
    DOOR_CONNECT
    DOOR_RECV
    DOOR_SEND
    DOOR_SPLICE_IN
    DOOR_SPLICE_OUT
    DOOR_PIPE
    DOOR_EPOLL


cdef inline int64_t clock_ms(int clock) noexcept nogil:
    cdef timespec at
    clock_gettime(clock, &at)
    return <int64_t>at.tv_sec * 1000 + at.tv_nsec // 1000000

cdef inline int64_t boot_ms() noexcept nogil:
    return clock_ms(CLOCK_BOOTTIME)

cdef inline int sys_accept(int fd, sockaddr* address, socklen_t* size) noexcept nogil:
    cdef int rc = fault(DOOR_ACCEPT)
    if rc < 0:
        return rc
    rc = c_accept4(fd, address, size, SOCK_NONBLOCK | SOCK_CLOEXEC)
    return rc if rc >= 0 else -errno

cdef inline int sys_socket(int family) noexcept nogil:
    cdef int rc = fault(DOOR_SOCKET)
    if rc < 0:
        return rc
    rc = c_socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    return rc if rc >= 0 else -errno

cdef inline int sys_connect(int fd, const sockaddr* address, socklen_t size) noexcept nogil:
    cdef int rc = fault(DOOR_CONNECT)
    if rc < 0:
        return rc
    return 0 if c_connect(fd, address, size) == 0 else -errno

cdef inline ssize_t sys_recv(int fd, void* buffer, size_t size, int flags) noexcept nogil:
    cdef ssize_t rc = fault(DOOR_RECV)
    if rc < 0:
        return rc
    rc = c_recv(fd, buffer, size, flags | MSG_DONTWAIT)
    return rc if rc >= 0 else -errno

cdef inline ssize_t sys_send(int fd, const void* buffer, size_t size, int flags) noexcept nogil:
    cdef ssize_t rc = fault(DOOR_SEND)
    if rc < 0:
        return rc
    rc = c_send(fd, buffer, size, flags | MSG_DONTWAIT | MSG_NOSIGNAL)
    return rc if rc >= 0 else -errno

cdef inline ssize_t sys_splice_in(int source, int pipe, size_t size) noexcept nogil:
    cdef ssize_t rc = fault(DOOR_SPLICE_IN)
    if rc < 0:
        return rc
    rc = c_splice(source, NULL, pipe, NULL, size, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
    return rc if rc >= 0 else -errno

cdef inline ssize_t sys_splice_out(int pipe, int target, size_t size, unsigned int more) noexcept nogil:
    cdef ssize_t rc = fault(DOOR_SPLICE_OUT)
    if rc < 0:
        return rc
    rc = c_splice(pipe, NULL, target, NULL, size, SPLICE_F_MOVE | SPLICE_F_NONBLOCK | more)
    return rc if rc >= 0 else -errno

cdef inline int sys_epoll_add(int epfd, int fd, uint32_t events, uint64_t data) noexcept nogil:
    cdef epoll_event event
    cdef int rc = fault(DOOR_EPOLL)
    if rc < 0:
        return rc
    event.events = events
    event.data.u64 = data
    return 0 if c_epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) == 0 else -errno

cdef inline int sys_epoll_mod(int epfd, int fd, uint32_t events, uint64_t data) noexcept nogil:
    cdef epoll_event event
    event.events = events
    event.data.u64 = data
    return 0 if c_epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &event) == 0 else -errno

cdef inline int sys_set(int fd, int level, int name, int value) noexcept nogil:
    return 0 if c_setsockopt(fd, level, name, &value, sizeof(value)) == 0 else -errno

cdef inline int sys_close(int fd) noexcept nogil:
    # Linux has released the descriptor whatever close returns; a retry could close a stranger's.
    return 0 if c_close(fd) == 0 else -errno

cdef inline int sys_reset(int fd) noexcept nogil:
    """Close with RST: linger on, zero seconds."""
    cdef linger_s now
    now.l_onoff = 1
    now.l_linger = 0
    c_setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now))
    return sys_close(fd)
