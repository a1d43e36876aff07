"""Duplicate address detection and announcement on a LAN: ARP (RFC 5227) and unsolicited neighbour advertisement."""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from lbfast.supervisor.netlink import IPAddress, Link

PROBES = 3
PROBE_GAP = 0.1
"""RFC 5227 spreads its probes over seconds, for machines that boot together.  A load balancer takes over an
address that clients are waiting for, and a live holder answers within a millisecond: three probes, 0.3 s."""

_BROADCAST = b"\xff" * 6
_ETHERTYPE_ARP = 0x0806
_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST, _REPLY = 1, 2
_PACKET_OUTGOING = 4
_ALL_HOSTS = "ff02::1"
_ADVERTISEMENT, _OVERRIDE, _TARGET_MAC = 136, 0x20000000, 2


@dataclass(frozen=True)
class ArpPacket:
    """Who says what in an ARP packet."""

    sender_mac: bytes
    sender: IPv4Address
    target: IPv4Address


def render_probe(mac: bytes, address: IPv4Address) -> bytes:
    """A frame that asks for an address without claiming it: the sender's address is 0.0.0.0."""
    return _frame(mac, _REQUEST, bytes(4), address.packed, bytes(6))


def render_announcement(mac: bytes, address: IPv4Address, *, reply: bool) -> bytes:
    """Gratuitous ARP.  As a request and as a reply: some switches and hosts heed only one of them."""
    operation, target_mac = (_REPLY, _BROADCAST) if reply else (_REQUEST, bytes(6))
    return _frame(mac, operation, address.packed, address.packed, target_mac)


def parse_arp(frame: bytes) -> ArpPacket | None:
    """The ARP packet of an Ethernet frame, None when it is none for IPv4."""
    if len(frame) < _ETHERNET.size + _ARP.size or _ETHERNET.unpack_from(frame)[2] != _ETHERTYPE_ARP:
        return None
    hardware, protocol, hlen, plen, _, mac, sender, _, target = _ARP.unpack_from(frame, _ETHERNET.size)
    if (hardware, protocol, hlen, plen) != (1, 0x0800, 6, 4):
        return None
    return ArpPacket(mac, IPv4Address(sender), IPv4Address(target))


def is_conflict(packet: ArpPacket, address: IPv4Address, mac: bytes) -> bool:
    """Whether another machine has the address or is probing for it at this moment (RFC 5227, 2.1.1)."""
    if packet.sender_mac == mac:
        return False
    return packet.sender == address or (packet.sender == IPv4Address(0) and packet.target == address)


def find_conflicts(wanted: Mapping[Link, Sequence[IPv4Address]]) -> dict[IPv4Address, bytes]:
    """Probe for addresses on their interfaces, all at once; address -> MAC of the machine that has it.

    PermissionError without CAP_NET_RAW, OSError(ENETDOWN) when an interface is down.
    """
    found: dict[IPv4Address, bytes] = {}
    if not wanted:
        return found
    with selectors.DefaultSelector() as selector:
        try:
            for link, addresses in wanted.items():
                selector.register(_open(link), selectors.EVENT_READ, (link, addresses))
            for _ in range(PROBES):
                _send_probes(selector)
                _collect(selector, time.monotonic() + PROBE_GAP, found)
        finally:
            for key in list(selector.get_map().values()):
                _socket_of(key).close()
    return found


def announce(link: Link, address: IPAddress) -> None:
    """Tell the neighbours where an address lives now; OSError when it cannot be sent."""
    if isinstance(address, IPv6Address):
        _advertise(link, address)
        return
    with _open(link) as sock:
        for reply in (False, True):
            sock.send(render_announcement(link.mac, address, reply=reply))


def _frame(mac: bytes, operation: int, sender: bytes, target: bytes, target_mac: bytes) -> bytes:
    body = _ARP.pack(1, 0x0800, 6, 4, operation, mac, sender, target_mac, target)
    return _ETHERNET.pack(_BROADCAST, mac, _ETHERTYPE_ARP) + body


def _open(link: Link) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    try:
        sock.bind((link.name, _ETHERTYPE_ARP))
    except BaseException:
        sock.close()
        raise
    return sock


def _socket_of(key: selectors.SelectorKey) -> socket.socket:
    assert isinstance(key.fileobj, socket.socket)
    return key.fileobj


def _send_probes(selector: selectors.BaseSelector) -> None:
    for key in selector.get_map().values():
        link, addresses = key.data
        for address in addresses:
            _socket_of(key).send(render_probe(link.mac, address))


def _collect(selector: selectors.BaseSelector, deadline: float, found: dict[IPv4Address, bytes]) -> None:
    """Read frames until the deadline and note every conflict."""
    while (left := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            frame, where = _socket_of(key).recvfrom(2048)
            packet = parse_arp(frame)
            if packet is None or where[2] == _PACKET_OUTGOING:
                continue
            link, addresses = key.data
            for address in addresses:
                if is_conflict(packet, address, link.mac):
                    found[address] = packet.sender_mac


def _advertise(link: Link, address: IPv6Address) -> None:
    """An unsolicited neighbour advertisement (RFC 4861, 7.2.6); the kernel fills in the checksum."""
    body = struct.pack("!BBHI", _ADVERTISEMENT, 0, 0, _OVERRIDE) + address.packed
    body += struct.pack("!BB", _TARGET_MAC, 1) + link.mac
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)  # receivers drop anything else
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, link.index)
        sock.bind((str(address), 0, 0, link.index))
        sock.sendto(body, (_ALL_HOSTS, 0, 0, link.index))
