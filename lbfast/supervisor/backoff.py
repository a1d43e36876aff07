"""When a process that died is started again: at once, unless it keeps dying."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Counts deaths within a window; time is an argument.

    The first ``burst`` deaths of a process that had come up cost nothing, every
    further one doubles the wait up to ``longest``.  A process that never came up
    waits from its first death on, so that a broken start cannot burn a core.
    """

    burst: int = 5
    window: float = 60.0
    first: float = 0.1
    longest: float = 10.0
    _deaths: deque[float] = field(default_factory=deque)
    _boot_failures: int = 0

    def delay(self, now: float, *, was_ready: bool) -> float:
        """Note a death at ``now``; seconds to wait before the next start."""
        while self._deaths and self._deaths[0] <= now - self.window:
            self._deaths.popleft()
        self._deaths.append(now)
        self._boot_failures = 0 if was_ready else self._boot_failures + 1
        steps = max(len(self._deaths) - self.burst, self._boot_failures)
        return 0.0 if steps <= 0 else min(self.longest, self.first * 2.0 ** min(steps - 1, 32))
