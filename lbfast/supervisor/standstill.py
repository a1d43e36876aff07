"""Standstill: nobody writes to shared memory while its layout changes.  Clients' bytes wait in the kernel."""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Sequence

from lbfast.supervisor.channel import ChannelError
from lbfast.supervisor.children import Child

STILL_WITHIN = 5.0  # a worker that does not answer for so long does not serve either
GONE_WITHIN = 5.0


def stand_still(children: Sequence[Child]) -> None:
    """Workers answer that they stand; then control, which takes the last of their events, and health end."""
    workers = [child for child in children if child.index >= 0]
    for child in workers:
        if not child.channel.send_now({"do": "freeze"}):
            child.kill(signal.SIGKILL)
    for child in workers:
        if not _is_still(child, time.monotonic() + STILL_WITHIN):
            child.kill(signal.SIGKILL)
    others = [child for child in children if child.name in ("control", "health")]
    for child in others:
        if not child.channel.send_now({"do": "stop"}):
            child.kill(signal.SIGTERM)
    deadline = time.monotonic() + GONE_WITHIN
    for child in others:
        if not select.select([child.pidfd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            child.kill(signal.SIGKILL)
            select.select([child.pidfd], [], [])


def _is_still(child: Child, deadline: float) -> bool:
    while (left := deadline - time.monotonic()) > 0:
        try:
            message = child.channel.receive(left)
        except (TimeoutError, ChannelError, OSError):
            return False
        if message is None or message.get("event") == "frozen":
            return message is not None
    return False
