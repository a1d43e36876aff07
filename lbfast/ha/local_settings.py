"""Settings of a box that the pair does not replicate, as facts to be compared: what differs, people should see."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from itertools import islice
from pathlib import Path
from typing import Final

from lbfast.ha.ping import find_gateway

_GATEWAY: Final = 0x2  # RTF_GATEWAY
_ANNOUNCED: Final = 0x40000  # RTF_ADDRCONF
_MOST_ROWS, _MOST_ROUTES = 200, 20


def local_settings(own: Mapping[str, str], root: Path = Path("/")) -> dict[str, str]:
    """Names for people, values as text; what cannot be read is left out.

    ``own``: of lbfast's own configuration, what the pair leaves to each box.
    """
    found = {
        "time zone": _link_name(root / "etc/localtime"),
        "name servers": _name_servers(root / "etc/resolv.conf"),
        "domain": _domain(root / "etc/resolv.conf"),
        "default gateway": find_gateway(root / "proc/net/route") or "",
        "static routes": ", ".join(_routes(root / "proc/net")),
        "kernel": _first_line(root / "proc/sys/kernel/osrelease"),
        "open connections queue (net.core.somaxconn)": _first_line(root / "proc/sys/net/core/somaxconn"),
        "time server (ntp)": _ntp_servers(root / "etc"),
        **own,
    }
    return {name: value for name, value in found.items() if value}


def _link_name(path: Path) -> str:
    try:
        return "/".join(path.readlink().parts[-2:])
    except OSError:
        return ""


def _first_line(path: Path) -> str:
    try:
        return path.read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return ""


def _name_servers(path: Path) -> str:
    return ", ".join(row[1] for row in _rows(path) if len(row) > 1 and row[0] == "nameserver")


def _domain(path: Path) -> str:
    """Without asking a name server: heartbeats wait meanwhile."""
    if own := socket.gethostname().partition(".")[2]:
        return own
    return next((row[1] for row in reversed(_rows(path)) if len(row) > 1 and row[0] in ("domain", "search")), "")


def _routes(net: Path) -> list[str]:
    """Networks that are reached through a gateway, but for the default one and what routers announce."""
    found = []
    for row in _rows(net / "route", _MOST_ROWS)[1:]:
        if int(row[3], 16) & _GATEWAY and row[1] != "00000000":
            network, gateway, mask = (IPv4Address(int(row[at], 16).to_bytes(4, "little")) for at in (1, 2, 7))
            found.append(f"{IPv4Network((int(network), str(mask)))} via {gateway}")
    for row in _rows(net / "ipv6_route", _MOST_ROWS):
        if int(row[8], 16) & (_GATEWAY | _ANNOUNCED) == _GATEWAY and int(row[1], 16):
            network6, gateway6 = (IPv6Address(bytes.fromhex(row[at])) for at in (0, 4))
            found.append(f"{network6}/{int(row[1], 16)} via {gateway6}")
    return sorted(found)[:_MOST_ROUTES]


def _rows(path: Path, most: int | None = None) -> list[list[str]]:
    """The words of each line; ``most``: a router's table is none of a box's settings, and heartbeats wait meanwhile."""
    try:
        with path.open() as stream:
            return [line.split() for line in islice(stream, most)]
    except OSError:
        return []


def _ntp_servers(etc: Path) -> str:
    for name in ("chrony/chrony.conf", "ntp.conf", "systemd/timesyncd.conf"):
        rows = _rows(etc / name)
        found = [row[1] for row in rows if len(row) > 1 and row[0] in ("server", "pool")]
        found += [row[0][4:] for row in rows if row and row[0].startswith("NTP=") and len(row[0]) > 4]
        if found:
            return ", ".join(found)
    return ""
