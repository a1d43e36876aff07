"""Looks at this box: workers, addresses, carriers, pings, real servers; what it sees becomes a ``Sight``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lbfast.ha.fitness import Sight
from lbfast.ha.ping import Pings, SelfConnection, has_carrier
from lbfast.ha.plan import HaPlan
from lbfast.model.state import Health

IDLE_MS = 600  # the longest sleep of a worker without connections, and a little
SELF_EVERY_MS = 1000
SELF_FAILURES = 3  # in a row
SERVERS_EVERY_MS = 500
UNRAISED_MS = 3000  # a box that could not raise the addresses does not try again for so long


class CountersFace(Protocol):
    """The part of ``_counters.Counters`` that is needed here."""

    @property
    def workers(self) -> int: ...
    def worker(self, index: int) -> Any: ...


class TableFace(Protocol):
    """The part of ``_table.Table`` that is needed here."""

    def real(self, slot: int) -> Any: ...


@dataclass
class _Progress:
    seen: int = -1
    at: int = 0  # of the perceived time


@dataclass
class Watch:
    """``perceived_ms``: time as this process has lived through it; when it did not run, nothing else is blamed."""

    plan: HaPlan
    counters: CountersFace
    table: TableFace
    pings: Pings
    perceived_ms: int = 0
    interfaces: tuple[str, ...] = ()
    unraised: tuple[str, ...] = ()
    unraised_at: int = 0
    _workers: dict[int, _Progress] = field(default_factory=dict)
    _connections: list[SelfConnection] = field(default_factory=list)
    _connected_at: int = 0
    _failed: dict[str, int] = field(default_factory=dict)
    _unserved: tuple[str, ...] = ()
    _served_at: int | None = None

    def look(self, now_ms: int, elapsed_ms: int, *, is_holding: bool, is_in_maintenance: bool) -> Sight:
        """``elapsed_ms``: how long this process has lived since the last look."""
        self.perceived_ms += elapsed_ms
        self.pings.turn(now_ms)
        answering, known = self.pings.count(now_ms)
        if now_ms - self.unraised_at >= UNRAISED_MS:
            self.unraised = ()
        return Sight(
            hung=self._hung(),
            dead=self._dead(now_ms) if is_holding else self._stop_asking(),
            unraised=self.unraised,
            without_carrier=tuple(name for name in self.interfaces if not has_carrier(name)),
            pings=answering,
            pings_known=known,
            unserved=self._find_unserved(now_ms),
            is_in_maintenance=is_in_maintenance,
        )

    def note_unraised(self, failures: tuple[str, ...], now_ms: int) -> None:
        self.unraised, self.unraised_at = failures, now_ms

    def close(self) -> None:
        self._stop_asking()
        self.pings.close()

    def _hung(self) -> tuple[int, ...]:
        hung = []
        for index in range(self.counters.workers):
            counted = self.counters.worker(index)
            if not counted["pid"] or not os.path.exists(f"/proc/{counted['pid']}"):
                self._workers.pop(index, None)  # nobody's seat, or dead: the supervisor replaces it at once
                continue
            progress = self._workers.setdefault(index, _Progress(-1, self.perceived_ms))
            # Without connections a worker sleeps: that is no standstill.
            patience = self.plan.settings.hung_after + (0 if counted["connections"] else IDLE_MS)
            if counted["progress_ms"] != progress.seen:
                progress.seen, progress.at = counted["progress_ms"], self.perceived_ms
            elif self.perceived_ms - progress.at >= patience:
                hung.append(index)
        return tuple(hung)

    def _dead(self, now_ms: int) -> tuple[str, ...]:
        """Try each service address from here; only those whose workers never see such a connection."""
        if now_ms - self._connected_at >= SELF_EVERY_MS:
            for connection in self._connections:
                failures = 0 if connection.is_up() else self._failed.get(connection.name, 0) + 1
                self._failed[connection.name] = failures
                connection.close()
            self._connected_at = now_ms
            self._connections = [
                SelfConnection(service.address, service.port) for service in self.plan.services if service.is_deferring
            ]
        return tuple(name for name, failures in self._failed.items() if failures >= SELF_FAILURES)

    def _stop_asking(self) -> tuple[str, ...]:
        for connection in self._connections:
            connection.close()
        self._connections = []
        self._failed = {}
        return ()

    def _find_unserved(self, now_ms: int) -> tuple[str, ...]:
        if self._served_at is None or now_ms - self._served_at >= SERVERS_EVERY_MS:
            self._served_at = now_ms
            self._unserved = tuple(service.label for service in self.plan.services if not self._is_served(service))
        return self._unserved

    def _is_served(self, service: Any) -> bool:
        probed = [real for real in service.reals if real.is_probed]
        return not probed or any(self.table.real(real.slot)["health"] != Health.DOWN for real in probed)

    def servers(self) -> list[Mapping[str, Any]]:
        """Each real server as this box sees it, for the readiness of the pair."""
        return [
            {
                "service": service.label,
                "real": real.label,
                "id": real.id,
                "health": str(Health(self.table.real(real.slot)["health"])),
            }
            for service in self.plan.services
            for real in service.reals
        ]
