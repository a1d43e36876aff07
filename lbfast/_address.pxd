"""Addresses as 16 bytes (IPv4 as ::ffff:a.b.c.d) and as text; needs the GIL, for cold paths."""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memset

from lbfast._sys cimport AF_INET, AF_INET6

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int family, const char* text, void* address)
    const char* inet_ntop(int family, const void* address, char* text, unsigned int size)

cdef inline bint address_is_v4(const uint8_t* key) noexcept nogil:
    return memcmp(key, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0

cdef inline int address_parse(str text, uint8_t* key) except -1:
    """ValueError when the text is no address."""
    cdef bytes raw = text.encode("ascii", "replace")
    if b"\0" not in raw:
        memset(key, 0, 10)
        key[10] = 0xff
        key[11] = 0xff
        if inet_pton(AF_INET, raw, key + 12) == 1 or inet_pton(AF_INET6, raw, key) == 1:
            return 0
    raise ValueError(f"{text!r}: expected an IPv4 or IPv6 address")

cdef inline str address_format(const uint8_t* key):
    cdef char text[64]
    if address_is_v4(key):
        inet_ntop(AF_INET, key + 12, text, sizeof(text))
    else:
        inet_ntop(AF_INET6, key, text, sizeof(text))
    return (<bytes>text).decode("ascii")
