"""Both halves of a move on one machine, with real sockets and no boxes.

The link, the supervisor and the workers are played here.  One machine cannot have a connection twice, so what is
shipped is handed to the taker when the giver's sockets are gone.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from harness import scaled

from lbfast._letters import MOST_BYTES, read_letter, write_letter
from lbfast._shm import now_ms
from lbfast.ha import collecting, doors, giving, taking
from lbfast.ha.doors import Doors
from lbfast.ha.giving import Giver
from lbfast.ha.mover import Mover
from lbfast.ha.moving import Means
from lbfast.ha.note import Kept, Note, read_note
from lbfast.ha.taking import Taker

COUNT = 5
RECORD = struct.pack("=IHB", 0x4C464D01, 256, 0) + bytes(249)  # an established connection, as _handover.Moved has it
PLAN: Any = SimpleNamespace(
    settings=SimpleNamespace(interval=1, missed=1),
    services=[
        SimpleNamespace(
            id="service", slot=3, is_movable=True, address="127.0.0.1", reals=[SimpleNamespace(id="real", slot=4)]
        )
    ],
)


# Nothing here is given up because the machine is slow: what is to be too late, a test makes so.
PATIENCE: tuple[tuple[Any, str, float], ...] = (
    *((collecting, "COLLECT_S", 60), (doors, "_OPEN_S", 60), (giving, "ASK_S", 60), (taking, "ASK_S", 60)),
    *((taking, "TAKE_WITHIN_MS", 60_000), (giving, "KEEP_AFTER_MS", 90_000)),
)


@dataclass
class Outside:
    """The client and the real server of one connection, and lbfast's two sockets in between."""

    client: socket.socket
    server: socket.socket
    ours: tuple[socket.socket, socket.socket]

    def close(self) -> None:
        for sock in (self.client, self.server, *self.ours):
            sock.close()


def connect() -> Outside:
    ends = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(2):
            far = socket.create_connection(listener.getsockname())
            near, _ = listener.accept()
            near.setblocking(False)
            far.settimeout(scaled(20))
            ends.append((far, near))
    return Outside(ends[0][0], ends[1][0], (ends[0][1], ends[1][1]))


@dataclass
class Box:
    """One box, whose supervisor and only worker are here."""

    is_active: bool
    is_peer_active: bool = False
    ignores: int = 0  # questions for the doors that its supervisor has no time for
    ended: set[object] = field(default_factory=set)  # what records were to say
    conns: list[Outside] = field(default_factory=list)  # that its worker has
    said: list[str] = field(default_factory=list)
    note: dict[str, object] = field(default_factory=dict)
    note_fd: int = -1
    entrusted: list[int] = field(default_factory=list)
    peer: Any = None

    def __post_init__(self) -> None:
        self.door, self.inbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.inbox.settimeout(scaled(20))
        means = Means(
            plan=lambda: PLAN,
            doors=Doors(self.say, now_ms, self.said.append),
            note=Note(self.say),
            peer=lambda: self.peer,
            now=now_ms,
            is_active=lambda: self.is_active,
            is_peer_active=lambda: self.is_peer_active,
            moving=lambda: {"127.0.0.1"},
            tell=self.said.append,
        )
        self.mover = Mover(means)

    @property
    def giver(self) -> Giver:
        return self.mover.giver

    @property
    def taker(self) -> Taker:
        return self.mover.taker

    def say(self, message: Mapping[str, object], fds: Sequence[int]) -> bool:
        """To the supervisor."""
        if message["event"] == "moving":
            self.drop_note()
            if fds:
                self.note, self.note_fd = dict(message), os.dup(fds[0])
            return True
        if message["event"] == "entrust":
            self.keep_sockets(fds)
            return True
        if fds:
            self.ended.add(message["ended"])
            self.send_conns(fds[0])
        if self.ignores:
            self.ignores -= 1
            return True
        doors = self.giver.means.doors
        asyncio.get_running_loop().call_soon(lambda: doors.on_doors([self.door.fileno()]))
        return True

    def send_conns(self, outbox: int) -> None:
        """The worker sends what it has, and forgets it."""
        with socket.socket(fileno=os.dup(outbox)) as sock:
            for one in self.conns:
                letter = write_letter(RECORD, 3, 4, b"held", b"")
                socket.send_fds(sock, [letter], [end.fileno() for end in one.ours])
                for end in one.ours:
                    end.close()
        self.conns = []

    def kept(self, **facts: object) -> Kept:
        """What a successor would be told."""
        assert self.note_fd >= 0
        return read_note({**self.note, **facts}, self.note_fd, *self.entrusted)

    def received(self, count: int) -> Iterator[tuple[socket.socket, socket.socket]]:
        """What has come to its worker."""
        for _ in range(count):
            data, fds, _, _ = socket.recv_fds(self.inbox, MOST_BYTES, 6)
            service, real, _, inbound, _ = read_letter(data, len(fds))
            assert (service, real, inbound) == (3, 4, (b"held", 0))
            yield socket.socket(fileno=fds[0]), socket.socket(fileno=fds[1])

    def die(self) -> None:
        """The ha process: what it had frozen goes without a word, and its successor knows nothing of it."""
        means = self.giver.means
        for held in (*self.giver._given, *self.taker._taken):
            held.close()
        self.giver.forget()
        if self.giver._keeper is not None:
            self.giver._keeper.cancel()
        means.note._close()
        means.note = Note(self.say)
        self.mover = Mover(means)

    def keep_sockets(self, fds: Sequence[int]) -> None:
        for fd in self.entrusted:
            os.close(fd)
        self.entrusted = [os.dup(fd) for fd in fds]

    def drop_note(self) -> None:
        self.keep_sockets(())
        if self.note_fd >= 0:
            os.close(self.note_fd)
            self.note_fd = -1

    def close(self) -> None:
        self.drop_note()
        self.door.close()
        self.inbox.close()


