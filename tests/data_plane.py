"""A small rig for tests: the data plane alone, forked workers over shared memory, up in milliseconds."""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from servers import connect
from waiting import fd_census, scaled, wait_for

from lbfast._conn import Slab
from lbfast._counters import Counters
from lbfast._journal import Journal
from lbfast._repair import repair
from lbfast._ring import Ring
from lbfast._splice import LOOP_CONTROL, LOOP_DRAINED, Loop
from lbfast._stick import StickTable
from lbfast._table import Table
from lbfast.model.state import EventKind, Health

if TYPE_CHECKING:
    from lbfast._counters import WorkerCounters
    from lbfast._ring import Event
    from lbfast._table import ServiceSettings

SERVICE: ServiceSettings = {
    "id": b"service-of-tests",
    "scheduler": 0,
    "persistence": 1,
    "persistence_timeout_ms": 1_800_000,
    "mask_v4": 32,
    "mask_v6": 128,
    "drain_policy": 0,
    "at_limit": 0,
    "max_connections": 40_000,
    "client_limit": 0,
    "client_limit_report_only": False,
    "client_idle_ms": 43_200_000,
    "server_idle_ms": 43_200_000,
    "connect_timeout_ms": 4_000,
    "half_close_ms": 300_000,
    "retries": 3,
    "redispatch": True,
    "passive_fall": 0,
    "keepalive": False,
    "keepalive_idle_s": 60,
    "keepalive_interval_s": 10,
    "keepalive_count": 3,
    "user_timeout_ms": 0,
    "send_proxy": 0,
    "proxy_timeout_ms": 3_000,
    "reals": [],
    "fallback": -1,
    "sources": [],
    "allow": [],
    "deny": [],
    "accept_proxy_from": [],
    "congestion": "",
}
"""Settings of the one service, slot 0; arguments of DataPlane override them."""

_PIDFD_GETFD = 438


class Place(Protocol):
    """Where a real server listens: TcpServer, DeafPort, RealPort."""

    address: str
    port: int


class RealPort:
    """A real server played by the test itself: a listening socket whose connections the test accepts."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0, backlog: int = 1024) -> None:
        self._listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((address, port))
        self._listener.listen(backlog)
        self.address = address
        self.port: int = self._listener.getsockname()[1]
        self._accepted: list[socket.socket] = []

    def __enter__(self) -> RealPort:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def fileno(self) -> int:
        return self._listener.fileno()

    def accept(self, timeout: float = 5.0) -> socket.socket:
        """The next connection; it is closed with the port at the latest."""
        self._listener.settimeout(scaled(timeout))
        sock, _ = self._listener.accept()
        sock.settimeout(scaled(10))
        self._accepted.append(sock)
        return sock

    def is_called(self) -> bool:
        """Does a connection wait to be accepted?"""
        return bool(select.select([self._listener], [], [], 0)[0])

    def close_accepted(self) -> None:
        for sock in self._accepted:
            sock.close()

    def stop(self) -> None:
        self.close_accepted()
        self._listener.close()


class BlackHole:
    """A port that answers no SYN: its queue of one is full and nobody accepts."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self._listener = socket.socket()
        self._listener.bind((address, 0))
        self._listener.listen(0)
        self.address = address
        self.port: int = self._listener.getsockname()[1]
        self._fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((self.address, self.port))
            self._fillers.append(filler)
        wait_for(lambda: bool(select.select([], self._fillers, [], 0)[1]), 5, "the queue to fill")

    def __enter__(self) -> BlackHole:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (*self._fillers, self._listener):
            sock.close()


