"""Hand over: established connections pass from a worker that leaves to those that stay or come.

One message for each connection goes to the inbox of the worker that takes it: a Moved, the bytes that its blocks
hold, and by SCM_RIGHTS its sockets and the pipes that hold bytes.  All else that a connection is stands in
Moved; nothing of it is lost, and nothing is asked of client or server.

Who owns it, at every moment
- The giver writes an offer into its own record and sends.  From then on it touches the connection no more, but
  its live counts and its hold are still the giver's.
- The taker writes a record of its own, marked CONN_CLAIMING, and swaps the offer for OFFER_TAKEN.  That one swap
  moves the ownership.  Then it moves the live counts from the giver's page to its own; the totals never change.
- Whoever repairs after a dead giver swaps the offers that are still open for OFFER_VOID and gives those
  connections back; a taker that meets OFFER_VOID drops what it was sent.  Whoever repairs after a dead taker makes
  an unfinished claim itself.  So each connection is given back once, whoever dies at which instruction.
- A message that lies in an inbox outlives its taker: the inbox is the supervisor's.

Facts about the kernel that shape this file
- The taker's EPOLL_CTL_ADD reports at once what is ready, edge-triggered or not: no edge is lost in between.
- The giver's registration does not end with its descriptor, because the taker holds the open file: EPOLL_CTL_DEL.
- A unix socket refuses (ETOOMANYREFS) more descriptors under way than RLIMIT_NOFILE, and (EAGAIN) more bytes
  than its buffer: the giver goes on in its next turn, and serves the connection meanwhile.

Moved is read by the next version of the program too: fields are only ever added, at its end.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from lbfast._conn cimport Conn
from lbfast._worker cimport BUFFER_SIZE, Worker

cdef enum:
    LETTER_ARRIVAL = 0x4C464101   # first word of a message: an accepted socket
    LETTER_MOVED = 0x4C464D01     # ... a connection
    OFFERS_A_TURN = 64
    HANDS = 6                     # descriptors of a message, at most
    LETTER_MAX = 512 + 2 * BUFFER_SIZE

cdef enum Carrier:                # what holds the bytes of a direction
    CARRIER_NONE = 0
    CARRIER_BLOCK = 1
    CARRIER_PIPE = 2

cdef enum Fresh:                  # Moved.is_fresh: counts and hold are to be taken anew
    FRESH_HERE = 1                # the giver's memory is not ours, or it has given back what it counted
    FRESH_PEER = 2                # it comes from the other box: number and cuts begin anew, too

cdef struct MovedSide:            # 16 bytes
    int64_t active_ms
    int32_t error
    uint8_t flags
    uint8_t padding[3]

cdef struct MovedFlow:            # 16 bytes
    uint64_t bytes
    uint32_t held
    uint8_t flags
    uint8_t large
    uint8_t carrier
    uint8_t padding

cdef struct Moved:                # 256 bytes
    uint32_t letter
    uint16_t size                 # of this struct, as the sender knows it
    uint8_t phase
    uint8_t flags
    uint8_t reason
    uint8_t attempts
    uint8_t linger_side
    uint8_t by
    uint8_t has_server            # a socket of the server side comes along
    uint8_t is_fresh              # Fresh, or 0
    uint8_t held
    uint8_t hold_way
    MovedSide client
    MovedSide server
    MovedFlow inbound
    MovedFlow outbound
    int32_t service
    int32_t real
    uint32_t cut_seq
    int32_t previous
    uint32_t hold_bucket
    uint32_t hold_serial
    int32_t origin                # the giver's seat, slot and generation there
    uint32_t origin_slot
    uint32_t origin_generation
    uint32_t connect_ms
    uint64_t id
    uint64_t tried
    uint8_t client_address[16]
    uint8_t wire_address[16]
    uint16_t client_port
    uint16_t port
    uint32_t reserved
    int64_t accepted_ms
    int64_t connected_ms
    int64_t half_closed_ms
    uint8_t padding[16]

# Offer some connections to the seats this worker leaves to, and free the records of those that were taken.
cdef void handover_turn(Worker* w) noexcept nogil
# Send one to a process that is no worker, and forget it, everything it counted for given back; False: not sent.
cdef bint handover_give(Worker* w, uint32_t slot, Conn* c, int outbox, uint8_t ended) noexcept nogil
# A connection that another worker sent; the descriptors are ours.
cdef void handover_take(Worker* w, const char* data, size_t size, int* fds, int count) noexcept nogil
