"""Alerts while lbfast runs: looks at the state every two seconds, groups what it finds, and has it sent by threads."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from lbfast.control import reports
from lbfast.control.alert_groups import Alert, AlertGroups, AlertMessage
from lbfast.control.alert_watch import AlertWatch, RealFact, ServiceFact
from lbfast.control.alert_ways import Way, ways_of
from lbfast.control.engine import Engine, persistence_table
from lbfast.control.protocol import ControlError
from lbfast.model.state import Admin, Health

if TYPE_CHECKING:
    from lbfast.control.catalog import RealInfo, ServiceInfo
    from lbfast.control.own_certificate import OwnCertificate
    from lbfast.model.appliance import WebSettings
    from lbfast.model.upkeep import AlertSettings

LOOK_S: Final = 2.0
TABLES_EVERY: Final = 30  # looks; the certificate of the web interface as well
PER_PAUSE: Final = 100
MOST_WAITING: Final = 200  # messages
RETRIES: Final = (10.0, 60.0, 300.0)
COMMIT: Final = "commit"
BACKUP: Final = "backup"
CONCERNED: Final = {COMMIT: "the configuration", BACKUP: "the scheduled backup"}


@dataclass
class WayMark:
    """Of one way, since the start or since alerts were configured anew."""

    sent_at: str | None = None
    error: str = ""
    error_at: str | None = None
    failing: bool = False

    def note(self, why: str, at: str) -> None:
        self.failing = bool(why)
        if why:
            self.error, self.error_at = why, at
        else:
            self.sent_at = at


class Alerting:
    """Whoever is to be told is told late rather than twice, and nobody waits for a mail server."""

    def __init__(self, engine: Engine, settings: AlertSettings, own: OwnCertificate) -> None:
        self._engine = engine
        self._own = own
        self._host = socket.gethostname()
        self._looks = 0
        self._failing: set[str] = set()
        self._sending: set[asyncio.Task[None]] = set()
        self._start(settings)

    def _start(self, settings: AlertSettings) -> None:
        self._settings = settings
        self._ways = ways_of(settings, self._host)
        self._marks = {name: WayMark() for name in self._ways}
        self._watch = AlertWatch(settings.certificate_days, settings.table_percent)
        wait, interval = settings.group_wait / 1_000, settings.repeat_after / 1_000
        self._groups = AlertGroups(wait, interval, settings.most_per_hour)

    def replace(self, settings: AlertSettings, web: WebSettings | None) -> None:
        """A commit stands; incidents begin anew only when something about alerts was changed."""
        self._own.replace(web)
        if settings != self._settings:
            self._start(settings)

    def hear(self, record: Mapping[str, Any]) -> None:
        kind = str(record.get("failed"))
        if kind in CONCERNED and self._settings.is_on:
            self._groups.offer(Alert(kind, CONCERNED[kind], str(record["message"]), str(record["at"])), _now())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._settings.is_on:
                try:
                    await self._look()
                except OSError as error:  # a locked table: it will be free at the next look
                    self._tell("look", error)
                for message in self._groups.due(_now()):
                    self._begin(message)
            await asyncio.sleep(LOOK_S)

    async def test(self) -> dict[str, Any]:
        """Send a message by every way now; what came of each."""
        if not self._settings.is_on:
            raise ControlError(
                "refused",
                "no way to send alerts is configured: [alerts] has no email, webhook, syslog or syslog_server",
            )
        alert = Alert("test", "test", "this is a test of the alerts of lbfast", self._engine.clock.now_iso())
        message = AlertMessage("test", (alert,))
        results = await asyncio.gather(*(self._try(name, way, message) for name, way in self._ways.items()))
        return {
            "ways": [{"way": name, "ok": not why, "error": why} for name, why in zip(self._ways, results, strict=True)]
        }

    def state(self) -> dict[str, Any]:
        """What came of the last messages of each way."""
        return {"ways": [{"way": name, **asdict(self._marks[name])} for name in self._ways]}

    async def flush(self) -> None:
        """At the end: what is under way may have a moment."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    # --- looking --------------------------------------------------------------

    async def _look(self) -> None:
        self._looks += 1
        are_tables_due = self._looks % TABLES_EVERY == 1
        facts = []
        for number, service in enumerate(self._engine.catalog.services):
            if number % PER_PAUSE == PER_PAUSE - 1:
                await asyncio.sleep(0)
            facts.append(self._fact(service, with_table=are_tables_due))
        own_ends_in = None
        if are_tables_due and (ends_at := await asyncio.to_thread(self._own.ends_at)) is not None:
            own_ends_in = ends_at - self._engine.clock.wall().timestamp()
        for alert in self._watch.look(facts, self._engine.clock.now_iso(), own_ends_in):
            self._groups.offer(alert, _now())

    def _fact(self, service: ServiceInfo, *, with_table: bool) -> ServiceFact:
        table = self._engine.shared.table
        states = [table.real(real.slot) for real in service.reals]
        fullness = None
        stick = persistence_table(self._engine.shared, service) if with_table else None
        if stick is not None:
            fullness = 100 * sum(stick.counts().values()) / max(1, stick.capacity)
        reals = tuple(self._real(real, state) for real, state in zip(service.reals, states, strict=True))
        return ServiceFact(service.label, reports.service_state(states) if states else "checking", reals, fullness)

    def _real(self, real: RealInfo, state: Any) -> RealFact:
        is_known = state["admin"] == Admin.ONLINE and state["health"] != Health.UNKNOWN
        certificate = self._engine.shared.results.note(real.slot).certificate
        ends_in = None
        if certificate is not None and certificate.not_after:
            ends_in = certificate.not_after - self._engine.clock.wall().timestamp()
        return RealFact(real.label, state["health"] == Health.UP if is_known else None, str(state["reason"]), ends_in)

    # --- sending --------------------------------------------------------------

    def _begin(self, message: AlertMessage) -> None:
        for name, way in self._ways.items():
            if len(self._sending) >= MOST_WAITING:
                self._tell(name, OSError("too many messages wait to be sent"))
                return
            task = asyncio.get_running_loop().create_task(self._send(name, way, message))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, name: str, way: Way, message: AlertMessage) -> None:
        for pause in (*RETRIES, None):
            why = await self._try(name, way, message)
            if not why:
                if name in self._failing:
                    self._failing.discard(name)
                    self._engine.announce(f"alerts by {name} are sent again", "process")
                return
            self._tell(name, OSError(why))
            if pause is not None:
                await asyncio.sleep(pause)
        self._engine.announce(f"an alert could not be sent by {name}, it is given up: {message.subject}", "process")

    async def _try(self, name: str, way: Way, message: AlertMessage) -> str:
        """What was wrong, or nothing."""
        why = ""
        try:
            await asyncio.to_thread(way, message)
        except (OSError, ValueError) as error:
            why = str(error) or type(error).__name__
        if (mark := self._marks.get(name)) is not None:  # a commit may have taken the way out meanwhile
            mark.note(why, self._engine.clock.now_iso())
        return why

    def _tell(self, name: str, error: OSError) -> None:
        if name not in self._failing:
            self._failing.add(name)
            self._engine.announce(f"alerts by {name} cannot be sent: {error}; it is tried again", "process")


def _now() -> float:
    return asyncio.get_running_loop().time()
