"""How many records may be written per interval, and how many were not; time is an argument."""

from __future__ import annotations


class RateLimit:
    """At most ``limit`` records in each window of ``window`` seconds; 0 = no limit."""

    def __init__(self, limit: int, window: float) -> None:
        self.limit = limit
        self.window = window
        self._ends_at = 0.0
        self._used = 0
        self._suppressed = 0

    def left(self) -> int | None:
        """Records that may still be written in this window, None = any number."""
        return max(0, self.limit - self._used) if self.limit else None

    def allow(self, now: float) -> bool:
        """Whether this record may be written; counts it either way."""
        if not self.limit:
            return True
        self._begin(now)
        if self._used >= self.limit:
            self._suppressed += 1
            return False
        self._used += 1
        return True

    def suppress(self, count: int, now: float) -> None:
        """Count records that were never made because there were too many."""
        self._begin(now)
        self._suppressed += count

    def _begin(self, now: float) -> None:
        """A window begins with its first record."""
        if not self._ends_at:
            self._ends_at = now + self.window

    def turn(self, now: float) -> int:
        """At the end of a window begin anew; how many records it suppressed (0 while it lasts)."""
        if not self._ends_at or now < self._ends_at:
            return 0
        suppressed, self._suppressed, self._used = self._suppressed, 0, 0
        self._ends_at = 0.0
        return suppressed

    def rule(self) -> str:
        """The rule that suppressed records, for people."""
        if not self.limit:
            return "more came at once than can be handled"
        return f"the limit is {self.limit} in {self.window:g} s"
