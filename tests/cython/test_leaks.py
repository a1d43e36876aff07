"""What the compiled modules allocate they give back: memory, descriptors and maps, however often it is done.

Memory is counted by the sanitizers' allocator where that runs (`make sanitize`), else by the C library's.
"""

from __future__ import annotations

import ctypes
import gc
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from lbfast import _proxy
from lbfast._conn import Slab
from lbfast._counters import Counters
from lbfast._ring import Ring
from lbfast._shm import Region
from lbfast._splice import LOOP_DRAINED, Loop
from lbfast._stick import StickTable
from lbfast._table import Table

ROUNDS = 30
SPARE = 16_384  # bytes: less than a hundredth of what the rounds would leave if each left its own


class _Use(ctypes.Structure):
    """struct mallinfo2."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usm", "fsm", "uord", "ford", "keep"]
    )


def allocated() -> int:
    """Bytes in use by the allocator of C code."""
    gc.collect()
    libc = ctypes.CDLL(None)
    try:
        count = libc.__sanitizer_get_current_allocated_bytes
    except AttributeError:
        libc.mallinfo2.restype = _Use
        use = libc.mallinfo2()
        return int(use.uord + use.hblkhd)
    count.restype = ctypes.c_size_t
    return int(count())


def maps() -> int:
    return sum(1 for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:" in line)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def stick() -> None:
    table = StickTable.create(1024)
    for number in range(50):
        table.pin(f"192.0.2.{number}", number % 3, number, 0)
    other = StickTable.attach(table.fd)
    assert len(list(other.entries())) == 50
    assert other.get("192.0.2.7") is not None
    other.clear()


def region() -> None:
    made = Region.create("things", 100_000, 1)
    with pytest.raises(ValueError, match="expected"):
        Region.attach(made.fd, "others", 1)
    Region.attach(made.fd, "things", 1).close()


def codec() -> None:
    for data in (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"PROXY", b"nonsense"):
        try:
            _proxy.parse(data)
        except ValueError:
            continue


def loop() -> None:
    """A worker's whole life without a client."""
    inbox, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    table, counters, slab, ring = Table.create(), Counters.create(1), Slab.create(64), Ring.create(0)
    sticks = StickTable.create(64)
    worker = Loop(
        0, table, counters, slab, ring, inbox=inbox.fileno(), outboxes={}, control=-1, health_wake=wake, max_pipes=8
    )
    worker.set_stick(0, sticks)
    worker.add_listener(listener.fileno(), 0, 1)
    worker.remove_listener(listener.fileno())
    worker.set_stick(0, None)
    worker.stop_accepting()
    assert worker.run() == LOOP_DRAINED
    worker.close()
    for sock in (inbox, sender, listener):
        sock.close()
    os.close(wake)


@pytest.mark.parametrize("work", [stick, region, codec, loop])
def test_everything_is_given_back(work: Callable[[], None]) -> None:
    for _ in range(5):
        work()  # what is made once and kept
    before = allocated(), maps(), descriptors()
    for _ in range(ROUNDS):
        work()
    memory, mapped, opened = allocated(), maps(), descriptors()
    assert (mapped, opened) == before[1:]
    assert memory - before[0] < SPARE, f"{(memory - before[0]) / ROUNDS:.0f} bytes a round"
