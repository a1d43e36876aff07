"""The event stream: drains the workers' rings, keeps the newest records, feeds the followers and the log.

Work per turn is bounded: what neither the log nor a follower could take is skipped
in the ring without being decoded, and counted.  Nobody who reads slowly holds up
anybody else: each follower has its own bounded queue, and what it missed is said.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from lbfast.control.catalog import Catalog
from lbfast.control.engine import RingFace
from lbfast.control.rate_limit import RateLimit
from lbfast.control.records import Record, connection_record

if TYPE_CHECKING:
    from lbfast._ring import Event

T = TypeVar("T")

KEEP: Final = 1000  # newest records in memory
FOLLOWER_QUEUE: Final = 4096
PER_TURN: Final = 2000  # records decoded per turn for followers
PER_TURN_QUIET: Final = 200  # and when neither follower nor log takes them: for `events` alone


@dataclass(frozen=True, slots=True)
class Unmade:
    """A connection's event that nobody has asked for yet: making the record costs more than keeping this."""

    event: Event
    catalog: Catalog

    def make(self) -> Record:
        return connection_record(self.event, self.catalog)


def _last(kept: deque[tuple[int, T]], number: int) -> list[tuple[int, T]]:
    return list(kept)[max(0, len(kept) - number) :]


class LogFace(Protocol):
    """Takes records for the log; never waits."""

    def submit(self, record: Record) -> None: ...


class Follower:
    """The bounded queue of one reader of ``events --follow``."""

    def __init__(self, size: int = FOLLOWER_QUEUE) -> None:
        self._size = size
        self._queue: deque[Record] = deque()
        self._wake = asyncio.Event()
        self.missed = 0  # since the last ``take``

    def put(self, record: Record) -> None:
        if len(self._queue) >= self._size:
            self.missed += 1
            return
        self._queue.append(record)
        self._wake.set()

    async def take(self) -> tuple[list[Record], int]:
        """Wait for records; all that are there, and how many were left out after them."""
        await self._wake.wait()
        self._wake.clear()
        records, missed = list(self._queue), self.missed
        self._queue.clear()
        self.missed = 0
        return records, missed


