"""The time that a server has to answer, as this process has lived through it.

When the machine stands still, or this process does not get to run, a deadline passes and the answer lies unread in
the socket.  asyncio then cancels whoever waits before it looks; so a deadline that comes late is put off by as much,
twice at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

LATE_S = 0.02  # less is the loop's ordinary work
MOST_PUT_OFF = 2  # a loop that is late all the time must not keep a silent server up


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """TimeoutError when the block takes longer."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as scope:
        deadline = _Deadline(loop, scope, seconds, loop.time() + seconds)
        try:
            yield
        finally:
            deadline.timer.cancel()


@dataclass
class _Deadline:
    loop: asyncio.AbstractEventLoop
    scope: asyncio.Timeout
    seconds: float
    due: float
    put_off: int = 0
    timer: asyncio.TimerHandle = field(init=False)

    def __post_init__(self) -> None:
        self.timer = self.loop.call_at(self.due, self._end)

    def _end(self) -> None:
        now = self.loop.time()
        late = now - self.due
        if late < LATE_S or self.put_off == MOST_PUT_OFF:
            self.scope.reschedule(now)
        else:
            self.put_off += 1
            self.due = now + min(late, self.seconds)
            self.timer = self.loop.call_at(self.due, self._end)
