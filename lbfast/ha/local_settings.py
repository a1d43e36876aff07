"""Settings of a box that the pair does not replicate, as facts to be compared: what differs, people should see."""

from __future__ import annotations

import socket
from pathlib import Path

from lbfast.ha.ping import find_gateway


def local_settings() -> dict[str, str]:
    """Names for people, values as text; what cannot be read is left out."""
    found = {
        "time zone": _link_name(Path("/etc/localtime")),
        "name servers": _name_servers(Path("/etc/resolv.conf")),
        "domain": socket.getfqdn().partition(".")[2],
        "default gateway": find_gateway() or "",
        "kernel": _first_line(Path("/proc/sys/kernel/osrelease")),
        "open connections queue (net.core.somaxconn)": _first_line(Path("/proc/sys/net/core/somaxconn")),
        "time server (ntp)": _ntp_servers(),
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
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return ""
    return ", ".join(row[1] for row in rows if len(row) > 1 and row[0] == "nameserver")


def _ntp_servers() -> str:
    for name in ("/etc/chrony/chrony.conf", "/etc/ntp.conf", "/etc/systemd/timesyncd.conf"):
        try:
            rows = [line.split() for line in Path(name).read_text().splitlines()]
        except OSError:
            continue
        found = [row[1] for row in rows if len(row) > 1 and row[0] in ("server", "pool")]
        found += [row[0][4:] for row in rows if row and row[0].startswith("NTP=") and len(row[0]) > 4]
        if found:
            return ", ".join(found)
    return ""
