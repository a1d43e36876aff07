"""Asks the LAN, again and again and without waiting, who has some addresses: ARP and neighbour solicitation.

Unlike ``arp.find_conflicts`` nothing here blocks: the caller sends a round, reads
what has come, and judges by its own clock.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from lbfast.supervisor.arp import parse_arp, render_probe
from lbfast.supervisor.netlink import IPAddress, Link

_ETHERTYPE_ARP = 0x0806
_PACKET_OUTGOING = 4
_SOLICITATION, _ADVERTISEMENT, _SOURCE_MAC = 135, 136, 1
_ICMP6_FILTER = 1


class NeighbourProbe:
    """Sockets on every link that carries one of the addresses."""

    def __init__(self, wanted: Mapping[Link, Sequence[IPAddress]]) -> None:
        """OSError when a link is down or the right is missing; nothing is left open then."""
        self._wanted = {link: tuple(addresses) for link, addresses in wanted.items()}
        self._arp: dict[socket.socket, Link] = {}
        self._nd: dict[socket.socket, Link] = {}
        try:
            for link, addresses in self._wanted.items():
                if any(one.version == 4 for one in addresses):
                    self._arp[_open_arp(link)] = link
                if any(one.version == 6 for one in addresses):
                    self._nd[_open_nd(link)] = link
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
                    sock.sendto(render_solicitation(link.mac, address), (solicited_group(address), 0, 0, link.index))

    def read(self) -> tuple[set[IPAddress], set[IPAddress]]:
        """Addresses that another machine answers for, and those that another machine asks for; waits for nothing."""
        taken: set[IPAddress] = set()
        asked: set[IPAddress] = set()
        for sock, link in self._arp.items():
            for frame in _drain(sock):
                packet = parse_arp(frame)
                if packet is None or packet.sender_mac == link.mac:
                    continue
                if packet.sender in self._wanted[link]:
                    taken.add(packet.sender)
                elif packet.sender == IPv4Address(0) and packet.target in self._wanted[link]:
                    asked.add(packet.target)
        for sock, link in self._nd.items():
            taken |= {found for data in _drain(sock) if (found := parse_advertisement(data)) in self._wanted[link]}
        return taken, asked


def render_solicitation(mac: bytes, address: IPv6Address) -> bytes:
    """A neighbour solicitation (RFC 4861, 4.3); the kernel fills in the checksum."""
    return struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + address.packed + struct.pack("!BB", _SOURCE_MAC, 1) + mac


def solicited_group(address: IPv6Address) -> str:
    """The multicast group that whoever has the address listens to."""
    return str(IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:]))


def parse_advertisement(data: bytes) -> IPAddress | None:
    """The address of a neighbour advertisement."""
    return ip_address(data[8:24]) if len(data) >= 24 and data[0] == _ADVERTISEMENT else None


def _open_arp(link: Link) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    try:
        sock.bind((link.name, _ETHERTYPE_ARP))
    except BaseException:
        sock.close()
        raise
    return sock


def _open_nd(link: Link) -> socket.socket:
    sock = socket.socket(
        socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6
    )
    try:
        passed = bytearray(b"\xff" * 32)  # a set bit blocks
        passed[_ADVERTISEMENT // 8] ^= 1 << (_ADVERTISEMENT % 8)
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, bytes(passed))
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, link.index)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.name.encode())
    except BaseException:
        sock.close()
        raise
    return sock


def _drain(sock: socket.socket) -> Iterable[bytes]:
    while True:
        try:
            data, where = sock.recvfrom(2048)
        except BlockingIOError:
            return
        if sock.family != socket.AF_PACKET or where[2] != _PACKET_OUTGOING:
            yield data
