"""Messages to children that must arrive: kept in order while a channel is full."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from lbfast.supervisor.channel import MAX_FDS, Message
from lbfast.supervisor.children import Child

RETRY = 0.01
MOST_ITEMS = 400  # of a list in one message: it has 64 KiB


class Post:
    """``later(seconds, action)`` calls back; descriptors must stay open until they are sent."""

    def __init__(self, later: Callable[[float, Callable[[], None]], None]) -> None:
        self._later = later
        self._queues: dict[int, deque[tuple[Mapping[str, object], Sequence[int]]]] = {}  # by pid

    @property
    def is_idle(self) -> bool:
        """Everything is sent."""
        return not self._queues

    def send(self, child: Child, message: Mapping[str, object], fds: Sequence[int] = ()) -> None:
        """Now or as soon as there is room; dropped if the child goes before."""
        if child.pid in self._queues:
            self._queues[child.pid].append((message, fds))
            return
        self._queues[child.pid] = deque([(message, fds)])
        self._flush(child)

    def _flush(self, child: Child) -> None:
        queue = self._queues[child.pid]
        while queue and child.connected:
            try:
                sent = child.channel.send_now(*queue[0])
            except OSError:
                sent = False  # too many descriptors on their way (ETOOMANYREFS): they will be taken
            if not sent:
                self._later(RETRY, lambda: self._flush(child))
                return
            queue.popleft()
        del self._queues[child.pid]


def in_parts(
    message: Message, key: str, items: Sequence[object], fds: Sequence[int] = ()
) -> list[tuple[Message, Sequence[int]]]:
    """One long list as several messages; with ``fds`` each item has the descriptor at its place."""
    size = MAX_FDS if fds else MOST_ITEMS
    return [
        ({**message, key: list(items[start : start + size])}, fds[start : start + size])
        for start in range(0, len(items), size)
    ]
