"""Replication over one link: the active box sends its tables and what changes in them, the passive one applies it.

First a resync: every entry, with changes in between as they come; then the journal,
in batches, as soon as a worker has noted something.  The queue is the journal: when
it overflows, the boxes are out of step (*desync*) and a resync follows.  A batch is
acknowledged when it is applied, so the lag is what the peer really lacks.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from lbfast.ha.link import Frame, Link, LinkError
from lbfast.ha.plan import HaPlan
from lbfast.ha.skew import SkewError, why_not

RECORD_BYTES = 44
BATCH = 4096  # records of a frame
IDLE_S = 0.2
ANSWER_S = 60.0
SILENT_S = 5.0  # the peer describes itself every second: whoever says nothing for so long is gone
_SEQUENCE = struct.Struct("!Q")


class ReplicaFace(Protocol):
    """``_replica.Replica``."""

    applied: int
    unknown: int
    kept: int
    no_room: int

    def set_peer(self, services: dict[int, int], reals: dict[int, tuple[int, int]]) -> None: ...
    def collect(self, journal: Any, limit: int, now: int) -> tuple[bytearray, int]: ...
    def snapshot(self, service: int, bucket: int, limit: int, now: int) -> tuple[bytearray, int]: ...
    def apply(self, data: bytes, offset: int, now: int) -> None: ...
    def begin_resync(self) -> int: ...
    def end_resync(self, now: int) -> int: ...
    def release_held(self, now: int) -> int: ...


class JournalFace(Protocol):
    """``_journal.Journal``."""

    wake_fd: int

    def enable(self) -> None: ...
    def disable(self) -> None: ...
    def mark_desync(self) -> None: ...
    @property
    def desync(self) -> bool: ...
    def __len__(self) -> int: ...
    def sleep(self) -> bool: ...


Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


@dataclass
class Replication:
    """Everything of one link.  ``facts`` describes this box, ``heard`` is told what the peer says of itself."""

    link: Link
    replica: ReplicaFace
    journal: JournalFace
    plan: Callable[[], HaPlan]
    is_active: Callable[[], bool]
    now: Callable[[], int]
    facts: Callable[[], dict[str, Any]]
    heard: Callable[[dict[str, Any]], None]
    handlers: Mapping[str, Handler]
    take_images: Callable[[bytes], None]  # of connections that change boxes
    tell: Callable[[str], None]
    is_synced: bool = False
    resyncs: int = 0
    last_resync: dict[str, int] = field(default_factory=dict)
    sent_entries: int = 0
    received_at: int = 0  # the last frame
    _sequence: int = 0
    _unacknowledged: deque[tuple[int, int, int]] = field(default_factory=deque)  # number, records, since
    _end_of_resync: int = 0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _told: HaPlan | None = None
    _has_skipped: bool = False  # what the peer sent while both boxes were active
    _numbers: dict[str, Any] = field(default_factory=dict)  # the peer's, as it last said
    _questions: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    _asked: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def lag_entries(self) -> int:
        """What waits in the journal, and what is sent and not acknowledged."""
        return len(self.journal) + sum(records for _, records, _ in self._unacknowledged)

    @property
    def lag_ms(self) -> int:
        return max(0, self.now() - self._unacknowledged[0][2]) if self._unacknowledged else 0

    def describe_lag(self) -> dict[str, dict[str, int]]:
        """For the peer, which cannot see it: what it lacks of the active box's entries; nothing from a passive one."""
        return {"lag": {"entries": self.lag_entries, "ms": self.lag_ms}} if self.is_active() else {}

    async def run(self) -> None:
        """Until the link breaks: then an exception."""
        loop = asyncio.get_running_loop()
        self.received_at = self.now()
        loop.add_reader(self.journal.wake_fd, self._on_wake)
        self.link.put_json("F", self.facts())  # before anything that another release might misread
        jobs = [asyncio.create_task(job) for job in (self._receive(), self._send(), self._describe())]
        try:
            await asyncio.gather(*jobs)
        finally:
            loop.remove_reader(self.journal.wake_fd)
            self.journal.disable()
            for task in (*jobs, *self._tasks):
                task.cancel()
            for question in self._questions.values():
                question.cancel()
            await asyncio.gather(*jobs, *self._tasks, return_exceptions=True)
            self.link.close()

    def renew(self, replica: ReplicaFace) -> None:
        """A commit stands here: other tables, other slots."""
        self.replica = replica
        self._map_peer()
        self._put_numbers()

    def poke(self) -> None:
        """Something has changed: who is active, or the configuration."""
        self._wake.set()

    def describe(self) -> None:
        """Tell the peer what this box is, now instead of within a second."""
        self.link.put_json("F", self.facts())

    async def ask(self, verb: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """A question to the peer's ha process; its answer, TimeoutError, or CancelledError when the link breaks."""
        self._asked += 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._questions[self._asked] = answer
        number = self._asked
        try:
            await self.link.send("Q", json.dumps({"id": number, "verb": verb, "args": args}).encode())
            async with asyncio.timeout(ANSWER_S):
                return await answer
        finally:
            del self._questions[number]

    async def send_images(self, data: bytes) -> None:
        """Connections that change boxes, before a question about them."""
        await self.link.send("M", data)

    # --- sending ----------------------------------------------------------------

    def _on_wake(self) -> None:
        try:
            os.read(self.journal.wake_fd, 8)
        except BlockingIOError:
            pass
        self._wake.set()

    async def _send(self) -> None:
        while True:
            if self.is_active():
                await self._resync()
                await self._follow()
                self.journal.disable()
                self.is_synced = False  # of this box's entries; as the passive one it waits for the peer's
            else:
                if self._has_skipped:
                    self._has_skipped, self._told = False, None
                    self._put_numbers()  # told anew, they make the peer begin a resync
                await self._wait(IDLE_S)

    async def _resync(self) -> None:
        """Everything, then the end mark; changes meanwhile go in between, each later than what it changes."""
        began, count = self.now(), 0
        self.is_synced = False
        self.resyncs += 1
        self.journal.enable()
        self._put_numbers()
        await self._put("B", b"", 0)
        for service in self.plan().services:
            at = 0
            while service.is_persistent and at >= 0:
                records, at = self.replica.snapshot(service.slot, at, BATCH, self.now())
                count += len(records) // RECORD_BYTES
                if records:
                    await self._put("E", records, self.now())
                await self._put_changes()
                await asyncio.sleep(0)  # heartbeats come first
        self._end_of_resync = await self._put("Z", b"", 0)
        self.last_resync = {"entries": count, "took_ms": self.now() - began}

    async def _follow(self) -> None:
        """The journal, until this box is active no more or the boxes are out of step."""
        while self.is_active():
            if self.journal.desync:
                self.tell("replication: desync, a resync begins")
                return
            if not await self._put_changes() and self.journal.sleep():
                await self._wait(IDLE_S)

    async def _put_changes(self) -> bool:
        records, oldest = self.replica.collect(self.journal, BATCH, self.now())
        if records:
            await self._put("E", records, oldest)
        return bool(records)

    async def _put(self, kind: str, records: bytes | bytearray, since: int) -> int:
        self._sequence += 1
        count = len(records) // RECORD_BYTES
        self.sent_entries += count
        if count or kind == "Z":
            self._unacknowledged.append((self._sequence, count, since or self.now()))
        await self.link.send(kind, _SEQUENCE.pack(self._sequence) + records)
        return self._sequence

    async def _wait(self, seconds: float) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _describe(self) -> None:
        while True:
            self._put_numbers()
            self.describe()
            await asyncio.sleep(1)

    def _put_numbers(self) -> None:
        """Which slots our records speak of."""
        plan = self.plan()
        if plan is self._told:
            return
        self._told = plan
        self.link.put_json("N", {"services": [[it.id, it.slot] for it in plan.services], "reals": _real_slots(plan)})

    # --- receiving --------------------------------------------------------------

    async def _receive(self) -> None:
        while True:
            frame = await self._next()
            if frame.kind in "BEZ":
                self._take(frame)
            elif frame.kind == "A":
                self._acknowledge(_SEQUENCE.unpack(frame.data)[0])
            elif frame.kind == "N":
                self._take_numbers(frame.json())
            elif frame.kind == "F":
                facts = frame.json()
                if reason := why_not(facts):
                    raise SkewError(reason)
                self.heard(facts)
            elif frame.kind == "Q":
                self._start(self._answer(frame.json()))
            elif frame.kind == "R":
                self._take_answer(frame.json())
            elif frame.kind == "M":
                self.take_images(frame.data)
            # Anything else is of a later release.

    async def _next(self) -> Frame:
        """A machine without power does not close its connections."""
        try:
            async with asyncio.timeout(SILENT_S):
                frame = await self.link.receive()
        except TimeoutError:
            raise LinkError(f"nothing has come for {SILENT_S:g} s") from None
        self.received_at = self.now()
        return frame

    def _take(self, frame: Frame) -> None:
        if len(frame.data) < _SEQUENCE.size:
            raise LinkError("a frame of entries without its number")
        if self.is_active():
            self._has_skipped = True  # both are active: whoever lets go needs a resync
        else:
            if frame.kind == "B":
                self.is_synced = False
                self.resyncs += 1
                self.replica.begin_resync()
            elif frame.kind == "E":
                self.replica.apply(frame.data, _SEQUENCE.size, self.now())
            else:
                self.replica.end_resync(self.now())
                self.is_synced = not self._has_skipped
        self.link.put("A", frame.data[: _SEQUENCE.size])

    def _acknowledge(self, number: int) -> None:
        while self._unacknowledged and self._unacknowledged[0][0] <= number:
            self._unacknowledged.popleft()
        if number == self._end_of_resync:
            self.is_synced = True

    def _take_numbers(self, document: dict[str, Any]) -> None:
        if self._numbers:
            self.journal.mark_desync()  # entries that the peer could not place before, it can now
            self.poke()
        self._numbers = document
        self._map_peer()

    def _map_peer(self) -> None:
        """From the peer's slots to ours."""
        document, plan = self._numbers, self.plan()
        if not document:
            return
        ours = {service.id: service.slot for service in plan.services}
        services = {int(slot): ours[identity] for identity, slot in document["services"] if identity in ours}
        our_reals = {(service, real): slot for service, real, slot in _real_slots(plan)}
        reals = {
            int(slot): (our_reals[service, real], tag_of(real))
            for service, real, slot in document["reals"]
            if (service, real) in our_reals
        }
        self.replica.set_peer(services, reals)

    async def _answer(self, question: dict[str, Any]) -> None:
        handler = self.handlers.get(str(question.get("verb")))
        if handler is None:
            answer = {"ok": False, "message": f"the peer has no verb {question.get('verb')!r}: is it an older release?"}
        else:
            answer = await handler(dict(question.get("args", {})))
        self.link.put_json("R", {"id": question.get("id"), "answer": answer})

    def _take_answer(self, document: dict[str, Any]) -> None:
        question = self._questions.get(int(document["id"]))
        if question is not None and not question.done():
            question.set_result(document["answer"])

    def _start(self, job: Any) -> None:
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def tag_of(identity: str) -> int:
    """``StickEntry.tag`` of a real server's id."""
    return int.from_bytes(UUID(identity).bytes[:4], "little") or 1


def _real_slots(plan: HaPlan) -> list[tuple[str, str, int]]:
    return [(service.id, real.id, real.slot) for service in plan.services for real in service.reals]
