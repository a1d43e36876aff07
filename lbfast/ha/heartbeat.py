"""Heartbeats: the same one over every path, the first to arrive counts.  A path is UDP from address to address;
those by way of a ping address are in ``echo_path.py``.

Being late is not being silent.  A box that did not get to run reads what waits in
its sockets before it judges, and the time it did not run is not counted as silence
of the peer; both are counted, as is what the peer says of its own delay.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from lbfast.ha.election import Beat
from lbfast.ha.wire import Guard, Heard, Refusal, pack_beat

PRIORITY = 6  # SO_PRIORITY: before other traffic on the way out
_MOST_A_TURN = 512  # datagrams read before the box looks at anything else
_RETRY_MS = 1000
_AUTHENTIC = (Refusal.DUPLICATE, Refusal.REORDERED)


@dataclass
class BeatPath:
    """One way to the peer: an address of ours and one of its."""

    local: str
    peer: str
    via: str = ""  # the ping address that passes it on
    sock: socket.socket | None = None
    heard_at: int | None = None
    opened_at: int | None = None  # the last try
    sent: int = 0
    refused: int = 0  # sends that failed
    trouble: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """Paths that are the same have the same."""
        return self.local, self.peer

    def open(self, port: int) -> None:
        """From here on ``sock`` is there to be read; OSError when that cannot be now."""
        family = socket.AF_INET6 if ip_address(self.peer).version == 6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.bind((self.local, port))
            # Connected: the kernel drops what does not come from the peer's address and port.
            sock.connect((self.peer, port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, PRIORITY)
        except BaseException:
            sock.close()
            raise
        self.sock = sock

    def put(self, datagram: bytes) -> None:
        """Send one."""
        if self.sock is not None:
            self.sock.send(datagram)

    def unwrap(self, packet: bytes) -> bytes | None:
        """The datagram in what was read; None when it is none of ours."""
        return packet

    def shut(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None


@dataclass
class Lateness:
    """How late something was, over the life of the process."""

    count: int = 0  # times beyond half an interval
    last_ms: int = 0
    most_ms: int = 0

    def note(self, late_ms: int, threshold_ms: int) -> bool:
        self.last_ms = late_ms
        self.most_ms = max(self.most_ms, late_ms)
        self.count += late_ms > threshold_ms
        return late_ms > threshold_ms


@dataclass
class Heartbeats:
    """All paths to the peer.  ``now_ms`` is passed in; nothing here waits."""

    paths: Sequence[BeatPath]
    port: int
    guard: Guard
    watch: Callable[[socket.socket], None]
    unwatch: Callable[[socket.socket], None]
    sequence: int = 0
    peer_late: Lateness = field(default_factory=Lateness)

    def open(self, now_ms: int) -> None:
        """Open what is not open yet; an interface that is away is tried again every second."""
        for path in self.paths:
            if path.sock is None and (path.opened_at is None or now_ms - path.opened_at >= _RETRY_MS):
                path.opened_at = now_ms
                self._open(path)

    def use(self, wanted: Sequence[BeatPath]) -> None:
        """Other paths from now on, those that stay with all that they know."""
        keys = {path.key for path in wanted}
        for path in self.paths:
            if path.key not in keys:
                self._shut(path)
        known = {path.key: path for path in self.paths}
        self.paths = [known.get(path.key, path) for path in wanted]

    def close(self) -> None:
        for path in self.paths:
            self._shut(path)

    def send(self, beat: Beat, late_ms: int) -> None:
        """The same datagram over every path."""
        self.sequence += 1
        datagram = pack_beat(beat, self.guard.known_life, self.sequence, late_ms, self.guard.key)
        for path in self.paths:
            self._send(path, datagram)

    def read(self, now_ms: int, interval_ms: int) -> list[Beat]:
        """Every heartbeat that counts, oldest first; all that is waiting is read."""
        beats: list[Beat] = []
        for path in self.paths:
            for datagram in _drain(path):
                found = self.guard.check(datagram)
                if isinstance(found, Heard):
                    self.peer_late.note(found.late_ms, interval_ms // 2)
                    beats.append(found.beat)
                if isinstance(found, Heard) or found in _AUTHENTIC:
                    path.heard_at = now_ms
        return beats

    def _open(self, path: BeatPath) -> None:
        try:
            path.open(self.port)
        except (OSError, ValueError, TypeError) as error:  # the latter: an address that no socket takes
            path.trouble = getattr(error, "strerror", None) or str(error)
            return
        assert path.sock is not None
        path.trouble = ""
        self.watch(path.sock)

    def _send(self, path: BeatPath, datagram: bytes) -> None:
        if path.sock is None:
            return
        try:
            path.put(datagram)
            path.sent += 1
        except OSError as error:
            path.refused += 1
            # ECONNREFUSED tells of an earlier one: the peer's process is not there, the path is.
            if error.errno not in (errno.ECONNREFUSED, errno.EAGAIN, errno.ENOBUFS):
                path.trouble = error.strerror or str(error)
                if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV, errno.EINVAL):
                    self._shut(path)
        else:
            path.trouble = ""

    def _shut(self, path: BeatPath) -> None:
        if path.sock is not None:
            self.unwatch(path.sock)
            path.shut()


def _drain(path: BeatPath) -> list[bytes]:
    found: list[bytes] = []
    for _ in range(_MOST_A_TURN):
        if path.sock is None:
            break
        try:
            datagram = path.unwrap(path.sock.recv(1024))
        except ConnectionRefusedError:
            continue  # an ICMP answer to something we sent
        except OSError:
            break
        if datagram is not None:
            found.append(datagram)
    return found
