"""Alerts grouped by incident and limited in number.  Pure: time is an argument.

An incident is what concerns one subject (a virtual service, the configuration).  Its first alert waits a little for
more of the same; while it goes on there is at most one message in each interval.  No message is lost: what the hourly
limit holds back is in the first message after it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

HOUR_S: Final = 3_600.0
MOST_LINES: Final = 50  # of one message; what is beyond is counted


@dataclass(frozen=True)
class Alert:
    """One thing that somebody should know."""

    kind: str  # server_down, server_up, service_down, service_up, certificate, commit, table
    incident: str  # what it concerns: alerts of the same incident go together
    text: str
    at: str  # ISO 8601
    service: str | None = None
    real: str | None = None


@dataclass(frozen=True)
class AlertMessage:
    """What is sent: one or more alerts of one incident; ``held_back`` counts messages that the limit kept."""

    incident: str
    alerts: tuple[Alert, ...]
    left_out: int = 0
    held_back: int = 0

    @property
    def subject(self) -> str:
        first = self.alerts[0]
        more = len(self.alerts) + self.left_out - 1
        return first.text + (f" (and {more} more)" if more else "")

    def lines(self) -> list[str]:
        rows = [f"{alert.at}  {alert.text}" for alert in self.alerts]
        if self.left_out:
            rows.append(f"and {self.left_out} more")
        if self.held_back:
            rows.append(f"{self.held_back} messages were held back by the limit of messages an hour")
        return rows


@dataclass
class _Incident:
    due_at: float
    alerts: list[Alert] = field(default_factory=list)
    left_out: int = 0


class AlertGroups:
    """``offer`` alerts, take the messages that are ``due``."""

    def __init__(self, wait: float, interval: float, most_per_hour: int) -> None:
        self._wait = wait
        self._interval = interval
        self._most = most_per_hour
        self._open: dict[str, _Incident] = {}
        self._sent: deque[float] = deque()
        self._held: set[str] = set()  # incidents that are due, and wait for the limit

    def offer(self, alert: Alert, now: float) -> None:
        incident = self._open.get(alert.incident)
        if incident is None:
            incident = self._open[alert.incident] = _Incident(now + self._wait)
        if len(incident.alerts) < MOST_LINES:
            incident.alerts.append(alert)
        else:
            incident.left_out += 1

    def due(self, now: float) -> list[AlertMessage]:
        """The messages to send now."""
        while self._sent and self._sent[0] <= now - HOUR_S:
            self._sent.popleft()
        messages = []
        for key, incident in list(self._open.items()):
            if incident.due_at > now:
                continue
            if not incident.alerts:
                del self._open[key]  # quiet for a whole interval
            elif len(self._sent) >= self._most:
                self._held.add(key)
            else:
                self._sent.append(now)
                messages.append(self._take(key, incident, now))
        return messages

    def next_at(self) -> float | None:
        """When ``due`` may have something again."""
        return min((incident.due_at for incident in self._open.values()), default=None)

    def _take(self, key: str, incident: _Incident, now: float) -> AlertMessage:
        self._held.discard(key)
        held, self._held = len(self._held), set()
        message = AlertMessage(key, tuple(incident.alerts), incident.left_out, held)
        incident.alerts, incident.left_out, incident.due_at = [], 0, now + self._interval
        return message
