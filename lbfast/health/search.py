"""Search a regular expression in foreign text without the risk of a search that never ends."""

from __future__ import annotations

import re
import signal
from types import FrameType

LIMIT_S = 0.25


class SearchTooSlow(Exception):
    pass


def search(pattern: re.Pattern[str], text: str, limit_s: float = LIMIT_S) -> bool:
    """Whether ``pattern`` occurs; SearchTooSlow when the answer takes longer than ``limit_s``.

    An alarm interrupts the search: Python's matcher looks for pending signals
    every few thousand steps.  To be called in the main thread.
    """

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise SearchTooSlow(f"searching {pattern.pattern!r} took longer than {limit_s:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    timer = signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        return pattern.search(text) is not None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)  # whoever else uses the alarm
