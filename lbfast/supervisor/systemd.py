"""What the service manager is told: ready, alive, stopping.  Nothing without NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

NOTIFY_SOCKET = "NOTIFY_SOCKET"
WATCHDOG = "WATCHDOG_USEC"


def tell(text: str) -> None:
    """One message, such as ``READY=1``; a manager that is gone is no reason to fail."""
    place = os.environ.get(NOTIFY_SOCKET, "")
    if not place:
        return
    address = "\0" + place[1:] if place.startswith("@") else place
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(text.encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, address)
        except OSError:
            pass


def watchdog_interval() -> float | None:
    """Seconds between two signs of life: half of what the manager waits for; None when it waits for none."""
    text = os.environ.get(WATCHDOG, "")
    return int(text) / 2_000_000 if text.isdigit() and int(text) > 0 else None


def ping(later: Callable[[float, Callable[[], None]], None]) -> None:
    """From now on, for as long as the loop turns."""
    interval = watchdog_interval()
    if interval is not None:
        tell("WATCHDOG=1")
        later(interval, lambda: ping(later))
