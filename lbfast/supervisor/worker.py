"""The life of a worker: turns of the compiled loop, between them signals and messages."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from lbfast import _splice
from lbfast._conn import Slab
from lbfast.model.state import Ended
from lbfast.supervisor.channel import Channel, Message
from lbfast.supervisor.doors import Doors
from lbfast.supervisor.limits import PIPE_SIZE
from lbfast.supervisor.listeners import Listener, sockets_of
from lbfast.supervisor.recall import answer_recall, give_holdings
from lbfast.supervisor.regain import held_by
from lbfast.supervisor.shared import Shared, memory_of

STOP_GRACE = 1.0
"""How long established connections may go on after a stop was asked for: enough for an answer that is on its way.
Then they are ended on both sides, or the real servers would keep orphans for hours."""

_GIVE_WITHIN = 0.4  # connections that do not fit through the door in time stay, and are cut with the address
_LINGER = 1.0  # after the cut, for last bytes and resets to leave


@dataclass(frozen=True)
class WorkerSetup:
    """What one worker gets."""

    place: int
    workers: int  # that share the listeners
    seat: int
    shared: Shared
    listeners: Sequence[Listener]
    inbox: int
    outboxes: dict[int, int]  # seat -> the sending end of its inbox
    pipes: int
    core: int | None  # to stay on
    recall: socket.socket  # where the next supervisor may call
    owner: int  # the user that it may be, beside root
    confine: Callable[[], str | None]  # give up every system call that serving clients does not need; why not, if so


def run_worker(setup: WorkerSetup, channel: Channel) -> int:
    """Serve until told to stop; the exit code."""
    _come_after_others()
    if setup.core is not None:
        _pin({setup.core})
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # splice into a closed socket raises it
    shared = setup.shared
    loop = _splice.Loop(
        setup.seat,
        shared.table,
        shared.counters,
        shared.slabs[setup.seat],
        shared.rings[setup.seat],
        inbox=setup.inbox,
        outboxes=setup.outboxes,
        control=channel.fileno(),
        health_wake=shared.health_wake,
        ring_wake=shared.ring_wake,
        pipe_size=PIPE_SIZE,
        max_pipes=setup.pipes,
    )
    loop.set_journal(shared.journal)
    for slot, stick in shared.sticks.items():
        loop.set_stick(slot, stick)
    for seat, slab in enumerate(shared.slabs):
        loop.meet(seat, slab)
    doors = Doors(loop)
    for listener in setup.listeners:
        spec = listener.spec
        for fd in sockets_of(listener, setup.place, setup.workers):
            doors.open((spec.address, spec.port), fd, spec.service)
    worker = _Worker(loop, channel, doors, setup, _holdings(setup))
    signal.signal(signal.SIGTERM, worker.on_signal)
    note = setup.confine()
    channel.send_now({"event": "ready", "pid": os.getpid()} | ({"note": note} if note else {}))
    worker.serve()
    loop.close()
    return 0


@dataclass
class _Worker:
    """Where a worker stands between serving and gone."""

    loop: _splice.Loop
    channel: Channel
    doors: Doors
    setup: WorkerSetup
    holdings: dict[str, int]  # descriptors by name, without tables and listeners
    asked: bool = False  # to stop, by a signal
    cut_at: float | None = None  # stopping: when the rest is ended
    gone_at: float | None = None  # cut: when we leave in any case

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True

    def serve(self) -> None:
        """Turn the loop until nothing is left to do."""
        while True:
            reason = self.loop.run()
            if reason == _splice.LOOP_DRAINED:
                return
            if reason == _splice.LOOP_CONTROL:
                self._read_messages()
            if self.asked and self.cut_at is None:
                self._stop()
            now = time.monotonic()
            if self.cut_at is not None and self.gone_at is None and now >= self.cut_at:
                self._cut()
            if self.gone_at is not None and now >= self.gone_at:
                return

    def _read_messages(self) -> None:
        if self.channel.fileno() < 0:
            self._answer_recall()
            return
        try:
            while (received := self.channel.receive_fds_now()) is not None:
                message, fds = received
                self._hear(message, fds)
        except BlockingIOError:
            return
        # The supervisor is gone: we go on serving.  A closed descriptor leaves the epoll set by itself.
        self.channel.close()
        self.loop.watch_control(self.setup.recall.fileno())

    def _answer_recall(self) -> None:
        """A new supervisor, which gets all that we have."""
        channel = answer_recall(self.setup.recall, self.setup.owner)
        if channel is None:
            return
        tables = {f"stick.{slot}": table.fd for slot, table in self.loop.tables().items()}
        try:
            give_holdings(channel, self.holdings | tables | held_by(self.doors.places))
        except OSError:
            channel.close()
            return
        self.loop.forget_control(self.setup.recall.fileno())
        self.channel = channel
        self.loop.watch_control(channel.fileno())

    def _hear(self, message: Message, fds: Sequence[int]) -> None:
        what = message.get("do")
        if what == "stop":
            self.asked = True
        elif what == "cut":
            self.asked, self.cut_at = True, time.monotonic()
            self.loop.stop_accepting()
        elif what == "meet":
            self._meet(message["seat"], *fds)
        elif what == "pin":
            _pin(set(message["cores"]))
        elif what == "leave" and message.get("apart"):
            self.loop.leave(dict(zip(message["to"], fds, strict=True)), apart=True)
        elif what == "leave":
            self.loop.leave(message["to"])
        elif what == "give":
            # A release before this one does not say how they end: it gives only what moves.
            ended = int(message.get("ended", Ended.MOVED))
            self._give(frozenset(message["services"]), ended, *fds)
        elif what == "freeze":
            self._stand_still()
        elif what == "listen" and not self.asked:
            self.doors.take(message, fds)
        elif what == "unlisten" and not self.asked:
            self.doors.give_up(message)
            if message.get("last"):
                self.channel.send_now({"event": "switched"})

    def _meet(self, seat: int, slab: int, send: int, ring: int) -> None:
        self.loop.meet(seat, Slab.attach(slab), send)
        self.holdings |= {f"slab.{seat}": slab, f"inbox.{seat}.send": send, f"ring.{seat}": ring}

    def _give(self, services: frozenset[int], ended: int, outbox: int) -> None:
        """A takeover: established connections go to the ha process; nobody is served meanwhile."""
        try:
            deadline, hangup = time.monotonic() + _GIVE_WITHIN, select.poll()
            hangup.register(outbox, 0)  # the ha process has given up, or died
            while self.loop.give_away(services, outbox, ended) < 0 and time.monotonic() < deadline:
                if hangup.poll(1):  # the door is full: the ha process empties it
                    break
        finally:
            os.close(outbox)

    def _stand_still(self) -> None:
        """Touch nothing that is shared until the next message says how it goes on."""
        self.channel.send_now({"event": "frozen"})
        received = self.channel.receive_fds()
        if received is not None:
            self._hear(*received)

    def _stop(self) -> None:
        self.loop.stop_accepting()
        # The supervisor says when to cut; the loop's tick is the fallback when it cannot.
        self.cut_at = time.monotonic() + STOP_GRACE

    def _cut(self) -> None:
        self.loop.close_all(int(Ended.STOP))
        self.gone_at = time.monotonic() + _LINGER


def _holdings(setup: WorkerSetup) -> dict[str, int]:
    held = {name: fd for name, fd in memory_of(setup.shared).items() if not name.startswith("stick.")}
    held |= {f"inbox.{seat}.send": send for seat, send in setup.outboxes.items()}
    return held | {f"inbox.{setup.seat}.receive": setup.inbox}


def _pin(cores: set[int]) -> None:
    try:
        os.sched_setaffinity(0, cores)
    except OSError:
        pass  # the core was taken from us since: the kernel places us


def _come_after_others() -> None:
    """Be woken like a batch job: whoever runs on the core finishes first, and has more for us when we come.

    docs/adr/0017 has the figures: SCHED_BATCH, sched(7).
    """
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        pass  # a filter around the whole service forbids it: the same work, at a higher price
