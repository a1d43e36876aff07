"""The PROXY protocol codec: version 1 as text, version 2 as binary, no sockets."""

from libc.errno cimport EINVAL, EMSGSIZE, EPROTO
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy, memset

from lbfast._address cimport address_format, address_is_v4, address_parse, inet_pton
from lbfast._sys cimport AF_INET6

cdef enum:
    V1_MAX = 107              # "PROXY UNKNOWN" and two full IPv6 addresses and ports, CR LF included
    V2_HEAD = 16
    V2_LOCAL = 0x20
    V2_PROXY = 0x21
    V2_INET = 1               # family, high half of byte 13
    V2_INET6 = 2
    V2_UNIX = 3
    V2_STREAM = 1             # transport, low half
    V2_DGRAM = 2
    TLV_HEAD = 3

cdef extern from *:
    """
    static const char proxy_v2_signature[] = "\\r\\n\\r\\n\\0\\r\\nQUIT\\n";
    """
    const char* proxy_v2_signature


# ---- version 1: "PROXY TCP4 192.0.2.1 192.0.2.2 50000 443\r\n" -------------------------------------------------------

cdef inline bint is_digit(uint8_t c) noexcept nogil:
    return 48 <= c <= 57


cdef int read_number(const uint8_t** at, const uint8_t* end, uint32_t most) noexcept nogil:
    """A decimal number without sign or leading zero; -1 when there is none or it is beyond ``most``."""
    cdef const uint8_t* start = at[0]
    cdef uint32_t value = 0
    while at[0] < end and is_digit(at[0][0]):
        value = value * 10 + (at[0][0] - 48)
        at[0] += 1
        if value > most:
            return -1
    if at[0] == start or (start[0] == 48 and at[0] - start > 1):
        return -1
    return <int>value


cdef bint read_char(const uint8_t** at, const uint8_t* end, uint8_t wanted) noexcept nogil:
    if at[0] < end and at[0][0] == wanted:
        at[0] += 1
        return True
    return False


cdef bint read_v4(const uint8_t** at, const uint8_t* end, uint8_t* address) noexcept nogil:
    cdef int i
    cdef int part
    memset(address, 0, 10)
    address[10] = 0xff
    address[11] = 0xff
    for i in range(4):
        if i > 0 and not read_char(at, end, c'.'):
            return False
        part = read_number(at, end, 255)
        if part < 0:
            return False
        address[12 + i] = <uint8_t>part
    return True


cdef bint read_v6(const uint8_t** at, const uint8_t* end, uint8_t* address) noexcept nogil:
    """Up to the next space.  inet_pton knows the grammar; it wants a terminated string."""
    cdef char text[40]
    cdef size_t size = 0
    while at[0] < end and at[0][0] != c' ':
        if size == 39 or at[0][0] == 0:
            return False
        text[size] = <char>at[0][0]
        size += 1
        at[0] += 1
    text[size] = 0
    return inet_pton(AF_INET6, text, address) == 1


cdef bint read_v1_addresses(const uint8_t* at, const uint8_t* end, uint8_t family, ProxyAddress* out) noexcept nogil:
    cdef int src_port
    cdef int dst_port
    if family == 4:
        if not (read_v4(&at, end, out.src) and read_char(&at, end, c' ') and read_v4(&at, end, out.dst)):
            return False
    elif not (read_v6(&at, end, out.src) and read_char(&at, end, c' ') and read_v6(&at, end, out.dst)):
        return False
    if not read_char(&at, end, c' '):
        return False
    src_port = read_number(&at, end, 65535)
    if src_port < 0 or not read_char(&at, end, c' '):
        return False
    dst_port = read_number(&at, end, 65535)
    if dst_port < 0 or at != end:
        return False
    out.family = family
    out.src_port = <uint16_t>src_port
    out.dst_port = <uint16_t>dst_port
    return True


