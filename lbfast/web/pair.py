"""The pair as pages show it, and a pairing that is under way: it takes seconds, and pages tell how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lbfast.web.client import AsyncClient, ControlError, ControlUnavailable
from lbfast.web.said import counted

PAIR_S: Final = 60.0
STATUS_S: Final = 10.0
STANDALONE: Final = "standalone"
Status = dict[str, Any]


@dataclass(frozen=True)
class Readiness:
    """The verdict, and what it is made of.  ``missed``: servers that only one of the boxes reaches;
    ``objections``: why an order to take over is refused on this box.
    """

    verdict: str
    is_ready: bool
    reasons: tuple[str, ...] = ()
    lag: str = ""
    reached_there: int = 0
    reached_here: int = 0
    servers: int = 0
    missed: tuple[Mapping[str, str], ...] = ()
    differences: tuple[str, ...] = ()
    objections: tuple[str, ...] = ()


@dataclass
class PairingJob:
    """At most one at a time.  ``outcome``: what came of the last one, shown once; the password is not kept."""

    local: str = ""
    peer: str = ""
    fault: str = ""
    outcome: Status | None = None
    _task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self, client: AsyncClient, by: str, local: str, peer: str, password: str, *, overwrite: bool) -> None:
        self.local, self.peer, self.fault, self.outcome = local, peer, "", None
        self._task = asyncio.create_task(self._run(client, by, password, overwrite))

    async def _run(self, client: AsyncClient, by: str, password: str, overwrite: bool) -> None:
        try:
            self.outcome = await client.call(
                "ha_pair", by, PAIR_S, local=self.local, peer=self.peer, password=password, overwrite=overwrite
            )
        except (ControlError, ControlUnavailable) as error:
            self.fault = error.message if isinstance(error, ControlError) else str(error)

    def take(self) -> tuple[str, Status | None]:
        """What went wrong, or what was done, once."""
        found = self.fault, self.outcome
        self.fault, self.outcome = "", None
        return found


async def status_of(client: AsyncClient) -> Status:
    """ControlError or ControlUnavailable when there is no answer."""
    found: Status = await client.call("ha_status", timeout=STATUS_S)
    return found


def judge(status: Status) -> Readiness:
    """What the panel of the overview says.  Pure."""
    servers = status.get("servers", [])
    replication = status["replication"]
    lag = (
        counted(
            "%(num)s entry, %(ms)s ms",
            "%(num)s entries, %(ms)s ms",
            replication["lag_entries"],
            ms=replication["lag_ms"],
        )
        if replication.get("linked")
        else ""
    )
    is_ready = bool(status["ready"])
    return Readiness(
        "yes" if is_ready else "no",
        is_ready,
        tuple(status["reasons"]),
        lag,
        sum(it["there"] == "up" for it in servers),
        sum(it["here"] == "up" for it in servers),
        len(servers),
        tuple(it for it in servers if it["here"] != it["there"]),
        tuple(status.get("differences", ())),
        tuple(status.get("objections", ())),
    )