@dataclass
class Wire:
    """The replication link to a box; images wait until they are let through."""

    target: Box
    waiting: list[bytes] = field(default_factory=list)
    breaks_at: str = ""
    refuses: list[int] = field(default_factory=list)

    async def send_images(self, data: bytes) -> None:
        if self.breaks_at == "images":
            raise ConnectionResetError("the link broke")
        self.waiting.append(data)

    async def ask(self, verb: str, args: Mapping[str, Any]) -> dict[str, Any]:
        if self.breaks_at == verb:
            raise ConnectionResetError("the link broke")
        if verb == "take_connections":
            return {"ok": True, "failed": {str(number): "not here" for number in self.refuses}}
        return await self.target.mover.handlers()[verb](args)

    def let_through(self) -> None:
        for data in self.waiting:
            self.target.taker.on_images(data)


@dataclass
class Stage:
    giver: Box
    taker: Box
    wire: Wire  # from the giver to the taker
    all: list[Outside]

    def let_go(self) -> None:
        """The addresses leave the giver."""
        self.giver.is_active = False
        self.giver.giver.depart()

    def arrive(self) -> None:
        """... and come to the taker, with all that was shipped; one machine cannot have them twice."""
        self.giver.giver.forget()
        self.wire.let_through()
        self.taker.is_active = True
        self.taker.taker.arrive()


@contextmanager
def staged() -> Iterator[Stage]:
    giver, taker = Box(is_active=True), Box(is_active=False)
    found = Stage(giver, taker, Wire(taker), [connect() for _ in range(COUNT)])
    giver.peer, taker.peer = found.wire, Wire(giver)
    giver.conns = list(found.all)
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in PATIENCE:
            patch.setattr(module, name, value)
        yield found
    for one in found.all:
        one.close()
    giver.close()
    taker.close()


def goes_on(stage: Stage, box: Box) -> None:
    """All of them are with this box's worker, alive in both directions."""
    go_on(stage.all, box)


def go_on(conns: Sequence[Outside], box: Box) -> None:
    for number, (one, ends) in enumerate(zip(conns, box.received(len(conns)), strict=True)):
        for far, near in zip((one.client, one.server), ends, strict=True):
            far.sendall(b"question %d" % number)
            assert select.select([near], [], [], scaled(20))[0]
            assert near.recv(100) == b"question %d" % number
            near.sendall(b"answer %d" % number)
            assert far.recv(100) == b"answer %d" % number
            near.close()


def is_reset(stage: Stage) -> None:
    are_reset(stage.all)


def are_reset(conns: Sequence[Outside]) -> None:
    for one in conns:
        for far in (one.client, one.server):
            with pytest.raises(ConnectionResetError):
                far.recv(1)
