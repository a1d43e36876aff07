"""Ports for listeners: given out once each, and none that a connecting socket or a bind to port 0 could take first."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST, _SHARE = 10_000, 8  # what each pytest-xdist worker has of them


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nobody uses."""
    return free_ports(1, address)[0]


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """So many of them."""
    found: list[int] = []
    for port in _ports():
        if len(found) == count:
            break
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
            try:
                sock.bind((address, port))
            except OSError:
                continue
        found.append(port)
    return found


@cache
def _ports() -> Iterator[int]:
    """In no order, so that two runs beside each other seldom try the same."""
    highest = int(_EPHEMERAL.read_text().split()[0])
    size = (highest - _LOWEST) // _SHARE
    first = _LOWEST + size * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % _SHARE)
    return cycle(random.sample(range(first, first + size), size))
