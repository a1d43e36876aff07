"""The tests' doors to C functions: the stick table's verbs, a hammer, and a stepper that stops at every instruction.

Built only with LBFAST_TEST_EXT=1, never installed.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from lbfast._address cimport address_format, address_parse
from lbfast._conn cimport SIDE_READABLE, SIDE_WRITABLE, Conn
from lbfast._counters cimport WorkerPage
from lbfast._pipe cimport pool_close, pool_open
from lbfast._relay cimport relay_turn
from lbfast._ring cimport EVENT_CLOSE, Event, Ring, ring_next, ring_publish
from lbfast._sched cimport sched_pick
from lbfast._siphash cimport siphash13
from lbfast._stick cimport (
    STICK_BOUND, STICK_EMPTY, STICK_NO_CONN, STICK_PENDING, STICK_REALS, STICK_WAYS, StickBucket,
    StickEntry, StickMap, StickRef, StickTable, stick_bind, stick_change, stick_find, stick_hash, stick_hold,
    stick_insert, stick_lock, stick_recover, stick_release, stick_remove, stick_room, stick_unlock,
)
from lbfast._stick_lock cimport mark_of, note_put
from lbfast._sys cimport sys_recv, sys_send
from lbfast._table cimport Service, Table
from lbfast._timer cimport TIMER_NONE, Wheel, timer_due, timer_set, wheel_close, wheel_open
from lbfast._worker cimport BUFFER_SIZE, Worker, blocks_close

import os

cdef extern from "<sys/ptrace.h>" nogil:
    long ptrace(int request, int pid, void* address, void* data)
    int PTRACE_TRACEME
    int PTRACE_SINGLESTEP

cdef extern from "<unistd.h>" nogil:
    int fork()
    int getppid()
    void _exit(int status)

cdef extern from "<signal.h>" nogil:
    int c_raise "raise" (int number)
    int SIGSTOP

cdef enum:
    REASON_NEW = 2
    REASON_DOWN = 7

PENDING = STICK_PENDING
BOUND = STICK_BOUND
WAYS = STICK_WAYS
REF_SIZE = sizeof(StickRef)
NO_CONN = STICK_NO_CONN


def siphash(uint64_t key0, uint64_t key1, bytes message):
    assert len(message) == 16
    return siphash13(key0, key1, <const uint8_t*><const char*>message)


cdef StickRef* ref_at(uint8_t[::1] refs, uint32_t conn) except NULL:
    if (conn + 1) * sizeof(StickRef) > <size_t>refs.shape[0]:
        raise IndexError(conn)
    return &(<StickRef*>&refs[0])[conn]


def ref(uint8_t[::1] refs, uint32_t conn):
    """(bucket, way, serial) of the hold of a connection, or None."""
    cdef StickRef* found = ref_at(refs, conn)
    return (found.bucket, found.way, found.serial) if found.held else None


def set_held(uint8_t[::1] refs, uint32_t conn, uint8_t held):
    ref_at(refs, conn).held = held


def bucket_of(StickTable table, str client):
    cdef uint8_t key[16]
    address_parse(client, key)
    return stick_hash(&table.map, key) & table.map.mask


# ---- verbs, each with its lock ---------------------------------------------------------------------------------------

cdef int reserve_key(StickMap* map, const uint8_t* key, uint32_t conn, StickRef* ref, uint32_t real, uint32_t tag,
                     uint8_t state, int64_t timeout_ms, int64_t now) noexcept nogil:
    """As the data plane does it: 0 = followed, 1 = new, -1 = no room."""
    cdef uint64_t hash = stick_hash(map, key)
    cdef StickBucket* bucket = stick_lock(map, hash)
    cdef int way = stick_find(bucket, hash, key, timeout_ms, now)
    cdef int outcome = 0
    if way < 0:
        outcome = 1
        way = stick_room(map, bucket, timeout_ms, now)
        if way >= 0:
            stick_insert(map, bucket, way, hash, key, real, tag, state, REASON_NEW, now)
    if way >= 0 and ref != NULL:
        stick_hold(map, bucket, way, conn, ref)
    stick_unlock(bucket)
    return outcome if way >= 0 else -1


def reserve(StickTable table, str client, refs, uint32_t conn, uint32_t real, uint32_t tag, int state,
            int64_t timeout_ms, int64_t now):
    """Find or insert; held for a connection unless ``refs`` is None: "found", "new" or "full"."""
    cdef uint8_t key[16]
    cdef StickRef* ref = NULL if refs is None else ref_at(refs, conn)
    address_parse(client, key)
    return ("full", "found", "new")[1 + reserve_key(&table.map, key, conn, ref, real, tag, state, timeout_ms, now)]


def find(StickTable table, str client, int64_t timeout_ms, int64_t now):
    """Way of the live entry, or -1."""
    cdef uint8_t key[16]
    cdef StickBucket* bucket
    cdef uint64_t hash
    cdef int way
    address_parse(client, key)
    hash = stick_hash(&table.map, key)
    bucket = stick_lock(&table.map, hash)
    way = stick_find(bucket, hash, key, timeout_ms, now)
    stick_unlock(bucket)
    return way


def release(StickTable table, uint8_t[::1] refs, uint32_t conn, int64_t now):
    stick_release(&table.map, conn, ref_at(refs, conn), now)


def bind(StickTable table, str client, uint32_t real, uint32_t tag, uint8_t state, uint8_t reason, int64_t now):
    cdef uint8_t key[16]
    cdef StickBucket* bucket
    cdef uint64_t hash
    cdef int way
    address_parse(client, key)
    hash = stick_hash(&table.map, key)
    bucket = stick_lock(&table.map, hash)
    way = stick_find(bucket, hash, key, 1 << 62, 0)
    if way >= 0:
        stick_bind(&table.map, bucket, way, real, tag, state, reason, now)
    stick_unlock(bucket)
    return way >= 0


def recover(StickTable table, uint32_t pid):
    """(buckets unlocked, connection or None, its held)."""
    cdef uint32_t conn
    cdef uint8_t held
    cdef int unlocked = stick_recover(&table.map, pid, &conn, &held)
    return unlocked, (None if conn == STICK_NO_CONN else conn), held


def leave_note(StickTable table, uint32_t pid, uint32_t conn, uint8_t held):
    note_put(table.map.header, pid, conn, held)


def skew(StickTable table, int used, uint32_t real, int bound):
    """Falsify the counters, as a death between two additions does."""
    table.map.used[0] += used
    table.map.bound[real] += bound
    table.map.header.stale = 1


def lock(StickTable table, str client):
    """Lock the client's bucket and keep it."""
    cdef uint8_t key[16]
    address_parse(client, key)
    stick_lock(&table.map, stick_hash(&table.map, key))


