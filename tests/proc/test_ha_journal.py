"""The journal between a worker and the peer: what is noted, what is lost and made good again by a resync."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from data_plane import DataPlane, RealPort
from waiting import scaled, wait_for

from lbfast._journal import Journal
from lbfast._replica import Replica
from lbfast._shm import now_ms
from lbfast._stick import StickTable
from lbfast.ha.link import Link
from lbfast.ha.plan import HaPlan, RealPlan, ServicePlan
from lbfast.ha.replication import RECORD_BYTES, Replication
from lbfast.model.pair import HaSettings
from lbfast.supervisor.bodies import Bodies

ROOM = 8
REALS = 2
SLOTS = ((0, (0, 1)), (9, (501, 502)))  # of the service and its real servers, on either box


@dataclass
class Box:
    """A box that serves clients, with a journal that is soon full."""

    plane: DataPlane
    journal: Journal
    clients: int = 0

    def serve(self, count: int) -> None:
        """So many clients that never came before; their entries are bound, and noted if there was room."""
        for _ in range(count):
            self.clients += 1
            self.plane.pair(f"127.1.{self.clients >> 8}.{self.clients & 255}")

    def lose(self) -> None:
        """All clients go: their entries change once more."""
        self.plane.close_clients()
        wait_for(lambda: self.plane.holds() == 0, 10, "the connections to end")

    def entries(self) -> dict[str, int]:
        assert self.plane.stick is not None
        return {entry["client"]: entry["real"] for entry in self.plane.stick.entries()}


@pytest.fixture
def box() -> Iterator[Box]:
    journal = Journal.create(1, ROOM)
    with RealPort() as one, RealPort() as two, DataPlane([one, two], journal=journal) as plane:
        yield Box(plane, journal)


def collect(box: Box) -> int:
    """Read it as the ha process does; how many records."""
    assert box.plane.stick is not None
    records, _ = Replica({0: box.plane.stick}).collect(box.journal, 100, now_ms())
    return len(records) // RECORD_BYTES


@pytest.mark.parametrize(("writers", "room"), [(0, 8), (1, 0), (1, 7)])
def test_a_journal_of_an_impossible_shape_is_refused(writers: int, room: int) -> None:
    with pytest.raises(ValueError, match="a power of two"):
        Journal.create(writers, room)
    with pytest.raises(TypeError, match=r"Journal\.create"):
        Journal()


def test_nothing_is_noted_until_somebody_wants_it(box: Box) -> None:
    assert not box.journal.enabled
    box.serve(ROOM + 1)
    assert (len(box.journal), box.journal.lost, box.journal.desync) == (0, 0, False)
    box.journal.enable()
    assert box.journal.enabled
    box.serve(3)
    assert (len(box.journal), collect(box), len(box.journal)) == (3, 3, 0)
    box.journal.disable()
    box.serve(1)
    assert len(box.journal) == 0


def test_a_full_journal_says_desync_and_goes_on_once_it_is_read(box: Box) -> None:
    box.journal.enable()
    box.serve(ROOM)
    assert (len(box.journal), box.journal.desync) == (ROOM, False)
    box.serve(2)
    assert (len(box.journal), box.journal.lost, box.journal.desync) == (ROOM, 2, True)
    assert collect(box) == ROOM
    box.serve(1)
    assert (len(box.journal), box.journal.desync) == (1, True), "read or not, something is missing"
    box.journal.enable()
    assert (len(box.journal), box.journal.lost, box.journal.desync) == (0, 2, False)


def test_the_reader_sleeps_only_with_nothing_to_do_and_is_woken(box: Box) -> None:
    def is_woken() -> bool:
        return bool(select.select([box.journal.wake_fd], [], [], 0)[0])

    box.journal.enable()
    assert box.journal.sleep()
    assert not is_woken()
    box.serve(1)
    assert is_woken()
    os.read(box.journal.wake_fd, 8)
    assert not box.journal.sleep(), "there is something to read"
    box.serve(1)
    assert not is_woken(), "whoever does not sleep needs no waking"
    collect(box)
    assert box.journal.sleep()
    box.journal.mark_desync()
    assert not box.journal.sleep(), "there is something to make good"


@pytest.mark.parametrize("seat", [0, -1], ids=["a worker", "another process"])
def test_a_death_says_desync(box: Box, seat: int) -> None:
    """Its last change may have been made, and not noted."""
    box.journal.enable()
    plane = box.plane
    shared = SimpleNamespace(
        journal=box.journal,
        table=plane.table,
        counters=plane.counters,
        slabs=plane.slabs,
        rings=plane.rings,
        sticks={0: plane.stick},
    )
    assets: Any = SimpleNamespace(shared=shared, config=SimpleNamespace(ha=HaSettings(), web=None))
    bodies = Bodies.__new__(Bodies)
    bodies._assets = assets
    assert not box.journal.desync
    bodies.repair(SimpleNamespace(seat=seat, pid=2**22 + 7))  # type: ignore[arg-type]
    assert box.journal.desync


# --- two boxes ------------------------------------------------------------------


class Interrupted(Replica):
    """A resync bucket by bucket, with something that happens between two of them."""

    between: Callable[[], None] = staticmethod(lambda: None)

    def snapshot(self, service: int, bucket: int, limit: int, now: int) -> tuple[bytearray, int]:
        found = super().snapshot(service, bucket, 1, now)
        self.between()
        return found


def plan_of(service: int, reals: tuple[int, ...]) -> HaPlan:
    servers = tuple(RealPlan(str(UUID(int=1 + at)), slot, f"server {at}", False) for at, slot in enumerate(reals))
    names = {"id": str(UUID(int=100)), "label": "service", "address": "192.0.2.1", "interface": None, "port": 443}
    rest: dict[str, Any] = {"is_deferring": True, "is_persistent": True, "timeout_ms": 600_000, "is_movable": False}
    return HaPlan(HaSettings(), (ServicePlan(slot=service, reals=servers, **names, **rest),), 1, "")  # type: ignore[arg-type]


@dataclass
class Pair:
    """The box that serves, and another one without clients; joined by a socket pair in place of TLS."""

    box: Box
    other: StickTable = field(default_factory=lambda: StickTable.create(4096))
    told: list[str] = field(default_factory=list)
    between: Callable[[], None] = lambda: None

    def replication(self, link: Link, replica: Replica, journal: Journal, active: bool) -> Replication:
        plan = plan_of(*SLOTS[0 if active else 1])
        return Replication(
            link=link,
            replica=replica,
            journal=journal,
            plan=lambda: plan,
            is_active=lambda: active,
            now=now_ms,
            facts=dict,
            heard=lambda _: None,
            handlers={},
            take_images=lambda _: None,
            tell=self.told.append,
        )

    def play(self, *acts: Callable[[], None]) -> Replication:
        """Each act once the one before it has arrived on the other box; the tables must be equal after each."""
        return asyncio.run(self._play(acts))

    async def _play(self, acts: tuple[Callable[[], None], ...]) -> Replication:
        assert self.box.plane.stick is not None
        sender = Interrupted({0: self.box.plane.stick})
        sender.between = self.between  # type: ignore[method-assign]
        receiver = Replica({SLOTS[1][0]: self.other})
        links = [Link(*await asyncio.open_connection(sock=sock)) for sock in socket.socketpair()]
        here = self.replication(links[0], sender, self.box.journal, True)
        there = self.replication(links[1], receiver, Journal.create(1, ROOM), False)
        jobs = [asyncio.create_task(one.run()) for one in (here, there)]
        try:
            for act in (lambda: None, *acts):
                act()
                await self._wait_equal(here)
                self._compare()
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
        return here

    async def _wait_equal(self, here: Replication) -> None:
        async with asyncio.timeout(scaled(20)):
            await asyncio.sleep(0.01)
            while here.journal.desync or not here.is_synced or here.lag_entries:
                await asyncio.sleep(0.01)

    def _compare(self) -> None:
        ours, theirs = SLOTS[0][1], SLOTS[1][1]
        wanted = {client: theirs[ours.index(real)] for client, real in self.box.entries().items()}
        assert {entry["client"]: entry["real"] for entry in self.other.entries()} == wanted


def test_changes_go_over_one_by_one(box: Box) -> None:
    pair = Pair(box)
    here = pair.play(lambda: box.serve(ROOM - 1), lambda: box.serve(1), box.lose)
    assert (here.resyncs, pair.told) == (1, [])
    assert set(box.entries().values()) == set(range(REALS))


def test_what_an_overflow_has_lost_comes_with_a_resync(box: Box) -> None:
    pair = Pair(box)
    box.serve(5)
    here = pair.play(lambda: box.serve(5 * ROOM), box.lose)
    assert here.resyncs == 3
    assert pair.told == ["replication: desync, a resync begins"] * 2
    assert box.journal.lost > 0


def test_what_a_dead_worker_has_not_noted_comes_with_a_resync(box: Box) -> None:
    """As if it had died between a change and its note."""
    pair = Pair(box)

    def change_and_die() -> None:
        assert box.plane.stick is not None
        assert box.plane.stick.clear("127.1.0.1") == 1
        box.journal.mark_desync()

    box.serve(3)
    box.lose()
    here = pair.play(change_and_die)
    assert here.resyncs == 2
    assert len(box.entries()) == 2


def test_changes_during_a_resync_are_not_lost(box: Box) -> None:
    """New clients come between any two buckets of it, also in those that were sent already."""
    pair = Pair(box)
    came = 20

    def come() -> None:
        nonlocal came
        came += 1
        box.serve(1)

    pair.between = come
    box.serve(came)
    here = pair.play()
    assert here.resyncs == 1
    assert box.journal.lost == 0
    assert len(box.entries()) == came > 30


def test_an_overflow_during_a_resync_begins_it_again(box: Box) -> None:
    pair = Pair(box)
    left = 2

    def come() -> None:
        nonlocal left
        if left:
            left -= 1
            box.serve(ROOM + 3)

    pair.between = come
    box.serve(20)
    here = pair.play()
    assert here.resyncs == 2
    assert len(box.entries()) == 20 + 2 * (ROOM + 3)
