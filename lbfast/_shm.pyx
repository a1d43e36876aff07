"""Shared memory regions: memfd, map, header check."""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.errno cimport errno
from libc.string cimport memcpy, strncmp

from lbfast._sys cimport boot_ms, c_close, c_fcntl

import os

cdef extern from "<sys/mman.h>" nogil:
    int PROT_READ
    int PROT_WRITE
    int MAP_SHARED
    int MADV_DONTDUMP
    unsigned int MFD_CLOEXEC
    unsigned int MFD_ALLOW_SEALING
    void* MAP_FAILED
    int memfd_create(const char* name, unsigned int flags)
    void* mmap(void* address, size_t size, int protection, int flags, int fd, long offset)
    int munmap(void* address, size_t size)
    int madvise(void* address, size_t size, int advice)

cdef extern from "<fcntl.h>" nogil:
    int F_ADD_SEALS
    int F_SEAL_SHRINK
    int F_SEAL_GROW
    int F_SEAL_SEAL

cdef const char* MAGIC = "lbfast\0"


cdef class Region:
    """A memfd mapped shared by every process that holds its descriptor."""

    def __cinit__(self):
        self.fd = -1
        self.base = NULL

    def __init__(self):
        raise TypeError("use Region.create or Region.attach")

    @staticmethod
    def create(str kind, size_t size, uint32_t version):
        """A new zeroed region of ``size`` bytes behind the header."""
        cdef Region region = Region.__new__(Region)
        cdef bytes name = kind.encode("ascii")
        cdef ShmHeader* header
        if not 0 < len(name) < 16:
            raise ValueError(f"kind {kind!r}: expected 1 to 15 ASCII characters")
        region.kind = kind
        region.fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)
        if region.fd < 0:
            raise OSError(errno, f"memfd_create {kind}: {os.strerror(errno)}")
        region.size = (size + SHM_HEADER + 4095) & ~<size_t>4095
        os.ftruncate(region.fd, region.size)
        # Whoever holds the descriptor could shrink it, and kill every process that reads beyond (SIGBUS).
        if c_fcntl(region.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0:
            raise OSError(errno, f"seal {kind}: {os.strerror(errno)}")
        region._map()
        header = <ShmHeader*>region.base
        memcpy(header.magic, MAGIC, 7)
        memcpy(header.kind, <const char*>name, len(name))
        header.version = version
        header.size = region.size
        return region

    @staticmethod
    def attach(int fd, str kind, uint32_t version):
        """Map a region that another process made; ValueError when it is a different thing."""
        cdef Region region = Region.__new__(Region)
        cdef ShmHeader* header
        region.kind = kind
        region.size = os.fstat(fd).st_size
        if region.size < SHM_HEADER:
            raise ValueError(f"descriptor {fd}: {region.size} bytes, no lbfast region")
        region.fd = os.dup(fd)
        region._map()
        header = <ShmHeader*>region.base
        if strncmp(header.magic, MAGIC, 7) != 0:
            raise ValueError(f"descriptor {fd}: no lbfast region")
        found = header.kind[:16].split(b"\0")[0].decode("ascii", "replace")
        if found != kind:
            raise ValueError(f"descriptor {fd}: region of kind {found!r}, expected {kind!r}")
        if header.version != version:
            raise ValueError(f"region {kind}: layout version {header.version}, expected {version}")
        if header.size != region.size:
            raise ValueError(f"region {kind}: {region.size} bytes, its header says {header.size}")
        return region

    cdef _map(self):
        cdef void* base = mmap(NULL, self.size, PROT_READ | PROT_WRITE, MAP_SHARED, self.fd, 0)
        if base == MAP_FAILED:
            raise OSError(errno, f"mmap {self.kind}, {self.size} bytes: {os.strerror(errno)}")
        self.base = <uint8_t*>base
        # Clients' addresses do not belong in a core dump.
        madvise(base, self.size, MADV_DONTDUMP)

    def close(self):
        """Unmap and close; refused while a memoryview is open."""
        if self.views:
            raise BufferError(f"region {self.kind}: {self.views} open views")
        self._release()

    cdef _release(self):
        if self.base != NULL:
            munmap(self.base, self.size)
            self.base = NULL
        if self.fd >= 0:
            c_close(self.fd)
            self.fd = -1

    def __dealloc__(self):
        self._release()

    def __getbuffer__(self, Py_buffer* view, int flags):
        if self.base == NULL:
            raise ValueError(f"region {self.kind} is closed")
        PyBuffer_FillInfo(view, self, self.base, self.size, 0, flags)
        self.views += 1

    def __releasebuffer__(self, Py_buffer* view):
        self.views -= 1


def now_ms():
    """CLOCK_BOOTTIME in milliseconds."""
    return boot_ms()
