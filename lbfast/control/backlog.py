"""What waits in the kernel to be accepted: the queue of each listening socket, and how often one was full.

Asked over the socket diagnosis of the kernel (inet_diag), which needs no right and, unlike
/proc/net/tcp, does not walk all connections.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

_NETLINK_SOCK_DIAG: Final = 4
_BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3
_LISTEN: Final = 1 << 10
_HEAD: Final = struct.Struct("=IHHII")
_ASK: Final = struct.Struct("=BBBxI48x")
_TOLD: Final = struct.Struct("=BBBB2sH16s16sIII I II")  # inet_diag_msg up to wqueue
_NETSTAT: Final = Path("/proc/net/netstat")
_WITHIN: Final = 1.0


@dataclass(frozen=True)
class Queue:
    """All listening sockets of an address and port together: one for each worker."""

    queued: int = 0
    fullest: int = 0  # of one of them
    limit: int = 0  # of each of them; the kernel drops what is beyond

    def plus(self, queued: int, limit: int) -> Queue:
        return Queue(
            self.queued + queued, max(self.fullest, queued), limit if not self.limit else min(self.limit, limit)
        )


def read_queues() -> dict[str, dict[int, Queue]]:
    """By address, then by port, of this network namespace; OSError when the kernel does not tell."""
    found: dict[str, dict[int, Queue]] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(_WITHIN)
        for family in (socket.AF_INET, socket.AF_INET6):
            ask = _ASK.pack(family, socket.IPPROTO_TCP, 0, _LISTEN)
            sock.send(_HEAD.pack(_HEAD.size + len(ask), _BY_FAMILY, _REQUEST_DUMP, 1, 0) + ask)
            for message in _answers(sock):
                (address, port), queued, limit = decode(message)
                here = found.setdefault(address, {})
                here[port] = here.get(port, Queue()).plus(queued, limit)
    return found


def _answers(sock: socket.socket) -> Iterator[bytes]:
    while True:
        data = sock.recv(1 << 17)
        while len(data) >= _HEAD.size:
            length, kind, *_ = _HEAD.unpack_from(data)
            if kind == _DONE:
                return
            if kind == _ERROR or length < _HEAD.size:
                raise OSError("the kernel does not tell of listening sockets")
            yield data[_HEAD.size : length]
            data = data[(length + 3) & ~3 :]


def decode(message: bytes) -> tuple[tuple[str, int], int, int]:
    """(address, port), connections that wait, and how many may."""
    family, _, _, _, port, _, source, *_, queued, limit = _TOLD.unpack_from(message)
    raw = source[:4] if family == socket.AF_INET else source
    return (str(ip_address(raw)), int.from_bytes(port, "big")), queued, limit


def read_overflows(text: str | None = None) -> Mapping[str, int]:
    """Since the machine started, of all programs: connections that met a full queue, and that were dropped there."""
    text = _NETSTAT.read_text() if text is None else text
    lines = [line.split() for line in text.splitlines() if line.startswith("TcpExt:")]
    values = dict(zip(lines[0][1:], lines[1][1:], strict=False)) if len(lines) >= 2 else {}
    names = {"listen_overflows": "ListenOverflows", "listen_drops": "ListenDrops", "syn_cookies": "SyncookiesSent"}
    return {ours: int(values.get(theirs, 0)) for ours, theirs in names.items()}
