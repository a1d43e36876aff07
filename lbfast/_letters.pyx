"""Letters: the messages of _handover, for a process that passes connections on.

What a letter says of a connection travels as a *record*: a Moved whose times are ages in milliseconds, -1 for never,
without whatever means something on one machine only.  Service and real server are slots of this machine.
"""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy, memset

from lbfast._conn cimport FLOW_EOF, PHASE_RELAY
from lbfast._handover cimport (
    CARRIER_BLOCK, CARRIER_NONE, CARRIER_PIPE, FRESH_PEER, LETTER_MAX, LETTER_MOVED, Moved, MovedFlow,
)
from lbfast._sys cimport boot_ms
from lbfast._worker cimport BUFFER_SIZE

MOST_BYTES = LETTER_MAX
BLOCK_MOST = BUFFER_SIZE


cdef int64_t age_of(int64_t at, int64_t now):
    return -1 if at == 0 else max(<int64_t>0, now - at)


cdef int64_t time_of(int64_t age, int64_t now):
    return 0 if age < 0 else max(<int64_t>1, now - age)


cdef void pass_on(Moved* out, const Moved* m) noexcept nogil:
    """All that means the same in the other process, or on the other machine; no times."""
    memset(out, 0, sizeof(Moved))
    out.letter = LETTER_MOVED
    out.size = sizeof(Moved)
    out.phase = PHASE_RELAY
    out.flags = m.flags
    out.reason = m.reason
    out.attempts = m.attempts
    out.by = m.by
    out.has_server = 1
    out.is_fresh = FRESH_PEER
    out.held = m.held
    out.client.error = m.client.error
    out.client.flags = m.client.flags
    out.server.error = m.server.error
    out.server.flags = m.server.flags
    pass_on_flow(&out.inbound, &m.inbound)
    pass_on_flow(&out.outbound, &m.outbound)
    out.previous = -1
    out.origin = -1
    out.connect_ms = m.connect_ms
    memcpy(out.client_address, m.client_address, 16)
    memcpy(out.wire_address, m.wire_address, 16)
    out.client_port = m.client_port
    out.port = m.port


cdef void pass_on_flow(MovedFlow* out, const MovedFlow* flow) noexcept nogil:
    out.bytes = flow.bytes
    out.flags = flow.flags
    out.large = flow.large


cdef void hold(MovedFlow* flow, uint32_t held) noexcept nogil:
    flow.held = held
    flow.carrier = CARRIER_NONE if held == 0 else CARRIER_BLOCK if held <= BUFFER_SIZE else CARRIER_PIPE


def read_letter(bytes data not None, int count):
    """Slots of service and real server, a record, and per direction (bytes of a block, size of what its pipe holds).

    ``count``: descriptors that came along.  ValueError for anything else than a whole message.
    """
    cdef Moved m, out
    cdef int64_t now = boot_ms()
    cdef int wanted = 1
    cdef Py_ssize_t at
    memset(&m, 0, sizeof(Moved))
    memcpy(&m, <const char*>data, min(<size_t>len(data), sizeof(Moved)))
    wanted += m.has_server + 2 * (m.inbound.carrier == CARRIER_PIPE) + 2 * (m.outbound.carrier == CARRIER_PIPE)
    if m.letter != LETTER_MOVED or m.size > len(data) or count != wanted or not m.has_server or m.phase != PHASE_RELAY:
        raise ValueError(f"no whole message of a connection: {len(data)} bytes and {count} descriptors")
    pass_on(&out, &m)
    out.client.active_ms = age_of(m.client.active_ms, now)
    out.server.active_ms = age_of(m.server.active_ms, now)
    out.accepted_ms = age_of(m.accepted_ms, now)
    out.connected_ms = age_of(m.connected_ms, now)
    out.half_closed_ms = age_of(m.half_closed_ms, now)
    at = m.size
    held = []
    for carrier, size in ((m.inbound.carrier, m.inbound.held), (m.outbound.carrier, m.outbound.held)):
        if carrier == CARRIER_BLOCK:
            held.append((data[at:at + size], 0))
            at += size
        else:
            held.append((b"", size if carrier == CARRIER_PIPE else 0))
    return m.service, m.real, (<const char*>&out)[:sizeof(Moved)], held[0], held[1]


def read_ends(bytes record not None):
    """For each direction of a record: does the relay know of its end?"""
    cdef Moved m = record_of(record)
    return m.inbound.flags & FLOW_EOF != 0, m.outbound.flags & FLOW_EOF != 0


cdef Moved record_of(bytes record) except *:
    """ValueError for what is none; what a later release has added is passed over, what an older one lacks is 0."""
    cdef Moved m
    memset(&m, 0, sizeof(Moved))
    memcpy(&m, <const char*>record, min(<size_t>len(record), sizeof(Moved)))
    if m.letter != LETTER_MOVED or m.size != len(record):
        raise ValueError(f"{len(record)} bytes that are no record of a connection")
    return m


def write_letter(bytes record not None, int service, int real, bytes inbound not None, bytes outbound not None):
    """The message of a connection whose directions hold these bytes, for a worker of this machine.

    Two sockets go with it, and for a direction that holds more than BLOCK_MOST both ends of a pipe with its bytes.
    """
    cdef Moved out, m = record_of(record)
    cdef int64_t now = boot_ms()
    pass_on(&out, &m)
    out.service = service
    out.real = real
    out.client.active_ms = time_of(m.client.active_ms, now)
    out.server.active_ms = time_of(m.server.active_ms, now)
    out.accepted_ms = time_of(m.accepted_ms, now)
    out.connected_ms = time_of(m.connected_ms, now)
    out.half_closed_ms = time_of(m.half_closed_ms, now)
    hold(&out.inbound, len(inbound))
    hold(&out.outbound, len(outbound))
    blocks = b"".join(held for held in (inbound, outbound) if len(held) <= BUFFER_SIZE)
    return (<const char*>&out)[:sizeof(Moved)] + blocks
