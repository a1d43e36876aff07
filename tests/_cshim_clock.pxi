"""Part of _cshim: the timing wheel and the schedulers with their clock as an argument, and the fault doors."""

from lbfast._sys cimport (
    DOOR_ACCEPT, DOOR_CONNECT, DOOR_EPOLL, DOOR_PIPE, DOOR_RECV, DOOR_SEND, DOOR_SOCKET, DOOR_SPLICE_IN, DOOR_SPLICE_OUT,
    LBFAST_DEBUG, fault_arm,
)
from lbfast._timer cimport TIMER_PLACES, TIMER_TICK_MS, timer_stop, timer_wait


cdef class TimerWheel:
    """The wheel of _timer, its clock an argument."""

    cdef Wheel wheel

    def __init__(self, uint32_t capacity, int64_t now_ms):
        if wheel_open(&self.wheel, capacity, now_ms) < 0:
            raise MemoryError("no memory for a wheel")

    def __dealloc__(self):
        wheel_close(&self.wheel)

    def set(self, uint32_t slot, int64_t at_ms):
        timer_set(&self.wheel, slot, at_ms)

    def stop(self, uint32_t slot):
        timer_stop(&self.wheel, slot)

    def due(self, int64_t now_ms):
        """The next due slot, or None."""
        cdef uint32_t slot = timer_due(&self.wheel, now_ms)
        return None if slot == TIMER_NONE else slot

    def wait(self, int64_t now_ms, int64_t limit):
        return timer_wait(&self.wheel, now_ms, limit)


TICK_MS = TIMER_TICK_MS
PLACES = TIMER_PLACES


# ---- schedulers and fault doors --------------------------------------------------------------------------------------

def schedule(Table table, long service, str client, uint64_t tried, int64_t now_ms):
    """Slot of the real server that the service's scheduler chooses, or -1; nothing is claimed."""
    cdef uint8_t key[16]
    address_parse(client, key)
    return sched_pick(&table.map, &table.map.services[service], NULL, key, tried, now_ms)


def load(Table table, long real, int64_t n):
    """Count n more connections at a real server."""
    table.map.reals[real].connections += n


DOORS = {
    "accept": DOOR_ACCEPT, "socket": DOOR_SOCKET, "connect": DOOR_CONNECT, "recv": DOOR_RECV, "send": DOOR_SEND,
    "splice_in": DOOR_SPLICE_IN, "splice_out": DOOR_SPLICE_OUT, "pipe": DOOR_PIPE, "epoll": DOOR_EPOLL,
}


def arm(str door, int after, int times, int error):
    """The next ``times`` calls through a door, ``after`` some more, fail with ``error`` (debug builds)."""
    fault_arm(DOORS[door], after, times, error)


HAS_FAULTS = bool(LBFAST_DEBUG)