class DataPlane:
    """One virtual service and its workers.

    As a context manager: serving inside.  At the end its clients and those of its real servers that are
    RealPorts are closed, and everything must be given back: connections, holds, pipes, blocks, descriptors.
    """

    def __init__(
        self,
        reals: Sequence[Place],
        *,
        fallback: Place | None = None,
        workers: int = 1,
        spare: int = 0,
        address: str = "127.0.0.1",
        stick: int | None = 4096,
        slab: int = 4096,
        max_pipes: int = 64,
        pipe_size: int = 262_144,
        prepare: Callable[[], None] = lambda: None,
        journal: Journal | None = None,
        real: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """``prepare`` runs in each worker first; ``real``: settings of all real servers; ``stick`` None: no table.

        ``spare``: seats for workers that ``start`` brings up later.
        """
        self.reals = list(reals)
        self.places: list[Place] = [*reals, fallback] if fallback else list(reals)
        self.table = Table.create()
        seats = workers + spare
        self.counters = Counters.create(seats)
        self.slabs = [Slab.create(slab, index) for index in range(seats)]
        self.rings = [Ring.create(index) for index in range(seats)]
        self.stick = StickTable.create(stick) if stick else None
        self.pids: list[int] = [0] * seats
        self._workers = workers
        self.events: list[Event] = []
        self._limits = {"max_pipes": max_pipes, "pipe_size": pipe_size}
        self._prepare = prepare
        self._journal = journal
        self._real_settings = [self._settings_of(slot, real or {}) for slot in range(len(self.places))]
        self._settings: dict[str, Any] = dict(SERVICE) | {"reals": list(range(len(reals)))}
        self._settings["fallback"] = len(reals) if fallback else -1
        for slot in range(len(self.places)):
            self.change_real(slot)
            self.table.set_health(slot, Health.UP, "as the test wants it")
        self.change(**settings)
        self.listeners = _listeners(address, workers)
        self.address = address
        self.port: int = self.listeners[0].getsockname()[1]
        self.inboxes = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(seats)]
        # Sockets: a test that counts the descriptors of a worker takes its only pipe for one that will be closed.
        self._orders = [tuple(end.detach() for end in socket.socketpair()) for _ in range(seats)]
        self.health_wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._clients: list[socket.socket] = []
        self._idle_fds: list[int] = []

    def _settings_of(self, slot: int, settings: Mapping[str, Any]) -> dict[str, Any]:
        place = self.places[slot]
        base = {"id": bytes([slot + 1]) * 16, "service": 0, "address": place.address, "port": place.port}
        rest = {"weight": 100, "max_connections": 0, "slow_start_ms": 0, "is_fallback": slot >= len(self.reals)}
        return base | rest | dict(settings)

    # --- life ---------------------------------------------------------------

    def __enter__(self) -> DataPlane:
        try:
            for index in range(self._workers):
                self.start(index)
        except BaseException:
            self.close()
            raise
        self._idle_fds = [len(_descriptors(pid)) if pid else 0 for pid in self.pids]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self.close_clients()
                self.check_given_back()
            elif error:
                error.add_note(f"events: {self.read_events()[-20:]}")
                error.add_note(f"workers: {[self.worker(i) for i in range(len(self.pids))]}")
        finally:
            self.close()

    def start(self, index: int) -> None:
        """Fork a worker and wait until it serves."""
        ready, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._serve(index, tell)
        self.pids[index] = pid
        os.close(tell)
        try:
            assert os.read(ready, 1) == b"R", f"worker {index} did not start"
        finally:
            os.close(ready)

    def _serve(self, index: int, tell: int) -> None:
        try:
            gc.disable()  # sockets of the test must not be closed under other descriptors of the same number
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            outboxes = {i: pair[1].fileno() for i, pair in enumerate(self.inboxes) if i != index}
            inbox, listener = self.inboxes[index][0].fileno(), self.listeners[index % self._workers].fileno()
            orders = self._orders[index][0]
            wakes = {self.health_wake} | ({self._journal.wake_fd} if self._journal is not None else set())
            _close_but({0, 1, 2, tell, inbox, listener, orders, *wakes, *outboxes.values()})
            self._prepare()
            loop = Loop(
                index,
                self.table,
                self.counters,
                self.slabs[index],
                self.rings[index],
                inbox=inbox,
                outboxes=outboxes,
                control=orders if len(self.pids) > self._workers else -1,
                health_wake=self.health_wake,
                **self._limits,
            )
            loop.set_stick(0, self.stick)
            if self._journal is not None:
                loop.set_journal(self._journal)
            for seat, slab in enumerate(self.slabs):
                loop.meet(seat, slab)
            loop.add_listener(listener, 0, self.port)
            os.write(tell, b"R")
            os.close(tell)
            while (reason := loop.run()) != LOOP_DRAINED:
                if reason == LOOP_CONTROL:
                    loop.leave([int(word) for word in os.read(orders, 100).split()])
            loop.close()
            os._exit(0)
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)

    def kill(self, index: int = 0) -> int:
        """SIGKILL a worker and repair after it as the supervisor does; how many connections it had."""
        os.kill(self.pids[index], signal.SIGKILL)
        return self.reap(index)

    def reap(self, index: int) -> int:
        """Wait for the end of a worker and repair after it."""
        pid = self.pids[index]
        os.waitpid(pid, 0)
        self.pids[index] = 0
        sticks = {0: self.stick} if self.stick else {}
        return repair(index, pid, self.table, self.counters, self.slabs, self.rings[index], sticks)

    def leave(self, index: int, *seats: int) -> None:
        """Tell a worker to give its connections to workers on these seats and to end."""
        os.write(self._orders[index][1], b" ".join(b"%d" % seat for seat in seats))

    def close(self) -> None:
        self.close_clients()
        for pid in filter(None, self.pids):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.pids = [0] * len(self.pids)
        for sock in (*self.listeners, *(end for pair in self.inboxes for end in pair)):
            sock.close()
        if self.health_wake >= 0:
            os.close(self.health_wake)
            self.health_wake = -1
            for ends in self._orders:
                os.close(ends[0])
                os.close(ends[1])

    # --- settings -----------------------------------------------------------

    def change(self, **settings: Any) -> None:
        self._settings |= settings
        self.table.write_service(0, self._settings)  # type: ignore[arg-type]

    def change_real(self, slot: int, **settings: Any) -> None:
        self._real_settings[slot] |= settings
        self.table.write_real(slot, self._real_settings[slot])  # type: ignore[arg-type]

    # --- clients ------------------------------------------------------------

    def connect(self, source: str | None = None, timeout: float = 10.0) -> socket.socket:
        """A client, closed at the end at the latest."""
        sock = connect(self.port, address=self.address, source=source, timeout=timeout)
        self._clients.append(sock)
        return sock

    def is_refused(self, source: str | None = None) -> bool:
        """Is a client reset before it hears anything?  The RST may be as fast as its connect."""
        try:
            return self.connect(source).recv(1) == b"never"
        except ConnectionResetError:
            return True

    def pair(self, source: str | None = None) -> tuple[socket.socket, socket.socket]:
        """A client, and its connection at whichever RealPort it reached; the relay has begun."""
        client = self.connect(source)
        server = self.accept()
        self.wait_events(kind=EventKind.OPEN, client_port=client.getsockname()[1])
        return client, server

    def accept(self, timeout: float = 5.0) -> socket.socket:
        """The next connection at any RealPort."""
        ports = [place for place in self.places if isinstance(place, RealPort)]
        called = select.select(ports, [], [], scaled(timeout))[0]
        assert called, f"no connection at a real server within {scaled(timeout):g} s"
        accepted: socket.socket = called[0].accept()
        return accepted

    def close_clients(self) -> None:
        for sock in self._clients:
            sock.close()
        for place in self.places:
            if isinstance(place, RealPort):
                place.close_accepted()

    # --- looking ------------------------------------------------------------

    def worker(self, index: int = 0) -> WorkerCounters:
        return self.counters.worker(index)

    def total(self, name: str) -> int:
        """A counter summed over all workers."""
        return sum(int(self.counters.worker(i)[name]) for i in range(len(self.pids)))  # type: ignore[literal-required]

    @property
    def connections(self) -> int:
        return self.table.service(0)["connections"]

    def real_connections(self) -> list[int]:
        return [self.table.real(slot)["connections"] for slot in range(len(self.places))]

    def holds(self) -> int:
        return sum(entry["holds"] for entry in self.stick.entries()) if self.stick else 0

    def read_events(self) -> list[Event]:
        """All events so far, oldest first for each worker."""
        for ring in self.rings:
            self.events += ring.read(100_000)
        return self.events

    def wait_events(self, count: int = 1, timeout: float = 10.0, **wanted: int) -> list[Event]:
        """Wait for events whose fields are as wanted."""

        def enough() -> list[Event]:
            found = [e for e in self.read_events() if all(e[k] == v for k, v in wanted.items())]  # type: ignore[literal-required]
            return found if len(found) >= count else []

        return wait_for(enough, timeout, f"{count} events with {wanted}, there are {self.events[-10:]}")

    def borrow(self, index: int = 0) -> tuple[list[socket.socket], list[socket.socket]]:
        """Duplicates of a worker's client and server sockets, to look at their options; the caller closes them."""
        clients, server_side = [], []
        for fd, target in fd_census(self.pids[index]).items():
            if not target.startswith("socket:"):
                continue
            sock = socket.socket(fileno=borrow_fd(self.pids[index], fd))
            if sock.family == socket.AF_UNIX or _is_listening(sock):
                sock.close()
            elif sock.getsockname()[1] == self.port:
                clients.append(sock)
            else:
                server_side.append(sock)
        return clients, server_side

    def check_given_back(self) -> None:
        """Nothing is held any more, once the clients are gone."""
        assert all(_is_alive(pid) for pid in self.pids if pid), "a worker has died"
        wait_for(lambda: self.connections == 0, 5, "all connections to end")
        wait_for(lambda: not any(self.total(n) for n in ("connections", "pipes", "blocks")), 5, "pipes and blocks")
        assert self.real_connections() == [0] * len(self.places)
        assert self.holds() == 0
        # A slot is given back as the last, after the counters.
        wait_for(lambda: not any(list(slab.connections()) for slab in self.slabs), 5, "slots")
        for pid, before in zip(self.pids, self._idle_fds, strict=True):
            if pid and before:
                left = _descriptors(pid)
                assert len(left) <= before, f"worker {pid} had {before} descriptors when idle, now {left}"


def _descriptors(pid: int) -> list[str]:
    """What a worker has open, but for the pipes that its pool keeps."""
    return [target for target in fd_census(pid).values() if not target.startswith("pipe:")]


def borrow_fd(pid: int, fd: int) -> int:
    """A duplicate of another process's descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    try:
        copy: int = libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
    finally:
        os.close(pidfd)
    if copy < 0:
        raise OSError(ctypes.get_errno(), f"pidfd_getfd of descriptor {fd} of process {pid}")
    return copy


def _is_listening(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _is_alive(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG) == (0, 0)


def _listeners(address: str, workers: int) -> list[socket.socket]:
    """One for each worker, with the options that the supervisor gives them."""
    found: list[socket.socket] = []
    for _ in range(workers):
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((address, found[0].getsockname()[1] if found else 0))
        sock.listen(1024)
        sock.setblocking(False)
        found.append(sock)
    return found


def _close_but(keep: Iterable[int]) -> None:
    kept = set(keep)
    for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
        if fd not in kept:
            try:
                os.close(fd)
            except OSError:
                pass  # the one that listdir used