cdef int parse_v1(const uint8_t* data, size_t size, ProxyAddress* out) noexcept nogil:
    cdef size_t seen = size if size < V1_MAX else V1_MAX
    cdef const uint8_t* newline = <const uint8_t*>memchr(data, c'\n', seen)
    cdef const uint8_t* end
    cdef size_t text
    cdef ProxyAddress found
    if newline == NULL:
        return 0 if size < V1_MAX else -EPROTO
    if (newline - 1)[0] != c'\r':
        return -EPROTO
    end = newline - 1
    text = end - data
    memset(&found, 0, sizeof(found))
    if text >= 13 and memcmp(data, b"PROXY UNKNOWN", 13) == 0:
        # The rest of such a line is to be ignored; but it is one line.
        if (text > 13 and data[13] != c' ') or memchr(data, c'\r', text) != NULL:
            return -EPROTO
    elif text > 11 and memcmp(data, b"PROXY TCP4 ", 11) == 0:
        if not read_v1_addresses(data + 11, end, 4, &found):
            return -EPROTO
    elif text > 11 and memcmp(data, b"PROXY TCP6 ", 11) == 0:
        if not read_v1_addresses(data + 11, end, 6, &found):
            return -EPROTO
    else:
        return -EPROTO
    out[0] = found
    return <int>(newline - data + 1)


# ---- version 2: signature, command, family, length, addresses, TLVs --------------------------------------------------

cdef inline uint16_t load_be16(const uint8_t* at) noexcept nogil:
    return <uint16_t>((<uint16_t>at[0] << 8) | at[1])


cdef inline void store_be16(uint8_t* at, uint16_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 8)
    at[1] = <uint8_t>(value & 0xff)


cdef int check_v2(const uint8_t* data, size_t size) noexcept nogil:
    """The fixed part, as far as it is there: 0 or -errno."""
    cdef uint8_t family = data[13] >> 4 if size > 13 else 0
    cdef uint8_t transport = data[13] & 15 if size > 13 else 0
    if size > 12 and data[12] != V2_LOCAL and data[12] != V2_PROXY:
        return -EPROTO
    # Of a LOCAL header, which is about the sender itself, everything but the length is to be ignored.
    if size > 13 and data[12] == V2_PROXY and (family > V2_UNIX or transport > V2_DGRAM):
        return -EPROTO
    if size >= V2_HEAD and V2_HEAD + <int>load_be16(data + 14) > PROXY_MAX:
        return -EMSGSIZE
    return 0


cdef bint tlvs_fit(const uint8_t* at, size_t size) noexcept nogil:
    cdef size_t length
    while size > 0:
        if size < TLV_HEAD:
            return False
        length = TLV_HEAD + <size_t>load_be16(at + 1)
        if length > size:
            return False
        at += length
        size -= length
    return True


cdef void read_v2_addresses(const uint8_t* at, uint8_t family, ProxyAddress* out) noexcept nogil:
    if family == V2_INET:
        out.family = 4
        out.src[10] = out.src[11] = out.dst[10] = out.dst[11] = 0xff
        memcpy(out.src + 12, at, 4)
        memcpy(out.dst + 12, at + 4, 4)
        at += 8
    else:
        out.family = 6
        memcpy(out.src, at, 16)
        memcpy(out.dst, at + 16, 16)
        at += 32
    out.src_port = load_be16(at)
    out.dst_port = load_be16(at + 2)


cdef int parse_v2(const uint8_t* data, size_t size, ProxyAddress* out) noexcept nogil:
    cdef size_t length
    cdef size_t addresses = 0
    cdef uint8_t family
    cdef ProxyAddress found
    cdef int rc = check_v2(data, size)
    if rc < 0:
        return rc
    if size < V2_HEAD:
        return 0
    length = load_be16(data + 14)
    family = data[13] >> 4
    memset(&found, 0, sizeof(found))
    if data[12] == V2_PROXY and family != 0:
        addresses = 12 if family == V2_INET else (36 if family == V2_INET6 else 216)
        if length < addresses:
            return -EPROTO
    if size < V2_HEAD + length:
        return 0
    if addresses > 0:
        # Without a family nobody can say where the TLVs begin: then the whole block is skipped unread.
        if not tlvs_fit(data + V2_HEAD + addresses, length - addresses):
            return -EPROTO
        # A datagram's or a unix socket's addresses mean nothing here: the socket's own are kept.
        if family != V2_UNIX and data[13] & 15 == V2_STREAM:
            read_v2_addresses(data + V2_HEAD, family, &found)
    out[0] = found
    return <int>(V2_HEAD + length)


cdef int proxy_parse(const uint8_t* data, size_t size, ProxyAddress* out) noexcept nogil:
    if size == 0:
        return 0
    if data[0] == c'P':
        if memcmp(data, b"PROXY ", size if size < 6 else 6) != 0:
            return -EPROTO
        return parse_v1(data, size, out)
    if memcmp(data, proxy_v2_signature, size if size < 12 else 12) != 0:
        return -EPROTO
    return parse_v2(data, size, out) if size >= 12 else 0


# ---- render ----------------------------------------------------------------------------------------------------------

