"""Read from the table's counters which connects of clients failed since the last look: pure."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from lbfast.health.outcome import LOCAL_ERRNOS

Counter = tuple[int, int, int]  # failures in a row, ms of the last, errno of the last


@dataclass(frozen=True, slots=True)
class Failures:
    count: int
    reason: str


def new_failures(before: Counter, now: Counter) -> Failures | None:
    """What is new between two readings; None if nothing, or if this machine was to blame."""
    (old_count, old_ms, _), (count, last_ms, error) = before, now
    if count == 0 or now == before:
        return None
    # a success in between starts the row anew: then everything in the row is new
    new = count - old_count if count > old_count else (count if last_ms != old_ms else 0)
    if new == 0 or abs(error) in LOCAL_ERRNOS:
        return None
    code = abs(error)
    why = "no answer" if code == errno.ETIMEDOUT else (os.strerror(code) if code else "failed")
    return Failures(new, f"connects of clients fail: {why}")
