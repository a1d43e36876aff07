"""What operators are told: events on their way to control, kept while it is away, and lines on stderr."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from lbfast.supervisor.channel import Message
from lbfast.supervisor.children import Child

_MOST = 256  # kept while control is away
_AGAIN = 0.1


@dataclass
class News:
    """``control``: the process that gets them, if it is there; ``later`` as the supervisor's."""

    control: Callable[[], Child | None]
    later: Callable[[float, Callable[[], None]], None]
    waiting: deque[Message] = field(default_factory=lambda: deque(maxlen=_MOST))
    _is_flush_due: bool = False

    def note(self, text: str) -> None:
        """An event for operators."""
        self.tell({"event": "process", "message": text})

    def complain(self, text: str) -> None:
        """An event that also deserves a line on stderr."""
        try:
            print(f"lbfast: {text}", file=sys.stderr, flush=True)
        except OSError:
            pass
        self.note(text)

    def tell(self, message: Message) -> None:
        self.waiting.append(message)
        self.flush()

    def flush(self) -> None:
        control = self.control()
        while self.waiting and control and control.ready and control.connected and not control.is_leaving:
            if not control.channel.send_now(self.waiting[0]):
                self._flush_later()
                return
            self.waiting.popleft()

    def _flush_later(self) -> None:
        """Control does not keep up with its channel: try again soon, in one timer only."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self.later(_AGAIN, self._flush_again)

    def _flush_again(self) -> None:
        self._is_flush_due = False
        self.flush()
