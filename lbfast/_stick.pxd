"""The stick table: which client belongs to which real server, shared by all workers.

Set-associative: a keyed hash (SipHash-1-3, key in the header) names one bucket; a
bucket is one header line, one undo line and STICK_WAYS entries of 64 bytes.  Every
access, reading too, holds the bucket's lock, for some hundred nanoseconds.

Crash safety.  The lock word is the owner's pid.  A change is made between
stick_change (copies the entry to the undo line) and stick_done.  When a process
dies in between, whoever recovers the bucket copies the undo line back.  The
supervisor does that first (StickTable.recover); a process that waits longer
than RECOVER_AFTER_MS on a lock whose owner no longer exists does it itself, and
leaves a note of the connection for the supervisor's stick_recover.

The pid is cached in a private page that the kernel wipes in the child of a fork
(MADV_WIPEONFORK): a forked process needs to do nothing.  One lock at a time per
process: no verb may be called with a second bucket locked.

Verbs, all under the lock of stick_lock:  find -> (room) -> change ... done -> unlock.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from lbfast._shm cimport Region

cdef enum:
    STICK_VERSION = 1
    STICK_WAYS = 14
    STICK_REALS = 32768       # bound[] is indexed by real slot
    STICK_PINNED = 1          # StickEntry.flags
    STICK_PEER = 2            # the peer's client has open connections there: it does not expire here
    STICK_UNSEEN = 4          # in a resync: not named by the peer yet
    STICK_NOTES = 16
    STICK_NO_REAL = 0xFFFFFFFF
    STICK_NO_CONN = 0xFFFFFFFF
    RECOVER_AFTER_MS = 200

cdef enum StickState:
    STICK_EMPTY = 0
    STICK_PENDING = 1         # reserved before connect; others of this client follow
    STICK_BOUND = 2

cdef struct StickEntry:       # 64 bytes, one cache line
    uint8_t key[16]           # masked address; IPv4 as ::ffff:a.b.c.d
    uint32_t real             # slot in Table, or STICK_NO_REAL
    uint32_t tag              # first 4 bytes of the real's id, never 0: a reused slot does not match
    uint32_t holds            # open connections that hold the entry
    uint32_t serial           # differs for each tenant of this place
    uint8_t state             # StickState
    uint8_t flags
    uint8_t reason            # model.state.Reason of the last choice
    uint8_t previous_reason   # why the client left `previous`
    uint32_t previous         # real slot or STICK_NO_REAL
    int64_t created_ms
    int64_t since_ms          # bound to this real since
    int64_t closed_ms         # last close; the timer runs from here when holds == 0

cdef struct StickBucket:      # 1024 bytes: header line, undo line, entries
    uint32_t lock             # pid of the owner, 0 = free
    uint8_t undo              # 1 while `saved` must be copied back if the owner dies
    uint8_t undo_way
    uint8_t undo_held         # StickRef.held of undo_conn before the change
    uint8_t reserved
    uint32_t undo_conn        # the owner's connection slot, or STICK_NO_CONN
    uint32_t next_serial
    uint16_t mark[STICK_WAYS]  # 0 = empty, else 16 bits of the hash: one line answers a miss
    uint32_t undo_pid         # whose change `saved` undoes; outlives a recoverer that dies too
    uint8_t padding[16]
    StickEntry saved
    StickEntry entry[STICK_WAYS]

cdef struct StickRef:         # inside Conn: the hold of one connection
    uint32_t bucket
    uint32_t serial
    uint8_t way
    uint8_t held

cdef struct StickHeader:      # behind the region's header
    uint64_t buckets
    uint64_t key0
    uint64_t key1
    int64_t used
    int64_t mutations
    int64_t note[STICK_NOTES]  # what self-recoveries undid of connections, for stick_recover
    uint32_t stale            # 1 = bound/used may be off by a dead process's change: recount
    uint32_t reserved

cdef struct StickMap:         # process-local view of one table (pointers allowed here)
    StickBucket* buckets
    uint64_t mask             # number of buckets - 1 (a power of two)
    uint64_t key0             # of the hash
    uint64_t key1
    uint8_t* touched          # bitmap, one bit per 4 buckets (a page), never cleared
    int32_t* bound            # entries per real slot, atomic
    int64_t* used             # entries in all, atomic
    int64_t* mutations        # changes of bound/used, atomic: lets a recount see that nothing moved
    uint32_t* pid             # cached getpid(), 0 after a fork: see the head of this file
    StickHeader* header

cdef uint64_t stick_hash(const StickMap* map, const uint8_t* key) noexcept nogil
cdef StickBucket* stick_lock(StickMap* map, uint64_t hash) noexcept nogil
cdef StickBucket* stick_lock_at(StickMap* map, uint32_t bucket) noexcept nogil
cdef void stick_unlock(StickBucket* bucket) noexcept nogil
# Way of the key's live entry (not expired), or -1.  An expired entry of the key is not found.
# Never expires: an entry that is held or pinned.  Always expired: a pending entry that nobody holds.
# Else expired means now - closed_ms > timeout_ms.
cdef int stick_find(StickBucket* bucket, uint64_t hash, const uint8_t* key, int64_t timeout_ms,
                    int64_t now) noexcept nogil
# A way for a new entry: empty, else expired, else the one closed longest ago; -1 when all are held or pinned.
# An entry that is in the way has been removed (bound, used adjusted).
cdef int stick_room(StickMap* map, StickBucket* bucket, int64_t timeout_ms, int64_t now) noexcept nogil
# Open a change of one entry; `ref` may be NULL (no connection involved).
cdef StickEntry* stick_change(StickBucket* bucket, int way, uint32_t conn, const StickRef* ref) noexcept nogil
cdef void stick_done(StickBucket* bucket) noexcept nogil
# Complete changes, each opening and closing its own undo:
# A new entry without holds, closed_ms = now.  Another (expired) entry of the same key goes.
cdef void stick_insert(StickMap* map, StickBucket* bucket, int way, uint64_t hash, const uint8_t* key, uint32_t real,
                       uint32_t tag, uint8_t state, uint8_t reason, int64_t now) noexcept nogil
# Take a hold for a connection: holds + 1 and ref filled (held = 1), both or neither after a crash.
cdef void stick_hold(StickMap* map, StickBucket* bucket, int way, uint32_t conn, StickRef* ref) noexcept nogil
# Give a hold back (locks by itself): closed_ms = now, ref.held = 0.  A pending entry that loses its
# last hold is removed.  The entry is left alone when the place has another tenant by now.
cdef void stick_release(StickMap* map, uint32_t conn, StickRef* ref, int64_t now) noexcept nogil
# Move the entry to another real server; the old one becomes `previous`.  state becomes as given.
# The same real server: `previous` stays, since_ms moves only from pending to bound.
# A pinned entry keeps its real server, tag and reason whatever is asked.
cdef void stick_bind(StickMap* map, StickBucket* bucket, int way, uint32_t real, uint32_t tag, uint8_t state,
                     uint8_t reason, int64_t now) noexcept nogil
cdef void stick_remove(StickMap* map, StickBucket* bucket, int way) noexcept nogil
# After the death of `pid` (reaped): undo and unlock what it left, recount; number of buckets unlocked.
# *conn = the slot of its one connection whose StickRef.held must be set to *held before its holds are
# given back, or STICK_NO_CONN.
cdef int stick_recover(StickMap* map, uint32_t pid, uint32_t* conn, uint8_t* held) noexcept nogil

cdef inline uint32_t stick_tag(const uint8_t* id) noexcept nogil:
    """StickEntry.tag of a real server's id."""
    cdef uint32_t tag = id[0] | (<uint32_t>id[1] << 8) | (<uint32_t>id[2] << 16) | (<uint32_t>id[3] << 24)
    return tag if tag != 0 else 1

cdef class StickTable:
    cdef Region region
    cdef StickMap map
    cdef readonly size_t capacity   # places: buckets * STICK_WAYS
    cdef uint64_t cursor            # of sweep, process-local
    cdef StickBucket* _lock(self, uint64_t bucket) except NULL
    cdef list _read(self, uint64_t bucket)
