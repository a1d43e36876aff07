"""The PROXY protocol, versions 1 and 2: bytes in, addresses out, and back.

A codec without sockets.  Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d; ports are
in host order.  What follows the header in the stream is the client's.
"""

from libc.stdint cimport uint8_t, uint16_t

cdef enum:
    PROXY_MAX = 4096          # longest header accepted, TLVs included
    PROXY_RENDER_MAX = 107    # longest header made by proxy_render

cdef struct ProxyAddress:
    uint8_t family            # 4, 6, or 0 = the header names nobody: keep the socket's own addresses
    uint8_t src[16]
    uint8_t dst[16]
    uint16_t src_port
    uint16_t dst_port

# Length of the header (> 0); 0 = all bytes so far fit, more are needed; -EPROTO = not a PROXY header;
# -EMSGSIZE = a version 2 header that announces more than PROXY_MAX.  `out` is written only on > 0.
cdef int proxy_parse(const uint8_t* data, size_t size, ProxyAddress* out) noexcept nogil
# Write a header to out[PROXY_RENDER_MAX]; its length, or -EINVAL when version is neither 1 nor 2.
cdef int proxy_render(uint8_t* out, int version, const uint8_t* src16, uint16_t src_port,
                      const uint8_t* dst16, uint16_t dst_port) noexcept nogil
