"""Seats: what a worker needs of its own in shared memory, and its inbox; its successor has another one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

from lbfast._conn import Slab
from lbfast._counters import Counters
from lbfast._ring import Ring
from lbfast.supervisor.shared import Shared

MOST_SEATS = 512  # of counters: two for each of 256 workers
_LETTER = 128 * 1024  # the longest message of an inbox, with room to spare
_HANDS = 16


@dataclass(frozen=True)
class Inbox:
    """Where a worker is handed sockets and connections; kept open by the supervisor across the worker's deaths."""

    receive: int
    send: int

    @classmethod
    def open(cls) -> Inbox:
        """A pair of its own: messages, not a stream, and as many as the buffer holds."""
        kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        receive, send = (sock.detach() for sock in socket.socketpair(socket.AF_UNIX, kind))
        return cls(receive, send)

    def close(self) -> None:
        os.close(self.receive)
        os.close(self.send)


@dataclass
class Seats:
    """Who sits where.  ``room``: connections of a new seat's slab."""

    shared: Shared
    room: int
    inboxes: list[Inbox] = field(default_factory=list)
    taken: dict[int, int] = field(default_factory=dict)  # seat -> place
    last: dict[int, int] = field(default_factory=dict)  # seat -> place that had it last
    numbers: list[int] = field(default_factory=list)  # by seat: of its next connection, in memory that was left

    def take(self, place: int) -> int:
        """A vacant seat for the worker of a place, best one that it had before; or a new one."""
        vacant = [seat for seat in range(len(self.inboxes)) if seat not in self.taken]
        seat = min(vacant, key=lambda it: (self.last.get(it) != place, it), default=-1)
        if seat < 0:
            seat = self._make()
        self.taken[seat] = self.last[seat] = place
        self.shared.counters.use(seat, place)
        return seat

    def vacate(self, seat: int) -> None:
        """Its worker is gone for good, and repaired after."""
        self.taken.pop(seat, None)
        self.shared.counters.vacate(seat)

    def forward(self, seat: int, to: Iterable[int]) -> int:
        """Pass on what still lies in the inbox of a vacant seat; how many messages."""
        return self.empty(self.inboxes[seat], to)

    def empty(self, inbox: Inbox, to: Iterable[int]) -> int:
        """Pass on what lies in any inbox."""
        sends = [self.inboxes[other].send for other in to]
        count = 0
        while sends and (letter := _receive(inbox.receive)) is not None:
            data, fds = letter
            try:
                _send(sends[count % len(sends)], data, fds)
            finally:
                for fd in fds:
                    os.close(fd)
            count += 1
        return count

    def close(self) -> None:
        for inbox in self.inboxes:
            inbox.close()
        self.inboxes.clear()

    def _make(self) -> int:
        seat = len(self.inboxes)
        if seat >= MOST_SEATS:
            raise OSError(f"all {MOST_SEATS} seats of workers are in use")
        inbox = Inbox.open()
        try:
            self.shared.slabs.append(
                Slab.create(self.room, seat, self.numbers[seat] if seat < len(self.numbers) else 0)
            )
            self.shared.rings.append(Ring.create(seat))
        except BaseException:
            del self.shared.slabs[seat:], self.shared.rings[seat:]
            inbox.close()
            raise
        self.inboxes.append(inbox)
        return seat


def make_counters() -> Counters:
    """Pages for every seat there can be: a page costs memory only once it is used."""
    return Counters.create(MOST_SEATS, 0)


def _receive(fd: int) -> tuple[bytes, list[int]] | None:
    sock = socket.socket(fileno=fd)
    try:
        room = socket.CMSG_LEN(_HANDS * 4)
        data, rights, _, _ = sock.recvmsg(_LETTER, room, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
    except OSError:
        return None
    finally:
        sock.detach()
    fds = [fd for *_, packed in rights for fd in memoryview(packed[: len(packed) // 4 * 4]).cast("i")]
    return (data, fds) if data else None


def _send(fd: int, data: bytes, fds: list[int]) -> None:
    """Waits for room: the taker reads all the time."""
    sock = socket.socket(fileno=fd)
    try:
        sock.settimeout(1.0)
        packed = memoryview(b"".join(one.to_bytes(4, "little") for one in fds))
        sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)], socket.MSG_NOSIGNAL)
    except OSError:
        pass  # its client meets a reset; a worker that takes nothing for a second is stopped or dead
    finally:
        sock.setblocking(False)
        sock.detach()
