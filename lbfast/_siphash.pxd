"""SipHash-1-3 of 16 bytes, inline: the keyed hash of client addresses."""

from libc.stdint cimport uint8_t, uint64_t

cdef inline uint64_t sip_rotate(uint64_t value, int bits) noexcept nogil:
    return (value << bits) | (value >> (64 - bits))

cdef inline void sip_round(uint64_t* v) noexcept nogil:
    v[0] += v[1]
    v[1] = sip_rotate(v[1], 13) ^ v[0]
    v[0] = sip_rotate(v[0], 32)
    v[2] += v[3]
    v[3] = sip_rotate(v[3], 16) ^ v[2]
    v[0] += v[3]
    v[3] = sip_rotate(v[3], 21) ^ v[0]
    v[2] += v[1]
    v[1] = sip_rotate(v[1], 17) ^ v[2]
    v[2] = sip_rotate(v[2], 32)

cdef inline uint64_t sip_word(const uint8_t* at) noexcept nogil:
    """Eight bytes, least significant first, on any machine."""
    cdef uint64_t value = 0
    cdef int i
    for i in range(8):
        value |= (<uint64_t>at[i]) << (8 * i)
    return value

cdef inline uint64_t siphash13(uint64_t key0, uint64_t key1, const uint8_t* message) noexcept nogil:
    cdef uint64_t v[4]
    cdef uint64_t word
    cdef int i
    v[0] = key0 ^ <uint64_t>0x736f6d6570736575
    v[1] = key1 ^ <uint64_t>0x646f72616e646f6d
    v[2] = key0 ^ <uint64_t>0x6c7967656e657261
    v[3] = key1 ^ <uint64_t>0x7465646279746573
    for i in range(3):
        # The last word is the length in its top byte and no bytes left over.
        word = sip_word(message + 8 * i) if i < 2 else (<uint64_t>16) << 56
        v[3] ^= word
        sip_round(v)
        v[0] ^= word
    v[2] ^= 0xff
    sip_round(v)
    sip_round(v)
    sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]
