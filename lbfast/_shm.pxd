"""A shared memory region: one memfd with a checked header."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    SHM_HEADER = 64

cdef struct ShmHeader:
    char magic[8]
    char kind[16]
    uint32_t version
    uint32_t reserved
    uint64_t size

cdef class Region:
    cdef readonly int fd
    cdef readonly size_t size
    cdef readonly str kind
    cdef uint8_t* base
    cdef int views
    cdef _map(self)
    cdef _release(self)
