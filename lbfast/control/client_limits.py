"""Tells operators what a per-client limit that only reports would have refused, and to whom."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

from lbfast.control.engine import Engine

if TYPE_CHECKING:
    from lbfast.model.appliance import Config

EVERY_MS: Final = 30_000  # between two messages about one service
MOST_NAMED: Final = 3
MOST_LOOKED_AT: Final = 20_000  # entries: naming clients must not hold up the verbs


def reported_limits(config: Config) -> dict[str, int]:
    """Service label -> client_max_connections, of those that report only."""
    services = config.virtual_services
    return {it.label: it.client_max_connections for it in services if it.client_limit_report_only}


class ClientLimits:
    """Looks at the counters once a turn; the first excess is told at once, further ones in sums."""

    def __init__(self, engine: Engine, limits: Mapping[str, int]) -> None:
        self._engine = engine
        self._next_ms: dict[str, int] = {}
        self.replace(limits)

    def replace(self, limits: Mapping[str, int]) -> None:
        """Other services or limits; the engine's catalog has them."""
        self._limits = limits
        self._told = {label: self._count(label) for label in limits}

    def turn(self) -> None:
        now_ms = self._engine.clock.now_ms()
        for label, limit in self._limits.items():
            count = self._count(label)
            new = count - self._told[label]
            if new > 0 and now_ms >= self._next_ms.get(label, 0):
                self._told[label] = count
                self._next_ms[label] = now_ms + EVERY_MS
                self._tell(label, limit, new)

    def _count(self, label: str) -> int:
        return self._engine.shared.counters.service(self._engine.catalog.service(label).slot)["client_limited"]

    def _tell(self, label: str, limit: int, new: int) -> None:
        what = "1 connection was" if new == 1 else f"{new} connections were"
        over = self._over(label, limit)
        now = f"; beyond it now: {', '.join(over)}" if over else ""
        message = f"{what} beyond client_max_connections ({limit}) and served all the same (report only){now}"
        self._engine.announce(message, "process", service=label)

    def _over(self, label: str, limit: int) -> list[str]:
        """The clients that have most connections, with their numbers."""
        stick = self._engine.shared.sticks.get(self._engine.catalog.service(label).slot)
        entries = islice(stick.entries(), MOST_LOOKED_AT) if stick is not None else ()
        over = sorted((-entry["holds"], entry["client"]) for entry in entries if entry["holds"] > limit)
        return [f"{client} ({-holds})" for holds, client in over[:MOST_NAMED]]
