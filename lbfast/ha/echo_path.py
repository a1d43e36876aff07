"""Heartbeats by way of a ping address: an echo request in the peer's name, whose answer the peer gets.

Who answers an echo request sends its data back (RFC 792; RFC 4443, section 4.2) to the address that the request says it
comes from.  So a request with the peer's address as its source and a heartbeat as its data delivers that heartbeat,
wherever a router can be pinged from both boxes: also when the switch lets nothing pass between them.  What arrives
is believed for its HMAC, like everything else.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from lbfast.ha.heartbeat import PRIORITY, BeatPath
from lbfast.ha.ping import ECHO, ECHO_REPLY, open_raw, read_reply, render_echo

IDENTITY = 0x4C42
"""Of these requests; no other program's echo replies are looked at."""

_ICMP_FILTER = {4: (255, 1), 6: (socket.IPPROTO_ICMPV6, 1)}  # level and name
_TRANSPARENT = {4: (socket.IPPROTO_IP, 19), 6: (socket.IPPROTO_IPV6, 75)}


@dataclass
class EchoPath(BeatPath):
    """``ways``: addresses of ours and the peer's, of the ping address's family; the one that leads to it is used."""

    ways: Sequence[tuple[str, str]] = ()
    _out: socket.socket | None = None
    _sequence: int = 0

    @property
    def key(self) -> tuple[str, ...]:
        return (self.via, *(address for way in self.ways for address in way))

    def open(self, _port: int) -> None:
        self.local, self.peer = self._choose()
        into = open_raw(self._version)
        try:
            _let_pass(into, self._version, ECHO_REPLY[self._version])
            into.bind((self.local, 0))
            into.connect((self.via, 0))
            self._out = self._open_out()
        except BaseException:
            into.close()
            raise
        self.sock = into

    def put(self, datagram: bytes) -> None:
        if self._out is not None:
            self._sequence = (self._sequence + 1) & 0xFFFF
            self._out.send(render_echo(ECHO[self._version], IDENTITY, self._sequence, datagram))

    def unwrap(self, packet: bytes) -> bytes | None:
        return read_reply(packet, self._version, IDENTITY) or None

    def shut(self) -> None:
        super().shut()
        if self._out is not None:
            self._out.close()
            self._out = None

    @property
    def _version(self) -> int:
        return ip_address(self.via).version

    def _choose(self) -> tuple[str, str]:
        """The way whose address of ours the kernel would ping with; else the first."""
        family = socket.AF_INET6 if self._version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((self.via, 9))
            source = sock.getsockname()[0]
        for way in self.ways:
            if way[0] == source:
                return way
        raise OSError(f"this box speaks to {self.via} with {source}, which is in no path of the pair")

    def _open_out(self) -> socket.socket:
        """Has the peer's address, and reads nothing."""
        out = open_raw(self._version)
        try:
            _let_pass(out, self._version)
            out.setsockopt(*_TRANSPARENT[self._version], 1)
            out.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, PRIORITY)
            out.bind((self.peer, 0))
            out.connect((self.via, 0))
        except BaseException:
            out.close()
            raise
        return out


def make_paths(ways: Sequence[tuple[str, str]], targets: Sequence[str]) -> list[BeatPath]:
    """The paths of the pair itself, then one by way of each ping address that one of ours could ping."""
    found: list[BeatPath] = [BeatPath(local, peer) for local, peer in ways]
    for target in targets:
        fitting = tuple(way for way in ways if ip_address(way[0]).version == ip_address(target).version)
        if fitting:
            found.append(EchoPath(*fitting[0], via=target, ways=fitting))
    return found


def _let_pass(sock: socket.socket, version: int, *kinds: int) -> None:
    """Only these kinds of ICMP messages are read."""
    size = 8 if version == 6 else 1
    blocked = [0xFFFF_FFFF] * size
    for kind in kinds:
        blocked[kind >> 5] &= ~(1 << (kind & 31))
    sock.setsockopt(*_ICMP_FILTER[version], struct.pack(f"={size}I", *blocked))