def set_lock(StickTable table, uint64_t bucket, uint32_t pid):
    table.map.touched[bucket // 32] |= 1 << (bucket // 4 % 8)
    table.map.buckets[bucket].lock = pid


def die_inside(StickTable table, str client, uint8_t[::1] refs, uint32_t conn):
    """In a forked child: lock, open a change, scribble over the entry, the mark and the hold, die."""
    cdef uint8_t key[16]
    cdef StickBucket* bucket
    cdef StickEntry* entry
    cdef uint64_t hash
    cdef int way
    address_parse(client, key)
    hash = stick_hash(&table.map, key)
    bucket = stick_lock(&table.map, hash)
    way = stick_find(bucket, hash, key, 1 << 62, 0)
    entry = stick_change(bucket, way, conn, ref_at(refs, conn))
    memset(entry, 0xA5, sizeof(StickEntry))
    bucket.mark[way] ^= 0x5555
    ref_at(refs, conn).held ^= 1
    _exit(9)


# ---- audit -----------------------------------------------------------------------------------------------------------

def audit(StickTable table):
    """(what is wrong, {(bucket, way, serial): holds}) of a table that nobody uses."""
    wrong = []
    holds = {}
    cdef uint64_t index
    cdef int way
    cdef StickBucket* bucket
    cdef StickEntry* entry
    cdef int64_t used = 0
    reals = {}
    for index in range(table.map.mask + 1):
        bucket = &table.map.buckets[index]
        if bucket.lock or bucket.undo:
            wrong.append(f"bucket {index}: lock {bucket.lock}, undo {bucket.undo}")
        keys = set()
        for way in range(STICK_WAYS):
            entry = &bucket.entry[way]
            where = f"bucket {index} way {way}"
            if (bucket.mark[way] == 0) != (entry.state == STICK_EMPTY):
                wrong.append(f"{where}: mark {bucket.mark[way]}, state {entry.state}")
            if entry.state == STICK_EMPTY:
                if entry.holds or entry.serial:
                    wrong.append(f"{where}: empty with {entry.holds} holds, serial {entry.serial}")
                continue
            used += 1
            reals[entry.real] = reals.get(entry.real, 0) + 1
            if bucket.mark[way] != mark_of(stick_hash(&table.map, entry.key)):
                wrong.append(f"{where}: mark {bucket.mark[way]} is not of its key")
            if stick_hash(&table.map, entry.key) & table.map.mask != index:
                wrong.append(f"{where}: key of another bucket")
            if entry.key[:16] in keys:
                wrong.append(f"{where}: {address_format(entry.key)} twice")
            keys.add(entry.key[:16])
            if entry.holds:
                holds[index, way, entry.serial] = entry.holds
    if used != table.map.used[0]:
        wrong.append(f"used {table.map.used[0]}, {used} counted")
    for real in range(STICK_REALS):
        if table.map.bound[real] != reals.get(real, 0):
            wrong.append(f"bound[{real}] {table.map.bound[real]}, {reals.get(real, 0)} counted")
    return wrong, holds


def counters(StickTable table, uint32_t real):
    """(used, bound of a real server) as the scheduler sees them."""
    return table.map.used[0], table.map.bound[real]


def copy_table(StickTable source, StickTable target):
    """All the memory of a table into another of the same size."""
    assert source.region.size == target.region.size
    memcpy(target.region.base + 64, source.region.base + 64, source.region.size - 64)
    target.map.key0 = source.map.key0
    target.map.key1 = source.map.key1


# ---- hammer ----------------------------------------------------------------------------------------------------------

cdef inline uint64_t shuffle(uint64_t* state) noexcept nogil:
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return state[0]


cdef void hammer_once(StickMap* map, StickRef* refs, uint32_t conns, uint32_t clients, uint64_t* state,
                      int64_t now) noexcept nogil:
    cdef uint64_t dice = shuffle(state)
    cdef uint32_t conn = <uint32_t>(dice % conns)
    cdef uint32_t real = <uint32_t>((dice >> 20) & 3)
    cdef uint8_t key[16]
    cdef uint64_t hash
    cdef StickBucket* bucket
    cdef int way
    memset(key, 0, 16)
    key[10] = key[11] = 0xff
    key[12] = 10
    key[14] = <uint8_t>(((dice >> 32) % clients) >> 8)
    key[15] = <uint8_t>((dice >> 32) % clients)
    if refs[conn].held:
        stick_release(map, conn, &refs[conn], now)
    elif (dice >> 56) & 15 == 0:
        hash = stick_hash(map, key)
        bucket = stick_lock(map, hash)
        way = stick_find(bucket, hash, key, 50, now)
        if way >= 0 and (dice >> 62) & 1:
            stick_remove(map, bucket, way)
        elif way >= 0:
            stick_bind(map, bucket, way, real, real + 1, STICK_BOUND, REASON_DOWN, now)
        stick_unlock(bucket)
    else:
        reserve_key(map, key, conn, &refs[conn], real, real + 1,
                    STICK_PENDING if (dice >> 60) & 1 else STICK_BOUND, 50, now)


def hammer(StickTable table, uint8_t[::1] refs, uint32_t clients, uint64_t seed, int64_t turns):
    """Random verbs without the GIL; ``turns`` 0 = until the parent process is gone."""
    cdef uint64_t state = seed | 1
    cdef int64_t turn = 0
    cdef uint32_t conns = <uint32_t>(refs.shape[0] // sizeof(StickRef))
    cdef StickRef* first = ref_at(refs, 0)
    cdef int parent = getppid()
    with nogil:
        while turns == 0 or turn < turns:
            hammer_once(&table.map, first, conns, clients, &state, turn)
            turn += 1
            if turns == 0 and turn % 65536 == 0 and getppid() != parent:
                _exit(3)


# ---- stepper ---------------------------------------------------------------------------------------------------------

STEPS = ("insert", "hold", "release", "release_pending", "bind", "remove", "evict")


cdef void step_verb(StickMap* map, int verb, const uint8_t* key, StickRef* ref, int64_t now) noexcept nogil:
    cdef uint64_t hash = stick_hash(map, key)
    cdef StickBucket* bucket
    cdef int way
    if verb == 2 or verb == 3:
        stick_release(map, 0, ref, now)
        return
    if verb == 0 or verb == 1 or verb == 6:
        reserve_key(map, key, 0, NULL if verb == 0 else ref, 2, 22, STICK_BOUND, 1000, now)
        return
    bucket = stick_lock(map, hash)
    way = stick_find(bucket, hash, key, 1000, now)
    if verb == 4:
        stick_bind(map, bucket, way, 3, 33, STICK_BOUND, REASON_DOWN, now)
    else:
        stick_remove(map, bucket, way)
    stick_unlock(bucket)


def step_start(StickTable table, str verb, str client, uint8_t[::1] refs, int64_t now):
    """A child, stopped just before it does the verb for connection 0; its pid."""
    cdef uint8_t key[16]
    cdef int number = STEPS.index(verb)
    cdef StickRef* ref = ref_at(refs, 0)
    cdef int pid
    address_parse(client, key)
    pid = fork()
    if pid == 0:
        if ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0:
            _exit(77)
        c_raise(SIGSTOP)
        step_verb(&table.map, number, key, ref, now)
        _exit(0)
    if pid < 0:
        raise OSError("fork failed")
    _, status = os.waitpid(pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        raise PermissionError("this system does not let a process trace its child")
    return pid


def step(int pid):
    """One machine instruction of the child; False when it has ended (and is reaped)."""
    ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL)
    _, status = os.waitpid(pid, 0)
    return os.WIFSTOPPED(status)


# ---- doors for bench/ ------------------------------------------------------------------------------------------------

def sched_turns(Table table, uint32_t service, str client, int64_t turns, int64_t now):
    """So many picks of a service for one client; the sum of the slots chosen."""
    cdef uint8_t key[16]
    cdef Service* chosen_by = &table.map.services[service]
    cdef int64_t turn, total = 0
    address_parse(client, key)
    with nogil:
        for turn in range(turns):
            key[15] = <uint8_t>turn
            key[14] = <uint8_t>(turn >> 8)
            total += sched_pick(&table.map, chosen_by, NULL, key, 0, now)
    return total


def wheel_turns(uint32_t timers, int64_t turns):
    """A wheel with so many timers set, a millisecond a turn: one is moved, the due set again; how many fired."""
    cdef Wheel wheel
    cdef uint32_t slot
    cdef int64_t now = 1000, turn, fired = 0
    if wheel_open(&wheel, timers, now) < 0:
        raise MemoryError
    with nogil:
        for slot in range(timers):
            timer_set(&wheel, slot, now + 1 + slot % 60000)
        for turn in range(turns):
            now += 1
            timer_set(&wheel, <uint32_t>(turn * 7919 % timers), now + 30000)
            slot = timer_due(&wheel, now)
            while slot != TIMER_NONE:
                fired += 1
                timer_set(&wheel, slot, now + 60000)
                slot = timer_due(&wheel, now)
        wheel_close(&wheel)
    return fired


def ring_turns(Ring ring, int64_t turns):
    """Write so many events, without regard to the reader; how many found room."""
    cdef int64_t turn, written = 0
    cdef Event* event
    with nogil:
        for turn in range(turns):
            event = ring_next(&ring.map)
            if event == NULL:
                continue
            memset(event, 0, sizeof(Event))
            event.conn = <uint64_t>turn
            event.kind = EVENT_CLOSE
            event.bytes_in = 1000
            ring_publish(&ring.map)
            written += 1
    return written


def ring_used(Ring ring):
    """Places that hold an event, read or not."""
    cdef uint32_t place
    return sum(1 for place in range(ring.map.head.capacity) if ring.map.events[place].kind != 0)


def ring_wake(Ring ring, int fd):
    """The eventfd of a reader that sleeps."""
    ring.map.wake = fd


cdef class Relay:
    """One connection between two sockets, relayed by hand; it belongs to service 0 of the table."""

    cdef Table table
    cdef Worker* worker
    cdef Conn conn

    def __cinit__(self, Table table, int client, int server):
        self.table = table
        self.worker = <Worker*>calloc(1, sizeof(Worker))
        if self.worker != NULL:
            self.worker.page = <WorkerPage*>calloc(1, sizeof(WorkerPage))
            self.worker.buffer = <char*>calloc(1, BUFFER_SIZE)
        if self.worker == NULL or self.worker.page == NULL or self.worker.buffer == NULL:
            raise MemoryError
        if pool_open(&self.worker.pipes, 4, 262144) < 0:
            raise MemoryError
        self.worker.table = &table.map
        self.worker.blocks.free = -1
        memset(&self.conn, 0, sizeof(Conn))
        self.conn.client.fd = client
        self.conn.server.fd = server
        self.conn.client.flags = self.conn.server.flags = SIDE_WRITABLE
        self.conn.inbound.pipe = self.conn.outbound.pipe = -1
        self.conn.inbound.block = self.conn.outbound.block = -1

    def __dealloc__(self):
        if self.worker != NULL:
            pool_close(&self.worker.pipes)
            blocks_close(&self.worker.blocks)
            free(self.worker.page)
            free(self.worker.buffer)
            free(self.worker)

    def turns(self, int sender, int receiver, uint8_t[::1] data, int64_t turns):
        """``data`` from ``sender`` through the client side to ``receiver``, so many times; the bytes that arrived."""
        cdef size_t size = <size_t>data.shape[0]
        cdef int64_t _turn, total = 0, n = 0
        with nogil:
            for _turn in range(turns):
                sys_send(sender, &data[0], size, 0)
                self.conn.client.flags |= SIDE_READABLE
                self.conn.server.flags |= SIDE_WRITABLE
                relay_turn(self.worker, &self.conn)
                n = sys_recv(receiver, &data[0], size, 0)
                total += max(n, 0)
        return total


# ---- wheel, schedulers and fault doors with their clock as an argument ----------------------------------------------

include "_cshim_clock.pxi"
