"""Relay: bodies.  The facts behind every branch are at the head of _relay.pxd."""

from libc.errno cimport EAGAIN, EINTR, EINVAL, ENOMEM, ENOSYS
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport strlen

from lbfast._conn cimport (
    BY_CLIENT, BY_NOBODY, BY_SERVER, FLOW_BULK, FLOW_DONE, FLOW_EOF, FLOW_SPLICE_OFF, SIDE_HANGUP, SIDE_NODELAY,
    SIDE_READABLE, SIDE_RESET, SIDE_SENT, SIDE_URGENT, SIDE_WRITABLE, Conn, Flow, Side,
)
from lbfast._pipe cimport pipe_get, pipe_kill, pipe_put
from lbfast._sys cimport (
    IPPROTO_TCP, MSG_MORE, SHUT_WR, SO_ERROR, SO_OOBINLINE, SOL_SOCKET, TCP_CONGESTION, TCP_NODELAY, c_getsockopt,
    c_setsockopt, c_shutdown, socklen_t, sys_recv, sys_send, sys_set, sys_splice_in, sys_splice_out,
)
from lbfast._worker cimport BUFFER_SIZE, Block, Worker, block_drop, block_keep, real_line, service_of

cdef enum:
    MAX_STEPS = 64            # a turn of tiny pieces is bounded as well

# What one step of a direction came to.
cdef enum Step:
    STEP_MOVED = 0
    STEP_WAIT = 1
    STEP_END = 2              # end of stream, or its side is reset
    STEP_BROKEN = 3           # the receiver is reset
    STEP_NO_MEMORY = 4


cdef void side_fail(Side* side, int rc) noexcept nogil:
    """Keep the first error of a side."""
    if not side.flags & SIDE_RESET:
        side.flags |= SIDE_RESET
        side.error = -rc


cdef void flow_sent(Worker* w, Flow* f, Side* target, int64_t* total, uint32_t n) noexcept nogil:
    f.bytes += n
    total[0] += n
    target.active_ms = w.now_ms


cdef void flow_release(Worker* w, Flow* f) noexcept nogil:
    """Give the pipe (empty or not) and the block back; what they hold is dropped."""
    if f.pipe >= 0:
        if f.held and f.block < 0:
            pipe_kill(&w.pipes, f.pipe)
        else:
            pipe_put(&w.pipes, f.pipe)
        f.pipe = -1
        w.page.worker.pipes -= 1
    if f.block >= 0:
        block_drop(&w.blocks, f.block)
        f.block = -1
        w.page.worker.blocks -= 1
    f.held = 0


cdef int send_some(Side* target, const char* data, size_t size, bint is_last) noexcept nogil:
    """send, with Nagle off from the second small write of a side on (the first never waits).

    What is the last of its direction waits for the FIN, which follows at once: one segment instead of two, and
    the receiver wakes once.
    """
    if not target.flags & SIDE_NODELAY:
        if target.flags & SIDE_SENT:
            target.flags |= SIDE_NODELAY
            sys_set(target.fd, IPPROTO_TCP, TCP_NODELAY, 1)
        else:
            target.flags |= <uint8_t>SIDE_SENT
    return <int>sys_send(target.fd, data, size, MSG_MORE if is_last else 0)


cdef int flush(Worker* w, Flow* f, Side* target, int64_t* total) noexcept nogil:
    """Pass on what the direction holds."""
    cdef Block* block
    cdef int64_t n
    if not target.flags & SIDE_WRITABLE:
        return STEP_WAIT
    if f.block >= 0:
        block = &w.blocks.blocks[f.block]
        n = send_some(target, block.data + block.offset, f.held, f.flags & FLOW_EOF)
    else:
        n = sys_splice_out(w.pipes.pipes[f.pipe].source, target.fd, f.held, 0)
    if n == -EINTR:
        return STEP_MOVED
    if n == -EAGAIN:
        target.flags &= <uint8_t>~SIDE_WRITABLE
        return STEP_WAIT
    if n <= 0:
        side_fail(target, <int>n if n < 0 else -EINVAL)
        return STEP_BROKEN
    f.held -= <uint32_t>n
    flow_sent(w, f, target, total, <uint32_t>n)
    if f.block >= 0:
        w.blocks.blocks[f.block].offset += <uint32_t>n
        w.page.worker.copied_bytes += n
        if f.held == 0:
            flow_release(w, f)
    else:
        w.page.worker.spliced_bytes += n
    return STEP_MOVED


