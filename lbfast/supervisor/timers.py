"""Things to do later, on the monotonic clock, for a loop that sleeps in ``select``."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

Action = Callable[[], None]


@dataclass
class Timers:
    """Deadlines in order; time is an argument."""

    _heap: list[tuple[float, int, Action]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)

    def at(self, when: float, action: Action) -> None:
        """Do something at a time; actions of the same time keep their order."""
        heapq.heappush(self._heap, (when, next(self._order), action))

    def timeout(self, now: float) -> float | None:
        """Seconds until the next deadline; None when there is none."""
        return max(0.0, self._heap[0][0] - now) if self._heap else None

    def run_due(self, now: float) -> None:
        """Do everything whose time has come."""
        while self._heap and self._heap[0][0] <= now:
            heapq.heappop(self._heap)[2]()
