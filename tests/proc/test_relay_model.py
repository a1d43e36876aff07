"""Random scripts of send, half-close, reset and slow reads: the relay and its model must agree."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import select
import signal
import socket
import struct
from dataclasses import dataclass, field

import pytest
from data_plane import DataPlane, RealPort
from relay_model import CLIENT, OTHER, SERVER, RelayModel, Seen, Step, random_script
from servers import reset
from waiting import freeze, wait_for

from lbfast.model.state import Ended, EndedBy, EventKind

SIOCOUTQNSD = 0x894B
POOL = random.Random(1).randbytes(4 << 20)
GONE = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)


@dataclass
class RealEnd:
    """One end of a real connection through the relay, and what it has seen."""

    sock: socket.socket
    received: bytearray = field(default_factory=bytearray)
    fin: bool = False
    reset: bool = False

    def __post_init__(self) -> None:
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, amount: int) -> bool:
        """Read at most so much of what is there; was there anything new?"""
        if self.fin or self.reset:
            return False
        try:
            data = self.sock.recv(amount)
        except BlockingIOError:
            return False
        except OSError as error:
            assert error.errno in GONE
            self.reset = True
            return True
        self.received += data
        self.fin = not data
        return True

    def note_late_reset(self) -> None:
        """After the FIN no read tells of a reset."""
        if self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in GONE:
            self.reset, self.fin = True, False

    def unsent(self) -> int:
        return int(struct.unpack("i", fcntl.ioctl(self.sock, SIOCOUTQNSD, b"\0\0\0\0"))[0])


class Actor:
    """Does the steps of a script to a real connection and to the model."""

    def __init__(self, plane: DataPlane, rng: random.Random) -> None:
        client, server = plane.pair()
        self.port = client.getsockname()[1]
        self.ends = {CLIENT: RealEnd(client), SERVER: RealEnd(server)}
        self.model = RelayModel()
        self.rng = rng
        self.worker = plane.pids[0]

    def do(self, step: Step) -> None:
        getattr(self, step.verb)(step)

    def freeze(self, _: Step) -> None:
        """What follows reaches the relay as one batch of events."""
        freeze(self.worker)

    def thaw(self, _: Step | None = None) -> None:
        os.kill(self.worker, signal.SIGCONT)

    def read(self, step: Step) -> None:
        self.ends[step.side].read(step.amount)

    def send(self, step: Step) -> None:
        start = self.rng.randrange(len(POOL) - step.amount)
        data = POOL[start : start + step.amount]
        self.model.send(step.side, data)
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.ends[step.side].sock.send(rest) :]
            except BlockingIOError:
                self.make_room(step.side)

    def half_close(self, step: Step) -> None:
        self.ends[step.side].sock.shutdown(socket.SHUT_WR)
        self.model.half_close(step.side)

    def reset(self, step: Step) -> None:
        while self.ends[step.side].unsent():  # a reset throws away what has not left the machine
            self.make_room(step.side)
        reset(self.ends[step.side].sock)
        self.model.reset(step.side)

    def make_room(self, side: str) -> None:
        """The sender is blocked: let the relay work and the other end read."""
        self.thaw()
        other = self.ends[OTHER[side]]
        select.select([other.sock], [self.ends[side].sock], [], 1)
        other.read(1 << 18)

    def finish(self) -> None:
        """Each end that can still speak says that it has done, then both read to the end."""
        self.thaw()
        if not any(end.has_reset for end in self.model.ends.values()):
            for side in (CLIENT, SERVER):
                if self.model.may(side, "half_close"):
                    self.half_close(Step(side, "half_close"))
        for side, end in self.ends.items():
            if (wanted := self.model.seen_by(side)) is not None:
                self.read_out(end, wanted)
                assert Seen(bytes(end.received), end.fin, end.reset) == wanted, (
                    f"{side}: {self.difference(end, wanted)}"
                )

    def read_out(self, end: RealEnd, wanted: Seen) -> None:
        def is_done() -> bool:
            while end.read(1 << 18):
                pass
            if end.fin and wanted.reset:
                end.note_late_reset()
            return end.reset if wanted.reset else end.fin or end.reset

        try:
            wait_for(is_done, 5, "the end")
        except AssertionError:
            pass  # the comparison says what is missing

    def difference(self, end: RealEnd, wanted: Seen) -> str:
        return (
            f"{len(end.received)} of {len(wanted.received)} bytes, fin {end.fin} ({wanted.fin}), "
            f"reset {end.reset} ({wanted.reset})"
        )

    def check_record(self, plane: DataPlane) -> None:
        (event,) = plane.wait_events(kind=EventKind.CLOSE, client_port=self.port)
        ends = self.model.ends
        resets = [side for side in (CLIENT, SERVER) if ends[side].has_reset]
        if resets:
            assert (event["ended"], event["by"]) == (
                Ended.RESET,
                EndedBy.CLIENT if resets[0] == CLIENT else EndedBy.SERVER,
            )
        else:
            assert event["ended"] == Ended.CLOSE
            assert (event["bytes_in"], event["bytes_out"]) == (len(ends[CLIENT].sent), len(ends[SERVER].sent))


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_relay_agrees_with_its_model(first: int) -> None:
    with RealPort() as real, DataPlane([real]) as plane:
        for seed in range(first, first + 50):
            rng = random.Random(seed)
            script = random_script(rng)
            actor = Actor(plane, rng)
            try:
                for step in script:
                    actor.do(step)
                actor.finish()
                actor.check_record(plane)
            except BaseException as error:
                actor.thaw()
                error.add_note(f"seed {seed}: {script}")
                raise
            plane.close_clients()
        if first == 0:
            assert plane.total("copied_bytes") > 0
            assert plane.total("spliced_bytes") > 0
