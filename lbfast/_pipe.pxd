"""A worker's pool of kernel pipes, for splice.

Three verbs.  pipe_get: the caller owns an empty pipe.  pipe_put: the caller gives back
an EMPTY pipe.  pipe_kill: both ends are closed, whatever they hold; a pipe that still
holds bytes must end here, or the next connection would send them.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t

cdef struct Pipe:
    int32_t source            # read end
    int32_t target            # write end
    int32_t next              # in the free list

cdef struct PipePool:
    Pipe* pipes
    int32_t capacity
    int32_t free              # first idle pipe that is open, or -1
    int32_t unmade            # first place without a pipe, or -1
    int32_t in_use
    uint32_t size             # bytes a pipe is asked to hold
    int64_t retry_at_ms       # after the kernel refused one: copy until then

cdef int pool_open(PipePool* pool, int32_t capacity, uint32_t size) noexcept nogil
cdef void pool_close(PipePool* pool) noexcept nogil
# Index of an empty pipe, or -errno (EAGAIN: the pool is in use or the kernel refused lately).
cdef int32_t pipe_get(PipePool* pool, int64_t now_ms) noexcept nogil
cdef void pipe_put(PipePool* pool, int32_t index) noexcept nogil
# A pipe that another worker had, with its bytes: its index, or -ENOMEM (both ends are closed then).  An idle one
# gives way, or the pool grows.
cdef int32_t pipe_adopt(PipePool* pool, int source, int target) noexcept nogil
cdef void pipe_kill(PipePool* pool, int32_t index) noexcept nogil