cdef int source_ended(Side* source, int64_t n) noexcept nogil:
    """What a read of 0 or an error says."""
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    if n == -EAGAIN:
        source.flags &= <uint8_t>~SIDE_READABLE
        return STEP_WAIT
    if n == -EINTR:
        return STEP_MOVED
    if n < 0:
        side_fail(source, <int>n)
    elif source.flags & SIDE_URGENT and \
            c_getsockopt(source.fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 and error:
        # A reset behind the FIN: reads go on saying 0, only the socket's error tells.
        side_fail(source, -error)
    return STEP_END


cdef int splice_step(Worker* w, Flow* f, Side* source) noexcept nogil:
    """Fill the (empty) pipe from the source."""
    cdef int64_t n = sys_splice_in(source.fd, w.pipes.pipes[f.pipe].target, w.pipes.size)
    if n > 0:
        f.held = <uint32_t>n
        source.active_ms = w.now_ms
        if n < SMALL_SPLICE:
            f.large -= 1 if f.large else 0
        elif n >= BUFFER_SIZE and f.large < LARGE_MOST:
            f.large += 1
        return STEP_MOVED
    flow_release(w, f)
    if n == -EINVAL or n == -ENOSYS:
        # Not for this socket: copy for good.
        f.flags |= FLOW_SPLICE_OFF
        return STEP_MOVED
    if n == -ENOMEM:
        f.large = 0
        return STEP_MOVED
    if n == 0:
        # Before urgent data splice stops, and says 0 when a FIN is behind it: let recv tell the end.
        f.large = 0
        sys_set(source.fd, SOL_SOCKET, SO_OOBINLINE, 1)
        return STEP_MOVED
    return source_ended(source, n)


cdef int copy_step(Worker* w, Flow* f, Side* source, Side* target, int64_t* total) noexcept nogil:
    """One recv and one send through the worker's buffer; what the target does not take is kept in a block."""
    cdef uint8_t known = source.flags
    cdef int64_t n = sys_recv(source.fd, w.buffer, BUFFER_SIZE, 0), sent = 0
    if n <= 0:
        return source_ended(source, n)
    source.active_ms = w.now_ms
    if n == BUFFER_SIZE:
        if f.large < LARGE_READS:
            f.large += 1
    else:
        f.large = 0
        if not source.flags & SIDE_URGENT:
            source.flags &= <uint8_t>~SIDE_READABLE
            if known & SIDE_HANGUP and not known & SIDE_RESET:
                f.flags |= FLOW_EOF
    if target.flags & SIDE_WRITABLE:
        sent = send_some(target, w.buffer, <size_t>n, f.flags & FLOW_EOF)
        if sent == -EAGAIN or sent == -EINTR:
            if sent == -EAGAIN:
                target.flags &= <uint8_t>~SIDE_WRITABLE
            sent = 0
        elif sent < 0:
            side_fail(target, <int>sent)
            return STEP_BROKEN
        else:
            flow_sent(w, f, target, total, <uint32_t>sent)
            w.page.worker.copied_bytes += sent
    if sent < n:
        f.block = block_keep(&w.blocks, w.buffer + sent, <uint32_t>(n - sent))
        if f.block < 0:
            return STEP_NO_MEMORY
        f.held = <uint32_t>(n - sent)
        w.page.worker.blocks += 1
    return STEP_MOVED


cdef bint wants_pipe(Worker* w, Flow* f, const Side* source) noexcept nogil:
    """Should the next read go through a pipe, and is there one?  Then the flow owns it."""
    # splice never gets past urgent data.
    if source.flags & SIDE_URGENT or f.large < LARGE_READS or f.flags & FLOW_SPLICE_OFF:
        if f.pipe >= 0:
            flow_release(w, f)
        return False
    if f.pipe >= 0:
        return True
    f.pipe = pipe_get(&w.pipes, w.now_ms)
    if f.pipe < 0:
        f.pipe = -1
        w.page.worker.no_pipes += 1
        return False
    w.page.worker.pipes += 1
    return True


cdef int flow_step(Worker* w, Flow* f, Side* source, Side* target, int64_t* total) noexcept nogil:
    cdef int step
    if f.held:
        return flush(w, f, target, total)
    if f.flags & FLOW_EOF:
        return STEP_END
    if not source.flags & SIDE_READABLE or \
            not target.flags & SIDE_WRITABLE and not source.flags & (SIDE_URGENT | SIDE_HANGUP | SIDE_RESET):
        # What the receiver does not take now waits in the source's socket, where it slows the sender down; but an end
        # or an error is looked for.
        if f.pipe >= 0:
            flow_release(w, f)
        return STEP_WAIT
    if wants_pipe(w, f, source):
        step = splice_step(w, f, source)
    else:
        step = copy_step(w, f, source, target, total)
    if step == STEP_END:
        f.flags |= FLOW_EOF
    return step


cdef int pump(Worker* w, Conn* c, Flow* f, Side* source, Side* target, int64_t* total) noexcept nogil:
    """Steps of one direction until it waits, ends or has used its budget; a Step, STEP_MOVED = budget used."""
    cdef uint64_t limit = f.bytes + BUDGET
    cdef int step = STEP_MOVED, steps = 0
    while step == STEP_MOVED and f.bytes < limit and steps < MAX_STEPS:
        step = flow_step(w, f, source, target, total)
        steps += 1
    if step == STEP_END and f.held:
        return STEP_WAIT
    return step


cdef int forward_end(Worker* w, Conn* c, Flow* f, Side* target) noexcept nogil:
    """Pass an end of stream on, once nothing is held; True when it has just been passed on."""
    if not f.flags & FLOW_EOF or f.flags & FLOW_DONE or f.held:
        return False
    f.flags |= FLOW_DONE
    if c_shutdown(target.fd, SHUT_WR) != 0:
        target.flags |= SIDE_READABLE     # it is gone: let a read say how
    if c.half_closed_ms == 0:
        c.half_closed_ms = w.now_ms
    return True


cdef bint has_ended(const Flow* f) noexcept nogil:
    return f.flags & FLOW_EOF and f.held == 0


cdef void expect_bulk(Worker* w, Conn* c) noexcept nogil:
    """The server side gets its congestion control with the first large read; the client side inherited it."""
    cdef const char* name = service_of(w, c).congestion
    c.inbound.flags |= FLOW_BULK
    if name[0]:
        c_setsockopt(c.server.fd, IPPROTO_TCP, TCP_CONGESTION, name, <socklen_t>strlen(name))


cdef void note_end(Conn* c, const Flow* f, uint8_t by) noexcept nogil:
    """Whoever says first that he has said all ends the connection."""
    if f.flags & FLOW_EOF and c.by == BY_NOBODY:
        c.by = by


cdef int relay_turn(Worker* w, Conn* c) noexcept nogil:
    cdef int inward = pump(w, c, &c.inbound, &c.client, &c.server, &real_line(w, c.real).bytes_in)
    cdef int outward
    if (c.inbound.large or c.inbound.bytes >= LASTING) and not c.inbound.flags & FLOW_BULK:
        expect_bulk(w, c)
    note_end(c, &c.inbound, BY_CLIENT)
    outward = pump(w, c, &c.outbound, &c.server, &c.client, &real_line(w, c.real).bytes_out)
    note_end(c, &c.outbound, BY_SERVER)
    if inward == STEP_NO_MEMORY or outward == STEP_NO_MEMORY:
        return TURN_NO_MEMORY
    if c.client.flags & SIDE_RESET or c.server.flags & SIDE_RESET:
        return TURN_RESET
    if has_ended(&c.inbound) and has_ended(&c.outbound):
        # close alone tells both: no shutdown needed.
        return TURN_CLOSED
    forward_end(w, c, &c.inbound, &c.server)
    forward_end(w, c, &c.outbound, &c.client)
    if inward == STEP_MOVED or outward == STEP_MOVED:
        return TURN_MORE
    return TURN_WAIT


cdef int relay_last(Worker* w, Conn* c, bint from_client) noexcept nogil:
    cdef Flow* f = &c.inbound if from_client else &c.outbound
    cdef Side* source = &c.client if from_client else &c.server
    cdef Side* target = &c.server if from_client else &c.client
    cdef int64_t* total = &real_line(w, c.real).bytes_in if from_client else &real_line(w, c.real).bytes_out
    cdef int step
    source.flags |= SIDE_READABLE
    step = pump(w, c, f, source, target, total)
    if step == STEP_MOVED:
        return TURN_MORE
    if step == STEP_WAIT and f.held:
        return TURN_WAIT
    # A reset source has no more edges to give: EAGAIN on it is the end as well.
    return TURN_CLOSED if step == STEP_WAIT or step == STEP_END else TURN_RESET


cdef void relay_drop(Worker* w, Conn* c) noexcept nogil:
    flow_release(w, &c.inbound)
    flow_release(w, &c.outbound)
