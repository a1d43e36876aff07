"""Reckoning: how many sockets are under way between workers, made true again after one of them died.

Given and taken are two numbers, and a worker can die between the socket and its number: then the
difference would be wrong for good, and a service that makes clients wait at its limit would let in one more or
one less than it may.  Nobody can tell from the dead worker's page whether it came so far.  But there is
a moment at which both must be equal, and it is easily met: no inbox holds anything, no number
has changed since, and every worker has begun another turn of its loop, so that none is between the two.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lbfast._counters import Counters
from lbfast.supervisor.seats import Inbox

LOOK_EVERY: Final = 0.05  # an idle loop turns twice a second, a busy one all the time


@dataclass(frozen=True)
class _Look:
    given: int
    taken: int
    loops: dict[int, int]  # by seat


class Reckoning:
    """Callables, because a child that needs no counters lets go of them; ``later`` as the supervisor's.

    One is under way at most.
    """

    def __init__(
        self,
        counters: Callable[[], Counters],
        inboxes: Callable[[], Sequence[Inbox]],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._counters = counters
        self._inboxes = inboxes
        self._later = later
        self._first: _Look | None = None
        self._is_due = False

    def begin(self, seat: int) -> None:
        """A worker died on this seat, and was repaired after."""
        self._first = None
        if not self._is_due:
            self._is_due = True
            self._later(LOOK_EVERY, lambda: self._go_on(seat))

    def _go_on(self, seat: int) -> None:
        drift = self._drift()
        if drift is None:
            self._later(LOOK_EVERY, lambda: self._go_on(seat))
            return
        self._is_due = False
        if drift:
            self._counters().reckon(seat, drift)

    def _drift(self) -> int | None:
        """Given less taken at a moment at which nothing is under way; None when this is none."""
        now = self._look()
        first = self._first
        if first is None or (first.given, first.taken) != (now.given, now.taken):
            # In this order: what was given before the numbers were read has left its inbox now.
            self._first = None if self._is_anything_in_an_inbox() else _Look(now.given, now.taken, self._look().loops)
            return None
        if any(first.loops.get(seat) == loops for seat, loops in now.loops.items()):
            return None
        self._first = None
        return now.given - now.taken

    def _look(self) -> _Look:
        """Loops first: what a turn counted is in the numbers of whoever reads them after it."""
        counters = self._counters()
        lines = [counters.worker(seat) for seat in range(counters.workers)]
        loops = {seat: line["loops"] for seat, line in enumerate(lines) if line["taken"]}
        lines = [counters.worker(seat) for seat in range(counters.workers)]
        return _Look(sum(it["handed_over"] for it in lines), sum(it["taken_over"] for it in lines), loops)

    def _is_anything_in_an_inbox(self) -> bool:
        poller = select.poll()
        for inbox in self._inboxes():
            poller.register(inbox.receive, select.POLLIN)
        return any(events & select.POLLIN for _, events in poller.poll(0))
