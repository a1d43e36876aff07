"""Interfaces and their addresses by rtnetlink: read, add, remove, wait for changes.

About a hundred lines of our own, because a general netlink library would stay
in the supervisor's memory, and in every child's, for three calls made at start.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

IPAddress = IPv4Address | IPv6Address

IFF_UP, IFF_LOOPBACK, IFF_RUNNING, IFF_NOARP = 0x1, 0x8, 0x40, 0x80
IFA_F_DADFAILED, IFA_F_TENTATIVE = 0x08, 0x40
_IFA_F_NODAD = 0x02

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")
_IFADDRMSG = struct.Struct("=BBBBI")
_IFINFOMSG = struct.Struct("=BxHiII")
_RTMSG = struct.Struct("=BBBBBBBBI")
_CACHEINFO = struct.Struct("=IIII")  # preferred, valid, created, updated

_ERROR, _DONE = 2, 3
_NEWLINK, _GETLINK = 16, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_GETROUTE = 26
_REQUEST, _ACK, _REPLACE, _EXCL, _DUMP, _CREATE = 0x1, 0x4, 0x100, 0x200, 0x300, 0x400
_IFLA_ADDRESS, _IFLA_IFNAME = 1, 3
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 6, 8
_RTA_DST = 1
_RTN_LOCAL = 2
_GROUP_IPV6_IFADDR = 0x100
FOREVER = 0xFFFFFFFF


@dataclass(frozen=True)
class Link:
    """A network interface."""

    index: int
    name: str
    flags: int
    mac: bytes


@dataclass(frozen=True)
class LinkAddress:
    """An address on an interface."""

    link: int  # index
    address: IPAddress
    prefix: int
    flags: int


class Netlink:
    """One rtnetlink socket; every call waits for the kernel's answer and raises OSError on a refusal."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._sock.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *exc: object) -> None:
        self._sock.close()

    def links(self) -> list[Link]:
        """Every interface of this network namespace."""
        found = []
        for kind, body in self._request(_GETLINK, _DUMP, _IFINFOMSG.pack(0, 0, 0, 0, 0)):
            if kind == _NEWLINK:
                _, _, index, flags, _ = _IFINFOMSG.unpack_from(body)
                attributes = _attributes(body[_IFINFOMSG.size :])
                name = attributes[_IFLA_IFNAME].rstrip(b"\0").decode()
                found.append(Link(index, name, flags, attributes.get(_IFLA_ADDRESS, b"")))
        return found

    def addresses(self) -> list[LinkAddress]:
        """Every address of every interface."""
        request = _IFADDRMSG.pack(0, 0, 0, 0, 0)
        return [parse_address(body) for kind, body in self._request(_GETADDR, _DUMP, request) if kind == _NEWADDR]

    def is_local(self, address: IPAddress) -> bool:
        """Whether packets to this address stay on this machine (an interface's address, 127/8, a local route)."""
        family = _family(address)
        body = _RTMSG.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + _attribute(_RTA_DST, address.packed)
        try:
            replies = list(self._request(_GETROUTE, 0, body))
        except OSError as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
                return False  # no route, or one that forbids: not ours in any case
            raise
        return any(_RTMSG.unpack_from(reply)[7] == _RTN_LOCAL for _, reply in replies)

    def add_address(self, link: int, address: IPAddress, prefix: int) -> None:
        """Put an address on an interface; FileExistsError when it is there."""
        extra = b""
        if address.version == 6:
            # Deprecated from the start: the kernel then never picks it as the source of our own connections.
            extra = _attribute(_IFA_CACHEINFO, _CACHEINFO.pack(0, FOREVER, 0, 0))
        self._change(_NEWADDR, _CREATE | _EXCL, link, address, prefix, extra)

    def hold_address(self, link: int, address: IPAddress, prefix: int, valid_s: int) -> None:
        """Put an address on an interface, or renew it, for ``valid_s`` seconds: then the kernel takes it off.

        Without the kernel's own duplicate address detection, which takes seconds: who holds for a pair has asked.
        """
        preferred = valid_s if address.version == 4 else 0
        extra = _attribute(_IFA_CACHEINFO, _CACHEINFO.pack(preferred, valid_s, 0, 0))
        extra += _attribute(_IFA_FLAGS, struct.pack("=I", _IFA_F_NODAD))
        self._change(_NEWADDR, _CREATE | _REPLACE, link, address, prefix, extra)

    def remove_address(self, link: int, address: IPAddress, prefix: int) -> None:
        """Take an address off an interface; OSError(EADDRNOTAVAIL) when it is not there."""
        self._change(_DELADDR, 0, link, address, prefix, b"")

    def _change(self, kind: int, flags: int, link: int, address: IPAddress, prefix: int, extra: bytes) -> None:
        body = _IFADDRMSG.pack(_family(address), prefix, 0, 0, link)
        body += _attribute(_IFA_LOCAL, address.packed) + _attribute(_IFA_ADDRESS, address.packed) + extra
        list(self._request(kind, flags | _ACK, body))

    def _request(self, kind: int, flags: int, body: bytes) -> Iterator[tuple[int, bytes]]:
        """Send one request and yield (type, body) of what answers it."""
        self._sequence += 1
        self._sock.send(_HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, self._sequence, 0) + body)
        while True:
            for answer, sequence, data in _messages(self._sock.recv(1 << 17)):
                if sequence != self._sequence:
                    continue
                if answer == _ERROR:
                    _raise_refusal(data)
                    return
                if answer == _DONE:
                    return
                yield answer, data
                if not flags & (_DUMP | _ACK):
                    return


class AddressWatch:
    """Tells of changes of IPv6 addresses: what duplicate address detection is waited for with."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._sock.bind((0, _GROUP_IPV6_IFADDR))

    def __enter__(self) -> AddressWatch:
        return self

    def __exit__(self, *exc: object) -> None:
        self._sock.close()

    def wait(self, timeout: float) -> list[LinkAddress]:
        """The addresses that changed; empty when nothing did within ``timeout`` seconds."""
        self._sock.settimeout(max(0.001, timeout))
        try:
            data = self._sock.recv(1 << 17)
        except TimeoutError:
            return []
        return [parse_address(body) for kind, _, body in _messages(data) if kind == _NEWADDR]


def parse_address(body: bytes) -> LinkAddress:
    """An address message of the kernel."""
    _, prefix, flags, _, link = _IFADDRMSG.unpack_from(body)
    attributes = _attributes(body[_IFADDRMSG.size :])
    # On point-to-point links IFA_ADDRESS is the other side; IFA_LOCAL is ours where there is one.
    packed = attributes.get(_IFA_LOCAL) or attributes[_IFA_ADDRESS]
    if _IFA_FLAGS in attributes:
        flags = int(struct.unpack("=I", attributes[_IFA_FLAGS])[0])
    return LinkAddress(link, ip_address(packed), prefix, flags)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, _, sequence, _ = _HEADER.unpack_from(data)
        yield kind, sequence, data[_HEADER.size : length]
        data = data[_align(length) :]


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = data[_ATTRIBUTE.size : length]
        data = data[_align(length) :]
    return found


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_align(length) - length)


def _raise_refusal(data: bytes) -> None:
    code = -struct.unpack_from("=i", data)[0]
    if code:
        raise OSError(code, os.strerror(code))


def _align(length: int) -> int:
    return (length + 3) & ~3


def _family(address: IPAddress) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