class EventStream:
    """Every record passes here once, in order."""

    def __init__(
        self,
        log: LogFace,
        limit: RateLimit,
        now: Callable[[], float],
        now_iso: Callable[[], str],
        *,
        is_logging: bool = True,
    ) -> None:
        """``is_logging``: whether anything becomes of a record that is submitted to the log."""
        self._log = log
        self._is_logging = is_logging
        self._limit = limit
        self._now = now
        self._now_iso = now_iso
        self._connections: deque[tuple[int, Record | Unmade]] = deque(maxlen=KEEP)
        self._others: deque[tuple[int, Record]] = deque(maxlen=KEEP)  # no flood of connections pushes these out
        self._order = count()
        self._followers: set[Follower] = set()
        self._quiet: set[Follower] = set()  # those that leave connections out, and so cost none of them anything
        self.listeners: list[Callable[[Record], None]] = []  # told of every record that is not a connection's
        self.watchers: list[Callable[[Event], None]] = []  # and of every connection's event that was decoded
        self.suppressed = 0  # records kept out of the log by the rate limit, ever
        self.skipped = 0  # events dropped undecoded, ever
        self.asked: Callable[[], None] = lambda: None  # somebody wants to see events: look for new ones now

    def set_logging(self, is_logging: bool) -> None:
        """Whether anything becomes of a record that is submitted from now on."""
        self._is_logging = is_logging

    def set_limit(self, limit: RateLimit) -> None:
        """Another limit from now on; what the old one kept out is told first."""
        self.turn()
        self._limit = limit

    @property
    def followers(self) -> int:
        return len(self._followers)

    def newest(self, limit: int, *, connections: bool = True) -> list[Record]:
        """The newest kept records, oldest first; up to half of them are not of connections, however many those are."""
        self.asked()
        if limit <= 0:
            return []
        room = limit - min(len(self._others), limit // 2) if connections else 0
        of_connections = _last(self._connections, room)
        others = _last(self._others, limit - len(of_connections))
        made = ((order, it.make() if isinstance(it, Unmade) else it) for order, it in of_connections)
        return [record for _, record in merge(made, others, key=itemgetter(0))]

    def follow(self, *, connections: bool = True) -> Follower:
        follower = Follower()
        (self._followers if connections else self._quiet).add(follower)
        self.asked()
        return follower

    def unfollow(self, follower: Follower) -> None:
        self._followers.discard(follower)
        self._quiet.discard(follower)

    def publish(self, record: Record) -> None:
        """An administrative, health or process record: always logged."""
        self._others.append((next(self._order), record))
        self._spread(record)
        for follower in self._quiet:
            follower.put(record)
        self._log.submit(record)
        for listener in self.listeners:
            listener(record)

    def publish_connection(self, event: Event, catalog: Catalog) -> None:
        """The record of a connection: logged within the rate limit, and only made when somebody takes it."""
        for watcher in self.watchers:
            watcher(event)
        unmade = Unmade(event, catalog)
        is_logged = self._is_logging and self._limit.allow(self._now())
        record = unmade.make() if is_logged or self._followers else unmade
        self._connections.append((next(self._order), record))
        if isinstance(record, Unmade):
            return
        self._spread(record)
        if is_logged:
            self._log.submit(record)

    def budget(self) -> int:
        """How many events are worth decoding in this turn."""
        if self._followers:
            return PER_TURN
        left = self._limit.left() if self._is_logging else 0
        return PER_TURN if left is None else min(PER_TURN, max(PER_TURN_QUIET, left))

    def skip(self, count: int) -> None:
        """Count events that were dropped undecoded; the log says so, followers are told."""
        self.skipped += count
        if self._is_logging:
            self._limit.suppress(count, self._now())
        for follower in self._followers:
            follower.missed += count

    def turn(self) -> None:
        """Say how many records the window that has ended kept out of the log."""
        suppressed = self._limit.turn(self._now())
        if suppressed:
            self.suppressed += suppressed
            self._log.submit(
                {
                    "at": self._now_iso(),
                    "event": "process",
                    "message": f"{suppressed} records of connections were not logged: {self._limit.rule()}",
                    "suppressed": suppressed,
                }
            )

    def _spread(self, record: Record) -> None:
        for follower in self._followers:
            follower.put(record)


class RingDrain:
    """Empties the event rings of all workers into the stream, a bounded piece at a time."""

    def __init__(self, rings: Sequence[RingFace], catalog: Callable[[], Catalog], stream: EventStream) -> None:
        self._rings = rings
        self._catalog = catalog
        self._stream = stream
        self._lost = [ring.lost for ring in rings]

    def turn(self, now_iso: str) -> int:
        """One turn; how many records were made."""
        budget = self._stream.budget()
        waiting = [len(ring) for ring in self._rings]
        total = sum(waiting)
        events = []
        for ring, unread in zip(self._rings, waiting, strict=True):
            share = unread if total <= budget else max(1, budget * unread // total)
            if unread > share:
                self._stream.skip(ring.skip(share))
            events += ring.read(share)
        events.sort(key=lambda event: event["at"])
        catalog = self._catalog()
        for event in events:
            self._stream.publish_connection(event, catalog)
        self._report_lost(now_iso)
        self._stream.turn()
        return len(events)

    def rest(self, asleep: bool) -> None:
        """Whether the next event of any worker is to wake us."""
        for ring in self._rings:
            ring.rest(asleep)

    def _report_lost(self, now_iso: str) -> None:
        self._lost += [0] * (len(self._rings) - len(self._lost))  # seats that came since
        for index, ring in enumerate(self._rings):
            lost = ring.lost
            new, self._lost[index] = lost - self._lost[index], lost
            if new > 0:
                message = f"{new} events of a worker were lost: its event ring (of seat {index}) was full"
                self._stream.publish({"at": now_iso, "event": "process", "message": message})
