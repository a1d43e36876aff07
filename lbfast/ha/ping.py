"""Asks the ping addresses (ICMP echo), reads carriers, and tries the service address from this box itself."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from pathlib import Path

EVERY_MS = 200
LOST_AFTER_MS = 700  # three pings and a little
_HEAD = 8  # bytes of ICMP before the data
ECHO, ECHO_REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass
class PingTarget:
    """One address; it counts once it has answered."""

    address: str
    sock: socket.socket | None = None
    answered_at: int | None = None


@dataclass
class Pings:
    """All of them.  Nothing here waits."""

    targets: list[PingTarget]
    identity: int = field(default_factory=lambda: os.getpid() & 0xFFFF)
    sent_at: int | None = None
    sequence: int = 0

    def turn(self, now_ms: int) -> None:
        """Read what has come, and ask again when it is time."""
        for target in self.targets:
            self._read(target, now_ms)
        if self.sent_at is None or now_ms - self.sent_at >= EVERY_MS:
            self.sent_at = now_ms
            self.sequence = (self.sequence + 1) & 0xFFFF
            for target in self.targets:
                self._send(target)

    def count(self, now_ms: int) -> tuple[int, int]:
        """How many answer, and how many ever have."""
        known = [target for target in self.targets if target.answered_at is not None]
        answering = [it for it in known if it.answered_at is not None and now_ms - it.answered_at < LOST_AFTER_MS]
        return len(answering), len(known)

    def forgive(self, late_ms: int) -> None:
        """This process did not run for so long: that is nobody's silence."""
        for target in self.targets:
            if target.answered_at is not None:
                target.answered_at += late_ms

    def close(self) -> None:
        for target in self.targets:
            if target.sock is not None:
                target.sock.close()
                target.sock = None

    def _send(self, target: PingTarget) -> None:
        try:
            if target.sock is None:
                target.sock = _open(target.address)
            kind = ECHO[ip_address(target.address).version]
            target.sock.send(render_echo(kind, self.identity, self.sequence))
        except OSError as error:
            if target.sock is not None and error.errno not in (errno.EAGAIN, errno.ENOBUFS, errno.EHOSTUNREACH):
                target.sock.close()
                target.sock = None

    def _read(self, target: PingTarget, now_ms: int) -> None:
        while target.sock is not None:
            try:
                data = target.sock.recv(1024)
            except OSError as error:
                if error.errno in (errno.EHOSTUNREACH, errno.ECONNREFUSED):
                    continue
                return
            if is_reply(data, ip_address(target.address).version, self.identity):
                target.answered_at = now_ms


def render_echo(kind: int, identity: int, sequence: int, data: bytes = b"") -> bytes:
    """An echo request; the checksum of ICMPv6 is the kernel's."""
    message = struct.pack("!BBHHH", kind, 0, 0, identity, sequence) + data
    padded = message + bytes(len(message) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]


def is_reply(packet: bytes, version: int, identity: int) -> bool:
    """Whether it is the answer to one of our echo requests."""
    return read_reply(packet, version, identity) is not None


def read_reply(packet: bytes, version: int, identity: int) -> bytes | None:
    """What the answer to one of these echo requests repeats; None for any other packet.  IPv4 comes with its header."""
    if version == 4:
        packet = packet[(packet[0] & 0xF) * 4 :] if packet else b""
    if len(packet) < _HEAD or packet[0] != ECHO_REPLY[version]:
        return None
    return packet[_HEAD:] if struct.unpack_from("!H", packet, 4)[0] == identity else None


def find_gateway(table: Path = Path("/proc/net/route")) -> str | None:
    """The default gateway (IPv4) of this box."""
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return None
    for row in rows:
        if row[1] == "00000000" and row[7] == "00000000" and int(row[3], 16) & 2:
            return str(IPv4Address(int(row[2], 16).to_bytes(4, "little")))
    return None


def resolve_targets(wanted: Sequence[str]) -> list[PingTarget]:
    """Settings to addresses; a gateway that this box does not have is left out."""
    found = [find_gateway() if one == "gateway" else one for one in wanted]
    return [PingTarget(address) for address in dict.fromkeys(found) if address is not None]


def has_carrier(interface: str) -> bool:
    """Whether a cable is in; an interface that is not there has none."""
    try:
        return Path(f"/sys/class/net/{interface}/carrier").read_text().strip() == "1"
    except OSError:
        return False  # EINVAL: the interface is down


def open_raw(version: int) -> socket.socket:
    """For ICMP messages; PermissionError without CAP_NET_RAW."""
    is_v6 = version == 6
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if is_v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    return socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)


def _open(address: str) -> socket.socket:
    sock = open_raw(ip_address(address).version)
    try:
        sock.connect((address, 0))
    except BaseException:
        sock.close()
        raise
    return sock


class SelfConnection:
    """A connection from this box to one of its service addresses, through the whole of the network stack."""

    def __init__(self, address: str, port: int) -> None:
        self.name = f"{address}:{port}"
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)  # leaves nothing in TIME_WAIT
        self._code = self._sock.connect_ex((address, port))

    def is_up(self) -> bool:
        """Whether it has been established by now."""
        if self._code in (errno.EINPROGRESS, errno.EALREADY, 0):
            try:
                self._sock.getpeername()
            except OSError:
                return False
            return True
        return False

    def close(self) -> None:
        self._sock.close()
