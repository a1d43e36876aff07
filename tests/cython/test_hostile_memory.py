"""Shared memory as a worker that was taken over could leave it: whoever reads it afterwards lives on.

The supervisor repairs after a dead worker with more rights than the worker had; control reads beside a living one.
Each round runs in a child, so that a fault is a wait status and not the end of the tests.
"""

from __future__ import annotations

import os
import random
import sys
import traceback
from collections.abc import Callable

import pytest

from lbfast._conn import Slab
from lbfast._counters import Counters
from lbfast._repair import repair
from lbfast._ring import Ring
from lbfast._shm import Region
from lbfast._stick import StickTable
from lbfast._table import Table

HEADER = 64  # of a region: checked when it is attached, and kept by no one else
CONN_SIZE, SERVICE_AT = 256, 104  # struct Conn
ROUNDS = 40
DEAD = 4_194_303  # the highest number that a process can have here; none has it


class World:
    """The structures of one worker."""

    def __init__(self) -> None:
        self.table = Table.create()
        self.counters = Counters.create(2)
        self.slabs = [Slab.create(64, seat) for seat in range(2)]
        self.ring = Ring.create(0, 64)
        self.stick = StickTable.create(256)
        for number in range(40):
            self.stick.pin(f"192.0.2.{number}", number % 5, 7, 0)

    def scribble(self, fd: int, dice: random.Random, share: int) -> None:
        """Write noise over a part of what somebody shares, in words: all bits, none, small, or random."""
        size = os.fstat(fd).st_size
        for _ in range(share):
            place = HEADER + dice.randrange((size - HEADER - 8) // 4) * 4
            if dice.randrange(2):
                place = HEADER + dice.randrange(64) * 4  # heads are small, and decide
            word = dice.choice([b"\xff" * 4, b"\x7f" * 4, bytes([dice.randrange(70), 0, 0, 0]), dice.randbytes(4)])
            os.pwrite(fd, word, place)

    def fill(self, fd: int, dice: random.Random) -> None:
        """The slab: every record alive, nothing in it true."""
        size = os.fstat(fd).st_size
        os.pwrite(fd, b"\xff\xff\xff\x7f" * 2, HEADER)
        os.pwrite(fd, dice.randbytes(size - HEADER - 64), HEADER + 64)
        for place in range(HEADER + 64 + SERVICE_AT, size, CONN_SIZE):
            os.pwrite(fd, dice.randrange(3).to_bytes(4, "little"), place)  # a service with a table, so that holds count


def supervise(world: World, dice: random.Random) -> None:
    world.fill(world.slabs[0].fd, dice)
    world.scribble(world.ring.fd, dice, 30)
    world.scribble(world.slabs[1].fd, dice, 200)
    world.scribble(world.table.fd, dice, 100)
    repair(0, DEAD, world.table, world.counters, world.slabs, world.ring, dict.fromkeys(range(3), world.stick))


def read(world: World, dice: random.Random) -> None:
    for fd in (world.slabs[0].fd, world.ring.fd, world.counters.fd):
        world.scribble(fd, dice, 300)
    for slab in world.slabs:
        for _ in zip(range(1000), slab.connections(), strict=False):
            pass
    world.ring.read(1000)
    world.ring.skip(5)
    world.ring.read(1000)
    for slot in range(3):
        world.counters.worker(slot % 2)
        world.counters.service(slot)
        world.counters.real(slot)


def recover(world: World, dice: random.Random) -> None:
    """A bucket whose undo names a place and a connection that do not exist."""
    size = os.fstat(world.stick.fd).st_size
    for place in range(4096 + 131072, size, 1024):  # the header lines of buckets, wherever they begin
        if dice.randrange(3) == 0:
            os.pwrite(
                world.stick.fd, DEAD.to_bytes(4, "little") + b"\x01" + dice.randbytes(3) + dice.randbytes(4), place
            )
    world.stick.recover(DEAD)
    list(world.stick.entries())
    world.stick.counts()


@pytest.mark.parametrize("work", [supervise, read, recover])
def test_whoever_reads_lives_on(work: Callable[[World, random.Random], None]) -> None:
    first = random.SystemRandom().randrange(1 << 32)
    for seed in range(first, first + ROUNDS):
        status = _in_child(lambda seed=seed: work(World(), random.Random(seed)))
        assert not os.WIFSIGNALED(status), f"seed {seed}: killed by signal {os.WTERMSIG(status)}"


def _in_child(work: Callable[[], None]) -> int:
    """Its wait status; an exception is a clear answer, too."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        import faulthandler
        import signal

        faulthandler.disable()
        signal.alarm(60)
        try:
            work()
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


def test_a_ring_whose_head_lies_is_refused() -> None:
    ring = Ring.create(0, 64)
    os.pwrite(ring.fd, (1 << 20).to_bytes(4, "little"), HEADER + 4)
    with pytest.raises(ValueError, match="do not hold the 1048576 events"):
        Ring.attach(ring.fd)


def test_the_header_has_the_size_that_is_spared() -> None:
    assert bytes(memoryview(Region.create("things", 100, 1))[:HEADER]).startswith(b"lbfast\0")
