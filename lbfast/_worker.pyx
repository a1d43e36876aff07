"""Blocks, the ready list and event records of one worker."""

from libc.errno cimport ENOMEM
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from lbfast._conn cimport CONN_NONE, CONN_QUEUED
from lbfast._ring cimport EVENT_CLOSE, EVENT_REFUSE, Event, ring_next, ring_publish
from lbfast._sys cimport CLOCK_REALTIME, clock_ms


cdef int grow(BlockPool* pool) noexcept nogil:
    cdef int32_t capacity = pool.capacity * 2 if pool.capacity else 64, i
    cdef Block* blocks = <Block*>realloc(pool.blocks, capacity * sizeof(Block))
    if blocks == NULL:
        return -ENOMEM
    for i in range(pool.capacity, capacity):
        blocks[i].data = NULL
        blocks[i].next = i + 1 if i + 1 < capacity else -1
    pool.free = pool.capacity
    pool.blocks = blocks
    pool.capacity = capacity
    return 0


cdef int32_t block_keep(BlockPool* pool, const char* data, uint32_t size) noexcept nogil:
    cdef int32_t index
    cdef Block* block
    if (pool.capacity == 0 or pool.free < 0) and grow(pool) < 0:
        return -ENOMEM
    index = pool.free
    block = &pool.blocks[index]
    block.data = <char*>malloc(size)
    if block.data == NULL:
        return -ENOMEM
    pool.free = block.next
    memcpy(block.data, data, size)
    block.size = size
    block.offset = 0
    return index


cdef void block_drop(BlockPool* pool, int32_t index) noexcept nogil:
    cdef Block* block = &pool.blocks[index]
    free(block.data)
    block.data = NULL
    block.next = pool.free
    pool.free = index


cdef void blocks_close(BlockPool* pool) noexcept nogil:
    cdef int32_t i
    for i in range(pool.capacity):
        free(pool.blocks[i].data)
    free(pool.blocks)
    pool.blocks = NULL
    pool.capacity = 0


cdef void ready_push(Worker* w, uint32_t slot) noexcept nogil:
    cdef Conn* c = &w.slab.conns[slot]
    if c.flags & CONN_QUEUED:
        return
    c.flags |= CONN_QUEUED
    c.next = CONN_NONE
    if w.ready_first == CONN_NONE:
        w.ready_first = slot
    else:
        w.slab.conns[w.ready_last].next = slot
    w.ready_last = slot
    w.ready_count += 1


cdef uint32_t ready_pop(Worker* w) noexcept nogil:
    cdef uint32_t slot = w.ready_first
    if slot != CONN_NONE:
        w.ready_first = w.slab.conns[slot].next
        w.ready_count -= 1
        w.slab.conns[slot].flags &= <uint8_t>~CONN_QUEUED
    return slot


cdef void ready_remove(Worker* w, uint32_t slot) noexcept nogil:
    """Take an ending connection out of the list; the list is short (only those beyond their budget)."""
    cdef uint32_t at = w.ready_first, before = CONN_NONE
    if not w.slab.conns[slot].flags & CONN_QUEUED:
        return
    while at != CONN_NONE and at != slot:
        before = at
        at = w.slab.conns[at].next
    if at == CONN_NONE:
        return
    if before == CONN_NONE:
        w.ready_first = w.slab.conns[slot].next
    else:
        w.slab.conns[before].next = w.slab.conns[slot].next
    w.ready_count -= 1
    if w.ready_last == slot:
        w.ready_last = before
    w.slab.conns[slot].flags &= <uint8_t>~CONN_QUEUED


cdef void record(Worker* w, const Conn* c, uint8_t kind, int32_t error) noexcept nogil:
    cdef Event* event = ring_next(w.ring)
    if event == NULL:
        return
    event.at_ms = clock_ms(CLOCK_REALTIME)
    event.conn = c.id
    memcpy(event.client, c.client_address, 16)
    event.service = c.service
    event.real = c.real
    event.previous = c.previous
    event.client_port = c.client_port
    event.port = c.port
    event.kind = kind
    event.reason = c.reason
    event.attempts = c.attempts
    event.error = error
    event.connect_ms = c.connect_ms
    event.ended = 0
    event.by = 0
    event.duration_ms = 0
    event.bytes_in = c.inbound.bytes
    event.bytes_out = c.outbound.bytes
    if kind == EVENT_CLOSE or kind == EVENT_REFUSE:
        event.ended = c.ended
        event.by = c.by
        event.duration_ms = w.now_ms - c.accepted_ms
    ring_publish(w.ring)