cdef uint8_t* put_text(uint8_t* at, const char* text) noexcept nogil:
    while text[0] != 0:
        at[0] = <uint8_t>text[0]
        at += 1
        text += 1
    return at


cdef uint8_t* put_number(uint8_t* at, uint32_t value, uint32_t base) noexcept nogil:
    cdef uint8_t digits[10]
    cdef int n = 0
    while n == 0 or value > 0:
        digits[n] = <uint8_t>(value % base)
        value //= base
        n += 1
    while n > 0:
        n -= 1
        at[0] = <uint8_t>(c'0' + digits[n] if digits[n] < 10 else c'a' + digits[n] - 10)
        at += 1
    return at


cdef uint8_t* put_address(uint8_t* at, const uint8_t* address, bint v4) noexcept nogil:
    """Dotted decimal, or eight groups of hexadecimal: both sides know that form whatever their library."""
    cdef int i
    if v4:
        for i in range(12, 16):
            at = put_number(at, address[i], 10)
            at[0] = c'.'
            at += 1
        return at - 1
    for i in range(0, 16, 2):
        at = put_number(at, load_be16(address + i), 16)
        at[0] = c':'
        at += 1
    return at - 1


cdef int render_v1(uint8_t* out, bint v4, const uint8_t* src, uint16_t src_port, const uint8_t* dst,
                   uint16_t dst_port) noexcept nogil:
    cdef uint8_t* at = put_text(out, b"PROXY TCP4 " if v4 else b"PROXY TCP6 ")
    at = put_text(put_address(at, src, v4), b" ")
    at = put_text(put_address(at, dst, v4), b" ")
    at = put_text(put_number(at, src_port, 10), b" ")
    at = put_text(put_number(at, dst_port, 10), b"\r\n")
    return <int>(at - out)


cdef int render_v2(uint8_t* out, bint v4, const uint8_t* src, uint16_t src_port, const uint8_t* dst,
                   uint16_t dst_port) noexcept nogil:
    cdef int skip = 12 if v4 else 0
    cdef int size = 16 - skip
    cdef uint8_t* at = out + V2_HEAD
    memcpy(out, proxy_v2_signature, 12)
    out[12] = V2_PROXY
    out[13] = ((V2_INET if v4 else V2_INET6) << 4) | V2_STREAM
    store_be16(out + 14, <uint16_t>(2 * size + 4))
    memcpy(at, src + skip, size)
    memcpy(at + size, dst + skip, size)
    store_be16(at + 2 * size, src_port)
    store_be16(at + 2 * size + 2, dst_port)
    return V2_HEAD + 2 * size + 4


cdef int proxy_render(uint8_t* out, int version, const uint8_t* src16, uint16_t src_port,
                      const uint8_t* dst16, uint16_t dst_port) noexcept nogil:
    cdef bint v4 = address_is_v4(src16) and address_is_v4(dst16)
    if version == 1:
        return render_v1(out, v4, src16, src_port, dst16, dst_port)
    if version == 2:
        return render_v2(out, v4, src16, src_port, dst16, dst_port)
    return -EINVAL


# ---- for Python ------------------------------------------------------------------------------------------------------

def parse(bytes data not None):
    """(length, family, source, source port, destination, destination port), or None while more is needed."""
    cdef ProxyAddress found
    cdef const uint8_t* raw = <const uint8_t*><const char*>data
    cdef int rc = proxy_parse(raw, len(data), &found)
    if rc == -EMSGSIZE:
        raise ValueError(f"PROXY header of {V2_HEAD + load_be16(raw + 14)} bytes, at most {PROXY_MAX} are accepted")
    if rc < 0:
        raise ValueError(f"not a PROXY header: {data[:32]!r}; expected version 1 or 2 of the protocol")
    if rc == 0:
        return None
    if found.family == 0:
        return rc, 0, None, 0, None, 0
    return rc, found.family, address_format(found.src), found.src_port, address_format(found.dst), found.dst_port


def render(int version, str source, uint16_t source_port, str destination, uint16_t destination_port):
    """A header of version 1 or 2 for one TCP connection."""
    cdef uint8_t src[16]
    cdef uint8_t dst[16]
    cdef uint8_t out[PROXY_RENDER_MAX]
    cdef int size
    address_parse(source, src)
    address_parse(destination, dst)
    size = proxy_render(out, version, src, source_port, dst, destination_port)
    if size < 0:
        raise ValueError(f"PROXY protocol version {version}: expected 1 or 2")
    return (<char*>out)[:size]
