"""Letters: the messages of _handover as plain values, for a process that passes connections on.

Times go in and out as ages in milliseconds, -1 for never; service and real server as slots of this machine.
"""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy, memset

from lbfast._handover cimport (
    CARRIER_BLOCK, CARRIER_NONE, CARRIER_PIPE, FRESH_PEER, LETTER_MAX, LETTER_MOVED, Moved, MovedFlow, MovedSide,
)
from lbfast._sys cimport boot_ms
from lbfast._conn cimport PHASE_RELAY
from lbfast._worker cimport BUFFER_SIZE

MOST_BYTES = LETTER_MAX
BLOCK_MOST = BUFFER_SIZE


cdef int64_t age_of(int64_t at, int64_t now):
    return -1 if at == 0 else max(<int64_t>0, now - at)


cdef int64_t time_of(int64_t age, int64_t now):
    return 0 if age < 0 else max(<int64_t>1, now - age)


cdef dict read_side(const MovedSide* side, int64_t now):
    return {"age_ms": age_of(side.active_ms, now), "error": side.error, "flags": side.flags}


cdef dict read_flow(const MovedFlow* flow):
    return {"bytes": flow.bytes, "flags": flow.flags, "large": flow.large}


cdef void write_side(MovedSide* side, side_facts, int64_t now):
    side.active_ms = time_of(side_facts["age_ms"], now)
    side.error = side_facts["error"]
    side.flags = side_facts["flags"]


cdef void write_flow(MovedFlow* flow, facts, uint32_t held):
    flow.bytes = facts["bytes"]
    flow.flags = facts["flags"]
    flow.large = facts["large"]
    flow.held = held
    flow.carrier = CARRIER_NONE if held == 0 else CARRIER_BLOCK if held <= BUFFER_SIZE else CARRIER_PIPE


def read_letter(bytes data not None, int count):
    """What a connection's message says, and for each direction (bytes of a block, size of what its pipe holds).

    ``count``: descriptors that came along.  ValueError for anything else than a whole message.
    """
    cdef Moved m
    cdef int64_t now = boot_ms()
    cdef int wanted = 1
    cdef Py_ssize_t at
    memset(&m, 0, sizeof(Moved))
    memcpy(&m, <const char*>data, min(<size_t>len(data), sizeof(Moved)))
    wanted += m.has_server + 2 * (m.inbound.carrier == CARRIER_PIPE) + 2 * (m.outbound.carrier == CARRIER_PIPE)
    if m.letter != LETTER_MOVED or m.size > len(data) or count != wanted or not m.has_server or m.phase != PHASE_RELAY:
        raise ValueError(f"no whole message of a connection: {len(data)} bytes and {count} descriptors")
    facts = {
        "flags": m.flags,
        "reason": m.reason,
        "attempts": m.attempts,
        "by": m.by,
        "held": m.held,
        "service": m.service,
        "real": m.real,
        "connect_ms": m.connect_ms,
        "client": read_side(&m.client, now),
        "server": read_side(&m.server, now),
        "inbound": read_flow(&m.inbound),
        "outbound": read_flow(&m.outbound),
        "client_address": (<const char*>m.client_address)[:16].hex(),
        "wire_address": (<const char*>m.wire_address)[:16].hex(),
        "client_port": m.client_port,
        "port": m.port,
        "accepted_ms": age_of(m.accepted_ms, now),
        "connected_ms": age_of(m.connected_ms, now),
        "half_closed_ms": age_of(m.half_closed_ms, now),
    }
    at = m.size
    held = []
    for carrier, size in ((m.inbound.carrier, m.inbound.held), (m.outbound.carrier, m.outbound.held)):
        if carrier == CARRIER_BLOCK:
            held.append((data[at:at + size], 0))
            at += size
        else:
            held.append((b"", size if carrier == CARRIER_PIPE else 0))
    return facts, held[0], held[1]


def write_letter(facts, bytes inbound not None, bytes outbound not None):
    """The message of a connection whose directions hold these bytes, for a worker of this machine.

    Two sockets go with it, and for a direction that holds more than BLOCK_MOST both ends of a pipe with its bytes.
    """
    cdef Moved m
    cdef int64_t now = boot_ms()
    cdef bytes client = bytes.fromhex(facts["client_address"]), wire = bytes.fromhex(facts["wire_address"])
    if len(client) != 16 or len(wire) != 16:
        raise ValueError("an address that is not 16 bytes")
    memset(&m, 0, sizeof(Moved))
    m.letter = LETTER_MOVED
    m.size = sizeof(Moved)
    m.phase = PHASE_RELAY
    m.flags = facts["flags"]
    m.reason = facts["reason"]
    m.attempts = facts["attempts"]
    m.by = facts["by"]
    m.has_server = 1
    m.is_fresh = FRESH_PEER
    m.held = facts["held"]
    m.service = facts["service"]
    m.real = facts["real"]
    m.previous = -1
    m.origin = -1
    m.connect_ms = facts["connect_ms"]
    write_side(&m.client, facts["client"], now)
    write_side(&m.server, facts["server"], now)
    write_flow(&m.inbound, facts["inbound"], len(inbound))
    write_flow(&m.outbound, facts["outbound"], len(outbound))
    memcpy(m.client_address, <const char*>client, 16)
    memcpy(m.wire_address, <const char*>wire, 16)
    m.client_port = facts["client_port"]
    m.port = facts["port"]
    m.accepted_ms = time_of(facts["accepted_ms"], now)
    m.connected_ms = time_of(facts["connected_ms"], now)
    m.half_closed_ms = time_of(facts["half_closed_ms"], now)
    blocks = b"".join(held for held in (inbound, outbound) if len(held) <= BUFFER_SIZE)
    return (<const char*>&m)[:sizeof(Moved)] + blocks
