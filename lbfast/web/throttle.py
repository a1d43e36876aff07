"""Slows down whoever guesses passwords.  In memory and bounded; the console is never concerned.

Failures are counted for a source address, and for a user.  A source has to wait longer after each failure beyond a few.
A user under attack from many sources is slowed too, but never shut out: a wait ends after a minute, and a
source that has logged in as that user before does not wait for what other sources do.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

WINDOW_S: Final = 15 * 60.0
FREE_SOURCE: Final = 5
FREE_USER: Final = 30
LONGEST_SOURCE_S: Final = 15 * 60.0
LONGEST_USER_S: Final = 60.0
MOST_KEYS: Final = 10_000


class Throttle:
    """``clock`` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait(self, user: str, source: str) -> float:
        """Seconds until this source may try this user again; 0 = now."""
        waits = [self._wait(f"source {source}", FREE_SOURCE, LONGEST_SOURCE_S)]
        if (user, source) not in self._known:
            waits.append(self._wait(f"user {user}", FREE_USER, LONGEST_USER_S))
        return max(waits)

    def failed(self, user: str, source: str) -> None:
        moment = self._clock()
        for key in (f"source {source}", f"user {user}"):
            times = self._failures.setdefault(key, deque(maxlen=200))
            times.append(moment)
            self._failures.move_to_end(key)
        while len(self._failures) > MOST_KEYS:
            self._failures.popitem(last=False)

    def succeeded(self, user: str, source: str) -> None:
        self._failures.pop(f"source {source}", None)
        self._known[user, source] = None
        self._known.move_to_end((user, source))
        while len(self._known) > MOST_KEYS:
            self._known.popitem(last=False)

    def _wait(self, key: str, free: int, longest: float) -> float:
        times = self._failures.get(key)
        if times is None:
            return 0.0
        moment = self._clock()
        while times and times[0] < moment - WINDOW_S:
            times.popleft()
        if len(times) < free:
            return 0.0
        delay = min(longest, 2.0 ** min(len(times) - free + 1, 20))
        return max(0.0, times[-1] + delay - moment)
