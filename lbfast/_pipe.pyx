"""A worker's pool of kernel pipes: bodies."""

from libc.errno cimport EAGAIN, ENOMEM, errno
from libc.stdlib cimport calloc, free, realloc

from lbfast._sys cimport DOOR_PIPE, F_GETPIPE_SZ, F_SETPIPE_SZ, O_CLOEXEC, O_NONBLOCK, c_close, c_fcntl, c_pipe2, fault

cdef enum:
    SMALLEST = 65536          # less than this and copying is cheaper
    RETRY_MS = 1000


cdef int pool_open(PipePool* pool, int32_t capacity, uint32_t size) noexcept nogil:
    cdef int32_t i
    pool.pipes = <Pipe*>calloc(capacity if capacity > 0 else 1, sizeof(Pipe))
    if pool.pipes == NULL:
        return -ENOMEM
    for i in range(capacity):
        pool.pipes[i].source = -1
        pool.pipes[i].next = i + 1 if i + 1 < capacity else -1
    pool.capacity = capacity
    pool.unmade = 0 if capacity > 0 else -1
    pool.free = -1
    pool.in_use = 0
    pool.size = size
    pool.retry_at_ms = 0
    return 0


cdef void pool_close(PipePool* pool) noexcept nogil:
    cdef int32_t i
    if pool.pipes == NULL:
        return
    for i in range(pool.capacity):
        if pool.pipes[i].source >= 0:
            c_close(pool.pipes[i].source)
            c_close(pool.pipes[i].target)
    free(pool.pipes)
    pool.pipes = NULL


cdef int make(PipePool* pool, Pipe* pipe) noexcept nogil:
    """Open a pipe large enough to be worth splicing through.

    An unprivileged user beyond fs.pipe-user-pages-soft gets pipes of two pages, which can
    neither grow nor carry anything fast: such a pipe is refused here.
    """
    cdef int ends[2]
    cdef int rc = fault(DOOR_PIPE)
    if rc < 0:
        return rc
    if c_pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0:
        return -errno
    c_fcntl(ends[1], F_SETPIPE_SZ, <int>pool.size)
    if c_fcntl(ends[1], F_GETPIPE_SZ) < SMALLEST:
        c_close(ends[0])
        c_close(ends[1])
        return -EAGAIN
    pipe.source = ends[0]
    pipe.target = ends[1]
    return 0


cdef int32_t pipe_get(PipePool* pool, int64_t now_ms) noexcept nogil:
    cdef int32_t index = pool.free
    cdef int rc
    if index >= 0:
        pool.free = pool.pipes[index].next
    else:
        index = pool.unmade
        if index < 0 or now_ms < pool.retry_at_ms:
            return -EAGAIN
        rc = make(pool, &pool.pipes[index])
        if rc < 0:
            pool.retry_at_ms = now_ms + RETRY_MS
            return rc
        pool.unmade = pool.pipes[index].next
    pool.in_use += 1
    return index


cdef int grow(PipePool* pool) noexcept nogil:
    cdef int32_t index = pool.capacity
    cdef Pipe* pipes = <Pipe*>realloc(pool.pipes, (index + 1) * sizeof(Pipe))
    if pipes == NULL:
        return -ENOMEM
    pool.pipes = pipes
    pool.capacity = index + 1
    pipes[index].source = -1
    pipes[index].next = -1
    pool.unmade = index
    return 0


cdef int32_t pipe_adopt(PipePool* pool, int source, int target) noexcept nogil:
    cdef int32_t index
    if pool.unmade < 0 and pool.free >= 0:
        index = pool.free
        pool.free = pool.pipes[index].next
        c_close(pool.pipes[index].source)
        c_close(pool.pipes[index].target)
        pool.pipes[index].next = -1
        pool.unmade = index
    if pool.unmade < 0 and grow(pool) < 0:
        c_close(source)
        c_close(target)
        return -ENOMEM
    index = pool.unmade
    pool.unmade = pool.pipes[index].next
    pool.pipes[index].source = source
    pool.pipes[index].target = target
    pool.in_use += 1
    return index


cdef void pipe_put(PipePool* pool, int32_t index) noexcept nogil:
    pool.pipes[index].next = pool.free
    pool.free = index
    pool.in_use -= 1


cdef void pipe_kill(PipePool* pool, int32_t index) noexcept nogil:
    c_close(pool.pipes[index].source)
    c_close(pool.pipes[index].target)
    pool.pipes[index].source = -1
    pool.pipes[index].next = pool.unmade
    pool.unmade = index
    pool.in_use -= 1
