"""Which process listens on a TCP port, as far as /proc lets us see it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

_LISTEN = "0A"


def find_owner(address: str, port: int) -> str | None:
    """``process 812 (nginx)``: who listens where this address and port would; None when it cannot be seen."""
    wanted = ip_address(address)
    inodes = {inode for bound, inode in _listening(port) if _overlaps(wanted, bound)}
    if not inodes:
        return None
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _holds(process, inodes):
            return f"process {process.name} ({_name(process)})"
    return None


def _listening(port: int) -> Iterator[tuple[IPv4Address | IPv6Address, str]]:
    """(address, socket inode) of every listening socket on a port."""
    for table in ("tcp", "tcp6"):
        try:
            rows = Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            host, _, number = fields[1].partition(":")
            if fields[3] == _LISTEN and int(number, 16) == port:
                yield _parse(host), fields[9]


def _parse(host: str) -> IPv4Address | IPv6Address:
    """The kernel prints addresses as 32-bit words in its own byte order."""
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    return ip_address(struct.pack(f"={len(words)}I", *words))


def _overlaps(wanted: IPv4Address | IPv6Address, bound: IPv4Address | IPv6Address) -> bool:
    if bound.is_unspecified:
        # A socket on :: usually takes IPv4 too.
        return bound.version >= wanted.version
    return wanted == bound or (wanted.is_unspecified and wanted.version == bound.version)


def _holds(process: Path, inodes: set[str]) -> bool:
    links = {f"socket:[{inode}]" for inode in inodes}
    try:
        with os.scandir(process / "fd") as entries:
            return any(_target(entry.path) in links for entry in entries)
    except OSError:
        return False  # gone, or of another user


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "?"


def family_of(address: str) -> socket.AddressFamily:
    """The socket family of an address in text."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET
