"""What the service manager is told and given: ready, alive, stopping, descriptors.  Nothing without NOTIFY_SOCKET."""

from __future__ import annotations

import os
import select
import socket
from array import array
from collections.abc import Callable, Sequence

NOTIFY_SOCKET = "NOTIFY_SOCKET"
WATCHDOG = "WATCHDOG_USEC"
# Its queue is short: a burst has to wait for it now and then.  Descriptors are given again later, READY=1 is not.
_HEARD_WITHIN, _TAKEN_WITHIN = 2.0, 0.2


def is_there() -> bool:
    return bool(os.environ.get(NOTIFY_SOCKET, ""))


def tell(text: str, fds: Sequence[int] = ()) -> bool:
    """One message, such as ``READY=1``; a manager that is gone is no reason to fail.  Whether it was sent."""
    place = os.environ.get(NOTIFY_SOCKET, "")
    if not place:
        return False
    address = "\0" + place[1:] if place.startswith("@") else place
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(_TAKEN_WITHIN if fds else _HEARD_WITHIN)
        try:
            sock.sendmsg([text.encode()], rights, socket.MSG_NOSIGNAL, address)
        except OSError:
            return False
    return True


def wait_heard(within: float = 2.0) -> None:
    """Until the manager has done what it was told before."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        sent = tell("BARRIER=1", [theirs])
        os.close(theirs)
        if sent:
            select.select([ours], [], [], within)
    finally:
        os.close(ours)


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
