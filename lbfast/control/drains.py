"""The arithmetic of drain deadlines.  Pure: clocks are arguments.

A deadline is kept as a wall-clock time, but what is left of it is never more than its
length, so that a clock that jumped can shorten or repeat a wait, never stretch it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from lbfast.control.catalog import ServiceInfo
from lbfast.control.forecast import Terms
from lbfast.control.marks import AdminMark
from lbfast.control.protocol import ControlError

PARTS: Final = 1024  # that a staggered drain takes one after the other (STAGGER_PARTS)
_STEPS: Final = 120
_SHORTEST_STEP: Final = 0.1


@dataclass(frozen=True)
class Asked:
    """What an operator asked of one drain; seconds."""

    deadline: float | None = None
    cut: bool = False
    stagger: float = 0.0


NOTHING_ASKED: Final = Asked()


def with_deadline(mark: AdminMark, service: ServiceInfo, asked: Asked, now: datetime) -> AdminMark:
    """The mark of a drain that begins now; ControlError when something is to happen at a deadline that there is not."""
    length = service.drain_deadline if asked.deadline is None else asked.deadline
    if length is not None:
        until = (now + timedelta(seconds=length)).isoformat()
        return replace(mark, deadline_at=until, length=asked.deadline, cut=asked.cut, stagger=asked.stagger)
    if asked.cut or asked.stagger:
        word = "cut" if asked.cut else "stagger"
        raise ControlError(
            "bad_argument",
            f"{word}: found without a deadline, expected one too (such as --deadline 30m): "
            f"{service.label!r} has no drain_deadline",
        )
    return mark


def terms_of(service: ServiceInfo, mark: AdminMark) -> Terms | None:
    """What a kept drain does at its end; None when it has none."""
    length = service.drain_deadline if mark.length is None else mark.length
    if mark.deadline_at is None or length is None:
        return None
    return Terms(length, mark.cut or service.drain_cut, mark.stagger)


def remaining(mark: AdminMark, now: datetime, length: float) -> float:
    """Seconds until a kept deadline: from nothing to its length, whatever the clock says."""
    if mark.deadline_at is None:
        return length
    left = (datetime.fromisoformat(mark.deadline_at) - now).total_seconds()
    return min(max(0.0, left), length)


def overdue(mark: AdminMark, now: datetime, stagger: float) -> float:
    """Seconds since a kept deadline, from nothing to all of the stagger."""
    if mark.deadline_at is None:
        return 0.0
    passed = (now - datetime.fromisoformat(mark.deadline_at)).total_seconds()
    return min(max(0.0, passed), stagger)


def share_after(elapsed_ms: int, stagger: float) -> int:
    """How many of the PARTS have had their turn."""
    if elapsed_ms >= stagger * 1000:
        return PARTS
    return max(0, int(elapsed_ms * PARTS / (stagger * 1000)))


def step_of(stagger: float) -> float:
    """Seconds between two turns."""
    return max(_SHORTEST_STEP, stagger / _STEPS)
