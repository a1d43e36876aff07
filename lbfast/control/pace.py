"""How often the workers' event rings are looked into: often while there is something in them, else once a second.

A look costs some hundred microseconds, most of them for waking up: five a second for nothing were most of what an idle
lbfast used.  While we sleep, a worker's first event wakes us; the look each second is for the case that it just missed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

BUSY_S: Final = 0.2  # while records come, or somebody follows them
QUIET_S: Final = 1.0


class Pace:
    """Calls ``look`` again and again, and says what failed; ``look`` returns how many records there were.

    ``rest`` is told whether the next event is to wake us.
    """

    def __init__(
        self,
        look: Callable[[], int],
        rest: Callable[[bool], None],
        is_followed: Callable[[], bool],
        failed: Callable[[Exception], None],
    ) -> None:
        self._look = look
        self._rest = rest
        self._is_followed = is_followed
        self._failed = failed
        self._told = ""
        self._wake = -1
        self._timer: asyncio.TimerHandle | None = None

    def start(self, wake: int) -> None:
        """``wake``: an eventfd that the workers write, or -1."""
        self._loop = asyncio.get_running_loop()
        self._wake = wake
        if wake >= 0:
            self._loop.add_reader(wake, self._on_wake)
        self.hurry()

    def stop(self) -> None:
        if self._wake >= 0:
            self._loop.remove_reader(self._wake)
        if self._timer is not None:
            self._timer.cancel()

    def hurry(self) -> None:
        """Look now: somebody wants to know."""
        if self._timer is not None:
            self._timer.cancel()
        found = 0
        try:
            found = self._look()
            self._told = ""
        except Exception as error:  # told once per kind in a row; ends nothing
            if repr(error) != self._told:
                self._told = repr(error)
                self._failed(error)
        is_busy = found > 0 or self._is_followed()
        self._rest(not is_busy)
        self._timer = self._loop.call_later(BUSY_S if is_busy else QUIET_S, self.hurry)

    def _on_wake(self) -> None:
        try:
            os.read(self._wake, 8)
        except BlockingIOError:
            return
        self.hurry()
