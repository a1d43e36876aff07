"""The doors to our own workers: their inboxes, through which connections are handed in that this process holds."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from lbfast._letters import BLOCK_MOST, write_letter
from lbfast._tcp_image import TcpImage, reset, resume, thaw
from lbfast.model.state import Ended

_ROOM_AGAIN_S, _ROOM_WITHIN_MS = 0.002, 5000
_OPEN_S = 0.5
_F_SETPIPE_SZ = 1031


@dataclass(eq=False)
class Held:
    """A connection that this process has in its hands: two sockets, and whatever else it is."""

    ends: tuple[int, ...]  # descriptors: client, server; none when it is closed
    service: int
    real: int
    record: bytes
    inbound: bytes
    outbound: bytes
    images: tuple[TcpImage, TcpImage] | None = None
    is_copy: bool = False  # recreated from its images

    def set_going(self) -> None:
        """Frozen or not, from here on it is alive."""
        if self.is_copy:
            assert self.images is not None
            for fd, image in zip(self.ends, self.images, strict=True):
                thaw(fd, image)
        else:
            for fd in self.ends:
                resume(fd)

    def end(self) -> None:
        """RST to both, frozen or not."""
        for fd in self.ends:
            with suppress(OSError):  # it has ended already
                resume(fd)
                reset(fd)
        self.close()

    def close(self) -> None:
        """Without a word, if frozen."""
        for fd in self.ends:
            os.close(fd)
        self.ends = ()


def end_all(conns: Iterable[Held]) -> None:
    """RST to both ends of each."""
    for held in conns:
        held.end()


@dataclass
class Doors:
    """``say``: to the supervisor, with descriptors; False when it does not take the message."""

    say: Callable[[Mapping[str, object], Sequence[int]], bool]
    now: Callable[[], int]
    tell: Callable[[str], None]
    _doors: list[int] = field(default_factory=list)
    _next: int = 0
    _have_come: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: deque[Held] = field(default_factory=deque)  # going already, for room in an inbox
    _task: asyncio.Task[None] | None = None

    async def open(self, services: Sequence[int] = (), outbox: int | None = None, ended: Ended = Ended.MOVED) -> None:
        """Ask for the inboxes; with ``outbox`` have the workers send there what they have of these services.

        ``ended``: what their records of these connections say.
        """
        self._have_come.clear()
        fds = [] if outbox is None else [outbox]
        if not self.say({"event": "doors", "services": list(services), "ended": int(ended)}, fds):
            raise OSError("the supervisor does not answer")
        try:
            async with asyncio.timeout(_OPEN_S):
                await self._have_come.wait()
        except TimeoutError:
            raise OSError("the supervisor does not answer in time") from None

    def on_doors(self, fds: Sequence[int]) -> None:
        """They come from the supervisor; the descriptors are the caller's."""
        self._shut()
        self._doors = [os.dup(fd) for fd in fds]
        self._have_come.set()

    def close(self) -> None:
        """Now, or behind the last connection that waits."""
        if not self._waiting:
            self._shut()

    def _shut(self) -> None:
        for fd in self._doors:
            os.close(fd)
        self._doors = []

    def deliver(self, held: Held) -> None:
        """To one of the workers; when all inboxes are full, as soon as there is room.  It is no more the caller's."""
        if not self._waiting and self._hand_in(held):
            held.close()
            return
        self._waiting.append(held)
        if len(self._waiting) == 1:
            self._task = asyncio.get_running_loop().create_task(self._deliver_late())

    async def _deliver_late(self) -> None:
        deadline = self.now() + _ROOM_WITHIN_MS
        while self._waiting:
            if not self._doors:
                with suppress(OSError):  # the supervisor has no time: again
                    await self.open()
            if self._hand_in(self._waiting[0]):
                self._waiting.popleft().close()
                deadline = self.now() + _ROOM_WITHIN_MS
            elif self.now() < deadline:
                await asyncio.sleep(_ROOM_AGAIN_S)
            else:
                self.tell(f"{len(self._waiting)} connections are lost: no worker takes them")
                while self._waiting:
                    self._waiting.popleft().end()
        self._shut()

    def _hand_in(self, held: Held) -> bool:
        """To the next worker, False while none has room; the sockets are still ours to close."""
        letter = write_letter(held.record, held.service, held.real, held.inbound, held.outbound)
        pipes = [end for data in (held.inbound, held.outbound) if len(data) > BLOCK_MOST for end in _pipe(data)]
        try:
            fds = [*held.ends, *pipes]
            for _ in self._doors:
                self._next = (self._next + 1) % len(self._doors)
                if _send(self._doors[self._next], letter, fds):
                    return True
            return False
        finally:
            for fd in pipes:
                os.close(fd)


def _pipe(data: bytes) -> tuple[int, int]:
    """Both ends of one that holds the bytes."""
    source, target = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.fcntl(target, _F_SETPIPE_SZ, max(65536, len(data)))
        if os.write(target, data) != len(data):
            raise OSError("a pipe does not take what another one held")
    except BaseException:
        os.close(source)
        os.close(target)
        raise
    return source, target


def _send(door: int, letter: bytes, fds: Sequence[int]) -> bool:
    """False when there is no room."""
    with socket.socket(fileno=os.dup(door)) as sock:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            sock.sendmsg([letter], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:  # full, too many descriptors under way, or a worker that is just being replaced
            return False
    return True
