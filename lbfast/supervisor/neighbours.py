"""Asks the LAN, again and again and without waiting, who has some addresses: ARP and neighbour solicitation.

Unlike ``arp.find_conflicts`` nothing here blocks: the caller sends a round, reads
what has come, and judges by its own clock.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from lbfast.supervisor.arp import parse_arp, render_probe
from lbfast.supervisor.netlink import IPAddress, Link

_ETHERTYPE_ARP = 0x0806
_PACKET_OUTGOING = 4
_SOLICITATION, _ADVERTISEMENT, _TARGET_MAC, _NONCE = 135, 136, 2, 14
_ICMP6_FILTER = 1
_HEADER_INCLUDED = 36  # IPV6_HDRINCL, which the socket module does not know
_UNSPECIFIED = IPv6Address(0)
_NEAR = struct.pack("=i", 255)  # the hop limit that only a neighbour can send
_MOST_READ = 512  # packets at one look


@dataclass(frozen=True)
class Solicitation:
    """Somebody asks who has an address; ``nonce`` tells one asker from another (RFC 7527)."""

    target: IPv6Address
    nonce: bytes


@dataclass(frozen=True)
class Advertisement:
    """Somebody has an address; ``mac`` is empty when it does not say."""

    target: IPv6Address
    mac: bytes


class NeighbourProbe:
    """Sockets on every link that carries one of the addresses."""

    def __init__(self, wanted: Mapping[Link, Sequence[IPAddress]]) -> None:
        """OSError when a link is down or the right is missing; nothing is left open then."""
        self._wanted = {link: tuple(addresses) for link, addresses in wanted.items()}
        self._arp: dict[socket.socket, Link] = {}
        self._nd: dict[socket.socket, Link] = {}
        self._nonce = os.urandom(6)
        try:
            for link, addresses in self._wanted.items():
                if any(one.version == 4 for one in addresses):
                    self._arp[_open_arp(link)] = link
                if any(one.version == 6 for one in addresses):
                    self._nd[_open_nd(link, _groups(addresses))] = link
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        for sock in (*self._arp, *self._nd):
            sock.close()
        self._arp.clear()
        self._nd.clear()

    def send(self) -> None:
        """One question for each address; OSError when a link is down."""
        for sock, link in self._arp.items():
            for address in self._wanted[link]:
                if isinstance(address, IPv4Address):
                    sock.send(render_probe(link.mac, address))
        for sock, link in self._nd.items():
            for address in self._wanted[link]:
                if isinstance(address, IPv6Address):
                    packet = render_solicitation(address, self._nonce)
                    sock.sendto(packet, (str(solicited_group(address)), 0, 0, link.index))

    def read(self) -> tuple[dict[IPAddress, bytes], set[IPAddress]]:
        """Addresses that another machine answers for, with its MAC (empty when it does not say), and those that
        another machine asks for; waits for nothing."""
        taken: dict[IPAddress, bytes] = {}
        asked: set[IPAddress] = set()
        for sock, link in self._arp.items():
            for frame, where in _drain(sock):
                packet = parse_arp(frame)
                if packet is None or where[2] == _PACKET_OUTGOING or packet.sender_mac == link.mac:
                    continue
                if packet.sender in self._wanted[link]:
                    taken[packet.sender] = packet.sender_mac
                elif packet.sender == IPv4Address(0) and packet.target in self._wanted[link]:
                    asked.add(packet.target)
        for sock, link in self._nd.items():
            for data, where in _drain_near(sock):
                answer = parse_advertisement(data)
                if answer and answer.target in self._wanted[link] and answer.mac != link.mac:
                    taken[answer.target] = answer.mac
                # Whoever has an address already asks from it, and not because it wants the one that it asks for.
                question = parse_solicitation(data) if IPv6Address(where[0]) == _UNSPECIFIED else None
                if question and question.target in self._wanted[link] and question.nonce != self._nonce:
                    asked.add(question.target)
        return taken, asked


def render_solicitation(address: IPv6Address, nonce: bytes) -> bytes:
    """The IPv6 packet that detects a duplicate (RFC 4862, 5.4.2): it comes from nobody, so it claims nothing."""
    body = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + address.packed + struct.pack("!BB", _NONCE, 1) + nonce
    target = solicited_group(address).packed
    head = _UNSPECIFIED.packed + target + struct.pack("!II", len(body), socket.IPPROTO_ICMPV6)
    body = body[:2] + struct.pack("!H", _checksum(head + body)) + body[4:]
    start = struct.pack("!IHBB", 6 << 28, len(body), socket.IPPROTO_ICMPV6, 255)
    return start + _UNSPECIFIED.packed + target + body


def solicited_group(address: IPv6Address) -> IPv6Address:
    """The multicast group that whoever has the address, or wants it, listens to."""
    return IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:])


def parse_advertisement(data: bytes) -> Advertisement | None:
    """What a neighbour advertisement says."""
    options = _parse_options(data, _ADVERTISEMENT)
    return None if options is None else Advertisement(IPv6Address(data[8:24]), options.get(_TARGET_MAC, b"")[:6])


def parse_solicitation(data: bytes) -> Solicitation | None:
    """What a neighbour solicitation asks for; without a nonce when it has none."""
    options = _parse_options(data, _SOLICITATION)
    return None if options is None else Solicitation(IPv6Address(data[8:24]), options.get(_NONCE, b""))


def _parse_options(data: bytes, kind: int) -> dict[int, bytes] | None:
    """The options of a neighbour discovery message (RFC 4861, 4.6), None when it is none of this kind."""
    if len(data) < 24 or data[0] != kind:
        return None
    found, at = {}, 24
    while at + 2 <= len(data) and (size := 8 * data[at + 1]):
        found[data[at]] = data[at + 2 : at + size]
        at += size
    return found


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _groups(addresses: Iterable[IPAddress]) -> set[IPv6Address]:
    return {solicited_group(one) for one in addresses if isinstance(one, IPv6Address)}


def _open_arp(link: Link) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    try:
        sock.bind((link.name, _ETHERTYPE_ARP))
    except BaseException:
        sock.close()
        raise
    return sock


def _open_nd(link: Link, groups: Iterable[IPv6Address]) -> socket.socket:
    sock = socket.socket(
        socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6
    )
    try:
        passed = bytearray(b"\xff" * 32)  # a set bit blocks
        for kind in (_SOLICITATION, _ADVERTISEMENT):
            passed[kind // 8] ^= 1 << (kind % 8)
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, bytes(passed))
        sock.setsockopt(socket.IPPROTO_IPV6, _HEADER_INCLUDED, 1)  # the kernel would put in an address of ours
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, link.index)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.name.encode())
        _join(sock, link, groups)
    except BaseException:
        sock.close()
        raise
    return sock


def _join(sock: socket.socket, link: Link, groups: Iterable[IPv6Address]) -> None:
    """Hear what is asked for the addresses.  Of hundreds the kernel refuses some: a peer that asks, asks for all."""
    for group in groups:
        try:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group.packed + struct.pack("=I", link.index))
        except OSError as error:
            if error.errno not in (errno.ENOMEM, errno.ENOBUFS):
                raise
            return


def _drain(sock: socket.socket) -> Iterable[tuple[bytes, Any]]:
    """What has come, and from where; the rest of a storm is for the next look."""
    with suppress(BlockingIOError):
        for _ in range(_MOST_READ):
            yield sock.recvfrom(2048)


def _drain_near(sock: socket.socket) -> Iterable[tuple[bytes, Any]]:
    """The same of neighbour discovery: what a router has passed on is none (RFC 4861, 7.1)."""
    with suppress(BlockingIOError):
        for _ in range(_MOST_READ):
            data, notes, _, where = sock.recvmsg(2048, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
            if any(kind == socket.IPV6_HOPLIMIT and value == _NEAR for _, kind, value in notes):
                yield data, where
