"""Put verdicts where they belong: the table of real servers, and messages to the supervisor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from lbfast.health.service_health import Change, Notice
from lbfast.health.spec import CheckedReal, ProbeType
from lbfast.health.text import fit
from lbfast.model.state import Health

MAX_REASON = 95  # bytes of UTF-8 that the table keeps
MAX_QUEUE = 1_000

Message = dict[str, Any]


class HealthTable(Protocol):
    """The part of ``_table.Table`` that health uses."""

    def set_health(self, real: int, health: int, reason: str) -> None: ...
    def real(self, slot: int) -> Mapping[str, Any]: ...
    def failures(self, real: int) -> tuple[int, int, int]: ...
    def clear_failures(self, real: int) -> None: ...


class Reporter:
    """Writes the table on each change, tells the supervisor of transitions and of what is to be said loudly."""

    def __init__(self, checks: Iterable[CheckedReal], table: HealthTable, tell: Callable[[Message], None]) -> None:
        self._checks = {check.slot: check for check in checks}
        self._table = table
        self._tell = tell

    def apply(self, service: int, changes: Iterable[Change | Notice]) -> None:
        for change in changes:
            if isinstance(change, Notice):
                self.warn(service, None, change.message)
                continue
            self._table.set_health(change.real, int(change.after), fit(change.reason, MAX_REASON))
            if change.before is not change.after and not self._goes_without_saying(change):
                self._tell_transition(change)

    def _goes_without_saying(self, change: Change) -> bool:
        """A server that nobody probes begins as up: with thousands of them that would be all that a start tells."""
        return change.before is Health.UNKNOWN and self._checks[change.real].spec.type is ProbeType.NONE

    def warn(self, service: int, real: int | None, message: str) -> None:
        """Said loudly, without a change of verdict."""
        place = {} if real is None else {"real": real}
        self._tell({"event": "health", "level": "warning", "service": service, **place, "message": message})

    def _tell_transition(self, change: Change) -> None:
        check = self._checks[change.real]
        message = f"{check.service_label}: {check.label} is {change.after}: {change.reason}"
        self._tell(
            {
                "event": "health",
                "level": "warning" if change.after is Health.DOWN else "info",
                "service": check.service,
                "real": change.real,
                "from": str(change.before),
                "to": str(change.after),
                "message": message,
            }
        )


class Outbox:
    """Messages that wait while the channel is full; beyond MAX_QUEUE the oldest are dropped.

    ``send_now`` says False when the channel is full or gone; ``close`` ends the trying.
    """

    def __init__(self, send_now: Callable[[Message], bool]) -> None:
        self._send_now = send_now
        self._queue: deque[Message] = deque(maxlen=MAX_QUEUE)
        self._is_closed = False

    def put(self, message: Message) -> None:
        if not self._is_closed:
            self._queue.append(message)
            self.flush()

    def flush(self) -> bool:
        """Whether everything is sent."""
        while self._queue and self._send_now(self._queue[0]):
            self._queue.popleft()
        return not self._queue

    def close(self) -> None:
        self._is_closed = True
        self._queue.clear()
